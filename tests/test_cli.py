"""The command: what it writes, what it prints where, and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import manyview
from manyview import cli
from manyview.networks.checkpoints.model_file import save_model
from toys import INFO, SMALLEST_OFFICIAL, official_weights, random_network

run = CliRunner()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(generator.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "toy.safetensors"
    save_model(random_network(), path, replace(INFO, image_size=64))
    return path


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The installed command as a user runs it."""
    code = "from manyview.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)


def fails(monkeypatch, capsys, *arguments: object) -> tuple[int, str]:
    """Exit code and stderr of a call in this process."""
    monkeypatch.setattr(sys, "argv", ["manyview", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert isinstance(stop.value.code, int)
    return stop.value.code, capsys.readouterr().err


def test_reconstruct_writes_the_promised_files_and_json_alone_on_stdout(photos, model, tmp_path):
    out = tmp_path / "out"
    done = command("reconstruct", photos, "-o", out, "-m", model, "--export", "ply,glb,colmap,nerfstudio", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["views"] == 3
    assert figures["model"] == "toy"
    for file in (
        "scene.json",
        "scene.safetensors",
        "points.ply",
        "scene.glb",
        "sparse/0/cameras.bin",
        "transforms.json",
    ):
        assert (out / file).is_file()
        assert str(out / file) in figures["files"]
    assert len(manyview.Scene.load(out).views) == 3


def test_a_list_of_photos_keeps_its_order(photos, model, tmp_path):
    order = [photos / f"{i}.png" for i in (2, 0)]
    result = run.invoke(
        cli.app, ["reconstruct", *map(str, order), "-o", str(tmp_path / "o"), "-m", str(model), "--json"]
    )
    assert result.exit_code == 0, result.output
    assert [view.name for view in manyview.Scene.load(tmp_path / "o").views] == ["2.png", "0.png"]


def test_known_intrinsics_are_kept(photos, model, tmp_path):
    arguments = ["reconstruct", str(photos), "-o", str(tmp_path / "o"), "-m", str(model), "--json"]
    result = run.invoke(cli.app, [*arguments, "--intrinsics", "70,71,31,23"])
    assert result.exit_code == 0, result.output
    for view in manyview.Scene.load(tmp_path / "o").views:
        if view.camera is not None:
            assert view.camera.K.tolist() == [[70, 0, 31], [0, 71, 23], [0, 0, 1]]


def test_results_are_not_replaced_without_being_asked(photos, model, tmp_path, monkeypatch, capsys):
    arguments = ["reconstruct", str(photos), "-o", str(tmp_path / "o"), "-m", str(model), "--json"]
    assert run.invoke(cli.app, arguments).exit_code == 0
    (tmp_path / "o" / "mine.txt").write_text("keep")
    code, stderr = fails(monkeypatch, capsys, *arguments)
    assert code == 7
    assert "already holds results" in stderr
    assert run.invoke(cli.app, [*arguments, "--overwrite"]).exit_code == 0
    assert (tmp_path / "o" / "mine.txt").read_text() == "keep"


def test_summary_names_what_was_left_out(photos, model, tmp_path, monkeypatch, capsys):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for file in photos.iterdir():
        (mixed / file.name).write_bytes(file.read_bytes())
    (mixed / "broken.jpg").write_bytes(b"")
    monkeypatch.setattr(
        sys, "argv", ["manyview", "reconstruct", str(mixed), "-o", str(tmp_path / "o"), "-m", str(model)]
    )
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    stderr = capsys.readouterr().err
    assert "broken.jpg" in stderr
    assert "of 3 used" in stderr
    assert "points.ply" in stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nothing-here"], 3, "nothing-here"),
        (["{photos}", "-m", "no-such-model"], 5, "no model"),
        (["{photos}", "--export", "stl"], 7, "no format 'stl'"),
        (["{photos}", "--fit", "stretch"], 3, "not known"),
        (["{photos}", "--intrinsics", "1,2"], 3, "FX,FY,CX,CY"),
        (["{photos}", "-m", "{model}", "--device", "cuda:77"], 6, "cannot be used"),
        (["{broken}", "-m", "{model}"], 4, "none of 1 inputs"),
    ],
)
def test_each_kind_of_error_has_a_line_and_an_exit_code(
    photos, model, tmp_path, monkeypatch, capsys, arguments, code, words
):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.png").write_bytes(b"no picture")
    filled = [a.format(photos=photos, model=model, broken=broken) for a in arguments]
    got, stderr = fails(monkeypatch, capsys, "reconstruct", *filled, "-o", tmp_path / "o")
    assert got == code
    assert words in stderr.replace("\n", " ")
    assert "Traceback" not in stderr
    assert not (tmp_path / "o").exists()


def test_verbose_shows_the_traceback(tmp_path):
    done = command("--verbose", "reconstruct", tmp_path / "nothing", "-o", tmp_path / "o")
    assert done.returncode == 3
    assert "Traceback" in done.stderr


def test_export_adds_formats_to_a_scene(photos, model, tmp_path):
    out = tmp_path / "o"
    assert run.invoke(cli.app, ["reconstruct", str(photos), "-o", str(out), "-m", str(model), "--json"]).exit_code == 0
    assert run.invoke(cli.app, ["export", str(out), "-f", "tum,npz"]).exit_code == 0
    assert (out / "trajectory.txt").is_file()
    assert (out / "scene.npz").is_file()


def test_models_and_doctor_speak_json():
    names = {info["name"] for info in json.loads(run.invoke(cli.app, ["models", "--json"]).stdout)}
    assert "jedyang97/Fast3R_ViT_Large_512" in names
    facts = json.loads(run.invoke(cli.app, ["doctor", "--json"]).stdout)
    assert facts["torch"] == torch.__version__
    assert not [finding for finding in facts.values() if "CANNOT" in finding]


def test_convert_makes_a_file_that_reconstructs(photos, tmp_path):
    torch.save(official_weights(), tmp_path / "official.pth")
    (tmp_path / "config.json").write_text(json.dumps(SMALLEST_OFFICIAL))
    arguments = [
        "convert",
        tmp_path / "official.pth",
        "-o",
        tmp_path / "own.safetensors",
        "--config",
        tmp_path / "config.json",
    ]
    assert run.invoke(cli.app, [str(a) for a in arguments]).exit_code == 0
    scene = manyview.reconstruct(photos, model=tmp_path / "own.safetensors", image_size=64)
    assert len(scene.views) == 3


def test_importing_the_package_is_cheap():
    heavy = "{'torch', 'cv2', 'av', 'pycolmap', 'trimesh', 'viser', 'scipy'}"
    code = f"import sys, manyview; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_public_names_exist():
    for name in manyview.__all__:
        assert getattr(manyview, name) is not None
    with pytest.raises(AttributeError):
        manyview.nothing  # noqa: B018
