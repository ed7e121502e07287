"""`manyview refine`, `report` and `import`, and which cameras `reconstruct` has: on photos of a made-up world."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image
from typer.testing import CliRunner

from manyview.cli import app
from manyview.evaluation.held_out import photograph_world
from manyview.evaluation.poses import evaluate_poses
from manyview.files import read_json
from manyview.scene import Scene
from manyview.worlds.settings import WorldSettings

run = CliRunner()
SEED = 1_000_003
VIEWS = 5


def command(*arguments: object) -> dict:
    result = run.invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder of photos of one camera, and where they were taken."""
    settings = WorldSettings(
        focal_jitter=0.0, samples=2, compositions=("tabletop",), paths=("orbit",), spread=0.4, noise=0.0, blur=0.0
    )
    pictures, truth = photograph_world(SEED, VIEWS, (360, 480), settings)
    folder = tmp_path_factory.mktemp("world")
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"photo{index}.png")
    return folder, [camera.world_from_camera for camera in truth.cameras if camera is not None]


@pytest.fixture(scope="module")
def plain(world, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("plain") / "out"
    figures = command("reconstruct", world[0], "-o", out, "--refine", "off")
    assert figures["cameras"] == "the network's: refinement is off"
    return out


@pytest.fixture(scope="module")
def refined(plain: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("refined") / "out"
    figures = command(
        "refine", plain, "-o", out, "--bundle-adjust", "--baseline", "photo0 photo1 2", "--up", "cameras",
        "--export", "splat-ready",
    )  # fmt: skip
    assert figures["cameras"].startswith("refined by bundle adjustment") and figures["units"] == "metres"
    return out


def accuracy(folder: Path, true: list[np.ndarray]) -> float:
    return evaluate_poses(Scene.load(folder).world_from_camera, true).maa30


def test_refined_cameras_are_much_nearer_to_the_truth(plain: Path, refined: Path, world) -> None:
    assert accuracy(refined, world[1]) > max(0.9, accuracy(plain, world[1]) + 0.1)


def test_a_refined_scene_is_metric_upright_and_has_sparse_points(refined: Path) -> None:
    scene = Scene.load(refined)
    centres = scene.world_from_camera[:2, :3, 3]
    assert scene.metric and scene.world == "gravity up" and scene.sparse is not None
    assert np.linalg.norm(centres[0] - centres[1]) == pytest.approx(2)
    for index, view in enumerate(scene.views):
        pixels, _, rows = scene.sparse.of_view(index)
        assert view.camera is not None
        shown, _ = view.camera.project(scene.sparse.points[rows])
        assert np.median(np.linalg.norm(shown - pixels, axis=1)) < 1


def test_the_folder_for_splat_trainers_is_read_by_colmap(refined: Path) -> None:
    model = pycolmap.Reconstruction(str(refined / "sparse" / "0"))
    assert model.num_reg_images() == VIEWS and model.num_points3D() > 1000
    assert {camera.model_name for camera in model.cameras.values()} == {"PINHOLE"}
    assert len(read_json(refined / "transforms.json")["frames"]) == VIEWS


def test_the_report_tells_what_became_of_each_photo(refined: Path) -> None:
    report = read_json(refined / "report.json")
    photos = report["refined"]["photos"]
    assert [photo["registered"] for photo in photos] == [True] * VIEWS
    assert all(photo["error_after"] < 1 for photo in photos)
    assert np.median([photo["error_before"] for photo in photos]) > np.median([p["error_after"] for p in photos])
    assert report["graph"]["measure"] == "matches" and len(report["graph"]["components"]) == 1
    assert "bundle adjustment" in (refined / "report.html").read_text()


def test_reconstruct_refines_by_default_and_says_so(world, tmp_path: Path) -> None:
    figures = command("reconstruct", world[0], "-o", tmp_path / "out")
    assert figures["cameras"].startswith(f"refined by bundle adjustment: {VIEWS} of {VIEWS}")
    assert Scene.load(tmp_path / "out").provenance.settings["cameras_from"] == "bundle adjustment"
    assert accuracy(tmp_path / "out", world[1]) > 0.9


def test_a_colmap_project_is_taken_over(refined: Path, tmp_path: Path) -> None:
    command("import", refined, "-o", tmp_path / "out", "-m", "none")
    found = Scene.load(tmp_path / "out")
    assert found.world == "given" and found.metric  # the folder says that it is in metres
    np.testing.assert_allclose(found.world_from_camera, Scene.load(refined).world_from_camera, atol=1e-6)


def test_dense_depth_agrees_between_views(plain: Path, tmp_path: Path) -> None:
    command("refine", plain, "-o", tmp_path / "out", "--bundle-adjust", "--densify", "--dense-size", "240")
    scene = Scene.load(tmp_path / "out")
    assert max(scene.views[0].size) == 240
    assert np.mean([view.valid.mean() for view in scene.views]) > 0.05


def test_a_report_on_photos_stands_on_its_own(world, tmp_path: Path) -> None:
    figures = command("report", world[0], "-o", tmp_path / "out")
    assert figures["photos"] == VIEWS and figures["connected parts"] == 1
    report = read_json(tmp_path / "out" / "report.json")
    assert report["refined"] is None and len(report["photos"]["photos"]) == VIEWS


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "nothing to do"),
        (["--up", "ground", "--intrinsics", "1,1,1,1"], "concern bundle adjustment"),
        (["--bundle-adjust", "--camera-model", "FISHEYE"], "FISHEYE is not known"),
        (["--baseline", "photo0 photo9 1"], "named photo9"),
    ],
)
def test_what_cannot_be_done_is_said(plain: Path, tmp_path: Path, options: list[str], words: str) -> None:
    result = run.invoke(app, ["refine", str(plain), "-o", str(tmp_path / "out"), *options])
    assert result.exit_code != 0 and words in str(result.exception)
    assert not (tmp_path / "out").exists()
