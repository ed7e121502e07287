"""What mapping is made of: starts that agree, models that are compared, views that are hard to register, frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from manyview.errors import InputError
from manyview.formats.describe import HALF_PIXEL
from manyview.geometry import Similarity, intrinsics
from manyview.refine.agreement import Agreement
from manyview.refine.bundle import Anchors
from manyview.refine.colmap_log import quiet_colmap
from manyview.refine.exact_cameras import refine_features
from manyview.refine.lenses import (
    K_of_colmap,
    distortion_of,
    find_lenses,
    intrinsics_of_photos,
    straightened,
)
from manyview.refine.mapping import agreeing_views, disjoint, map_from_pairs, map_from_start, map_incrementally, rank
from manyview.refine.matching import MatchDatabase
from manyview.refine.options import GivenCameras, RefineOptions
from manyview.refine.settling import Mapped, Part, cameras_of
from manyview.refine.two_views import length_by_points, relative_motion
from manyview.refine.unregistered import fit_cameras, movement, ratio_of_spreads
from sparse_worlds import cameras_around, errors_of, network_scene, photographed

OPTIONS = RefineOptions(threads=1)
seeds = st.integers(0, 10**6)


@pytest.fixture(scope="module")
def world():
    return photographed(cameras_around(6))


def part_of(world, start, folder, anchors: Anchors = Anchors()) -> Part:  # noqa: B008 (frozen)
    """All views of a world as one part that starts from these cameras (by view)."""
    lenses = find_lenses(network_scene(world).views, GivenCameras(), OPTIONS)
    database = MatchDatabase(folder / "m.db", world.features, lenses, OPTIONS)
    count = len(world.features)
    with quiet_colmap():
        database.match([(i, j) for i in range(count) for j in range(i + 1, count)])
    return Part(
        members=tuple(range(count)),
        pairs=tuple(database.verified()),
        start=start,
        database=database,
        options=OPTIONS,
        anchors=anchors,
    )


def turned_about(camera):
    return replace(camera, world_from_camera=camera.world_from_camera @ np.diag([-1.0, 1, -1, 1]))


# ------------------------------------------------------------------ starts
def test_cameras_that_contradict_the_matches_are_no_start(world, tmp_path):
    start = dict(enumerate(world.cameras))
    start[3] = turned_about(start[3])
    part = part_of(world, start, tmp_path)
    assert agreeing_views(part, 1.5) == (0, 1, 2, 4, 5)
    assert agreeing_views(replace(part, start={0: start[0]}), 1.5) == ()
    assert agreeing_views(replace(part, start={}), 1.5) == ()


def test_constant_cameras_are_always_in_the_start(world, tmp_path):
    start = {**dict(enumerate(world.cameras)), 3: turned_about(world.cameras[3])}
    part = part_of(world, start, tmp_path, Anchors(constant=frozenset({0, 3})))
    assert agreeing_views(part, 1.5) == (0, 1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    "way",
    [
        lambda part: map_from_start(part, 1.5),
        lambda part: map_incrementally(part, usual_focal=False),
        lambda part: map_incrementally(part, usual_focal=True),
        map_from_pairs,
    ],
    ids=["start", "incremental", "usual focal", "one pair"],
)
def test_every_way_of_mapping_finds_exact_cameras(world, tmp_path, way):
    part = part_of(world, dict(enumerate(world.cameras)), tmp_path)
    with quiet_colmap():
        model = way(part)[0]
    assert model.views == tuple(range(6)) and model.within.explained == 1
    found = replace(
        network_scene(world),
        views=[
            replace(view, camera=camera)
            for view, camera in zip(network_scene(world).views, cameras_of(model.model, 6), strict=True)
        ],
    )
    assert (np.array(errors_of(found, world.cameras)) < (1e-3, 1e-4, 1e-4)).all()


def test_mapping_leaves_the_databases_cameras_as_they_were(world, tmp_path):
    import pycolmap

    part = part_of(world, {}, tmp_path)
    with quiet_colmap():
        map_incrementally(part, usual_focal=True)
    with pycolmap.Database.open(str(part.database.path)) as database:
        assert database.read_camera(1).params[0] == pytest.approx(world.cameras[0].K[0, 0])


# ------------------------------------------------------------------ comparing models
def model_of(views: tuple[int, ...], explained: float, within: float, error: float = 1.0) -> Mapped:
    import pycolmap

    def agreement(share: float) -> Agreement:
        return Agreement(matches=100, explained=share, score=share, median_error=error)

    return Mapped(
        model=pycolmap.Reconstruction(),
        how="start",
        views=views,
        guessed=frozenset(),
        agreement=agreement(explained),
        within=agreement(within),
    )


def test_sound_models_come_first_then_those_of_more_views_then_the_better_ones():
    many_wrong = model_of((0, 1, 2, 3, 4), 0.5, 0.5)
    few = model_of((0, 1), 0.2, 1.0)
    more = model_of((0, 1, 2), 0.4, 0.9)
    exact = model_of((0, 1, 2), 0.4, 0.9, error=0.1)
    assert sorted([many_wrong, few, more, exact], key=rank, reverse=True) == [exact, more, few, many_wrong]


def test_models_that_share_a_view_with_a_better_one_are_left_out():
    first, second, third = model_of((0, 1), 1, 1), model_of((1, 2), 1, 1), model_of((2, 3), 1, 1)
    assert disjoint([first, second, third]) == [first, third]


# ------------------------------------------------------------------ views that are hard to register
def scarce(count: int, guess: bool, *, options: RefineOptions = OPTIONS, distortion: float = 0.0):
    """A scene whose last view shows few of the points."""
    shown = np.ones((6, 250), bool)
    shown[5, count:] = False
    world = photographed(cameras_around(6), shown=shown, distortion=distortion)
    scene = network_scene(world, turn=1, shift=0.05)
    if not guess:
        views = [replace(view, camera=None, status="camera_not_found") for view in scene.views[5:]]
        scene = replace(scene, views=(*scene.views[:5], *views))
    return world, refine_features(scene, world.features, options)


@pytest.mark.parametrize("guess", [True, False])
def test_a_view_of_two_dozen_points_is_registered(guess):
    world, found = scarce(24, guess)
    assert found.registered == tuple(range(6)) and found.views[5].observations >= 20
    assert (np.array(errors_of(found.scene, world.cameras)) < (1e-3, 1e-4, 1e-4)).all()


def test_a_view_of_two_dozen_points_is_registered_in_spite_of_distortion():
    _, found = scarce(24, False, options=replace(OPTIONS, camera_model="SIMPLE_RADIAL"), distortion=-0.5)
    assert found.registered == tuple(range(6)) and found.distortion[5][0] == pytest.approx(-0.5, abs=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_a_focal_length_that_the_photos_do_not_tell_stays_the_networks(seed):
    vague = photographed(cameras_around(3, step=6, seed=seed), seed=seed, noise=2.0, points=60)
    scene = network_scene(vague, turn=0.5, shift=0.02)
    found = refine_features(scene, vague.features, OPTIONS)
    assert found.kept == "refined"
    np.testing.assert_allclose(found.scene.K, scene.K, atol=1e-9)


def test_a_view_of_hardly_any_points_is_not_registered_and_stays_where_the_network_has_it():
    _, found = scarce(10, guess=True)
    assert found.registered == tuple(range(5))
    assert found.scene.views[5].status == "low_confidence" and found.scene.views[5].camera is not None


def test_a_view_without_a_camera_that_cannot_be_registered_has_none_afterwards():
    _, found = scarce(10, guess=False)
    assert found.scene.views[5].camera is None and found.scene.views[5].status == "camera_not_found"
    assert np.isnan(found.views[5].turned) and found.views[5].reason


def test_a_view_whose_matches_are_wrong_is_not_registered(world):
    generator = np.random.default_rng(0)
    features = list(world.features)
    pixels = generator.uniform([0, 0], [640, 480], (250, 2))
    features[2] = replace(features[2], pixels=pixels)
    found = refine_features(network_scene(world, turn=1, shift=0.05), features, OPTIONS)
    assert found.registered == (0, 1, 3, 4, 5) and found.views[2].reason


# ------------------------------------------------------------------ lenses
def test_our_principal_point_is_half_a_pixel_before_colmaps(world):
    lenses = find_lenses(network_scene(world).views, GivenCameras(), OPTIONS)
    camera = lenses.colmap_camera(1)
    np.testing.assert_allclose(camera.params[1:3], world.cameras[0].K[:2, 2] + HALF_PIXEL)
    np.testing.assert_allclose(K_of_colmap(camera), world.cameras[0].K, atol=1e-12)
    point = np.array([0.3, -0.2, 2.0])
    np.testing.assert_allclose(camera.img_from_cam(point) - 0.5, (world.cameras[0].K @ point)[:2] / 2, atol=1e-9)


def test_photos_of_one_size_share_a_camera_unless_they_are_given_different_ones(world):
    views = list(network_scene(world).views)
    views[5] = replace(views[5], original_size=(640, 480))
    other = intrinsics(700, (320, 240))
    numbers = find_lenses(views, GivenCameras(K=[other, None, other, None, None, None]), OPTIONS)
    assert numbers.number_of == (1, 2, 1, 2, 2, 3) and numbers.fixed == {1}
    np.testing.assert_array_equal(numbers.K[1], other)
    each = find_lenses(views, GivenCameras(), replace(OPTIONS, intrinsics="per_view"))
    assert each.number_of == (1, 2, 3, 4, 5, 6) and not each.fixed


def test_known_lenses_are_shared_only_by_views_with_equal_ones(world):
    views = [
        replace(view, camera=replace(view.camera, K=intrinsics(focal, (320, 240))))
        for view, focal in zip(network_scene(world).views, (500, 700, 500, 700, 500, 600), strict=True)
    ]
    views[5] = replace(views[5], camera=None)
    assert find_lenses(views, GivenCameras(), OPTIONS).number_of == (1,) * 6
    for found in (
        find_lenses(views, GivenCameras(), OPTIONS, are_known=True),
        find_lenses(views, GivenCameras(), replace(OPTIONS, refine_intrinsics=False)),
    ):
        assert found.number_of == (1, 2, 1, 2, 1, 3)
        assert [found.K[number][0, 0] for number in (1, 2, 3)] == [500, 700, 500]  # the median for want of a camera
    given = GivenCameras(K=[intrinsics(650, (320, 240))] * 6)
    assert find_lenses(views, given, OPTIONS, are_known=True).number_of == (1,) * 6


# ------------------------------------------------------------------ known intrinsics
def of_sizes(world, *sizes: tuple[int, int]):
    views = network_scene(world).views
    return [replace(view, original_size=size) for view, size in zip(views, sizes, strict=False)]


def test_intrinsics_of_photos_of_their_size_stay_as_they_are(world):
    K = np.array([[500, 0, 330.25], [0, 510, 222.5], [0, 0, 1]])
    for found in intrinsics_of_photos(of_sizes(world, (480, 640), (480, 640)), K.tolist()):
        np.testing.assert_array_equal(found, K)


@settings(deadline=None)
@given(st.floats(-40, 40), st.floats(-40, 40), st.sampled_from([0.25, 0.5, 2.0, 3.0]))
def test_intrinsics_are_scaled_for_photos_of_another_size(dx, dy, factor):
    views = of_sizes(photographed(cameras_around(2)), (480, 640), (round(480 * factor), round(640 * factor)))
    K = np.array([[500, 0, 319.5 + dx], [0, 510, 239.5 + dy], [0, 0, 1]])
    same, scaled = intrinsics_of_photos(views, K, size=(480, 640))
    np.testing.assert_array_equal(same, K)
    point = np.array([0.2, -0.1, 1.0])
    in_small, in_large = (K @ point)[:2], (scaled @ point)[:2]
    np.testing.assert_allclose(in_large + 0.5, factor * (in_small + 0.5), atol=1e-9)  # pixel corners keep their place


def test_the_size_that_intrinsics_belong_to_is_that_in_whose_middle_their_principal_point_is(world):
    views = of_sizes(world, (240, 320), (480, 640), (1200, 1600))
    for index, centre in enumerate([(165, 118), (300, 250), (790, 640)]):
        assert intrinsics_of_photos(views, intrinsics(500, centre))[index][0, 0] == 500
    stated = intrinsics_of_photos(views, intrinsics(500, (300, 250)), size=(1200, 1600))
    assert stated[2][0, 0] == 500 and stated[1][0, 0] == pytest.approx(200)


def test_rounded_sizes_are_the_same_shape(world):
    found = intrinsics_of_photos(of_sizes(world, (3000, 4000), (683, 911)), intrinsics(4000, (2000, 1500)))
    assert found[1][0, 0] == pytest.approx(911)


def test_photos_turned_by_a_quarter_have_their_focal_lengths_swapped(world):
    K = np.array([[500, 0, 330.0], [0, 510, 230], [0, 0, 1]])
    _, turned, half = intrinsics_of_photos(of_sizes(world, (427, 640), (640, 427), (320, 214)), K, size=(427, 640))
    np.testing.assert_allclose(turned, [[510, 0, 213], [0, 500, 319.5], [0, 0, 1]])
    np.testing.assert_allclose(half, [[255, 0, 106.5], [0, 250, 159.5], [0, 0, 1]], rtol=0.005)
    landscape, portrait = intrinsics_of_photos(of_sizes(world, (640, 427), (427, 640)), K)[::-1]
    np.testing.assert_array_equal(landscape, K)
    assert portrait[0, 0] == 510


def test_intrinsics_that_fit_no_photo_or_not_all_are_refused(world):
    with pytest.raises(InputError, match=r"view0.jpg of 640 x 480 pixels.*\(1600, 1200\)"):
        intrinsics_of_photos(of_sizes(world, (480, 640), (480, 640)), intrinsics(2600, (1600, 1200)))
    with pytest.raises(InputError, match=r"640 x 480 pixels, and view1.jpg has 640 x 360"):
        intrinsics_of_photos(of_sizes(world, (480, 640), (360, 640)), intrinsics(520, (320, 240)))
    with pytest.raises(InputError, match="no intrinsic matrix"):
        intrinsics_of_photos(of_sizes(world, (480, 640)), np.eye(2))


def test_without_any_camera_a_usual_focal_length_is_assumed(world):
    views = [replace(view, camera=None) for view in network_scene(world).views]
    K = find_lenses(views, GivenCameras(), OPTIONS).K[1]
    assert 400 < K[0, 0] < 1000
    np.testing.assert_array_equal(K[:2, 2], [319.5, 239.5])


@pytest.mark.parametrize("model", ["SIMPLE_RADIAL", "OPENCV"])
def test_straightened_pixels_are_those_of_a_pinhole(world, model):
    lenses = find_lenses(network_scene(world).views, GivenCameras(), replace(OPTIONS, camera_model=model))
    camera = lenses.colmap_camera(1)
    rays = np.random.default_rng(0).uniform(-0.5, 0.5, (20, 2))
    exact = rays * world.cameras[0].K[[0, 1], [0, 1]] + world.cameras[0].K[:2, 2]
    assert straightened(None, exact) is exact and straightened(camera, exact) is exact
    params = camera.params.copy()
    params[4 if model == "OPENCV" else 3] = -0.1
    camera.params = params
    bent = camera.img_from_cam(np.column_stack([rays, np.ones(20)])) - 0.5
    assert distortion_of(camera)[0] == -0.1 and np.abs(bent - exact).max() > 1
    np.testing.assert_allclose(straightened(camera, bent), exact, atol=1e-6)


# ------------------------------------------------------------------ two views
def test_the_motion_between_two_views_and_its_length_by_known_points(world):
    lenses = find_lenses(network_scene(world).views, GivenCameras(), OPTIONS)
    first, second = world.cameras[1], world.cameras[3]
    ends = [(lenses.colmap_camera(1), world.features[view].pixels) for view in (1, 3)]
    motion, angle = relative_motion(*ends, limit=2, seed=0)
    exact = second.camera_from_world @ first.world_from_camera
    length = np.linalg.norm(exact[:3, 3])
    np.testing.assert_allclose(motion[:3, :3], exact[:3, :3], atol=1e-5)
    np.testing.assert_allclose(motion[:3, 3], exact[:3, 3] / length, atol=1e-5)
    assert angle == pytest.approx(24, abs=4)  # two steps of 12 degrees
    points = world.points[:30]
    in_first = points @ first.camera_from_world[:3, :3].T + first.camera_from_world[:3, 3]
    rays = points @ second.camera_from_world[:3, :3].T + second.camera_from_world[:3, 3]
    rays = rays / rays[:, 2:]
    assert length_by_points(motion, in_first, rays) == pytest.approx(length, rel=1e-4)
    backwards = motion.copy()
    backwards[:3, 3] *= -1
    assert length_by_points(backwards, in_first, rays) is None


# ------------------------------------------------------------------ frames
def random_similarity(generator: np.random.Generator) -> Similarity:
    return Similarity(
        scale=float(np.exp(generator.uniform(-2, 2))),
        rotation=Rotation.random(random_state=int(generator.integers(2**31))).as_matrix(),
        translation=generator.normal(size=3) * 5,
    )


def random_cameras(generator: np.random.Generator, count: int) -> np.ndarray:
    matrices = np.tile(np.eye(4), (count, 1, 1))
    matrices[:, :3, :3] = Rotation.random(count, random_state=int(generator.integers(2**31))).as_matrix()
    matrices[:, :3, 3] = generator.normal(size=(count, 3))
    return matrices


@settings(deadline=None)
@given(seeds, st.integers(2, 12))
def test_cameras_in_two_frames_give_the_similarity_between_them(seed, count):
    generator = np.random.default_rng(seed)
    exact, source = random_similarity(generator), random_cameras(generator, count)
    target = exact.apply_to_camera(source)
    scale = ratio_of_spreads(source, target)
    assert scale == pytest.approx(exact.scale)
    found = fit_cameras(source, target, scale=scale, reach=2.0)
    np.testing.assert_allclose(found.matrix, exact.matrix, rtol=1e-7, atol=1e-7 * exact.scale)


@settings(deadline=None)
@given(seeds)
def test_one_camera_tells_the_frame_and_leaves_the_scale(seed):
    generator = np.random.default_rng(seed)
    exact, source = random_similarity(generator), random_cameras(generator, 1)
    target = exact.apply_to_camera(source)
    assert ratio_of_spreads(source, target) is None
    found = fit_cameras(source, target, scale=exact.scale, reach=2.0)
    np.testing.assert_allclose(found.matrix, exact.matrix, rtol=1e-7, atol=1e-6)


@settings(deadline=None)
@given(seeds)
def test_a_few_wrong_cameras_do_not_matter(seed):
    generator = np.random.default_rng(seed)
    exact, source = random_similarity(generator), random_cameras(generator, 12)
    target = exact.apply_to_camera(source)
    target[:2] = random_cameras(generator, 2)
    target[:2, :3, 3] *= 10 * exact.scale
    scale = ratio_of_spreads(source, target)
    assert scale == pytest.approx(exact.scale, rel=1e-6)
    found = fit_cameras(source, target, scale=scale, reach=2.0)
    np.testing.assert_allclose(found.matrix, exact.matrix, rtol=0.02, atol=0.05 * exact.scale)


def test_movement_is_what_is_left_after_the_map_between_the_frames():
    generator = np.random.default_rng(0)
    exact, before = random_similarity(generator), random_cameras(generator, 1)[0]
    after = exact.apply_to_camera(before)
    assert movement(before, after, exact) == (pytest.approx(0, abs=1e-6), pytest.approx(0, abs=1e-9))
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec([0, np.radians(170), 0]).as_matrix()
    degrees, distance = movement(before, after @ turn, exact)
    assert degrees == pytest.approx(170) and distance == pytest.approx(0, abs=1e-9)
    assert movement(np.eye(4), np.diag([-1.0, 1, -1, 1]), Similarity.identity())[0] == pytest.approx(180)
