"""Checkpoints of DUSt3R: official names both ways, configurations that are read and never run, and our own files."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from manyview.errors import WeightsError
from manyview.networks import from_official
from manyview.networks.checkpoints import dust3r as official_dust3r
from manyview.networks.checkpoints import find
from manyview.networks.checkpoints.convert import convert
from manyview.networks.checkpoints.dust3r import DUST3R_NAMES, dust3r_config, parse_constructor
from manyview.networks.checkpoints.find import find_network
from manyview.networks.checkpoints.model_file import save_model
from manyview.networks.checkpoints.names import to_official
from manyview.networks.dust3r import Dust3R, Dust3RConfig
from manyview.networks.families import empty_network
from toys import (
    INFO,
    PAIRS_INFO,
    SMALLEST_CONSTRUCTOR,
    SMALLEST_PAIRS,
    official_pair_weights,
    random_images,
    random_pair_network,
)
from weights import RELEASED_DUST3R, TINY_DUST3R, manifest

MANIFESTS = {**{f"tiny_{head}": text for head, text in TINY_DUST3R.items()}, **RELEASED_DUST3R}


def constructor(**changes: str | None) -> str:
    """The text of `SMALLEST_CONSTRUCTOR` with some values replaced by other text; None leaves them out."""
    parts = dict(part.split("=", 1) for part in re.split(r", (?=\w+=)", SMALLEST_CONSTRUCTOR[24:-1]))
    parts.update({key: value for key, value in changes.items() if value is not None})
    kept = {key: value for key, value in parts.items() if changes.get(key, "") is not None}
    return f"AsymmetricCroCo3DStereo({', '.join(f'{key}={value}' for key, value in kept.items())})"


def points_of(network) -> torch.Tensor:
    with torch.inference_mode():
        return network(random_images([(32, 48), (48, 32)])).points[1]


@pytest.fixture(scope="module")
def expected() -> torch.Tensor:
    return points_of(from_official("dust3r", SMALLEST_CONSTRUCTOR, official_pair_weights()))


@pytest.fixture
def release(tmp_path):
    """A folder as an official release on the hub has it."""
    folder = tmp_path / "release"
    folder.mkdir()
    save_file(official_pair_weights(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(parse_constructor(SMALLEST_CONSTRUCTOR)))
    return folder


def meta_weights(shared, name: str) -> dict[str, torch.Tensor]:
    """Every tensor of a manifest, without memory."""
    shapes = manifest(shared / "reference" / "dust3r" / f"manifest_{name}.json")
    return {official: torch.empty(shape, device="meta") for official, shape in shapes}


# ---------------------------------------------------------------- names
@pytest.mark.parametrize("name", MANIFESTS)
def test_our_names_and_shapes_are_the_official_ones_both_ways(shared, name):
    own = empty_network(dust3r_config(MANIFESTS[name])).state_dict()
    names = to_official(own, DUST3R_NAMES)
    published = dict(manifest(shared / "reference" / "dust3r" / f"manifest_{name}.json"))
    unaliased = {n for n in published if ".layer_rn." not in n and n != "mask_token"}
    assert set(names.values()) == unaliased
    for ours, theirs in names.items():
        assert DUST3R_NAMES.own(theirs) == ours
        shape = published[theirs]
        assert list(own[ours].shape) == (shape[:-2] if len(shape) == 4 and own[ours].ndim == 2 else shape)


@pytest.mark.parametrize(("name", "entries"), [("224_linear", 877), ("512_linear", 877), ("512_dpt", 1009)])
def test_a_released_network_is_built_from_exactly_the_names_of_its_files(shared, name, entries):
    """Those of the .pth, and those of the safetensors file, which lacks the eight aliases; each other name counts."""
    weights = meta_weights(shared, name)
    assert len(weights) == entries
    on_the_hub = {n: t for n, t in weights.items() if ".layer_rn." not in n}
    assert len(weights) - len(on_the_hub) == (8 if name == "512_dpt" else 0)
    networks = [from_official("dust3r", RELEASED_DUST3R[name], given) for given in (weights, on_the_hub)]
    assert networks[0].state_dict().keys() == networks[1].state_dict().keys()
    needed = ["enc_blocks.23.attn.qkv.bias", "dec_blocks2.11.norm_y.weight", "decoder_embed.weight"]
    head = "dpt.scratch.refinenet4.resConfUnit1.conv1.weight" if name == "512_dpt" else "proj.bias"
    for missing in (*needed, f"downstream_head2.{head}"):
        with pytest.raises(WeightsError, match=f"1 missing: {re.escape(missing)}"):
            from_official("dust3r", RELEASED_DUST3R[name], {n: t for n, t in on_the_hub.items() if n != missing})


@pytest.mark.parametrize(
    ("name", "count"), [("224_linear", 532_342_784), ("512_linear", 532_342_784), ("512_dpt", 571_171_208)]
)
def test_released_networks_have_the_published_numbers_of_parameters(name, count):
    network = empty_network(dust3r_config(RELEASED_DUST3R[name]))
    mask_token = 768  # of the pretraining; it is in the files, and no part of the network here
    assert sum(p.numel() for p in network.parameters()) + mask_token == count


def test_the_released_configuration_with_dpt_heads_is_our_default():
    assert dust3r_config(RELEASED_DUST3R["512_dpt"]) == Dust3RConfig()
    assert dust3r_config(RELEASED_DUST3R["224_linear"]) == Dust3RConfig(head="linear")


def test_aliased_names_may_be_there_or_not_and_the_later_one_holds():
    first, second = torch.zeros(1), torch.ones(1)
    for side, level in ((1, 1), (2, 4)):
        prefix = f"downstream_head{side}.dpt.scratch"
        kept, later = f"{prefix}.layer{level}_rn.weight", f"{prefix}.layer_rn.{level - 1}.weight"
        for given in ({kept: second}, {later: second}, {kept: first, later: second}, {later: second, kept: first}):
            assert DUST3R_NAMES.resolve_aliases(given) == {kept: second}


def test_the_mask_token_of_the_pretraining_may_be_there_or_not(expected):
    without = {n: t for n, t in official_pair_weights().items() if n != "mask_token"}
    assert len(without) == len(official_pair_weights()) - 1
    assert torch.equal(points_of(from_official("dust3r", SMALLEST_CONSTRUCTOR, without)), expected)


def test_a_checkpoint_with_one_decoder_gives_it_to_both_sides(expected):
    weights = {n: t for n, t in official_pair_weights().items() if not n.startswith("dec_blocks2")}
    network = from_official("dust3r", SMALLEST_CONSTRUCTOR, weights)
    assert isinstance(network, Dust3R)
    first, second = (blocks.state_dict() for blocks in (network.decoder.first_blocks, network.decoder.second_blocks))
    assert all(torch.equal(first[name], second[name]) for name in first)
    want = from_official("dust3r", SMALLEST_CONSTRUCTOR, official_pair_weights()).decoder.first_blocks.state_dict()
    assert all(torch.equal(first[name], want[name]) for name in first)
    assert not torch.allclose(points_of(network), expected)


def test_half_a_second_decoder_is_not_completed():
    weights = {n: t for n, t in official_pair_weights().items() if not n.startswith("dec_blocks2.1.")}
    with pytest.raises(WeightsError, match=r"24 missing: dec_blocks2\.1\."):
        from_official("dust3r", SMALLEST_CONSTRUCTOR, weights)


def test_misfits_are_all_listed():
    weights = dict(official_pair_weights())
    del weights["dec_norm.weight"]
    weights["something.else"] = torch.zeros(1)
    weights["enc_norm.bias"] = torch.zeros(5)
    with pytest.raises(WeightsError) as error:
        from_official("dust3r", SMALLEST_CONSTRUCTOR, weights)
    for text in (
        "1 missing: dec_norm.weight",
        "1 unexpected: something.else",
        "enc_norm.bias: got (5,), expected (32,)",
    ):
        assert text in str(error.value)


def test_a_loaded_network_is_ready_for_inference():
    network = from_official("dust3r", SMALLEST_CONSTRUCTOR, official_pair_weights())
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


# ---------------------------------------------------------------- configurations
def test_every_keyword_of_a_configuration_is_obeyed():
    text = (
        "AsymmetricCroCo3DStereo(patch_size=8, enc_embed_dim=96, enc_num_heads=3, enc_depth=5, dec_embed_dim=80, "
        "dec_num_heads=5, dec_depth=8, mlp_ratio=3, pos_embed='RoPE12.5', head_type='dpt', output_mode='pts3d', "
        "depth_mode=('square', -inf, inf), conf_mode=('sigmoid', 0.5, 7))"
    )
    assert dust3r_config(text) == Dust3RConfig(
        patch_size=8,
        encoder_dim=96,
        encoder_heads=3,
        encoder_depth=5,
        decoder_dim=80,
        decoder_heads=5,
        decoder_depth=8,
        mlp_ratio=3.0,
        rope_base=12.5,
        head="dpt",
        depth_activation="square",
        confidence_activation="sigmoid",
        confidence_range=(0.5, 7.0),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"patch_embed_cls": "'ManyAR_PatchEmbed'", "landscape_only": None},
        {"patch_embed_cls": "ManyAR_PatchEmbed", "landscape_only": "True", "freeze": "'encoder'"},
        {"img_size": "512", "depth_mode": "['exp', -Infinity, inf]"},
    ],
)
def test_how_training_batches_were_laid_out_changes_no_number(changes, expected):
    network = from_official("dust3r", constructor(**changes), official_pair_weights())
    assert torch.equal(points_of(network), expected)


def test_text_and_keywords_mean_the_same():
    for text in (*RELEASED_DUST3R.values(), *TINY_DUST3R.values(), SMALLEST_CONSTRUCTOR):
        keywords = json.loads(json.dumps(parse_constructor(text)))
        assert dust3r_config(keywords) == dust3r_config(text) == dust3r_config(f"\n  {text}\n")


@pytest.mark.parametrize("infinity", ["Infinity", '"Infinity"', '"inf"'])
def test_infinity_in_a_config_json_may_be_bare_or_quoted(release, infinity, expected):
    text = (release / "config.json").read_text()
    assert "-Infinity" in text
    minus = infinity.replace("I", "-I", 1) if infinity[0] != '"' else infinity.replace('"', '"-', 1)
    text = text.replace("-Infinity", "MINUS").replace("Infinity", infinity).replace("MINUS", minus)
    (release / "config.json").write_text(text)
    assert torch.equal(points_of(find_network(release)[0]), expected)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch danger')",
        "AsymmetricCroCo3DStereo(enc_depth=__import__('os').system('touch danger'))",
        "AsymmetricCroCo3DStereo(img_size=open('danger', 'w'))",
        "AsymmetricCroCo3DStereo(enc_depth=().__class__)",
        "AsymmetricCroCo3DStereo(enc_depth=[x for x in range(9)])",
        "AsymmetricCroCo3DStereo(enc_depth=(lambda: 3)())",
        "AsymmetricCroCo3DStereo(enc_depth=24 if True else 12)",
        "AsymmetricCroCo3DStereo(enc_depth=9**9**9)",
        "AsymmetricCroCo3DStereo(enc_depth=f'{open}')",
        "AsymmetricCroCo3DStereo(enc_depth=danger)",
        "AsymmetricCroCo3DStereo(enc_depth=-'1')",
        "AsymmetricCroCo3DStereo(enc_depth=(danger := 3))",
        "AsymmetricCroCo3DStereo(img_size={1: 2})",
        "AsymmetricCroCo3DStereo(img_size=(1, *(2, 3)))",
        "AsymmetricCroCo3DStereo(**{'enc_depth': 3})",
        "AsymmetricCroCo3DStereo(3)",
        "AsymmetricCroCo3DStereo(enc_depth=3, enc_depth=4)",
        "AsymmetricCroCo3DStereo",
        "AsymmetricCroCo3DStereo()()",
        "module.AsymmetricCroCo3DStereo()",
        "AsymmetricMASt3R(enc_depth=3)",
        "AsymmetricCroCo3DStereo(); open('danger', 'w')",
        "import os",
        "",
        "\0",
        "(" * 5000,
        "-" * 200_000 + "1",
        f"AsymmetricCroCo3DStereo(enc_depth={'-' * 3000}1)",
        f"AsymmetricCroCo3DStereo(enc_depth={'1+' * 50_000}1)",
    ],
)
def test_text_that_is_not_the_constructor_with_plain_values_is_refused_and_not_run(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="the configuration"):
        parse_constructor(text)
    with pytest.raises(WeightsError, match="the configuration"):
        from_official("dust3r", text, {})
    assert not (tmp_path / "danger").exists()


def test_nothing_that_could_run_text_is_used(monkeypatch):
    def forbidden(*_, **__):
        pytest.fail("a configuration is read, not run")

    for name in ("eval", "exec", "compile"):
        monkeypatch.setitem(vars(official_dust3r), name, forbidden)
    text = "AsymmetricCroCo3DStereo(a=(1, [-inf, 'x'], None, True), b=0.5)"
    assert parse_constructor(text) == {"a": (1, (float("-inf"), "x"), None, True), "b": 0.5}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("head_type", "'catmlp+dpt'", "expected one of linear, dpt"),
        ("output_mode", "'pts3d+desc24'", "expected 'pts3d'"),
        ("depth_mode", "('exp', 0, inf)", "expected -inf and inf"),
        ("depth_mode", "('log', -inf, inf)", "expected one of exp, linear, square"),
        ("conf_mode", "('softplus', 1, inf)", "expected one of exp, sigmoid"),
        ("pos_embed", "'cosine'", "expected RoPE<base>"),
        ("enc_depth", "2.5", "expected a whole number from 1 on"),
        ("dec_depth", "0", "expected a whole number from 1 on"),
        ("enc_embed_dim", "'32'", "expected a whole number from 1 on"),
        ("dec_num_heads", "3", "multiple of 4 times 3 heads"),
    ],
)
def test_a_configuration_that_is_not_built_here_is_refused(key, value, words):
    with pytest.raises(WeightsError, match=re.escape(words)) as error:
        from_official("dust3r", constructor(**{key: value}), official_pair_weights())
    assert "not supported" in str(error.value)


def test_a_dpt_head_needs_four_depths():
    with pytest.raises(WeightsError, match=r"dec_depth 2 is not supported; expected a whole number from 4 on"):
        dust3r_config(constructor(head_type="'dpt'"))


@pytest.mark.parametrize(
    ("key", "value"), [("conf_mode", "('exp', 1)"), ("pos_embed", "'RoPEx'"), ("depth_mode", "7"), ("mlp_ratio", "'x'")]
)
def test_a_value_of_the_wrong_kind_is_refused_in_words(key, value):
    with pytest.raises(WeightsError, match="a value that does not fit"):
        dust3r_config(constructor(**{key: value}))


@pytest.mark.parametrize("key", ["enc_depth", "dec_embed_dim", "conf_mode", "pos_embed", "head_type"])
def test_an_incomplete_configuration_is_refused(key):
    with pytest.raises(WeightsError, match=f"lacks '{key}'"):
        dust3r_config(constructor(**{key: None}))


def test_keywords_that_are_not_known_are_warned_of(caplog):
    assert dust3r_config(constructor(two_confs="True")) == dust3r_config(SMALLEST_CONSTRUCTOR)
    assert "not known here: two_confs" in caplog.text


# ---------------------------------------------------------------- ways to name a model
def test_a_folder_of_a_release_loads(release, expected):
    network, info = find_network(release)
    assert torch.equal(points_of(network), expected)
    assert (info.name, info.family, info.image_size) == (str(release), "dust3r", 64)
    assert info.weights_sha256 == hashlib.sha256((release / "model.safetensors").read_bytes()).hexdigest()
    assert info.licence == "not stated"  # it is not a released network


@pytest.mark.parametrize("name", RELEASED_DUST3R)
def test_released_networks_come_with_their_licence_and_size_by_hub_id(release, monkeypatch, name):
    """Their 2 GB are played by empty weights."""
    monkeypatch.setattr(find, "dust3r_from_official", lambda config, _: empty_network(dust3r_config(config)))
    monkeypatch.setattr(find, "download", lambda *_, **__: release)
    (release / "config.json").write_text(json.dumps(parse_constructor(RELEASED_DUST3R[name])))
    network, info = find_network(f"naver/DUSt3R_ViTLarge_BaseDecoder_{name}")
    assert network.config == dust3r_config(RELEASED_DUST3R[name])
    assert "CC BY-NC-SA 4.0" in info.licence
    assert (info.family, info.image_size) == ("dust3r", int(name[:3]))


@pytest.mark.parametrize("options", [{}, {"head": "linear"}, {"decoder_sides": True, "decoder_qk_norm": True}])
def test_our_own_file_keeps_weights_configuration_and_facts(tmp_path, options):
    config = replace(SMALLEST_PAIRS, decoder_coordinates=True, **options)
    network = random_pair_network(config)
    save_model(network, tmp_path / "toy.safetensors", PAIRS_INFO)
    loaded, info = find_network(tmp_path / "toy.safetensors")
    assert isinstance(loaded, Dust3R)
    assert loaded.config == config
    assert replace(info, weights_sha256="") == PAIRS_INFO
    assert torch.equal(points_of(loaded), points_of(network))


def test_a_network_is_not_saved_as_a_model_of_another_family(tmp_path):
    with pytest.raises(WeightsError, match="a Dust3R cannot be saved as a model of the family 'fast3r'"):
        save_model(random_pair_network(), tmp_path / "toy.safetensors", INFO)
    assert not list(tmp_path.iterdir())


def test_a_pickled_release_converts_by_the_constructor_it_carries(tmp_path, expected):
    text = constructor(patch_embed_cls="'ManyAR_PatchEmbed'", landscape_only=None)
    content = {"args": argparse.Namespace(model=text, lr=1e-4), "model": official_pair_weights(), "epoch": 3}
    torch.save(content, tmp_path / "official.pth")
    info = convert(tmp_path / "official.pth", tmp_path / "own.safetensors")
    network, found = find_network(tmp_path / "own.safetensors")
    assert torch.equal(points_of(network), expected)
    assert replace(found, weights_sha256="") == info
    assert (info.family, info.image_size) == ("dust3r", 64)


def test_a_pickled_release_with_a_hostile_constructor_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "AsymmetricCroCo3DStereo(enc_depth=open('danger', 'w'))"
    torch.save({"args": argparse.Namespace(model=text), "model": official_pair_weights()}, "official.pth")
    with pytest.raises(WeightsError, match="only literal values are read"):
        convert(tmp_path / "official.pth", tmp_path / "own.safetensors")
    assert {path.name for path in tmp_path.iterdir()} == {"official.pth"}
