"""Checkpoints: official names both ways, every way to name a model, and clear refusals."""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import re
import threading
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from manyview.errors import WeightsError
from manyview.networks import from_official
from manyview.networks.checkpoints import find, model_file
from manyview.networks.checkpoints.convert import RELEASED_FAST3R_CONFIG, convert
from manyview.networks.checkpoints.fast3r import FAST3R_NAMES, empty_network, fast3r_config
from manyview.networks.checkpoints.find import find_network
from manyview.networks.checkpoints.model_file import save_model
from manyview.networks.checkpoints.names import to_official
from manyview.networks.checkpoints.restricted import load_pickled
from manyview.networks.fast3r import Fast3RConfig
from toys import INFO, SMALLEST, SMALLEST_OFFICIAL, official_weights, random_images, random_network
from weights import TINY_OFFICIAL, manifest


def points_of(network) -> torch.Tensor:
    with torch.inference_mode():
        return network(random_images([(32, 48)] * 2)).points[1]


@pytest.fixture(scope="module")
def expected() -> torch.Tensor:
    return points_of(from_official("fast3r", SMALLEST_OFFICIAL, official_weights()))


@pytest.fixture
def release(tmp_path):
    """A folder as an official release has it."""
    folder = tmp_path / "release"
    folder.mkdir()
    save_file(official_weights(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(SMALLEST_OFFICIAL))
    return folder


# ---------------------------------------------------------------- names
@pytest.mark.parametrize(
    ("file", "config"),
    [("manifest_Fast3R_ViT_Large_512.json", RELEASED_FAST3R_CONFIG), ("manifest_tiny.json", TINY_OFFICIAL)],
)
def test_our_names_and_shapes_are_the_official_ones_both_ways(shared, file, config):
    own = empty_network(fast3r_config(config)).state_dict()
    names = to_official(own, FAST3R_NAMES)
    official = {n: shape for n, shape in manifest(shared / "reference" / "fast3r" / file) if ".layer_rn." not in n}
    assert set(names.values()) == set(official)
    for ours, theirs in names.items():
        assert FAST3R_NAMES.own(theirs) == ours
        shape = official[theirs]
        assert list(own[ours].shape) == (shape[:-2] if len(shape) == 4 and own[ours].ndim == 2 else shape)


def test_official_names_of_the_released_network_are_exactly_those_of_its_safetensors_file(shared):
    """All 712, and a network is built from these alone."""
    published = manifest(shared / "reference" / "fast3r" / "manifest_Fast3R_ViT_Large_512_safetensors.json")
    names = to_official(empty_network(fast3r_config(RELEASED_FAST3R_CONFIG)).state_dict(), FAST3R_NAMES)
    assert len(published) == 712
    assert sorted(names.values()) == sorted(name for name, _ in published)
    weights = {name: torch.empty(shape, device="meta") for name, shape in published}
    network = from_official("fast3r", RELEASED_FAST3R_CONFIG, weights)
    assert network.state_dict().keys() == names.keys()
    for name in ("encoder.patch_embed.proj.bias", "downstream_head_local.dpt.scratch.layer4_rn.weight"):
        with pytest.raises(WeightsError, match=f"1 missing: {re.escape(name)}"):
            from_official("fast3r", RELEASED_FAST3R_CONFIG, {n: t for n, t in weights.items() if n != name})


def test_the_released_network_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in empty_network(Fast3RConfig()).parameters()) == 647_551_368


def test_released_configuration_is_our_default():
    assert fast3r_config(RELEASED_FAST3R_CONFIG) == Fast3RConfig()


