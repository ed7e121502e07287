"""The command with pairwise models: pairs, alignment and matches, and what is said where they make no sense."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import manyview
from exact_network import photos as room_photos
from manyview import cli
from manyview.networks.checkpoints.model_file import save_model
from toys import INFO, PAIRS_INFO, random_network, random_pair_network

run = CliRunner()


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for index, photo in enumerate(room_photos(4)):
        Image.fromarray(photo.pixels).save(folder / f"{index}.png")
    return folder


def written_model(folder: Path, **info) -> Path:
    path = folder / "pairs.safetensors"
    save_model(random_pair_network(), path, replace(PAIRS_INFO, image_size=32, **info))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Untrained; all its pairs count as links."""
    return written_model(tmp_path_factory.mktemp("linked"), least_link=1.0, least_confidence=1.0)


@pytest.fixture(scope="module")
def doubting_model(tmp_path_factory) -> Path:
    """None of its pairs counts as a link."""
    return written_model(tmp_path_factory.mktemp("doubting"), least_link=1e6)


@pytest.fixture(scope="module")
def fast3r_model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("fast3r") / "toy.safetensors"
    save_model(random_network(), path, replace(INFO, image_size=32))
    return path


def reconstruct(photos: Path, model: Path, out: Path, *options: str) -> dict:
    """Figures of a run that has to succeed."""
    arguments = ["reconstruct", str(photos), "-o", str(out), "-m", str(model), "--json", "--device", "cpu"]
    arguments += ["--refine", "off", *options]
    result = run.invoke(cli.app, arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


def match(photos: Path, model: Path, *options: str) -> dict:
    arguments = ["match", str(photos / "0.png"), str(photos / "1.png"), "-m", str(model), "--json", *options]
    result = run.invoke(cli.app, arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


def fails(monkeypatch, capsys, *arguments: object) -> tuple[int, str]:
    """Exit code and stderr of a call in this process."""
    monkeypatch.setattr(sys, "argv", ["manyview", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert isinstance(stop.value.code, int)
    return stop.value.code, capsys.readouterr().err


def test_photos_become_a_scene_and_files(photos, model, tmp_path):
    figures = reconstruct(photos, model, tmp_path / "out", "--export", "ply,colmap")
    assert figures["views"] == figures["cameras_found"] == 4
    assert figures["model"] == "toy-pairs"
    scene = manyview.Scene.load(tmp_path / "out")
    assert scene.provenance.settings["pairs_run"] == 12
    assert (tmp_path / "out" / "points.ply").is_file()
    assert (tmp_path / "out" / "sparse" / "0" / "cameras.bin").is_file()


def test_pairs_and_alignment_are_chosen_by_options(photos, model, tmp_path):
    options = ["--pairs", "swin-1", "--alignment", "compatible", "--iterations", "2"]
    reconstruct(photos, model, tmp_path / "out", *options)
    settings = manyview.Scene.load(tmp_path / "out").provenance.settings
    want = {"pairs": "swin-1", "alignment": "compatible", "iterations": 2, "pairs_run": 8}
    assert {name: settings[name] for name in want} == want


def test_known_intrinsics_are_kept(photos, model, tmp_path):
    reconstruct(photos, model, tmp_path / "out", "--intrinsics", "140,141,60,50")
    scene = manyview.Scene.load(tmp_path / "out")
    np.testing.assert_array_equal(scene.K, np.tile([[140, 0, 60], [0, 141, 50], [0, 0, 1]], (4, 1, 1)))


def test_equal_runs_write_equal_bytes(photos, model, tmp_path):
    for folder in ("one", "two"):
        reconstruct(photos, model, tmp_path / folder, "--export", "ply")
    for file in ("scene.json", "scene.safetensors", "points.ply"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_photos_that_nothing_links_are_told_of_and_kept(photos, doubting_model, tmp_path):
    figures = reconstruct(photos, doubting_model, tmp_path / "out", "--include-low-confidence")
    assert figures["used"] == 0
    assert figures["cameras_found"] <= 1
    assert len(figures["not_used"]) == 4
    assert "other_group" in figures["not_used"][1]
    assert any("4 groups without a link" in warning for warning in figures["warnings"])
    scene = manyview.Scene.load(tmp_path / "out")
    assert [view.group for view in scene.views] == [0, 1, 2, 3]


def test_a_group_is_exported_by_its_number(photos, doubting_model, tmp_path):
    out = tmp_path / "out"
    reconstruct(photos, doubting_model, out)
    result = run.invoke(cli.app, ["export", str(out), "-f", "npz", "-o", str(tmp_path / "group"), "--group", "2"])
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "group" / "scene.npz") as archive:
        assert archive["name"].tolist() == ["2.png"]
        assert archive["has_camera"].tolist() == [True]
    missing = run.invoke(cli.app, ["export", str(out), "-f", "npz", "-o", str(tmp_path / "none"), "--group", "9"])
    assert isinstance(missing.exception, manyview.ManyviewError)
    assert "Groups are 0 to 3" in missing.exception.hint


# ---------------------------------------------------------------- options that make no sense
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--focal", "shared"], ["--focal does not concern", "dust3r", "--pairs, --alignment, --iterations."]),
        (["--cameras", "pnp"], ["--cameras does not concern"]),
        (["--pairs", "ring"], ["unknown pair graph 'ring'", "swin"]),
        (["--pairs", "oneref-9"], ["picture 9", "there are 4"]),
        (["--alignment", "slow"], ["--alignment slow is not known", "fast, compatible"]),
        (["--iterations", "5"], ["iterations", "compatible"]),
        (["--intrinsics", "900,900,512,384"], ["principal point (512, 384) is outside", "here 128 x 96"]),
        (["--intrinsics", "140,200,60,50"], ["differ too much"]),
    ],
)
def test_options_that_make_no_sense_are_one_line_and_a_hint(
    photos, model, tmp_path, monkeypatch, capsys, options, words
):
    out = tmp_path / "out"
    code, stderr = fails(monkeypatch, capsys, "reconstruct", photos, "-o", out, "-m", model, *options)
    assert code == manyview.InputError.exit_code
    for word in words:
        assert word in " ".join(stderr.split())
    assert "Traceback" not in stderr
    assert not out.exists()


def test_pairs_do_not_concern_the_other_family(photos, fast3r_model, tmp_path, monkeypatch, capsys):
    arguments = ["reconstruct", photos, "-o", tmp_path / "out", "-m", fast3r_model, "--pairs", "complete"]
    code, stderr = fails(monkeypatch, capsys, *arguments)
    assert code == manyview.InputError.exit_code
    assert "--pairs does not concern models of the family fast3r" in stderr
    assert "--focal, --cameras." in stderr


# ---------------------------------------------------------------- matches
def test_matches_are_drawn_written_and_counted(photos, model, tmp_path):
    picture, file = tmp_path / "x.png", tmp_path / "m.npz"
    figures = match(photos, model, "-o", str(picture), "--matches", str(file))
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert image.width > 300
    with np.load(file) as archive:
        assert len(archive["first_pixels"]) == figures["matches"] > 0
        assert archive["names"].tolist() == ["0.png", "1.png"]
        assert archive["sizes"].tolist() == [[96, 128], [96, 128]]
        assert archive["first_pixels"].max() < 128
    assert figures["status"] in ("found", "doubtful", "not_found")
    assert figures["first_focal_pixels"] > 0


def test_figures_are_shown_to_people_where_no_json_is_asked_for(photos, model, tmp_path):
    arguments = ["match", str(photos / "0.png"), str(photos / "1.png"), "-m", str(model), "-o", str(tmp_path / "x.png")]
    result = run.invoke(cli.app, arguments)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "matches" in result.stderr
    assert "x.png" in result.stderr


def test_files_in_the_way_are_replaced_on_request_only_and_photos_never(photos, model, tmp_path, monkeypatch, capsys):
    first, second = (tmp_path / name for name in ("a.png", "b.png"))
    for name, path in (("0.png", first), ("1.png", second)):
        path.write_bytes((photos / name).read_bytes())
    mine = tmp_path / "mine.png"
    mine.write_text("mine")
    before = first.read_bytes()
    code, stderr = fails(monkeypatch, capsys, "match", first, second, "-m", model, "-o", mine)
    assert code == manyview.ExportError.exit_code
    assert "mine.png exists" in stderr
    assert mine.read_text() == "mine"
    for options in ([], ["--overwrite"]):
        code, stderr = fails(monkeypatch, capsys, "match", first, second, "-m", model, "-o", first, *options)
        assert code == manyview.ExportError.exit_code
        assert "one of the photos" in stderr
    assert first.read_bytes() == before
    match(photos, model, "-o", str(mine), "--overwrite")
    assert mine.read_bytes().startswith(b"\x89PNG")


def test_matches_of_an_unknown_kind_are_an_error_and_nothing_is_written(photos, model, tmp_path, monkeypatch, capsys):
    arguments = [photos / "0.png", photos / "1.png", "-m", model, "-o", tmp_path / "x.png"]
    code, stderr = fails(monkeypatch, capsys, "match", *arguments, "--matches", tmp_path / "m.csv")
    assert code == manyview.ExportError.exit_code
    assert ".json or .npz" in stderr
    assert list(tmp_path.iterdir()) == []


def test_a_photo_that_cannot_be_read_is_one_line_with_its_name(photos, model, tmp_path, monkeypatch, capsys):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"nothing")
    for wrong in (broken, tmp_path / "missing.jpg"):
        out = tmp_path / "x.png"
        code, stderr = fails(monkeypatch, capsys, "match", photos / "0.png", wrong, "-m", model, "-o", out)
        assert code == manyview.InputError.exit_code
        assert wrong.name in stderr
        assert "Traceback" not in stderr
        assert not out.exists()


def test_models_that_are_not_there_or_do_not_match_are_said(photos, fast3r_model, tmp_path, monkeypatch, capsys):
    both = [photos / "0.png", photos / "1.png", "-o", tmp_path / "x.png"]
    code, stderr = fails(monkeypatch, capsys, "match", *both, "-m", "no-such-model")
    assert code == manyview.WeightsError.exit_code
    assert "no-such-model" in stderr
    code, stderr = fails(monkeypatch, capsys, "match", *both, "-m", fast3r_model)
    assert code == manyview.InputError.exit_code
    assert "pairs need a DUSt3R model" in stderr
    assert "manyview-small-pairs" in stderr
    assert list(tmp_path.iterdir()) == []
