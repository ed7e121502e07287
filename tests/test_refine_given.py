"""Intrinsics and cameras that are known: what is held, what is followed, and what is said when they are wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from manyview.errors import InputError
from manyview.geometry import transform_pixels
from manyview.refine.agreement import Agreement
from manyview.refine.exact_cameras import refine_features
from manyview.refine.options import GivenCameras, RefineOptions
from manyview.refine.settling import Mapped
from manyview.refine.warn import _gain
from sparse_worlds import cameras_around, errors_of, network_scene, photographed

OPTIONS = RefineOptions(threads=1)
CONSTANT = replace(OPTIONS, known_cameras="constant")


@pytest.fixture(scope="module")
def world():
    return photographed(cameras_around(6), noise=0.3)


@pytest.fixture(scope="module")
def scene(world):
    return network_scene(world, turn=2, shift=0.1, focal=1.04)


def exact(world, *which: int) -> GivenCameras:
    cameras = [camera.world_from_camera if view in which else None for view, camera in enumerate(world.cameras)]
    return GivenCameras(world_from_camera=cameras)


def distances(found, world) -> np.ndarray:
    centres = np.array([camera.centre for camera in world.cameras])
    return np.linalg.norm(found.scene.world_from_camera[:, :3, 3] - centres, axis=1)


# ------------------------------------------------------------------ intrinsics
def test_given_intrinsics_stay_to_the_last_bit(world, scene):
    K = world.cameras[0].K
    found = refine_features(scene, world.features, OPTIONS, given=GivenCameras(K=[K] * 6))
    np.testing.assert_allclose(found.scene.K, np.broadcast_to(K, (6, 3, 3)), rtol=0, atol=1e-12)
    assert found.kept == "refined" and not any("intrinsics" in told for told in found.warnings)


def test_intrinsics_given_for_some_views_leave_the_others_free(world, scene):
    K = world.cameras[0].K
    found = refine_features(scene, world.features, OPTIONS, given=GivenCameras(K=[K] * 3 + [None] * 3))
    np.testing.assert_allclose(found.scene.K[:3], np.broadcast_to(K, (3, 3, 3)), rtol=0, atol=1e-12)
    assert not np.allclose(found.scene.K[3:], scene.K[3:], rtol=0.01)  # the network's are 4 % off
    np.testing.assert_allclose(found.scene.K[3:, 0, 0], K[0, 0], rtol=0.02)


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_wrong_given_intrinsics_are_kept_and_called_into_question(world, scene, factor):
    K = world.cameras[0].K @ np.diag([factor, factor, 1])
    found = refine_features(scene, world.features, OPTIONS, given=GivenCameras(K=[K] * 6))
    told = [words for words in found.warnings if "given intrinsics do not fit" in words]
    assert len(told) == 1 and f"{520 * factor:.0f} was given" in told[0] and "the photos say 5" in told[0]
    assert len(found.scene.views) == 6
    if found.kept == "refined":
        np.testing.assert_allclose(found.scene.K[0], K, atol=1e-12)


def test_the_networks_intrinsics_can_be_kept(world):
    scene = network_scene(world, turn=2, shift=0.1)
    found = refine_features(scene, world.features, replace(OPTIONS, refine_intrinsics=False))
    assert found.kept == "refined"
    np.testing.assert_allclose(found.scene.K, scene.K, atol=1e-12)


@pytest.fixture(scope="module")
def two_lenses():
    """Photos of one size by two cameras."""
    world = photographed(cameras_around(6, focals=[520, 700] * 3), noise=0.2)
    return world, network_scene(world)


def test_focal_lengths_that_are_to_be_kept_are_kept_view_by_view(two_lenses):
    world, scene = two_lenses
    found = refine_features(scene, world.features, replace(OPTIONS, refine_intrinsics=False))
    np.testing.assert_array_equal(found.scene.K, scene.K)
    assert found.kept == "refined" and found.reprojection_error < 0.5


@pytest.mark.parametrize("as_prior", [True, False])
def test_known_cameras_with_lenses_of_their_own_are_not_called_into_question(two_lenses, as_prior):
    world, scene = two_lenses
    known = GivenCameras(world_from_camera=[view.camera.world_from_camera for view in scene.views])
    found = refine_features(scene, world.features, OPTIONS if as_prior else CONSTANT, given=known)
    assert found.kept == "refined" and found.warnings == ()
    np.testing.assert_allclose(found.scene.K[:, 0, 0], scene.K[:, 0, 0], rtol=0.02)


def test_imported_cameras_keep_lenses_of_their_own(two_lenses):
    world, scene = two_lenses
    found = refine_features(replace(scene, world="given"), world.features, OPTIONS)
    assert found.kept == "refined" and found.after.explained > 0.99
    np.testing.assert_allclose(found.scene.K[:, 0, 0], scene.K[:, 0, 0], rtol=0.02)


def test_what_other_intrinsics_would_be_better_in_is_said(world):
    def mapped(views: int, explained: float) -> Mapped:
        agreement = Agreement(matches=9, explained=explained, score=explained, median_error=1.0)
        return Mapped(
            model=None, how="start", views=tuple(range(views)), guessed=frozenset(),
            agreement=agreement, within=agreement,
        )  # fmt: skip

    assert _gain(mapped(5, 0.9), mapped(4, 0.9)) == "5 photos instead of 4"
    assert _gain(mapped(5, 0.9), None) == "5 photos instead of 0"
    assert _gain(mapped(5, 0.9), mapped(5, 0.6)) == "90% of the matches explained instead of 60%"


# ------------------------------------------------------------------ cameras
@pytest.mark.parametrize("which", [(0, 1, 2), (1, 4), (0, 1, 2, 3, 4, 5)])
def test_constant_cameras_stay_where_they_are_and_the_others_join_them(world, scene, which):
    found = refine_features(scene, world.features, CONSTANT, given=exact(world, *which))
    assert found.scene.world == "given" and found.registered == tuple(range(6))
    for view in which:
        given = world.cameras[view].world_from_camera
        np.testing.assert_allclose(found.scene.views[view].camera.world_from_camera, given, rtol=0, atol=1e-9)
    assert distances(found, world).max() < 0.1


def test_depth_and_points_come_along_into_the_given_world(world, scene):
    found = refine_features(scene, world.features, OPTIONS, given=exact(world, *range(6)))
    for index, view in enumerate(found.scene.views):
        pixels, depth, _ = found.points.of_view(index)
        x, y = np.rint(transform_pixels(np.linalg.inv(view.original_from_network), pixels)).astype(int).T
        assert np.median(view.depth[y, x] / depth) == pytest.approx(1, abs=0.03)  # the network's units are 0.4 of these
        assert np.median(view.camera.project(view.points[y, x])[1] / depth) == pytest.approx(1, abs=0.03)
    assert 0.1 < max(outcome.turned for outcome in found.views) < 4
    assert max(outcome.moved for outcome in found.views) < 0.5


def test_one_constant_camera_says_where_the_world_is(world, scene):
    found = refine_features(scene, world.features, CONSTANT, given=exact(world, 5))
    np.testing.assert_allclose(
        found.scene.views[5].camera.world_from_camera, world.cameras[5].world_from_camera, atol=1e-9
    )
    assert found.scene.world == "given" and errors_of(found.scene, world.cameras)[0] < 0.5


def test_constant_cameras_far_from_each_other_are_held_although_no_match_links_them():
    shown = np.zeros((8, 400), bool)
    shown[:5, :200] = shown[3:, 200:] = True  # views 3 and 4 see both sides
    world = photographed(cameras_around(8), points=400, shown=shown)
    scene = network_scene(world, turn=1, shift=0.05)
    found = refine_features(scene, world.features, CONSTANT, given=exact(world, 0, 7))
    assert found.registered == tuple(range(8))
    assert distances(found, world).max() < 1e-3


def test_given_positions_are_a_prior_that_is_stayed_near(world, scene):
    generator = np.random.default_rng(2)
    near = [camera.world_from_camera.copy() for camera in world.cameras]
    for matrix in near:
        matrix[:3, 3] += generator.normal(size=3) * 0.02
    found = refine_features(scene, world.features, OPTIONS, given=GivenCameras(world_from_camera=near))
    assert found.scene.world == "given"
    assert distances(found, world).max() < 0.1
    moved = np.linalg.norm(found.scene.world_from_camera[:, :3, 3] - np.array(near)[:, :3, 3], axis=1)
    assert moved.min() > 0 and moved.max() < 0.1


def test_one_given_position_that_is_far_off_does_not_pull_the_others(world, scene):
    cameras = [camera.world_from_camera.copy() for camera in world.cameras]
    cameras[2][:3, 3] += 3
    found = refine_features(scene, world.features, OPTIONS, given=GivenCameras(world_from_camera=cameras))
    assert distances(found, world).max() < 0.1


def test_given_positions_hold_a_model_that_was_made_photo_by_photo(world):
    scene = network_scene(world, turn=60, shift=3)
    found = refine_features(scene, world.features, OPTIONS, given=exact(world, 0, 2, 4, 5))
    assert found.scene.world == "given" and distances(found, world).max() < 0.1


@pytest.mark.parametrize("options", [OPTIONS, CONSTANT])
def test_given_cameras_place_groups_that_no_match_links(options):
    shown = np.zeros((8, 400), bool)
    shown[:4, :200] = shown[4:, 200:] = True
    world = photographed(cameras_around(8), points=400, shown=shown)
    scene = network_scene(world, turn=2, shift=0.1)
    found = refine_features(scene, world.features, options, given=exact(world, *range(8)))
    assert distances(found, world).max() < 1e-3
    assert [view.status for view in found.scene.views] == ["used"] * 8
    assert not any("estimate alone" in told for told in found.warnings)


def test_a_given_camera_of_a_view_without_matches_still_says_where_the_world_is():
    shown = np.ones((6, 250), bool)
    shown[0] = False
    world = photographed(cameras_around(6), shown=shown)
    found = refine_features(network_scene(world), world.features, OPTIONS, given=exact(world, 0))
    np.testing.assert_allclose(
        found.scene.views[0].camera.world_from_camera, world.cameras[0].world_from_camera, atol=1e-6
    )
    assert found.scene.world == "given"


def test_wrong_given_cameras_are_called_into_question(world, scene):
    mixed = [world.cameras[view].world_from_camera for view in (3, 5, 1, 0, 2, 4)]
    for options in (OPTIONS, CONSTANT):
        found = refine_features(scene, world.features, options, given=GivenCameras(world_from_camera=mixed))
        assert any("the given cameras" in told and "of the matches" in told for told in found.warnings)
        assert not found.after.is_worse_than(found.before)
        assert found.scene.world == "given" or any("not in that of the given" in told for told in found.warnings)


def test_a_scene_of_given_cameras_stays_in_their_world(world):
    scene = network_scene(world, turn=1, shift=0.02, scale=1.0)
    views = [
        replace(view, camera=replace(view.camera, world_from_camera=world.cameras[0].world_from_camera @ placed))
        for view in scene.views
        for placed in [view.camera.world_from_camera]
    ]
    found = refine_features(replace(scene, views=views, world="gravity up"), world.features, OPTIONS)
    assert found.scene.world == "gravity up"
    assert distances(found, world).max() < 0.2


# ------------------------------------------------------------------ bad input
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (GivenCameras(K=[np.eye(3)] * 5), "5 intrinsic matrices for 6 views"),
        (GivenCameras(world_from_camera=[np.eye(4)] * 7), "7 cameras for 6 views"),
        (GivenCameras(K=[np.eye(4)] * 6), "no intrinsic matrix"),
        (GivenCameras(K=[np.diag([-1.0, 1, 1])] * 6), "no intrinsic matrix"),
        (GivenCameras(K=[np.full((3, 3), np.nan)] * 6), "no intrinsic matrix"),
        (GivenCameras(K=[np.array([[500, 3, 320], [0, 500, 240], [0, 0, 1.0]])] * 6), "skew"),
        (GivenCameras(world_from_camera=[np.eye(3)] * 6), "shape"),
        (GivenCameras(world_from_camera=[2 * np.eye(4)] * 6), "not rigid"),
        (GivenCameras(world_from_camera=[np.diag([1.0, 1, -1, 1])] * 6), "not rigid"),
        (GivenCameras(world_from_camera=[np.diag([1.0, 1, 1, 2])] * 6), "not rigid"),
        (GivenCameras(world_from_camera=[np.eye(4) * np.nan] * 6), "not finite"),
    ],
)
def test_what_is_no_camera_is_refused(world, scene, given, words):
    with pytest.raises(InputError, match=words):
        refine_features(scene, world.features, OPTIONS, given=given)


def test_rotations_written_with_few_digits_are_made_exact():
    rough = np.eye(4)
    rough[:3, :3] = np.round(np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0], 5)
    rough[:3, :3] *= np.sign(np.linalg.det(rough[:3, :3]))
    checked = GivenCameras(world_from_camera=[rough]).checked(1).camera_of(0)
    np.testing.assert_allclose(checked[:3, :3] @ checked[:3, :3].T, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(checked, rough, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"camera_model": "FISHEYE"}, "camera_model"),
        ({"intrinsics": "none"}, "intrinsics"),
        ({"loss": "l2"}, "loss"),
        ({"known_cameras": "fixed"}, "known_cameras"),
        ({"prior_sigma": 0.0}, "prior_sigma"),
        ({"loss_scale": float("inf")}, "loss_scale"),
        ({"min_matches": 3}, "min_matches"),
        ({"max_image_size": 8}, "max_image_size"),
        ({"threads": 0}, "threads"),
        ({"seed": -1}, "seed"),
    ],
)
def test_options_that_make_no_sense_are_refused(wrong, words):
    with pytest.raises(InputError, match=words):
        RefineOptions(**wrong)