def test_every_entry_of_a_configuration_is_obeyed():
    config = {
        "encoder_args": {
            **TINY_OFFICIAL["encoder_args"],
            "patch_size": 8,
            "embed_dim": 96,
            "num_heads": 3,
            "depth": 5,
            "pos_embed": "RoPE12.5",
        },
        "decoder_args": {
            **TINY_OFFICIAL["decoder_args"],
            "embed_dim": 80,
            "num_heads": 5,
            "depth": 8,
            "mlp_ratio": 3.0,
            "random_image_idx_embedding": False,
            "attn_bias_for_inference_enabled": True,
        },
        "head_args": {
            **TINY_OFFICIAL["head_args"],
            "depth_mode": ["square", "-inf", "inf"],
            "conf_mode": ["sigmoid", 0.5, 7],
        },
    }
    assert fast3r_config(config) == Fast3RConfig(
        patch_size=8,
        encoder_dim=96,
        encoder_heads=3,
        encoder_depth=5,
        fusion_dim=80,
        fusion_heads=5,
        fusion_depth=8,
        mlp_ratio=3.0,
        rope_base=12.5,
        random_view_ids=False,
        length_scaled_attention=True,
        depth_activation="square",
        confidence_activation="sigmoid",
        confidence_range=(0.5, 7.0),
    )


def test_attention_is_not_scaled_where_the_configuration_does_not_say_so():
    decoder = {k: v for k, v in TINY_OFFICIAL["decoder_args"].items() if k != "attn_bias_for_inference_enabled"}
    assert not fast3r_config({**TINY_OFFICIAL, "decoder_args": decoder}).length_scaled_attention


def test_a_loaded_network_is_ready_for_inference():
    network = from_official("fast3r", SMALLEST_OFFICIAL, official_weights())
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_aliased_names_may_be_there_or_not_and_the_later_one_holds(expected):
    weights = official_weights()
    kept = [n for n in weights if re.search(r"layer\d_rn", n)]
    assert len(kept) == 8
    later = {re.sub(r"layer(\d)_rn", lambda m: f"layer_rn.{int(m[1]) - 1}", n): weights[n] for n in kept}
    without_kept = {n: t for n, t in weights.items() if n not in kept} | later
    with_both = {n: torch.zeros_like(t) if n in kept else t for n, t in weights.items()} | later
    for variant in (without_kept, with_both):
        assert torch.equal(points_of(from_official("fast3r", SMALLEST_OFFICIAL, variant)), expected)


def test_lightning_prefix_and_bookkeeping_are_left_out(expected):
    weights = {f"net.{n}": t for n, t in official_weights().items()}
    weights |= {"epoch_fraction": torch.zeros(1), "criterion.net.scale": torch.zeros(1)}
    assert torch.equal(points_of(from_official("fast3r", SMALLEST_OFFICIAL, weights)), expected)


def test_misfits_are_all_listed():
    weights = dict(official_weights())
    del weights["encoder.enc_norm.weight"]
    weights["something.else"] = torch.zeros(1)
    weights["encoder.enc_norm.bias"] = torch.zeros(5)
    with pytest.raises(WeightsError) as error:
        from_official("fast3r", SMALLEST_OFFICIAL, weights)
    for text in ("1 missing: encoder.enc_norm.weight", "1 unexpected: something.else", "got (5,), expected (32,)"):
        assert text in str(error.value)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("encoder_args", "encoder_type", "dino_v2"),
        ("decoder_args", "decoder_type", "llama"),
        ("head_args", "head_type", "linear"),
        ("head_args", "depth_mode", ["exp", 0, "inf"]),
        ("head_args", "output_mode", "depth"),
        ("head_args", "with_local_head", False),
        ("encoder_args", "pos_embed", "cosine"),
    ],
)
def test_a_configuration_that_is_not_built_here_is_refused(part, key, value):
    config = {**SMALLEST_OFFICIAL, part: {**SMALLEST_OFFICIAL[part], key: value}}
    with pytest.raises(WeightsError, match="not supported"):
        from_official("fast3r", config, official_weights())


def test_an_unknown_family_and_an_empty_configuration_are_refused():
    with pytest.raises(WeightsError, match="unknown family"):
        from_official("colmap", {}, {})
    with pytest.raises(WeightsError, match="encoder_args"):
        from_official("fast3r", {}, {})
    with pytest.raises(WeightsError, match="is a str; expected a dict"):
        from_official("fast3r", "config.json", {})


@pytest.mark.parametrize(("part", "key"), [("encoder_args", "depth"), ("head_args", "conf_mode")])
def test_an_incomplete_configuration_is_refused(part, key):
    config = {**SMALLEST_OFFICIAL, part: {k: v for k, v in SMALLEST_OFFICIAL[part].items() if k != key}}
    with pytest.raises(WeightsError, match=f"lacks '{key}'"):
        fast3r_config(config)


