"""What is known of the cameras is kept, converted from pixels of the originals, and makes results better."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import manyview
from exact_network import (
    Photo,
    cameras_in_first,
    exact_model,
    expect_points_are_unprojected_depth,
    expect_true,
    network_of,
    photos,
    scale_of,
    take_photo,
    true_depth,
)
from manyview.errors import InputError
from manyview.evaluation import evaluate_poses
from manyview.methods.dust3r import Dust3ROptions
from manyview.methods.model import Model
from manyview.scene import Scene
from toys import tiny_model

OFF_CENTRE = (0.08, -0.1)


def reconstruct(known: Sequence[Photo], model: Model | None = None, **options) -> Scene:
    return (model or exact_model(known)).reconstruct([photo.pixels for photo in known], **options)


def K_of(known: Sequence[Photo]) -> np.ndarray:
    return np.stack([photo.camera.K for photo in known])


def cameras_of(known: Sequence[Photo], views: Sequence[int] | None = None) -> list[np.ndarray | None]:
    """World_from_camera of these views, None for the others."""
    wanted = range(len(known)) if views is None else views
    return [photo.camera.world_from_camera if view in wanted else None for view, photo in enumerate(known)]


def depth_error(scene: Scene, known: Sequence[Photo]) -> float:
    scale = scale_of(scene, known)
    errors = [np.abs(v.depth / scale / true_depth(p, v) - 1)[v.valid] for v, p in zip(scene.views, known, strict=True)]
    return float(np.concatenate(errors).mean())


# ---------------------------------------------------------------- intrinsics
@pytest.mark.parametrize(
    ("sizes", "tolerance"),
    [
        ([(192, 256)] * 3, 1e-4),
        ([(250, 400)] * 3, 5e-3),
        ([(192, 256), (128, 96), (100, 100)], 2e-3),
    ],
    ids=["large", "cropped", "mixed"],
)
def test_intrinsics_of_the_originals_are_kept_exactly_and_used_in_the_networks_pixels(sizes, tolerance):
    known = [take_photo(number, size=size, off_centre=OFF_CENTRE) for number, size in enumerate(sizes)]
    K = K_of(known)
    scene = reconstruct(known, intrinsics=K)
    expect_true(scene, known, tolerance=tolerance)
    np.testing.assert_array_equal(scene.K, K)
    assert scene.provenance.settings["intrinsics"] == "given"
    if len(set(sizes)) == 1:
        assert reconstruct(known, intrinsics=K[0]).equals(scene)


def test_intrinsics_are_used_where_photos_are_padded():
    known = photos(3, size=(90, 128), off_centre=OFF_CENTRE)
    scene = reconstruct(known, exact_model(known, fit="pad"), fit="pad", intrinsics=known[0].camera.K)
    expect_true(scene, known, tolerance=5e-3)


def test_intrinsics_make_the_result_better():
    known = photos(4, off_centre=OFF_CENTRE)
    model = exact_model(known, noise=0.02)
    truth = cameras_in_first(known)
    without, given = reconstruct(known, model), reconstruct(known, model, intrinsics=known[0].camera.K)
    errors = [evaluate_poses(scene.world_from_camera, truth).median_rotation_error for scene in (without, given)]
    assert errors[1] < 0.5 * errors[0]
    assert depth_error(given, known) < 0.8 * depth_error(without, known)


def test_the_intrinsics_of_one_photo_alone_are_used():
    known = photos(1, off_centre=OFF_CENTRE)
    scene = reconstruct(known, intrinsics=known[0].camera.K)
    expect_true(scene, known, tolerance=1e-4)
    np.testing.assert_array_equal(scene.K[0], known[0].camera.K)


def test_unequal_focal_lengths_are_kept_and_points_fit_them():
    known = photos(3)
    K = known[0].camera.K * [[1.04], [0.97], [1]]
    K[:2, 2] = known[0].camera.K[:2, 2]
    scene = reconstruct(known, intrinsics=K)
    for view in scene.views:
        assert view.camera is not None
        np.testing.assert_array_equal(view.camera.K, K)
        expect_points_are_unprojected_depth(view, view.camera)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda K: 0.5 * K + [[0, 0, 128], [0, 0, 0], [0, 0, 0.5]], "principal point .* outside"),
        (lambda K: K * [[1.5], [1], [1]] - [[0, 0, 30], [0, 0, 0], [0, 0, 0]], "differ too much"),
        (lambda K: K * [[-1], [1], [1]] + [[0, 0, 128], [0, 0, 0], [0, 0, 0]], "pixels above 0"),
        (lambda K: K * [[100, 1, 1], [1, 100, 1], [1, 1, 1]], "does not fit a picture"),
        (lambda K: K.T, "not a camera matrix"),
        (lambda K: K - [[0, 5, 0], [0, 0, 0], [0, 0, 0]], "without skew"),
        (lambda K: np.full((3, 3), np.nan), "pixels above 0"),
        (lambda K: K[:2], r"shape \(2, 3\) for 3 views"),
        (lambda K: np.stack([K, K]), r"shape \(2, 3, 3\) for 3 views"),
        (lambda K: [K.tolist(), [1.0]], "cannot be read as numbers"),
        (lambda K: "800", "shape"),
    ],
)
def test_intrinsics_that_cannot_be_right_are_errors_before_the_network_runs(change, message):
    known = photos(3)
    model = exact_model(known)
    with pytest.raises(InputError, match=message):
        reconstruct(known, model, intrinsics=change(known[0].camera.K))
    assert network_of(model).encoded == 0


def test_intrinsics_of_another_picture_size_are_an_error_that_says_which_pixels_to_use():
    known = photos(2)
    with pytest.raises(InputError, match=r"array#0: the principal point") as caught:
        reconstruct(known, intrinsics=np.diag([4, 4, 1]) @ known[0].camera.K)
    assert "here 128 x 96" in caught.value.hint


# ---------------------------------------------------------------- cameras
@pytest.mark.parametrize("views", [[0, 1, 2, 3], [1, 3]], ids=["all", "two"])
def test_two_known_cameras_or_more_give_their_world_and_its_unit(views):
    known = photos(4)
    scene = reconstruct(known, world_from_camera=cameras_of(known, views))
    expect_true(scene, known, given=True, scale=1.0, tolerance=5e-3)
    for view in views:
        np.testing.assert_allclose(scene.world_from_camera[view], known[view].camera.world_from_camera, atol=1e-9)
    assert scene.world == "given"
    assert scene.frame == "world = that of the given cameras, OpenCV axes: x right, y down, z forward"
    assert scene.provenance.settings["known_cameras"] == len(views)
    assert scene.warnings == []


@pytest.mark.parametrize("view", [0, 2])
def test_one_known_camera_gives_its_world_but_not_its_unit(view):
    known = photos(4)
    scene = reconstruct(known, world_from_camera=cameras_of(known, [view]))
    np.testing.assert_allclose(scene.world_from_camera[view], known[view].camera.world_from_camera, atol=1e-9)
    assert scene.world == "given"
    scale = scale_of(scene, known)
    for found, photo in zip(scene.world_from_camera, known, strict=True):
        true = photo.camera.world_from_camera
        np.testing.assert_allclose(found[:3, :3], true[:3, :3], atol=2e-3)
        way = true[:3, 3] - known[view].camera.centre
        np.testing.assert_allclose(found[:3, 3] - known[view].camera.centre, scale * way, atol=0.01)


def test_known_cameras_make_the_result_better():
    known = photos(5)
    model = exact_model(known, noise=0.03)
    without, given = reconstruct(known, model), reconstruct(known, model, world_from_camera=cameras_of(known))
    both = reconstruct(known, model, world_from_camera=cameras_of(known, [0, 1, 2]), intrinsics=K_of(known))
    truth = K_of(known)[:, 0, 0]
    focal_errors = [np.abs(scene.K[:, 0, 0] / truth - 1).mean() for scene in (without, given)]
    assert focal_errors[1] < 0.5 * focal_errors[0]
    assert depth_error(given, known) < 0.9 * depth_error(without, known)
    assert depth_error(both, known) < 0.9 * depth_error(without, known)
    assert scale_of(both, known) == pytest.approx(1, abs=0.05)


def test_a_known_camera_of_one_photo_alone_places_it():
    known = photos(1)
    scene = reconstruct(known, world_from_camera=cameras_of(known))
    np.testing.assert_allclose(scene.world_from_camera[0], known[0].camera.world_from_camera, atol=1e-12)
    assert scene.world == "given"


def test_the_compatible_alignment_takes_known_cameras_and_intrinsics():
    known = photos(3)
    options = Dust3ROptions(alignment="compatible", iterations=5)
    scene = reconstruct(known, options=options, world_from_camera=cameras_of(known), intrinsics=K_of(known))
    np.testing.assert_allclose(scene.world_from_camera, np.stack(cameras_of(known)), atol=1e-5)  # pyright: ignore
    assert scene.world == "given"
    for view, photo in zip(scene.views, known, strict=True):
        np.testing.assert_allclose(view.depth, true_depth(photo, view), rtol=0.05)


def test_none_for_every_camera_is_as_if_none_were_given():
    known = photos(3)
    plain, empty = reconstruct(known), reconstruct(known, world_from_camera=[None] * 3)
    assert empty.equals(plain)
    assert empty.world == "first camera"


NOT_RIGID = np.diag([2.0, 2.0, 2.0, 1.0])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([None, NOT_RIGID, None], "picture 1 is not a rigid"),
        ([None, None, np.diag([1.0, 1.0, -1.0, 1.0])], "picture 2 is not a rigid"),
        ([np.eye(3), None, None], "picture 0 is not a rigid"),
        ([np.full((4, 4), np.nan), None, None], "picture 0 is not a rigid"),
        ([np.eye(4), None], "got 2 known cameras for 3 views"),
        ([[[1.0], [2.0, 3.0]], None, None], "cannot be read as numbers"),
    ],
)
def test_cameras_that_cannot_be_right_are_errors_before_the_network_runs(wrong, message):
    known = photos(3)
    model = exact_model(known)
    with pytest.raises(InputError, match=message):
        reconstruct(known, model, world_from_camera=wrong)
    assert network_of(model).encoded == 0


def test_a_wrong_camera_of_one_photo_alone_is_an_error_too():
    with pytest.raises(InputError, match="not a rigid"):
        reconstruct(photos(1), world_from_camera=[NOT_RIGID])


def test_a_family_that_cannot_use_known_cameras_says_so():
    with pytest.raises(InputError, match="Fast3R cannot make use of known cameras") as caught:
        manyview.reconstruct([photos(1)[0].pixels], tiny_model(), world_from_camera=[np.eye(4)])
    assert "DUSt3R" in caught.value.hint


# ---------------------------------------------------------------- known cameras of photos that nothing links
def in_rooms(*rooms: int) -> list[Photo]:
    return [take_photo(number, room=room) for number, room in enumerate(rooms)]


def test_parts_that_known_cameras_place_share_one_group():
    known = in_rooms(0, 1, 0, 1, 0, 2)
    scene = reconstruct(known, world_from_camera=cameras_of(known, [0, 1, 2, 3]))
    assert [view.group for view in scene.views] == [0, 0, 0, 0, 0, 1]
    assert scene.world == "given"
    linked = scene.group(0)
    expect_true(linked, known[:5], given=True, scale=1.0, tolerance=5e-3)
    assert linked.world == "given"
    assert scene.group(1).world == "first camera"
    np.testing.assert_array_equal(scene.group(1).world_from_camera[0], np.eye(4))
    assert "fall into 2 groups" in scene.warnings[0]


def test_a_small_part_that_known_cameras_place_is_the_world():
    known = in_rooms(0, 0, 0, 1, 1)
    scene = reconstruct(known, world_from_camera=cameras_of(known, [3, 4]))
    assert [view.group for view in scene.views] == [1, 1, 1, 0, 0]
    assert scene.world == "given"
    expect_true(scene.group(0), known[3:], given=True, scale=1.0, tolerance=5e-3)
    expect_true(scene.group(1), known[:3], tolerance=1e-3)


def test_a_known_camera_that_cannot_place_its_part_is_told_of():
    known = in_rooms(0, 0, 0, 1, 1)
    scene = reconstruct(known, world_from_camera=cameras_of(known, [3]))
    assert [view.group for view in scene.views] == [0, 0, 0, 1, 1]
    assert scene.world == "first camera"
    assert scene.origin == "world = camera of the first view"
    assert any("known cameras of array#3 could not be used" in warning for warning in scene.warnings)
    for number, members in enumerate((known[:3], known[3:])):
        expect_true(scene.group(number), members, tolerance=1e-3)
        np.testing.assert_array_equal(scene.group(number).world_from_camera[0], np.eye(4))


def test_one_known_camera_of_the_largest_part_gives_its_world_and_others_stay_apart():
    known = in_rooms(0, 0, 0, 1, 1)
    scene = reconstruct(known, world_from_camera=cameras_of(known, [1, 4]))
    assert [view.group for view in scene.views] == [0, 0, 0, 1, 1]
    assert scene.world == "given"
    np.testing.assert_allclose(scene.world_from_camera[1], known[1].camera.world_from_camera, atol=1e-9)
    assert any("known cameras of array#4" in warning for warning in scene.warnings)
    expect_true(scene.group(1), known[3:], tolerance=1e-3)


def test_known_cameras_that_stand_in_one_place_do_not_join_parts():
    known = [*in_rooms(0, 0, 0), take_photo(7, room=1), take_photo(7, room=1), take_photo(8, room=1)]
    given = cameras_of(known, [0, 1, 3, 4])
    scene = reconstruct(known, world_from_camera=given)
    assert [view.group for view in scene.views] == [0, 0, 0, 1, 1, 1]
    assert any("array#3, array#4 could not be used" in warning for warning in scene.warnings)


def test_cameras_of_some_views_do_not_let_the_scene_collapse():
    known = photos(5)
    model = exact_model(known, noise=0.03)
    for views in ([0, 1], [0, 1, 2]):
        scene = reconstruct(known, model, world_from_camera=cameras_of(known, views))
        assert scale_of(scene, known) == pytest.approx(1, abs=0.03)
        np.testing.assert_allclose(scene.K[:, 0, 0], K_of(known)[:, 0, 0], rtol=0.05)
        found = np.linalg.inv(scene.world_from_camera[0]) @ scene.world_from_camera
        np.testing.assert_allclose(found[:, :3, :3], cameras_in_first(known)[:, :3, :3], atol=0.02)
