"""The picture of a scene and the demonstration: what they show, what they write, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest
from PIL import Image

import manyview
from manyview.app.demo import DEMO_SEED, PHOTO_SETTINGS, run_demo
from manyview.app.picture import (
    EMPTY,
    VIEW_COLOURS,
    WIDTH,
    align_cameras,
    confidence_colours,
    depth_colours,
    save_picture,
    scene_picture,
    top_view,
)
from manyview.errors import ExportError, InputError
from manyview.evaluation.held_out import Truth, compare_with_truth, photograph_world
from manyview.scene import Scene, SceneView
from manyview.training.data import FIRST_HELD_OUT_SEED
from scenes import synthetic_scene, with_view, without_camera, without_points
from toys import MOVE, oracle_scene, tiny_model


def truth_of(scene: Scene) -> Truth:
    return Truth(cameras=[view.camera for view in scene.views], depth=[None] * len(scene.views))


def pixels_near(picture: np.ndarray, colour: tuple[int, int, int], tolerance: int = 12) -> int:
    return int((np.abs(picture.astype(int) - colour).max(-1) <= tolerance).sum())


# ---------------------------------------------------------------- the picture
@pytest.mark.parametrize("views", [1, 2, 4, 9])
def test_a_picture_is_1200_wide_and_shows_photos_depth_confidence_and_points(views):
    picture = scene_picture(synthetic_scene(views))
    assert picture.dtype == np.uint8 and picture.shape[1:] == (WIDTH, 3) and 400 < picture.shape[0] < 1000
    left, right = picture[60:300, 20 : WIDTH // 3], picture[60:300, WIDTH // 2 : -30]
    assert left.std() > 20 and right.std() > 10


def test_a_picture_is_the_same_each_time_and_does_not_change_the_scene():
    scene = synthetic_scene(3)
    np.testing.assert_array_equal(scene_picture(scene), scene_picture(scene))
    assert scene.equals(synthetic_scene(3))


def test_each_found_camera_is_drawn_in_its_colour_and_one_that_was_not_found_is_missing():
    scene = synthetic_scene(3)
    with_all = top_view(scene, None, (400, 500))
    without_last = top_view(without_camera(scene, 2), None, (400, 500))
    assert min(pixels_near(with_all, colour) for colour in VIEW_COLOURS[:3]) > 50
    assert pixels_near(without_last, VIEW_COLOURS[2]) < 10


def test_true_cameras_are_laid_over_the_found_ones():
    _, truth = photograph_world(FIRST_HELD_OUT_SEED + 1, 3, (24, 32))
    scene = oracle_scene(truth)  # in another frame and scale
    over, itself = top_view(scene, truth, (300, 400)), top_view(scene, truth_of(scene), (300, 400))
    assert (over != itself).any(-1).mean() < 0.005, "but for lines that rounding moves to the next pixel"
    assert not np.array_equal(top_view(scene, truth, (300, 400)), top_view(scene, None, (300, 400)))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_aligned_cameras_coincide_if_they_differ_by_a_similarity(count):
    cameras = [view.camera for view in synthetic_scene(count).views]
    moved = [replace(c, world_from_camera=MOVE.apply_to_camera(c.world_from_camera)) for c in cameras]
    fit = align_cameras(cameras, moved)
    assert fit.scale == pytest.approx(MOVE.scale if count > 1 else 1.0)
    for camera, expected in zip(cameras, moved, strict=True):
        np.testing.assert_allclose(fit.apply_to_camera(camera.world_from_camera), expected.world_from_camera, atol=1e-9)


def test_near_is_red_far_is_blue_and_no_depth_is_grey():
    scene = synthetic_scene(1)
    view = scene.views[0]
    depth = np.tile(np.linspace(1, 5, view.size[1], dtype=np.float32), (view.size[0], 1))
    (colours,) = depth_colours([replace(view, depth=depth)])
    red, _, blue = colours[5, 1].astype(int)
    assert red > blue + 50
    red, _, blue = colours[5, -6].astype(int)
    assert blue > red
    assert (colours[~view.valid] == EMPTY).all()
    (sure,) = confidence_colours([replace(view, confidence=depth)])
    assert sure[5, 1].sum() < sure[5, -6].sum()


def test_all_views_share_one_scale_of_depth():
    view = synthetic_scene(1).views[0]
    near, far = (replace(view, depth=np.full(view.size, value, np.float32)) for value in (1.0, 4.0))
    first, second = depth_colours([near, far])
    assert np.abs(first[3, 3].astype(int) - second[3, 3]).max() > 100


@pytest.mark.parametrize(
    "scene",
    [
        without_points(synthetic_scene(2)),
        without_camera(without_camera(synthetic_scene(2), 0), 1),
        with_view(synthetic_scene(1), 0, status="low_confidence"),
    ],
    ids=["no points", "no cameras", "low confidence"],
)
def test_scenes_that_lack_something_are_drawn_all_the_same(scene):
    assert scene_picture(scene, truth=truth_of(synthetic_scene(len(scene.views)))).std() > 10


def test_a_camera_that_looks_straight_down_is_drawn():
    scene = synthetic_scene(1)
    camera = scene.views[0].camera
    down = np.eye(4)
    down[:3, :3] = [[1, 0, 0], [0, 0, 1], [0, -1, 0]]
    drawn = top_view(with_view(scene, 0, camera=replace(camera, world_from_camera=down)), None, (200, 300))
    missing = top_view(without_camera(scene, 0), None, (200, 300))
    assert pixels_near(drawn, VIEW_COLOURS[0]) > 20 > pixels_near(missing, VIEW_COLOURS[0])


def test_given_photos_are_shown_instead_of_small_pictures():
    scene = synthetic_scene(2)
    photos = [np.full((90, 120, 3), (250, 10, 240), np.uint8)] * 2
    assert pixels_near(scene_picture(scene, photos=photos), (250, 10, 240)) > 10_000
    assert pixels_near(scene_picture(scene), (250, 10, 240)) == 0


def upright(view: SceneView) -> SceneView:
    names = ("image", "depth", "points", "confidence", "valid")
    return replace(view, **{n: np.ascontiguousarray(getattr(view, n).swapaxes(0, 1)) for n in names})


def length_of_first_run(flags: np.ndarray) -> int:
    return next(len(list(members)) for flag, members in groupby(flags) if flag)


@pytest.mark.parametrize("turn", [lambda view: view, upright], ids=["wide", "upright"])
def test_pictures_keep_their_shape(turn):
    scene = synthetic_scene(2)
    views = [turn(view) for view in scene.views]
    height, width = views[0].size
    photos = [np.full((3 * height, 3 * width, 3), (250, 10, 240), np.uint8)] * 2
    picture = scene_picture(replace(scene, views=views), photos=photos)
    shown = np.abs(picture.astype(int) - (250, 10, 240)).max(-1) <= 12
    got = length_of_first_run(shown.any(axis=1)) / length_of_first_run(shown.any(axis=0))
    assert got == pytest.approx(height / width, rel=0.05)


def test_a_saved_picture_is_read_back_and_replaces_an_earlier_one(tmp_path):
    path = tmp_path / "new" / "picture.png"
    save_picture(synthetic_scene(1), path)
    assert save_picture(synthetic_scene(3), path) == path
    with Image.open(path) as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(np.asarray(image), scene_picture(synthetic_scene(3)))
    assert [entry.name for entry in path.parent.iterdir()] == ["picture.png"]


def test_pictures_that_cannot_be_made_are_errors(tmp_path):
    scene = synthetic_scene(2)
    with pytest.raises(InputError, match="at least one view"):
        scene_picture(replace(scene, views=()))
    with pytest.raises(InputError, match="1 photos for 2 views"):
        scene_picture(scene, photos=[scene.views[0].image])
    with pytest.raises(InputError, match="3 true cameras for 2 views"):
        scene_picture(scene, truth=truth_of(synthetic_scene(3)))
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot write"):
        save_picture(scene, tmp_path / "file" / "picture.png")


# ---------------------------------------------------------------- the demonstration
@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return run_demo(tmp_path_factory.mktemp("demo") / "out", model=tiny_model(), views=3)


def test_the_demo_writes_all_that_it_says(demo):
    assert all(path.is_file() and path.stat().st_size > 0 for path in demo.files)
    names = {path.relative_to(demo.folder).as_posix() for path in demo.files}
    expected = {"photos/01.png", "photos/03.png", "scene.json", "scene.safetensors", "points.ply", "scene.glb"}
    assert expected | {"picture.png", "errors.json"} <= names
    assert manyview.Scene.load(demo.folder).equals(demo.scene)
    with Image.open(demo.picture) as image:
        assert image.width == WIDTH


def test_the_demo_reconstructs_from_photos_of_a_world_that_was_never_trained_on(demo):
    assert demo.seed == DEMO_SEED >= FIRST_HELD_OUT_SEED
    pictures, truth = photograph_world(DEMO_SEED, 3, (72, 96), PHOTO_SETTINGS)
    assert [view.source for view in demo.scene.views] == [str(path) for path in demo.photos]
    for path, picture in zip(demo.photos, pictures, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), picture)
    expected = compare_with_truth(demo.scene, truth)
    assert (demo.errors.depth_error, demo.errors.point_error) == (expected.depth_error, expected.point_error)


def test_the_demo_writes_the_errors_it_returns(demo):
    written = json.loads((demo.folder / "errors.json").read_text())
    assert written == {"seed": DEMO_SEED, "views": 3, **demo.figures}
    assert written["median_relative_depth_error"] > 0.01 and 0 <= written["rra15"] <= 1


def test_the_demo_replaces_its_own_files_only_and_not_unasked(demo, tmp_path):
    again = run_demo(demo.folder, model=tiny_model(), views=3)
    assert again.figures == demo.figures
    with pytest.raises(ExportError, match="already holds"):
        run_demo(demo.folder, model=tiny_model(), views=3, overwrite=False)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "01.png").write_text("mine")
    with pytest.raises(ExportError, match="did not write"):
        run_demo(tmp_path, model=tiny_model(), views=2)
    assert (tmp_path / "photos" / "01.png").read_text() == "mine"


@pytest.mark.parametrize(("seed", "views"), [(7, 4), (FIRST_HELD_OUT_SEED - 1, 4), (1 << 63, 4), (None, 1), (None, 65)])
def test_worlds_that_may_have_been_trained_on_are_refused(tmp_path, seed, views):
    words = "no model was trained on have seeds from" if seed is not None else f"2 to 64 views, got {views}"
    with pytest.raises(InputError, match=words):
        run_demo(tmp_path / "out", model=tiny_model(), seed=seed, views=views)
    assert not (tmp_path / "out").exists()


def test_progress_of_the_demo_is_reported(tmp_path):
    said = []
    run_demo(
        tmp_path, model=tiny_model(), views=2, formats=("ply",), progress=lambda done, total, what: said.append(what)
    )
    assert said[0] == "rendering a world" and said[-1] == "writing files" and "reading photos" in said