# ---------------------------------------------------------------- ways to name a model
def test_a_folder_of_a_release_loads(release, expected):
    network, info = find_network(release)
    assert torch.equal(points_of(network), expected)
    assert info.weights_sha256 == hashlib.sha256((release / "model.safetensors").read_bytes()).hexdigest()
    assert (info.name, info.source) == (str(release), str(release / "model.safetensors"))
    assert info.image_size == SMALLEST_OFFICIAL["encoder_args"]["img_size"]
    assert info.licence == "not stated"  # it is not the released network


def test_the_weights_alone_can_be_named_where_the_configuration_lies_beside_them(release, expected):
    network, info = find_network(release / "model.safetensors")
    assert torch.equal(points_of(network), expected)
    assert info.name == str(release / "model.safetensors")
    (release / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"no config\.json beside it"):
        find_network(release / "model.safetensors")


@pytest.mark.parametrize("name", ["folder", "jedyang97/Fast3R_ViT_Large_512"])
def test_the_released_network_comes_with_its_licence(release, monkeypatch, name):
    """Its 2.6 GB are played by empty weights."""
    monkeypatch.setattr(find, "fast3r_from_official", lambda config, _: empty_network(fast3r_config(config)))
    monkeypatch.setattr(find, "download", lambda *_, **__: release)
    (release / "config.json").write_text(json.dumps(RELEASED_FAST3R_CONFIG))
    network, info = find_network(release if name == "folder" else name)
    assert network.config == Fast3RConfig()
    assert "Noncommercial" in info.licence
    assert (info.image_size, info.square_ok, len(info.weights_sha256)) == (512, False, 64)


@pytest.mark.parametrize("infinity", ["Infinity", '"Infinity"', '"inf"'])
def test_infinity_may_be_bare_or_quoted(release, infinity, expected):
    text = json.dumps(SMALLEST_OFFICIAL).replace("-Infinity", "MINUS").replace("Infinity", infinity)
    minus = infinity.replace("I", "-I", 1) if infinity[0] != '"' else infinity.replace('"', '"-', 1)
    (release / "config.json").write_text(text.replace("MINUS", minus))
    assert torch.equal(points_of(find_network(release)[0]), expected)


def test_our_own_file_keeps_weights_configuration_and_facts(tmp_path):
    config = replace(SMALLEST, fusion_attention="alternating", fusion_positions=True)
    network = random_network(config)
    save_model(network, tmp_path / "toy.safetensors", INFO)
    loaded, info = find_network(tmp_path / "toy.safetensors")
    assert loaded.config == config
    assert replace(info, weights_sha256="") == INFO
    assert torch.equal(points_of(loaded), points_of(network))


def test_the_digest_is_that_of_the_whole_file(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * (1 << 15) + b"end")  # longer than one block
    assert model_file.sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_limits_of_confidence_survive_as_strict_json(tmp_path):
    for limits in ((1.0, float("inf")), (0.5, 3.0)):
        path = tmp_path / "toy.safetensors"
        save_model(random_network(replace(SMALLEST, confidence_range=limits)), path, INFO)
        with safe_open(path, "pt") as file:
            assert "Infinity" not in file.metadata()["manyview"]
        assert find_network(path)[0].config.confidence_range == limits


def spoil(path, **changes) -> None:
    """Write one of our files again, with another header or other tensors (None takes one out)."""
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["manyview"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header |= changes.pop("header", {})
    tensors |= changes.pop("tensors", {})
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, path, metadata={"manyview": json.dumps(header)})


