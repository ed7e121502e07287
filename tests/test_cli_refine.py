"""`manyview refine`, `report` and `import`, and which cameras `reconstruct` has: on photos of a made-up world."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest
from PIL import Image
from typer.testing import CliRunner

from manyview.cli import app
from manyview.evaluation.held_out import photograph_world
from manyview.evaluation.poses import evaluate_poses
from manyview.files import read_json
from manyview.formats.lens import Lens
from manyview.geometry import Camera
from manyview.refine.gps import read_gps
from manyview.scene import Scene
from manyview.worlds.settings import WorldSettings

run = CliRunner()
SEED = 1_000_003
VIEWS = 5


def command(*arguments: object) -> dict:
    result = run.invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@dataclass(frozen=True, kw_only=True)
class World:
    """A folder of photos of one camera, these photos, and the truth."""

    folder: Path
    pictures: list[np.ndarray]
    cameras: list[Camera]
    depth: list[np.ndarray]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    settings = WorldSettings(
        focal_jitter=0.0, samples=2, compositions=("tabletop",), paths=("orbit",), spread=0.4, noise=0.0, blur=0.0
    )
    pictures, truth = photograph_world(SEED, VIEWS, (360, 480), settings)
    folder = tmp_path_factory.mktemp("world")
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"photo{index}.png")
    cameras = [camera for camera in truth.cameras if camera is not None]
    return World(folder=folder, pictures=pictures, cameras=cameras, depth=truth.depth)


@pytest.fixture(scope="module")
def plain(world: World, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("plain") / "out"
    figures = command("reconstruct", world.folder, "-o", out, "--refine", "off")
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


def accuracy(folder: Path, world: World) -> float:
    return evaluate_poses(Scene.load(folder).world_from_camera, [c.world_from_camera for c in world.cameras]).maa30


def test_refined_cameras_are_much_nearer_to_the_truth(plain: Path, refined: Path, world: World) -> None:
    assert accuracy(refined, world) > max(0.9, accuracy(plain, world) + 0.1)


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


def test_reconstruct_refines_by_default_and_says_so(world: World, tmp_path: Path) -> None:
    figures = command("reconstruct", world.folder, "-o", tmp_path / "out")
    assert figures["cameras"].startswith(f"refined by bundle adjustment: {VIEWS} of {VIEWS}")
    assert Scene.load(tmp_path / "out").provenance.settings["cameras_from"] == "bundle adjustment"
    assert accuracy(tmp_path / "out", world) > 0.9


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


# ------------------------------------------------------------------ what the user knows
def exported_distance(folder: Path, first: int = 0, second: int = 1) -> float:
    centres = Scene.load(folder).world_from_camera[:, :3, 3]
    return float(np.linalg.norm(centres[first] - centres[second]))


def true_point(world: World, view: int, pixel: tuple[int, int]) -> np.ndarray:
    x, y = pixel
    return world.cameras[view].unproject(np.array(pixel, dtype=float), np.array(float(world.depth[view][y, x])))


def test_a_known_distance_gives_metres(refined: Path, world: World, tmp_path: Path) -> None:
    places = (200, 200), (300, 260)
    metres = float(np.linalg.norm(np.subtract(*(true_point(world, view, places[view]) for view in (0, 1)))))
    words = f"photo0.png 200 200 photo1 300 260 {metres}"
    figures = command("refine", refined, "-o", tmp_path / "out", "--distance", words)
    assert figures["units"] == "metres" and figures["cameras"] == "as they were" and not figures["warnings"]
    true = np.linalg.norm(world.cameras[0].centre - world.cameras[1].centre)
    assert exported_distance(tmp_path / "out") == pytest.approx(true, rel=0.1)


def test_known_intrinsics_are_kept_and_camera_height_gives_metres(plain: Path, world: World, tmp_path: Path) -> None:
    K = world.cameras[0].K
    given = ",".join(str(number) for number in (K[0, 0], K[1, 1], K[0, 2], K[1, 2]))
    options = ["--bundle-adjust", "--intrinsics", given, "--camera-height", "1.6", "--loss", "huber"]
    figures = command("refine", plain, "-o", tmp_path / "out", *options)
    assert figures["units"] == "metres" and "above the ground" in figures["changes"][-1]
    np.testing.assert_allclose(Scene.load(tmp_path / "out").K, np.stack([K] * VIEWS), atol=1e-9)


def test_known_cameras_stay(refined: Path, tmp_path: Path) -> None:
    figures = command("refine", refined, "-o", tmp_path / "out", "--bundle-adjust", "--known-cameras", "constant")
    assert figures["cameras"].startswith("refined by bundle adjustment") and figures["units"] == "metres"
    found, before = Scene.load(tmp_path / "out"), Scene.load(refined)
    np.testing.assert_allclose(found.world_from_camera, before.world_from_camera, atol=1e-9)


def test_dense_depth_with_a_networks_cameras_is_warned_of(plain: Path, refined: Path, tmp_path: Path) -> None:
    for scene, is_told in ((plain, True), (refined, False)):
        out = tmp_path / str(is_told)
        figures = command("refine", scene, "-o", out, "--densify", "--dense-size", "80", "--export", "")
        assert any("needs exact cameras" in told for told in figures["warnings"]) == is_told


# ------------------------------------------------------------------ a lens with distortion, and positions in the photos
LENS_K, K1 = 620.0, -0.15
PLACE = (47.5, 8.25)  # degrees north and east
METRES = 100.0  # to a unit of the world
PIXEL = 60  # x and y of a place near the corner
BENT = 4  # photos


@pytest.fixture(scope="module")
def bent(world: World, tmp_path_factory) -> Path:
    """The scene of photos that a lens with distortion takes, whose files say where they were taken."""
    folder = tmp_path_factory.mktemp("bent")
    (folder / "photos").mkdir()
    y, x = np.mgrid[:360, :480]
    rays = bent_lens().unproject(np.stack([x, y], axis=-1).reshape(-1, 2).astype(float))
    for index, (picture, camera) in enumerate(zip(world.pictures[:BENT], world.cameras[:BENT], strict=True)):
        seen = (rays / rays[:, 2:] @ camera.K.T)[:, :2].reshape(360, 480, 2).astype(np.float32)
        assert seen.min() > 0 and (seen.max(axis=(0, 1)) < [479, 359]).all()
        photo = cv2.remap(picture, seen[..., 0], seen[..., 1], cv2.INTER_CUBIC)
        exif = Image.Exif()
        exif[0x8825] = gps_tags(*METRES * (camera.centre - world.cameras[0].centre))
        Image.fromarray(photo).save(folder / "photos" / f"photo{index}.png", exif=exif)
    command("reconstruct", folder / "photos", "-o", folder / "plain", "--refine", "off")
    return folder / "plain"


def bent_lens() -> Lens:
    params = (LENS_K, LENS_K, 240.0, 180.0, K1, 0.0, 0.0, 0.0)
    return Lens(model="OPENCV", params=params, stored_size=(360, 480), original_from_stored=np.eye(3))


def gps_tags(east: float, down: float, north: float) -> dict:
    """Of a place so many metres from `PLACE`, where a degree of latitude is 111,178 m and one of longitude 75,339 m."""
    latitude, longitude = PLACE[0] + north / 111_178, PLACE[1] + east / 75_339
    return {1: "N", 2: (latitude, 0.0, 0.0), 3: "E", 4: (longitude, 0.0, 0.0), 5: b"\x00", 6: 500.0 - down}


def place_in(drawn: str | None, photo: Path) -> np.ndarray:
    """(2,) pixel at which the drawn photo shows what the photo shows around `PIXEL`."""
    patch = cv2.imread(str(photo))[PIXEL - 15 : PIXEL + 16, PIXEL - 15 : PIXEL + 16]
    likeness = cv2.matchTemplate(cv2.imread(str(drawn))[:120, :120], patch, cv2.TM_CCOEFF_NORMED)
    row, column = np.unravel_index(likeness.argmax(), likeness.shape)
    return np.array([column, row]) + 15


def digests(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_places_and_positions_are_those_of_the_photos_before_they_were_drawn_anew(
    bent: Path, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adjust = ["refine", bent, "-o", tmp_path / "out", "--bundle-adjust", "--camera-model", "OPENCV"]

    # A place near the corner moves by some pixels: the new photo shows there what the old one showed.
    figures = command(*adjust, "--distance", f"photo0 {PIXEL} {PIXEL} photo0 240 180 2", "--export", "splat-ready")
    assert figures["units"] == "metres"
    scene = Scene.load(tmp_path / "out")
    ((x, y), _) = re.findall(r"\(([\d.]+), ([\d.]+)\)", scene.provenance.changes[-1])
    used = np.array([x, y], dtype=float)
    found = place_in(scene.views[0].source, bent.parent / "photos" / "photo0.png")
    assert np.hypot(*(found - PIXEL)) > 2.5 and np.hypot(*(found - used)) < 1
    drawn = tmp_path / "out" / "undistorted" / "images"
    assert [view.source for view in scene.views] == [str(drawn / f"photo{index}.png") for index in range(BENT)]
    assert (tmp_path / "out" / "images" / "photo0.png").resolve() == (drawn / "photo0.png").resolve()

    # An interrupt leaves the earlier result whole, and nothing else behind.
    before = digests(tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr("manyview.app.refinement.fulfilled", interrupted)
        assert run.invoke(app, [*map(str, adjust), "--gps", "--overwrite"]).exit_code != 0
    assert digests(tmp_path / "out") == before

    # The next run finds the positions, and so will others, as the new photos say them, too.
    figures = command(*adjust, "--gps", "--overwrite")
    scene = Scene.load(tmp_path / "out")
    assert figures["units"] == "metres" and scene.world == "east down north"
    true = METRES * np.linalg.norm(world.cameras[0].centre - world.cameras[1].centre)
    assert exported_distance(tmp_path / "out") == pytest.approx(true, rel=0.05)
    positions = [read_gps(str(view.source)) for view in scene.views]
    assert positions[0] is not None and positions[0].latitude == pytest.approx(PLACE[0], abs=1e-7)
    assert digests(tmp_path / "out").keys() - before.keys() == {"points.ply", "scene.glb"}


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_run_that_was_interrupted_can_be_made_again_and_a_wish_that_comes_to_nothing_loses_no_work(
    bent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The corner is cut off when the photo is drawn anew, which only shows then.
    options = ["--bundle-adjust", "--camera-model", "SIMPLE_RADIAL", "--distance", "photo0 0 0 photo0 240 180 2"]
    adjust = ["refine", bent, "-o", tmp_path / "out", *options]
    with monkeypatch.context() as patched:
        patched.setattr("manyview.app.refinement.fulfilled", interrupted)
        assert run.invoke(app, [*map(str, adjust)]).exit_code != 0
    assert not (tmp_path / "out").exists()
    figures = command(*adjust, "--overwrite")
    assert figures["cameras"].startswith("refined by bundle adjustment") and "not metres" in figures["units"]
    (told,) = [told for told in figures["warnings"] if "--distance" in told]
    assert "has had no effect" in told and "cut off" in told


# ------------------------------------------------------------------ reports and errors
def test_a_report_on_photos_stands_on_its_own(world: World, tmp_path: Path) -> None:
    Image.new("RGB", (2000, 20)).save(tmp_path / "strip.png")
    figures = command("report", *sorted(world.folder.iterdir()), tmp_path / "strip.png", "-o", tmp_path / "out")
    assert figures["photos"] == VIEWS + 1 and figures["matched"] == VIEWS and figures["connected parts"] == 1
    report = read_json(tmp_path / "out" / "report.json")
    assert report["refined"] is None and len(report["photos"]["photos"]) == VIEWS + 1
    assert "strip.png is not matched with the others" in report["photos"]["warnings"][0]
    assert "strip.png is not matched" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "nothing to do"),
        (["--up", "ground", "--intrinsics", "1,1,1,1"], "--intrinsics: of no use without --bundle-adjust"),
        (["--densify", "--loss", "none", "--focal", "shared"], "--focal, --loss: of no use without --bundle-adjust"),
        (["--bundle-adjust", "--dense-size", "640"], "--dense-size: of no use without --densify"),
        (["--bundle-adjust", "--baseline", "photo0 photo9 1"], "named photo9"),
        (["--bundle-adjust", "--up", "0,0,0"], "direction up"),
        (["--bundle-adjust", "--gps"], "0 photos have a GPS position"),
        (["--bundle-adjust", "--intrinsics", "500,500,2000,180"], "far from its middle"),
        (["--bundle-adjust", "--camera-model", "FISHEYE"], "FISHEYE is not known"),
        (["--baseline", "photo0 photo9 1"], "named photo9"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_work(
    plain: Path, tmp_path: Path, options: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyview.refine.exact_cameras.extract_features", None)  # work would fail
    result = run.invoke(app, ["refine", str(plain), "-o", str(tmp_path / "out"), *options])
    assert result.exit_code != 0 and words in str(result.exception)
    assert not (tmp_path / "out").exists()
