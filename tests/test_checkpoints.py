"""Checkpoints: official names both ways, every way to name a model, and clear refusals."""

from __future__ import annotations

import argparse
import functools
import json
import pickle
import re
import threading
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import save_file

from manyview.errors import WeightsError
from manyview.networks import from_official
from manyview.networks.checkpoints.convert import RELEASED_FAST3R_CONFIG, convert
from manyview.networks.checkpoints.fast3r import FAST3R_NAMES, empty_fast3r, fast3r_config
from manyview.networks.checkpoints.find import download, find_network
from manyview.networks.checkpoints.model_file import ModelInfo, save_model
from manyview.networks.checkpoints.names import to_official
from manyview.networks.checkpoints.restricted import load_pickled
from manyview.networks.fast3r import Fast3RConfig
from test_fast3r_network import SMALLEST, random_images, random_network
from weights import TINY_OFFICIAL, manifest

SMALLEST_OFFICIAL = {
    "encoder_args": {**TINY_OFFICIAL["encoder_args"], "embed_dim": 32, "num_heads": 2, "depth": 1},
    "decoder_args": {**TINY_OFFICIAL["decoder_args"], "embed_dim": 32, "num_heads": 2, "depth": 4},
    "head_args": TINY_OFFICIAL["head_args"],
}
INFO = ModelInfo(name="toy", family="fast3r", licence="none", source="a test", image_size=64, square_ok=True)


def is_projection(official: str) -> bool:
    return re.search(r"act_postprocess\.\d\.0\.", official) is not None


@functools.cache
def official_weights() -> dict[str, torch.Tensor]:
    """Weights of the smallest network under official names, without the aliases."""
    network = random_network(fast3r_config(SMALLEST_OFFICIAL))
    own = network.state_dict()
    return {
        name: (own[ours][..., None, None] if is_projection(name) and own[ours].ndim == 2 else own[ours]).clone(
            memory_format=torch.contiguous_format
        )
        for ours, name in to_official(own, FAST3R_NAMES).items()
    }


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
    own = empty_fast3r(fast3r_config(config)).state_dict()
    names = to_official(own, FAST3R_NAMES)
    official = {n: shape for n, shape in manifest(shared / "reference" / "fast3r" / file) if ".layer_rn." not in n}
    assert set(names.values()) == set(official)
    for ours, theirs in names.items():
        assert FAST3R_NAMES.own(theirs) == ours
        shape = official[theirs]
        assert list(own[ours].shape) == (shape[:-2] if len(shape) == 4 and own[ours].ndim == 2 else shape)


def test_the_released_network_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in empty_fast3r(Fast3RConfig()).parameters()) == 647_551_368


def test_released_configuration_is_our_default():
    assert fast3r_config(RELEASED_FAST3R_CONFIG) == Fast3RConfig()


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
    weights = {f"net.{n}": t for n, t in official_weights().items()} | {"epoch_fraction": torch.zeros(1)}
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


# ---------------------------------------------------------------- ways to name a model
def test_a_folder_of_a_release_loads(release, expected):
    network, info = find_network(release)
    assert torch.equal(points_of(network), expected)
    assert len(info.weights_sha256) == 64
    assert "Noncommercial" in info.licence


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


def test_half_precision_storage_loads_as_float32(tmp_path):
    network = random_network()
    save_model(network, tmp_path / "toy.safetensors", INFO, dtype=torch.float16)
    loaded, _ = find_network(tmp_path / "toy.safetensors")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    torch.testing.assert_close(points_of(loaded), points_of(network), rtol=0.05, atol=0.01)


@pytest.mark.parametrize("name", ["nothing", "./nothing/here", "a/b/c"])
def test_an_unknown_name_says_what_is_known(name):
    with pytest.raises(WeightsError, match="no model"):
        find_network(name)


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
    commit = "0123456789abcdef0123456789abcdef01234567"

    class Hub(SimpleHTTPRequestHandler):
        def respond(self, with_body: bool) -> None:
            match = re.fullmatch(r"/owner/toy/resolve/[^/]+/(config\.json|model\.safetensors)", self.path)
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
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_hub_id_is_downloaded_and_then_found_offline(hub, expected, monkeypatch):
    network, info = find_network("owner/toy", endpoint=hub)
    assert torch.equal(points_of(network), expected)
    assert info.name == "owner/toy"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert download("owner/toy", endpoint=hub).name == "0123456789abcdef0123456789abcdef01234567"


def test_an_unknown_repository_is_named(hub):
    with pytest.raises(WeightsError, match="no public model"):
        find_network("owner/other", endpoint=hub)


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
    with pytest.raises(WeightsError, match="exists"):
        convert(tmp_path / "official.pth", tmp_path / "own.safetensors", config=tmp_path / "config.json")


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": official_weights(), "extra": Dangerous()}, "bad.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Dangerous()))
    for name in ("bad.pth", "plain.pth"):
        with pytest.raises(WeightsError):
            load_pickled(tmp_path / name)
    assert not (tmp_path / "danger").exists()


def test_a_pickled_file_is_not_loaded_but_the_way_is_shown(tmp_path):
    torch.save(official_weights(), tmp_path / "official.ckpt")
    with pytest.raises(WeightsError, match="manyview convert"):
        find_network(tmp_path / "official.ckpt")


def test_a_checkpoint_without_weights_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(WeightsError, match="no weights"):
        load_pickled(tmp_path / "empty.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "empty.pth").read_bytes()[:100])
    with pytest.raises(WeightsError):
        load_pickled(tmp_path / "cut.pth")