def test_files_of_ours_that_do_not_fit_are_refused_in_words(tmp_path):
    path = tmp_path / "toy.safetensors"
    save_model(random_network(), path, INFO)
    tensors = {"encoder.norm.bias": None, "more": torch.zeros(1), "encoder.norm.weight": torch.zeros(5)}
    spoil(path, tensors=tensors)
    with pytest.raises(WeightsError) as error:
        find_network(path)
    for text in ("1 missing: encoder.norm.bias", "1 unexpected: more", "encoder.norm.weight: got (5,), expected (32,)"):
        assert text in str(error.value)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"format_version": 2}, r"format version 2; this program reads up to 1\nUpdate manyview"),
        ({"config": {"confidence_range": [1, "inf"], "head_widths": [1], "wings": 2}}, "not known here.*wings"),
    ],
)
def test_files_of_a_later_program_are_refused_in_words(tmp_path, header, words):
    path = tmp_path / "toy.safetensors"
    save_model(random_network(), path, INFO)
    spoil(path, header=header)
    with pytest.raises(WeightsError, match=words):
        find_network(path)


def test_a_failed_save_leaves_the_earlier_model(tmp_path, monkeypatch):
    path = tmp_path / "toy.safetensors"
    save_model(random_network(), path, INFO)
    before = path.read_bytes()

    def full_disk(_, target, **__):
        target.write_bytes(b"half a model")
        raise OSError("no space left")

    monkeypatch.setattr(model_file, "save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_model(random_network(seed=1), path, INFO)
    assert path.read_bytes() == before


def test_half_precision_storage_loads_as_float32(tmp_path):
    network = random_network()
    save_model(network, tmp_path / "toy.safetensors", INFO, dtype=torch.float16)
    loaded, _ = find_network(tmp_path / "toy.safetensors")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    torch.testing.assert_close(points_of(loaded), points_of(network), rtol=0.05, atol=0.01)


@pytest.mark.parametrize("name", ["nothing", "./nothing/here", "a/b/c", "weights/toy.safetensors", "weights/toy.pth"])
def test_an_unknown_name_says_what_is_known(name, monkeypatch):
    monkeypatch.setattr(find, "download", lambda *_, **__: pytest.fail("a path is no hub id"))
    with pytest.raises(WeightsError, match="no model") as error:
        find_network(name)
    assert "Packaged: manyview-small" in str(error.value)


def test_a_packaged_name_means_the_packaged_model_wherever_the_user_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "packaged.safetensors").write_bytes(b"")
    save_model(random_network(), tmp_path / "elsewhere.safetensors", INFO)
    monkeypatch.setattr(find, "packaged_models", lambda: {"packaged.safetensors": tmp_path / "elsewhere.safetensors"})
    assert find_network("packaged.safetensors")[1].name == "toy"


def test_packaged_and_official_models_are_listed():
    known = {info.name: info for info in find.list_models()}
    assert known.keys() >= {"manyview-small", "jedyang97/Fast3R_ViT_Large_512"}
    assert all(info.licence and info.description and info.image_size for info in known.values())


def test_damaged_files_are_refused_in_words(tmp_path, release):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not a model")
    with pytest.raises(WeightsError, match="not a readable safetensors"):
        find_network(broken)
    (release / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="not readable JSON"):
        find_network(release)
    (release / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"has no config\.json"):
        find_network(release)


# ---------------------------------------------------------------- the hub, played by a local server
@pytest.fixture
def hub(release, monkeypatch, tmp_path):
    """A server that answers like the hub for one repository, `owner/toy`."""
    commit, asked = "0123456789abcdef0123456789abcdef01234567", []

    class Hub(SimpleHTTPRequestHandler):
        def respond(self, with_body: bool) -> None:
            match = re.fullmatch(r"/owner/toy/resolve/(?:main|v2)/(config\.json|model\.safetensors)", self.path)
            asked.append(self.path)
            body = (release / match[1]).read_bytes() if match else b""
            self.send_response(200 if match else 404)
            if match:
                self.send_header("ETag", f'"{len(body)}"')
                self.send_header("X-Repo-Commit", commit)
            else:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def do_GET(self) -> None:
            self.respond(True)

        def do_HEAD(self) -> None:
            self.respond(False)

        def log_message(self, *_) -> None:
            pass

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}", asked=asked)
    server.shutdown()


def test_a_hub_id_is_downloaded_and_then_found_offline(hub, expected, monkeypatch):
    network, info = find_network("owner/toy", endpoint=hub.url)
    assert torch.equal(points_of(network), expected)
    assert info.name == "owner/toy"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    asked = len(hub.asked)
    assert find.download("owner/toy", endpoint=hub.url).name == "0123456789abcdef0123456789abcdef01234567"
    assert len(hub.asked) == asked > 0


