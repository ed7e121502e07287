"""Refinement of whole scenes: exact cameras from about right ones, and what is said where that cannot be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from manyview.errors import InputError
from manyview.geometry import intrinsics, transform_pixels
from manyview.refine.exact_cameras import refine_cameras, refine_features
from manyview.refine.options import GivenCameras, RefineOptions
from manyview.refine.refine import RefinedScene
from manyview.scene import Scene
from sparse_worlds import PRINCIPAL_POINT, cameras_around, errors_of, network_scene, photographed

OPTIONS = RefineOptions(threads=1)
EXACT = (1e-4, 1e-5, 1e-5)  # degrees, share of the extent, relative focal length


@pytest.fixture(scope="module")
def world():
    return photographed(cameras_around(6))


def statuses(scene: Scene) -> list[str]:
    return [view.status for view in scene.views]


def in_groups(scene: Scene, groups: list[int]) -> Scene:
    """The scene as a network leaves it that could not link these groups of views."""
    views = [
        view
        if group == 0
        else replace(view, group=group, group_camera=view.camera, camera=None, status="other_group", status_reason="x")
        for view, group in zip(scene.views, groups, strict=True)
    ]
    return replace(scene, views=tuple(views))


def without_cameras(scene: Scene, *which: int) -> Scene:
    views = [
        replace(view, camera=None, status="camera_not_found", status_reason="no camera") if index in which else view
        for index, view in enumerate(scene.views)
    ]
    return replace(scene, views=tuple(views))


# ------------------------------------------------------------------ exact cameras
@pytest.mark.parametrize("seed", range(3))
def test_cameras_that_are_about_right_become_exact(seed):
    world = photographed(cameras_around(6, seed=seed), seed=seed)
    scene = network_scene(world, turn=2, shift=0.1, focal=1.04, seed=seed)
    before = errors_of(scene, world.cameras)
    found = refine_features(scene, world.features, OPTIONS)
    assert before[0] > 1 and (np.array(errors_of(found.scene, world.cameras)) < EXACT).all()
    assert found.kept == "refined" and found.how == ("start",)
    assert found.registered == tuple(range(6)) and statuses(found.scene) == ["used"] * 6
    assert found.after.explained == 1 and found.reprojection_error < 1e-3


def test_cameras_that_contradict_the_matches_are_replaced_photo_by_photo(world):
    scene = network_scene(world, turn=60, shift=3)
    found = refine_features(scene, world.features, OPTIONS)
    assert found.how == ("incremental",)
    assert (np.array(errors_of(found.scene, world.cameras)) < EXACT).all()


def test_one_wrong_camera_among_right_ones_is_found_anew(world):
    scene = network_scene(world, turn=1, shift=0.05)
    turned = np.diag([-1.0, 1, -1, 1])
    camera = replace(scene.views[3].camera, world_from_camera=scene.views[3].camera.world_from_camera @ turned)
    views = [replace(view, camera=camera) if index == 3 else view for index, view in enumerate(scene.views)]
    found = refine_features(replace(scene, views=views), world.features, OPTIONS)
    assert (np.array(errors_of(found.scene, world.cameras)) < EXACT).all()
    assert found.views[3].turned == pytest.approx(180, abs=3)
    assert max(found.views[view].turned for view in (1, 2, 4, 5)) < 3


def test_cameras_that_the_network_could_not_find_are_found(world):
    scene = without_cameras(network_scene(world, turn=2, shift=0.1), 0, 3)
    found = refine_features(scene, world.features, OPTIONS)
    assert (np.array(errors_of(found.scene, world.cameras)) < EXACT).all()
    assert statuses(found.scene) == ["used"] * 6
    np.testing.assert_array_equal(found.scene.views[0].camera.world_from_camera, np.eye(4))


def test_two_photos_are_enough():
    world = photographed(cameras_around(2))
    found = refine_features(network_scene(world, turn=2, shift=0.1), world.features, OPTIONS)
    assert found.kept == "refined"
    assert (np.array(errors_of(found.scene, world.cameras)) < EXACT).all()


def test_noise_of_half_a_pixel_leaves_small_errors(world):
    noisy = photographed(cameras_around(6), noise=0.5)
    found = refine_features(network_scene(noisy, turn=2, shift=0.1, focal=1.04), noisy.features, OPTIONS)
    degrees, places, focals = errors_of(found.scene, noisy.cameras)
    assert degrees < 0.5 and places < 0.005 and focals < 0.02
    assert 0.3 < found.reprojection_error < 0.8


# ------------------------------------------------------------------ conventions
def test_points_are_where_the_photos_show_them_to_a_thousandth_of_a_pixel(world):
    found = refine_features(network_scene(world, turn=2, shift=0.1, focal=1.04), world.features, OPTIONS)
    for index, view in enumerate(found.scene.views):
        pixels, depth, rows = found.points.of_view(index)
        shown, distance = view.camera.project(found.points.points[rows])
        np.testing.assert_allclose(shown, pixels, atol=1e-3)
        np.testing.assert_allclose(distance, depth, rtol=1e-9)
        np.testing.assert_allclose(view.camera.K[:2, 2], PRINCIPAL_POINT, atol=1e-9)
    assert len(found.points) >= 245 and (found.points.errors < 1e-3).all()


def test_colmap_models_have_pixel_centres_at_half_integers(world):
    found = refine_features(network_scene(world, turn=2, shift=0.1), world.features, OPTIONS)
    model = found.reconstruction
    for index, features in enumerate(world.features):
        image = model.image(index + 1)
        listed = np.array([point.xy for point in image.points2D])
        np.testing.assert_allclose(listed, features.pixels + 0.5, atol=1e-4)
        centre = model.camera(image.camera_id).params[1:3]
        np.testing.assert_allclose(centre, np.add(PRINCIPAL_POINT, 0.5), atol=1e-9)


def test_sparse_points_have_the_colours_of_their_features(world):
    found = refine_features(network_scene(world), world.features, OPTIONS)
    pixels, _, rows = found.points.of_view(2)
    nearest = np.linalg.norm(world.features[2].pixels[None] - pixels[:, None], axis=-1).argmin(axis=1)
    np.testing.assert_array_equal(found.points.colours[rows], world.features[2].colours[nearest])


def test_the_world_stays_the_first_camera_and_lengths_stay_those_of_its_depth(world):
    scene = network_scene(world, turn=2, shift=0.1, focal=1.04, scale=0.4)
    found = refine_features(scene, world.features, OPTIONS)
    np.testing.assert_array_equal(found.scene.views[0].camera.world_from_camera, np.eye(4))
    exact = [0.4 * np.linalg.norm(camera.centre - world.cameras[0].centre) for camera in world.cameras]
    refined = [np.linalg.norm(view.camera.centre) for view in found.scene.views]
    np.testing.assert_allclose(refined, exact, rtol=0.03)  # the depth is that of whole pixels of the network
    for before, after in zip(scene.views, found.scene.views, strict=True):
        np.testing.assert_allclose(after.depth, before.depth, rtol=0.03)
        np.testing.assert_array_equal(after.valid, before.valid)


def test_points_of_a_view_are_its_depth_seen_by_its_refined_camera(world):
    found = refine_features(network_scene(world, turn=2, shift=0.1), world.features, OPTIONS)
    view = found.scene.views[4]
    y, x = np.nonzero(view.valid)
    pixels = transform_pixels(view.original_from_network, np.stack([x, y], axis=-1).astype(float))
    np.testing.assert_allclose(view.points[y, x], view.camera.unproject(pixels, view.depth[y, x]), atol=1e-5)


def test_the_scene_given_is_not_changed_and_the_result_survives_saving(world, tmp_path):
    scene = network_scene(world, turn=2, shift=0.1)
    before = [view.camera.world_from_camera.copy() for view in scene.views]
    found = refine_features(scene, world.features, OPTIONS)
    np.testing.assert_array_equal([view.camera.world_from_camera for view in scene.views], before)
    found.scene.save(tmp_path / "scene")
    assert Scene.load(tmp_path / "scene").equals(found.scene)


def test_with_one_thread_equal_input_gives_equal_numbers_to_the_last_bit():
    world = photographed(cameras_around(6), noise=1.0)
    scene = network_scene(world, turn=60, shift=3)  # photo by photo, with all its random draws
    first, second = (refine_features(scene, world.features, OPTIONS) for _ in range(2))
    np.testing.assert_array_equal(first.scene.world_from_camera, second.scene.world_from_camera)
    np.testing.assert_array_equal(first.scene.K, second.scene.K)
    np.testing.assert_array_equal(first.points.points, second.points.points)


# ------------------------------------------------------------------ what cannot be registered
@pytest.fixture(scope="module", params=[0, 2])
def lonely(request):
    """One view shows nothing that the others do."""
    shown = np.ones((6, 250), bool)
    shown[request.param] = False
    world = photographed(cameras_around(6), shown=shown)
    scene = network_scene(world, turn=0.5, shift=0.02, scale=0.4)
    return request.param, world, scene, refine_features(scene, world.features, OPTIONS)


def test_a_view_without_matches_is_flagged_with_a_reason(lonely):
    which, _, scene, found = lonely
    assert found.registered == tuple(view for view in range(6) if view != which)
    view, outcome = found.scene.views[which], found.views[which]
    assert view.status == "low_confidence" and "enough verified matches" in view.status_reason
    assert outcome.registered == "no" and "enough verified matches" in outcome.reason and outcome.model is None
    assert any(scene.views[which].name in told and "could not be registered" in told for told in found.warnings)
    assert set(found.warnings) <= set(found.scene.warnings)


def test_a_view_without_matches_keeps_the_networks_camera_moved_along(lonely):
    which, world, scene, found = lonely
    degrees, places, _ = errors_of(found.scene, world.cameras)
    assert 1e-3 < degrees < 1.5 and places < 0.02
    old, new = scene.views[which], found.scene.views[which]
    np.testing.assert_array_equal(new.camera.K, old.camera.K)
    # Its points move with it: seen from the camera, all is as it was but for the scale.
    y, x = np.nonzero(new.valid) if new.valid.any() else (np.zeros(0, int), np.zeros(0, int))
    shown, _ = new.camera.project(new.points[y, x].astype(float))
    np.testing.assert_allclose(shown, old.camera.project(old.points[y, x].astype(float))[0], atol=1e-2)


def test_the_first_camera_is_the_world_even_if_it_is_not_registered(lonely):
    _, _, _, found = lonely
    np.testing.assert_array_equal(found.scene.views[0].camera.world_from_camera, np.eye(4))


@pytest.fixture(scope="module")
def halves():
    """Two groups of photos that show different points, side by side."""
    shown = np.zeros((8, 400), bool)
    shown[:4, :200] = shown[4:, 200:] = True
    return photographed(cameras_around(8), points=400, shown=shown)


def test_two_groups_without_a_link_are_both_refined_and_that_is_said(halves):
    found = refine_features(network_scene(halves, turn=1, shift=0.05), halves.features, OPTIONS)
    assert [len(model.reg_image_ids()) for model in found.models] == [4, 4]
    assert found.registered == tuple(range(8))
    assert any("no match links these 2 groups" in told for told in found.warnings)
    assert any("network's estimate alone" in told for told in found.warnings)
    assert statuses(found.scene) == ["used"] * 4 + ["low_confidence"] * 4
    for half in (slice(0, 4), slice(4, 8)):
        own = replace(found.scene, views=found.scene.views[half])
        assert (np.array(errors_of(own, halves.cameras[half])) < EXACT).all()
    degrees, places, _ = errors_of(found.scene, halves.cameras)
    assert degrees < 3 and places < 0.05  # to each other they are as the network has it


def test_groups_that_the_network_could_not_link_keep_frames_of_their_own(halves):
    scene = in_groups(network_scene(halves, turn=1, shift=0.05), [0] * 4 + [1] * 4)
    found = refine_features(scene, halves.features, OPTIONS)
    assert [view.group for view in found.scene.views] == [0] * 4 + [1] * 4
    assert found.registered == tuple(range(8))
    for group, half in ((0, slice(0, 4)), (1, slice(4, 8))):
        own = found.scene.group(group)
        assert (np.array(errors_of(own, halves.cameras[half])) < EXACT).all()
        np.testing.assert_array_equal(own.views[0].camera.world_from_camera, np.eye(4))
    assert set(found.points.group) == {0, 1}


def test_matches_link_groups_that_the_network_could_not(world):
    scene = in_groups(network_scene(world, turn=1, shift=0.05), [0] * 3 + [1] * 3)
    found = refine_features(scene, world.features, OPTIONS)
    assert found.scene.groups == 1 and statuses(found.scene) == ["used"] * 6
    assert (np.array(errors_of(found.scene, world.cameras)) < EXACT).all()


def test_without_any_match_the_scene_stays_as_it_is(world):
    shown = np.zeros((4, 250), bool)
    for view in range(4):
        shown[view, 60 * view : 60 * (view + 1)] = True
    apart = photographed(cameras_around(4), shown=shown)
    scene = network_scene(apart, turn=2, shift=0.1)
    found = refine_features(scene, apart.features, OPTIONS)
    assert found.kept == "network" and found.registered == () and len(found.points) == 0
    assert any("nothing could be refined" in told for told in found.scene.warnings)
    assert replace(found.scene, warnings=()).equals(scene)
    assert all(outcome.reason for outcome in found.views)


def test_one_view_stays_as_it_is():
    world = photographed(cameras_around(1))
    scene = network_scene(world)
    found = refine_features(scene, world.features, OPTIONS)
    assert found.kept == "network" and found.scene.equals(scene)


def test_photos_without_any_feature_leave_the_scene_as_it_is(world):
    nothing = photographed(cameras_around(3), shown=np.zeros((3, 250), bool))
    scene = replace(network_scene(world), views=network_scene(world).views[:3])
    found = refine_features(scene, nothing.features, OPTIONS)
    assert found.kept == "network" and replace(found.scene, warnings=()).equals(scene)


def test_photos_that_only_turn_keep_their_cameras_and_that_is_said():
    turning = photographed(cameras_around(6, in_one_place=True))
    scene = network_scene(turning, turn=1, shift=0.1)
    found = refine_features(scene, turning.features, OPTIONS)
    assert found.kept == "network" and replace(found.scene, warnings=()).equals(scene)
    assert any("no parallax" in told for told in found.warnings)
    assert found.kept_because in found.warnings
    assert RefinedScene(scene=found.scene, cameras=found).words.startswith("the network's cameras, since view0.jpg")
    assert all("no parallax" in outcome.reason for outcome in found.views)


def test_near_copies_of_a_few_photos_are_refined():
    generator = np.random.default_rng(0)
    cameras = []
    for place in cameras_around(2, step=14):
        for _ in range(5):
            matrix = place.world_from_camera.copy()
            matrix[:3, 3] += 0.002 * generator.normal(size=3)
            cameras.append(replace(place, world_from_camera=matrix))
    shown = np.zeros((10, 1540), bool)
    shown[:5, :800] = shown[5:, 740:] = True  # less than a tenth of all matches are between the places
    world = photographed(cameras, points=1540, shown=shown, noise=0.2)
    found = refine_features(network_scene(world, turn=4, shift=0.3), world.features, OPTIONS)
    assert found.kept == "refined" and found.registered == tuple(range(10))
    assert errors_of(found.scene, world.cameras)[0] < 1


def test_a_thing_that_jumps_about_does_not_disturb_the_cameras():
    generator = np.random.default_rng(5)
    moves = np.zeros((6, 250, 3))
    moves[:, :75] = generator.uniform(-1, 1, (6, 1, 3))  # a rigid thing with 30 % of all points
    world = photographed(cameras_around(6), moves=moves)
    found = refine_features(network_scene(world, turn=2, shift=0.1, focal=1.04), world.features, OPTIONS)
    degrees, places, focals = errors_of(found.scene, world.cameras)
    assert found.registered == tuple(range(6))
    assert degrees < 0.3 and places < 0.01 and focals < 0.01


@pytest.mark.parametrize("seed", range(4))
def test_the_result_never_explains_the_matches_worse(seed):
    generator = np.random.default_rng(seed)
    moves = np.zeros((5, 120, 3))
    moves[:, : 20 * seed] = generator.uniform(-1, 1, (5, 1, 3))
    world = photographed(cameras_around(5, seed=seed), seed=seed, points=120, noise=0.7 * seed, moves=moves)
    scene = network_scene(world, turn=2 * seed, shift=0.1 * seed, seed=seed)
    found = refine_features(scene, world.features, OPTIONS)
    assert not found.after.is_worse_than(found.before)
    if found.kept == "network":
        assert found.warnings and replace(found.scene, warnings=()).equals(scene)


def test_refined_cameras_that_explain_less_are_not_taken(world, monkeypatch):
    def spoilt(*arguments, **settings):
        found = exact(*arguments, **settings)
        for model in found.models:
            for image in model.model.reg_image_ids():
                camera = model.model.camera(model.model.image(image).camera_id)
                camera.params = camera.params * np.array([1.5, 1, 1])
        return found

    from manyview.refine import exact_cameras

    exact = exact_cameras.map_parts
    monkeypatch.setattr(exact_cameras, "map_parts", spoilt)
    scene = network_scene(world)
    found = refine_features(scene, world.features, OPTIONS)
    assert found.kept == "network" and replace(found.scene, warnings=()).equals(scene)
    assert any("explain the matches better" in told for told in found.warnings)
    assert found.kept_because in found.warnings and "explain the matches better" in found.kept_because
    assert found.registered == () and all("explain" in outcome.reason for outcome in found.views)


def test_the_reason_why_the_networks_cameras_are_kept_is_no_other_warning():
    turning = photographed(cameras_around(6, in_one_place=True))
    noted = [replace(features, note="matched in a sketch") for features in turning.features]
    given = GivenCameras(K=[intrinsics(900, (320, 240))] * 6)
    found = refine_features(network_scene(turning), noted, OPTIONS, given=given)
    assert len(found.warnings) > 1 and any("sketch" in told for told in found.warnings)
    assert "no parallax" in found.kept_because and "sketch" not in found.kept_because


def test_what_a_first_refinement_has_said_is_not_repeated_by_a_second(halves):
    first = refine_features(network_scene(halves, turn=1, shift=0.05), halves.features, OPTIONS)
    second = refine_features(first.scene, halves.features, OPTIONS)
    assert first.warnings and set(first.warnings) <= set(second.warnings)
    assert len(second.scene.warnings) == len(set(second.scene.warnings))


def test_metres_stay_by_the_cameras_and_that_is_said(world):
    scene = network_scene(world, turn=1, shift=0.05)

    def spread(scene: Scene) -> float:
        centres = scene.world_from_camera[:, :3, 3]
        return float(np.median(np.linalg.norm(centres[:, None] - centres[None], axis=-1)[np.triu_indices(6, 1)]))

    # The cameras tell what a metre is, and not the depth, which is another one's.
    views = [replace(view, depth=2 * view.depth) for view in scene.views]
    found = refine_features(replace(scene, views=views, metric=True), world.features, OPTIONS)
    assert spread(found.scene) == pytest.approx(spread(scene), rel=0.05)
    assert found.scene.metric and found.scene.world == "first camera"
    np.testing.assert_array_equal(found.scene.views[0].camera.world_from_camera, np.eye(4))
    assert [told for told in found.scene.warnings if "metres" in told] == list(found.warnings)
    assert not refine_features(scene, world.features, OPTIONS).warnings


# ------------------------------------------------------------------ intrinsics
def test_each_view_can_have_its_own_focal_length():
    focals = [480.0, 500, 520, 540, 560, 580]
    world = photographed(cameras_around(6, focals=focals))
    scene = network_scene(world, turn=1, shift=0.05, focal=1.03)
    found = refine_features(scene, world.features, replace(OPTIONS, intrinsics="per_view"))
    assert (np.array(errors_of(found.scene, world.cameras)) < EXACT).all()
    assert len(found.reconstruction.cameras) == 6


def test_shared_intrinsics_are_the_same_in_all_views_of_one_size(world):
    noisy = photographed(cameras_around(6), noise=1.0)
    found = refine_features(network_scene(noisy, turn=1, shift=0.05), noisy.features, OPTIONS)
    assert len(found.reconstruction.cameras) == 1
    np.testing.assert_array_equal(found.scene.K, np.broadcast_to(found.scene.K[0], (6, 3, 3)))


@pytest.mark.parametrize(("model", "coefficients"), [("SIMPLE_RADIAL", 1), ("OPENCV", 4)])
@pytest.mark.parametrize("distortion", [-0.3, 0.1])
def test_distortion_is_found_and_told_apart_from_the_focal_length(model, coefficients, distortion):
    world = photographed(cameras_around(6), distortion=distortion)
    scene = network_scene(world, turn=2, shift=0.1, focal=1.04)
    found = refine_features(scene, world.features, replace(OPTIONS, camera_model=model))
    assert (np.array(errors_of(found.scene, world.cameras)) < EXACT).all()
    assert all(len(found.distortion[view]) == coefficients for view in range(6))
    assert found.distortion[0][0] == pytest.approx(distortion, abs=1e-4)
    assert found.after.median_error < 1e-3  # the lens is allowed for
    assert all(pair.after == 1 for pair in found.pairs)


def test_a_pinhole_in_place_of_a_lens_leaves_errors():
    world = photographed(cameras_around(6), distortion=-0.3)
    found = refine_features(network_scene(world, turn=2, shift=0.1), world.features, OPTIONS)
    assert found.reprojection_error > 0.05 and found.distortion == {}


def test_two_focal_lengths_are_found_with_pinhole(world):
    wide = [replace(camera, K=camera.K @ np.diag([1.1, 1, 1])) for camera in world.cameras]
    stretched = photographed(wide)
    scene = network_scene(stretched, turn=1, shift=0.05, focal=1.02)
    found = refine_features(scene, stretched.features, OPTIONS)  # the network's K says that pixels are not square
    assert (np.array(errors_of(found.scene, wide)) < EXACT).all()
    np.testing.assert_allclose(found.scene.K[:, 1, 1], wide[0].K[1, 1], rtol=1e-5)


# ------------------------------------------------------------------ bad input
def test_features_of_other_views_are_refused(world):
    with pytest.raises(InputError, match="features of 5 views for 6"):
        refine_features(network_scene(world), world.features[:5], OPTIONS)


def test_an_existing_database_is_not_overwritten(world, tmp_path):
    (tmp_path / "matches.db").write_bytes(b"mine")
    with pytest.raises(InputError, match="exists"):
        refine_cameras(network_scene(world), OPTIONS, folder=tmp_path)
    assert (tmp_path / "matches.db").read_bytes() == b"mine"


# ------------------------------------------------------------------ photos
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "step", "least"),
    [("fountain-p11", 1, 0.99), ("fountain-p11", 4, 0.99), ("box-rgbd", 3, 0.9)],  # of every 4th COLMAP finds none
)
def test_real_photos_get_exact_cameras(shared, name, step, least):
    import json

    import manyview
    from manyview.evaluation.poses import evaluate_poses

    folder = shared / "data" / name
    frames = json.loads((folder / "meta.json").read_text())["frames"][::step]
    scene = manyview.reconstruct([str(folder / frame["file"]) for frame in frames], model="manyview-small")
    found = refine_cameras(scene)
    report = evaluate_poses(
        [None if view.camera is None else view.camera.world_from_camera for view in found.scene.views],
        [np.array(frame["cam2world"]) for frame in frames],
    )
    assert found.registered == tuple(range(len(frames)))
    assert report.maa30 >= least
    assert found.reprojection_error < 1.0
