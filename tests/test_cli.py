"""The command: what it writes, what it prints where, and its exit codes."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from plyfile import PlyData
from typer.testing import CliRunner

import manyview
from manyview import cli
from manyview.networks.checkpoints.model_file import save_model
from manyview.training import recipes
from manyview.training.recipes import Recipe, Stage
from toys import INFO, SMALLEST, SMALLEST_OFFICIAL, official_weights, random_network

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
    """Says nothing sensible; with a given camera it places points in front of it, of low confidence."""
    path = tmp_path_factory.mktemp("model") / "toy.safetensors"
    save_model(random_network(seed=1), path, INFO)
    return path


CAMERA = ["--intrinsics", "70,71,31,23"]


def reconstruct(photos, model, out, *options: str, inputs: list | None = None) -> dict:
    """Figures of a run that has to succeed."""
    given = [str(path) for path in (inputs or [photos])]
    result = run.invoke(cli.app, ["reconstruct", *given, "-o", str(out), "-m", str(model), "--json", *options])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def points_in(path: Path) -> int:
    """Number of points in a PLY file, by a reader of others."""
    return PlyData.read(path)["vertex"].count


@pytest.fixture(scope="module")
def written(photos, model, tmp_path_factory):
    """A folder with a scene that has cameras and points; not to be changed."""
    out = tmp_path_factory.mktemp("written") / "out"
    reconstruct(photos, model, out, *CAMERA, "--include-low-confidence")
    return out


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


def test_figures_are_those_of_the_scene_and_of_its_files(photos, model, tmp_path):
    out = tmp_path / "o"
    options = (*CAMERA, "--include-low-confidence", "--percentile", "50", "--export", "ply")
    figures, scene = reconstruct(photos, model, out, *options), manyview.Scene.load(out)
    assert [view.status for view in scene.views] == ["low_confidence"] * 3
    assert (figures["views"], figures["used"], figures["cameras_found"]) == (3, 0, 3)
    assert figures["focal_pixels"] == 70
    cloud = scene.point_cloud(percentile=50, include_low_confidence=True)
    assert figures["points"] == len(cloud) == points_in(out / "points.ply") > 1000
    assert len(cloud) < len(scene.point_cloud(percentile=0, include_low_confidence=True))
    assert len(figures["not_used"]) == 3
    assert set(figures["files"]) == {str(path) for path in out.iterdir() if path.name != "manifest.json"}
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert figures["weights_sha256"] == scene.provenance.weights_sha256 == digest


def test_doubtful_views_are_exported_on_request_only(photos, model, tmp_path):
    figures = reconstruct(photos, model, tmp_path / "o", *CAMERA)
    assert figures["points"] == points_in(tmp_path / "o" / "points.ply") == 0


def test_equal_runs_write_equal_bytes(photos, model, tmp_path):
    for folder in ("one", "two", "other"):
        seed = "1" if folder == "other" else "0"
        reconstruct(photos, model, tmp_path / folder, *CAMERA, "--include-low-confidence", "--seed", seed)
    for file in ("scene.safetensors", "points.ply"):
        one, two, other = ((tmp_path / folder / file).read_bytes() for folder in ("one", "two", "other"))
        assert one == two
        assert one != other
    assert points_in(tmp_path / "one" / "points.ply") > 1000


def test_options_reach_the_reconstruction(photos, model, tmp_path):
    options = ["--seed", "7", "--dtype", "bfloat16", "--image-size", "48", "--fit", "pad", "--focal", "per_view"]
    options += ["--device", "cpu", "--max-pixels", "5000", "--fps", "2", "--max-frames", "9", "--strict", "--dedup"]
    reconstruct(photos, model, tmp_path / "o", *options)
    scene = manyview.Scene.load(tmp_path / "o")
    want = {
        "seed": 7, "dtype": "bfloat16", "image_size": 48, "fit": "pad", "focal": "per_view", "device": "cpu",
        "max_pixels": 5000, "fps": 2.0, "max_frames": 9, "strict": True, "dedup": True, "intrinsics": "estimated",
    }  # fmt: skip
    assert {name: scene.provenance.settings[name] for name in want} == want
    assert max(scene.views[0].size) == 48


def test_photos_of_equal_content_are_dropped_on_request(photos, model, tmp_path):
    twice = [photos / "0.png", photos / "1.png", photos / "0.png"]
    assert reconstruct(photos, model, tmp_path / "all", inputs=twice)["views"] == 3
    assert reconstruct(photos, model, tmp_path / "some", "--dedup", inputs=twice)["views"] == 2


def test_a_list_of_photos_keeps_its_order(photos, model, tmp_path):
    reconstruct(photos, model, tmp_path / "o", inputs=[photos / f"{i}.png" for i in (2, 0)])
    assert [view.name for view in manyview.Scene.load(tmp_path / "o").views] == ["2.png", "0.png"]


def test_known_intrinsics_are_kept(written):
    scene = manyview.Scene.load(written)
    for view in scene.views:
        assert view.camera is not None
        assert view.camera.K.tolist() == [[70, 0, 31], [0, 71, 23], [0, 0, 1]]
    assert scene.provenance.settings["intrinsics"] == "given"


def test_results_are_not_replaced_without_being_asked(photos, model, tmp_path, monkeypatch, capsys):
    arguments = ["reconstruct", str(photos), "-o", str(tmp_path / "o"), "-m", str(model), "--json"]
    assert run.invoke(cli.app, arguments).exit_code == 0
    (tmp_path / "o" / "mine.txt").write_text("keep")
    code, stderr = fails(monkeypatch, capsys, *arguments)
    assert code == 7
    assert "already holds results" in stderr
    assert "--overwrite" in stderr
    before = (tmp_path / "o" / "scene.json").read_text()
    assert run.invoke(cli.app, [*arguments, "--overwrite", "--seed", "5"]).exit_code == 0
    assert (tmp_path / "o" / "scene.json").read_text() != before
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
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert "skipped broken.jpg: " in stderr
    assert "of 3 used" in stderr
    assert "scene.json" in stderr or "files in" in stderr
    assert (tmp_path / "o" / "points.ply").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nothing-here"], 3, "nothing-here"),
        (["{photos}", "-m", "no-such-model"], 5, "no model"),
        (["{photos}", "--export", "stl"], 7, "no format 'stl'"),
        (["{photos}", "--fit", "stretch"], 3, "not known"),
        (["{photos}", "--intrinsics", "1,2"], 3, "FX,FY,CX,CY"),
        (["{photos}", "--intrinsics", "a,b,c,d"], 3, "FX,FY,CX,CY"),
        (["{photos}", "--dtype", "int8"], 3, "Choose one of float32, bfloat16, float16"),
        (["{photos}", "--focal", "long"], 3, "Choose one of shared, per_view"),
        (["{photos}", "-m", "{model}", "--max-pixels", "10"], 4, "none of 3 inputs"),
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
    assert [line.split()[0] for line in stderr.strip().splitlines()] == ["error", "hint"]
    assert not (tmp_path / "o").exists()


def test_verbose_shows_the_traceback(tmp_path):
    done = command("--verbose", "reconstruct", tmp_path / "nothing", "-o", tmp_path / "o")
    assert done.returncode == 3
    assert "Traceback" in done.stderr


def test_strict_makes_an_unreadable_picture_an_error(photos, model, tmp_path, monkeypatch, capsys):
    (tmp_path / "bad.png").write_bytes(b"nothing")
    given = [photos / "0.png", tmp_path / "bad.png", "-o", tmp_path / "o", "-m", model]
    code, stderr = fails(monkeypatch, capsys, "reconstruct", *given, "--strict")
    assert code == 3
    assert "bad.png" in stderr
    assert not (tmp_path / "o").exists()


def test_an_interrupt_has_the_exit_code_of_shells_and_no_traceback(photos, model, tmp_path, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("manyview.methods.model.Model.reconstruct", interrupt)
    code, stderr = fails(monkeypatch, capsys, "reconstruct", photos, "-o", tmp_path / "o", "-m", model)
    assert code == 130
    assert "Traceback" not in stderr
    assert not (tmp_path / "o").exists()


def test_version_and_help_are_shown(monkeypatch, capsys):
    result = run.invoke(cli.app, ["--version"])
    assert (result.exit_code, result.stdout.strip()) == (0, manyview.__version__)
    help_text = run.invoke(cli.app, ["--help"]).output
    for name in ("reconstruct", "view", "export", "models", "convert", "demo", "train", "doctor"):
        assert name in help_text
        assert run.invoke(cli.app, [name, "--help"]).exit_code == 0
    code, stderr = fails(monkeypatch, capsys, "fly")
    assert code == 2
    assert "No such command 'fly'" in stderr


def test_export_adds_formats_to_a_scene(written, tmp_path):
    out = tmp_path / "o"
    shutil.copytree(written, out)
    result = run.invoke(cli.app, ["export", str(out), "-f", "tum, npz", "--include-low-confidence"])
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    poses = np.loadtxt(out / "trajectory.txt")
    np.testing.assert_allclose(poses[0], [0, 0, 0, 0, 0, 0, 0, 1], atol=1e-9)  # the first camera is the world
    scene = manyview.Scene.load(out)
    np.testing.assert_allclose(poses[:, 1:4], [view.camera.centre for view in scene.views if view.camera is not None])
    archive = np.load(out / "scene.npz")
    np.testing.assert_array_equal(archive["K"], scene.K)
    np.testing.assert_array_equal(archive["points_0002"], scene.views[2].points)


def test_export_writes_elsewhere_with_its_own_percentile_and_refuses_what_is_no_scene(
    written, tmp_path, monkeypatch, capsys
):
    arguments = ["export", written, "-f", "ply", "-o", tmp_path / "more", "--include-low-confidence"]
    assert run.invoke(cli.app, [*map(str, arguments), "--percentile", "90"]).exit_code == 0
    scene = manyview.Scene.load(written)
    few = scene.point_cloud(percentile=90, include_low_confidence=True)
    assert points_in(tmp_path / "more" / "points.ply") == len(few) > 0
    code, stderr = fails(monkeypatch, capsys, *arguments)
    assert code == 7
    assert "already holds" in stderr
    code, stderr = fails(monkeypatch, capsys, "export", tmp_path / "nothing", "-f", "ply")
    assert code == 3
    assert "scene.json" in stderr


@pytest.mark.parametrize("copied", [False, True])
def test_photos_are_linked_or_copied_into_exports(written, tmp_path, copied):
    arguments = ["export", str(written), "-f", "colmap", "-o", str(tmp_path / "c"), "--include-low-confidence"]
    result = run.invoke(cli.app, [*arguments, *(["--copy-images"] if copied else [])])
    assert result.exit_code == 0, result.output
    pictures = sorted((tmp_path / "c" / "images").iterdir())
    assert [picture.name for picture in pictures] == ["0.png", "1.png", "2.png"]
    assert {picture.is_symlink() for picture in pictures} == {not copied}
    assert [picture.read_bytes() for picture in pictures] == [
        Path(str(view.source)).read_bytes() for view in manyview.Scene.load(written).views
    ]


def test_view_shows_the_scene_where_it_is_asked_to(written, monkeypatch):
    shown = []
    monkeypatch.setattr("manyview.app.viewer.view", lambda scene, **where: shown.append((scene, where)))
    for options in ([], ["--port", "9", "--host", "0.0.0.0"]):
        assert run.invoke(cli.app, ["view", str(written), *options]).exit_code == 0
    assert [where for _, where in shown] == [{"host": "127.0.0.1", "port": 8080}, {"host": "0.0.0.0", "port": 9}]
    assert shown[0][0].equals(manyview.Scene.load(written))


def test_models_are_listed_for_programs_and_people():
    known = {info["name"]: info for info in json.loads(run.invoke(cli.app, ["models", "--json"]).stdout)}
    assert known.keys() >= {"manyview-small", "jedyang97/Fast3R_ViT_Large_512"}
    assert known["jedyang97/Fast3R_ViT_Large_512"]["image_size"] == 512
    assert "Noncommercial" in known["jedyang97/Fast3R_ViT_Large_512"]["licence"]
    table = run.invoke(cli.app, ["models"], env={"COLUMNS": "200"}).stdout
    assert all(name in table for name in known)
    assert "512 px" in table


def test_doctor_says_what_works_for_programs_and_people():
    facts = json.loads(run.invoke(cli.app, ["doctor", "--json"]).stdout)
    assert (facts["torch"], facts["manyview"]) == (torch.__version__, manyview.__version__)
    assert "manyview-small" in facts["packaged models"]
    assert not [finding for finding in facts.values() if "CANNOT" in finding]
    text = run.invoke(cli.app, ["doctor"], env={"COLUMNS": "300"}).stdout
    assert [line.split()[0] for line in text.splitlines()] == [name.split()[0] for name in facts]


def test_doctor_names_what_cannot_be_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "trimesh", None)
    facts = json.loads(run.invoke(cli.app, ["doctor", "--json"]).stdout)
    assert [name for name, finding in facts.items() if "CANNOT BE IMPORTED" in finding] == ["trimesh"]


def test_demo_writes_and_prints_its_errors(model, tmp_path):
    result = run.invoke(cli.app, ["demo", "-o", str(tmp_path / "d"), "-m", str(model), "--json"])
    assert result.exit_code == 0, result.output
    errors = json.loads((tmp_path / "d" / "errors.json").read_text())
    assert errors == {"seed": errors["seed"], "views": 4, **json.loads(result.stdout)}
    again = run.invoke(cli.app, ["demo", "-o", str(tmp_path / "d"), "-m", str(model)])
    assert again.exit_code == 0, again.output
    assert again.stdout == ""
    assert "median relative depth error" in again.stderr
    assert f"manyview view {tmp_path / 'd'}" in again.stderr


def test_train_writes_a_model_and_prints_its_log(tmp_path, monkeypatch, capsys):
    tiny = Recipe(
        name="tiny", description="", image_size=32, network=SMALLEST, steps=99, bf16=False,
        stages=[Stage(until=99, sizes=[(24, 32)], views=[2], images=2)],
    )  # fmt: skip
    monkeypatch.setitem(recipes.RECIPES, "tiny", lambda: tiny)
    result = run.invoke(cli.app, ["train", "tiny", "-o", str(tmp_path / "t"), "--steps", "50", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["step"] == 50
    assert manyview.load(tmp_path / "t" / "manyview-tiny.safetensors").info.name == "manyview-tiny"
    code, stderr = fails(monkeypatch, capsys, "train", "huge", "-o", tmp_path / "u")
    assert code == 3
    assert "no recipe 'huge'" in stderr
    assert not (tmp_path / "u").exists()


def test_convert_makes_a_file_that_reconstructs(photos, tmp_path):
    torch.save(official_weights(), tmp_path / "official.pth")
    (tmp_path / "config.json").write_text(json.dumps(SMALLEST_OFFICIAL))
    names = ["official.pth", "-o", "own.safetensors", "--config", "config.json"]
    arguments = ["convert", *(str(tmp_path / name) if "." in name else name for name in names)]
    result = run.invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    assert "own.safetensors" in result.stderr
    assert run.invoke(cli.app, arguments).exit_code != 0
    assert run.invoke(cli.app, [*arguments, "--overwrite"]).exit_code == 0
    scene = manyview.reconstruct(photos, model=tmp_path / "own.safetensors", image_size=64)
    assert len(scene.views) == 3
    assert scene.provenance.model == "own"


def test_importing_the_package_is_cheap():
    heavy = "{'torch', 'cv2', 'av', 'pycolmap', 'trimesh', 'viser', 'scipy'}"
    code = f"import sys, manyview; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("order", ["manyview, pycolmap", "pycolmap, manyview"])
def test_pictures_can_be_written_beside_pycolmap_or_a_warning_says_why_not(order: str, tmp_path: Path):
    save = f"import {order}; from PIL import Image; Image.new('RGB', (9, 9)).save({str(tmp_path / 'a.png')!r})"
    done = subprocess.run([sys.executable, "-c", save], capture_output=True, text=True)
    if order.startswith("manyview"):
        assert done.returncode == 0 and (tmp_path / "a.png").is_file()
    else:
        assert "Import manyview (or PIL.Image) before pycolmap" in done.stderr


def test_the_public_names_exist():
    assert {"reconstruct", "load", "Scene", "Model", "ManyviewError"} <= set(manyview.__all__)
    for name in manyview.__all__:
        assert getattr(manyview, name).__name__ == name
        assert name in dir(manyview)
    with pytest.raises(AttributeError):
        manyview.nothing  # noqa: B018


def test_what_the_library_warns_of_is_shown_once(capsys: pytest.CaptureFixture[str]):
    import logging

    from manyview.app.console import WarningLines

    logger = logging.getLogger("trying")
    handler = WarningLines()
    logger.addHandler(handler)
    try:
        for _ in range(2):
            logger.warning("%d [photos] without a mask", 2)
        logger.info("not this")
    finally:
        logger.removeHandler(handler)
    assert capsys.readouterr().err.split("\n") == ["warning 2 [photos] without a mask", ""]