def test_a_revision_is_asked_for(hub):
    find_network("owner/toy", revision="v2", endpoint=hub.url)
    assert {path.split("/")[4] for path in hub.asked} == {"v2"}


def test_an_unknown_repository_is_named(hub):
    with pytest.raises(WeightsError, match="no public model"):
        find_network("owner/other", endpoint=hub.url)


def test_without_a_network_the_ways_out_are_shown(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="could not download") as error:
        find_network("owner/other")
    assert "hf download owner/other" in str(error.value)
    assert "manyview-small" in str(error.value)


# ---------------------------------------------------------------- pickled checkpoints
class Dangerous:
    def __reduce__(self):
        return (eval, ("open('danger', 'w')",))


@pytest.mark.parametrize(
    "wrap", [lambda w: w, lambda w: {"model": w, "args": argparse.Namespace(lr=1)}, lambda w: {"state_dict": w}]
)
def test_pickled_weights_convert_to_a_file_that_loads(tmp_path, wrap, expected):
    torch.save(wrap(official_weights()), tmp_path / "official.pth")
    (tmp_path / "config.json").write_text(json.dumps(SMALLEST_OFFICIAL))
    convert(tmp_path / "official.pth", tmp_path / "own.safetensors", config=tmp_path / "config.json")
    assert torch.equal(points_of(find_network(tmp_path / "own.safetensors")[0]), expected)


def test_official_safetensors_convert_too_and_nothing_is_replaced_unasked(release, expected, tmp_path):
    source, output = release / "model.safetensors", tmp_path / "own.safetensors"
    output.write_text("mine")
    with pytest.raises(WeightsError, match="exists"):
        convert(source, output, config=release / "config.json")
    assert output.read_text() == "mine"
    info = convert(source, output, config=release / "config.json", overwrite=True)
    assert (info.name, info.source) == ("own", "converted from model.safetensors")
    network, found = find_network(output)
    assert torch.equal(points_of(network), expected)
    assert replace(found, weights_sha256="") == info


def test_conversion_refuses_another_suffix_and_takes_the_released_configuration_by_default(release, tmp_path):
    with pytest.raises(WeightsError, match=r"should end with \.safetensors"):
        convert(release / "model.safetensors", tmp_path / "own.bin", config=release / "config.json")
    with pytest.raises(WeightsError, match=r"missing: encoder\.enc_blocks\.1.*got \(32,\), expected \(1024,\)"):
        convert(release / "model.safetensors", tmp_path / "own.safetensors")
    assert list(tmp_path.glob("own*")) == []


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": official_weights(), "extra": Dangerous()}, "bad.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Dangerous(), protocol=2))
    for name in ("bad.pth", "plain.pth"):
        with pytest.raises(WeightsError, match="was refused"):
            load_pickled(tmp_path / name)
    assert not (tmp_path / "danger").exists()
    with pytest.raises(AttributeError):  # the file is as dangerous as it should be: `open` runs, its result is no dict
        torch.load("bad.pth", weights_only=False)["extra"].no_such_attribute  # noqa: B018
    assert (tmp_path / "danger").exists()


def test_a_pickled_file_is_not_loaded_but_the_way_is_shown(tmp_path):
    torch.save(official_weights(), tmp_path / "official.ckpt")
    with pytest.raises(WeightsError, match="manyview convert"):
        find_network(tmp_path / "official.ckpt")


def test_a_checkpoint_without_weights_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(WeightsError, match="no weights"):
        load_pickled(tmp_path / "empty.pth")
    for damaged in ((tmp_path / "empty.pth").read_bytes()[:100], b"", b"PK\x03\x04", bytes(range(256)), b"\x80\x02}q"):
        (tmp_path / "cut.pth").write_bytes(damaged)
        with pytest.raises(WeightsError, match=r"cut\.pth"):
            load_pickled(tmp_path / "cut.pth")
    with pytest.raises(WeightsError, match="no file"):
        load_pickled(tmp_path / "nothing.pth")
