"""Metric scale and upright worlds: everything moves alike, known truths are found, and bad inputs say what to do."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

from manyview.errors import InputError
from manyview.geometry import Camera, Similarity, pixel_grid
from manyview.refine.gps import GpsPosition, local_tangent_plane, read_gps, world_from_gps
from manyview.refine.ground import fit_ground_plane
from manyview.refine.world import (
    ImagePoint,
    apply,
    scale_from_baseline,
    scale_from_camera_height,
    scale_from_distance,
    up_from_cameras,
    up_from_ground,
    up_from_vector,
)
from manyview.scene import Provenance, Scene, SceneView
from scenes import synthetic_scene, with_view, without_camera, without_points

SIZE = (30, 40)
UP = np.array([0.0, -1.0, 0.0])  # of every upright world
EYES = 1.6  # metres that cameras are above the floor


def random_similarity(seed: int, scale: float | None = None) -> Similarity:
    generator = np.random.default_rng(seed)
    return Similarity(
        scale=float(np.exp(generator.uniform(-2, 2))) if scale is None else scale,
        rotation=Rotation.random(rng=generator).as_matrix(),
        translation=generator.normal(size=3) * 5,
    )


def room(views: int = 5, seed: int = 0, look_down: float = 0.35, table: bool = True, roll: float = 0.0) -> Scene:
    """Upright world in metres: a floor at y = EYES, a wall, and a table that fills much of the pictures."""
    generator = np.random.default_rng(seed)
    yaws = np.linspace(-0.6, 0.6, views)
    return Scene(
        views=tuple(_room_view(index, yaw, look_down, roll, table, generator) for index, yaw in enumerate(yaws)),
        provenance=Provenance(model="room", weights_sha256="", weights_licence="none"),
        metric=True,
        world="given",
    )


def _room_view(index: int, yaw: float, down: float, roll: float, table: bool, generator) -> SceneView:
    height, width = SIZE
    world_from_camera = np.eye(4)
    turn = Rotation.from_euler("YXZ", [yaw, -down * generator.uniform(0.8, 1.2), roll * generator.normal()])
    world_from_camera[:3, :3] = turn.as_matrix()
    world_from_camera[:3, 3] = [3 * yaw + generator.normal() * 0.1, 0, generator.normal() * 0.5]
    K = np.array([[30.0, 0, 19.5], [0, 30, 14.5], [0, 0, 1]])
    camera = Camera(K=K, world_from_camera=world_from_camera, width=width, height=height)
    depth = _room_depth(camera, table)
    return SceneView.masked(
        name=f"{index}.jpg",
        source=None,
        original_size=SIZE,
        original_from_network=np.eye(3),
        image=np.zeros((*SIZE, 3), np.uint8),
        camera=camera,
        depth=depth,
        points=camera.unproject(pixel_grid(*SIZE), depth),
        confidence=1 + generator.exponential(size=SIZE),
        valid=np.ones(SIZE, dtype=bool),
    )


def _room_depth(camera: Camera, table: bool) -> np.ndarray:
    pixels = pixel_grid(*SIZE)
    directions = camera.unproject(pixels, np.ones(SIZE)) - camera.centre
    with np.errstate(divide="ignore"):
        floor = (EYES - camera.centre[1]) / directions[..., 1]
        wall = (9.0 - camera.centre[2]) / directions[..., 2]
        top = (0.8 - camera.centre[1]) / directions[..., 1]
    depth = np.minimum(np.where(floor > 0, floor, np.inf), np.where(wall > 0, wall, np.inf))
    x, z = ((camera.centre + top[..., None] * directions)[..., axis] for axis in (0, 2))
    on_table = table & (top > 0) & (abs(x) < 2.5) & (z > 1) & (z < 4.5)
    return np.where(on_table, top, depth)


def relative_cameras(scene: Scene) -> np.ndarray:
    matrices = scene.world_from_camera
    return np.linalg.inv(matrices[0]) @ matrices


# ------------------------------------------------------------------ moving a scene
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_moving_keeps_pictures_of_points_and_relative_cameras_and_scales_depth(seed: int) -> None:
    scene, similarity = synthetic_scene(), random_similarity(seed)
    moved = apply(scene, similarity, metric=True, world="given")
    for before, after in zip(scene.views, moved.views, strict=True):
        assert before.camera is not None and after.camera is not None
        np.testing.assert_allclose(after.depth, before.depth * similarity.scale, rtol=1e-6)
        np.testing.assert_allclose(after.points[~after.valid], 0)
        pixels, depth = after.camera.project(after.points[after.valid].astype(np.float64))
        expected, _ = before.camera.project(before.points[before.valid].astype(np.float64))
        np.testing.assert_allclose(pixels, expected, atol=2e-2)  # points are float32, and may be far from the origin
        np.testing.assert_allclose(depth, after.depth[after.valid], rtol=1e-4)
        assert np.array_equal(after.camera.K, before.camera.K)
    relative, expected = relative_cameras(moved), relative_cameras(scene)
    np.testing.assert_allclose(relative[:, :3, :3], expected[:, :3, :3], atol=1e-9)
    np.testing.assert_allclose(relative[:, :3, 3], similarity.scale * expected[:, :3, 3], atol=1e-8 * similarity.scale)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_moving_there_and_back_changes_nothing(seed: int) -> None:
    scene, similarity = synthetic_scene(2), random_similarity(seed)
    there = apply(scene, similarity, metric=True, world="given")
    back = apply(there, similarity.inverse(), metric=scene.metric, world=scene.world)
    np.testing.assert_allclose(back.world_from_camera, scene.world_from_camera, atol=1e-9)
    for before, after in zip(scene.views, back.views, strict=True):
        np.testing.assert_allclose(after.points, before.points, atol=1e-4)
        np.testing.assert_allclose(after.depth, before.depth, rtol=1e-6)


def test_moving_states_units_frame_and_reason_and_touches_nothing_else() -> None:
    scene = synthetic_scene()
    moved = apply(scene, random_similarity(1), metric=True, world="gravity up", words="because")
    assert moved.metric and moved.units == "metres" and moved.world == "gravity up"
    assert moved.provenance.changes == (*scene.provenance.changes, "because")
    untouched = [f.name for f in fields(SceneView) if f.name not in ("camera", "depth", "points")]
    for before, after in zip(scene.views, moved.views, strict=True):
        assert all(getattr(before, name) is getattr(after, name) for name in untouched)


def test_every_field_of_a_scene_is_known_to_move_or_not() -> None:
    """A new field that lies in the world has to be moved by `apply` before it is added here."""
    in_world, own_frame = {"camera", "depth", "points"}, {"group", "group_camera"}
    elsewhere = {"name", "source", "original_size", "original_from_network", "image", "confidence", "valid", "status"}
    elsewhere |= {"status_reason", "upright_in_file", "timestamp", "masked_pixels"}
    assert {f.name for f in fields(SceneView)} == in_world | own_frame | elsewhere
    assert {f.name for f in fields(Scene)} == {
        "views",
        "provenance",
        "skipped",
        "warnings",
        "metric",
        "world",
        "sparse",
        "fused",
    }


def test_views_without_camera_move_too_and_other_groups_stay_with_a_warning() -> None:
    scene = without_camera(synthetic_scene(4), 1)
    camera = scene.views[3].camera
    scene = with_view(scene, 3, group=1, status="other_group", camera=None, group_camera=camera)
    similarity = random_similarity(2)
    moved = apply(scene, similarity, metric=True, world="given")
    assert moved.views[1].camera is None
    valid = scene.views[1].valid
    np.testing.assert_allclose(moved.views[1].points[valid], similarity.apply(scene.views[1].points[valid]), rtol=1e-4)
    assert moved.views[3] is scene.views[3] and "view3.png" in moved.warnings[-1]


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_a_similarity_without_scale_is_refused(scale: float) -> None:
    with pytest.raises(InputError, match="cannot move"):
        apply(synthetic_scene(1), random_similarity(0, scale), metric=False, world="given")


# ------------------------------------------------------------------ scale
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_a_known_distance_gives_the_scale_also_between_two_photos(seed: int) -> None:
    truth = room(table=False)
    generator = np.random.default_rng(seed)
    scene = apply(truth, random_similarity(seed), metric=False, world="given")
    # On the floor, between pixels: lower part of the pictures.
    first = ImagePoint(view=0, x=float(generator.uniform(2, 37)), y=float(generator.uniform(25, 28)))
    second = ImagePoint(view=int(generator.integers(5)), x=float(generator.uniform(2, 37)), y=24.5)
    places = []
    for point in (first, second):
        camera = truth.views[point.view].camera
        assert camera is not None
        ray = camera.unproject(np.array([point.x, point.y]), np.array(1.0)) - camera.centre
        places.append(camera.centre + ray * (EYES - camera.centre[1]) / ray[1])
    metres = float(np.linalg.norm(places[0] - places[1]))
    if metres < 0.3:
        return
    change = scale_from_distance(scene, first, second, metres)
    moved = change.apply_to(scene)
    assert moved.metric and moved.world == "given" and f"{metres:g} m" in change.words
    np.testing.assert_allclose(moved.views[2].depth, truth.views[2].depth, rtol=1e-3)


def test_depth_at_an_edge_is_not_a_mixture() -> None:
    scene = room(1, look_down=0.0, table=False)
    view = scene.views[0]
    depth = np.full(SIZE, 2.0, np.float32)
    depth[:, 20:] = 6.0
    scene = with_view(scene, 0, depth=depth, valid=view.valid)
    for x, near in ((19.4, 2.0), (19.6, 6.0)):
        change = scale_from_distance(scene, ImagePoint(view=0, x=x, y=10), ImagePoint(view=0, x=x, y=5), 1.0)
        assert change.similarity.scale == pytest.approx(1 / (near * 5 / 30))


def test_a_baseline_gives_the_scale() -> None:
    truth = room()
    scene = apply(truth, random_similarity(3), metric=False, world="given")
    metres = float(np.linalg.norm(truth.world_from_camera[0, :3, 3] - truth.world_from_camera[4, :3, 3]))
    moved = scale_from_baseline(scene, 0, 4, metres).apply_to(scene)
    np.testing.assert_allclose(moved.views[1].depth, truth.views[1].depth, rtol=1e-5)
    assert np.allclose(relative_cameras(moved)[:, :3, 3], relative_cameras(truth)[:, :3, 3])


@pytest.mark.parametrize("table", [False, True])
def test_the_height_of_the_cameras_gives_the_scale_and_a_table_is_not_the_floor(table: bool) -> None:
    truth = room(table=table)
    scene = apply(truth, random_similarity(4), metric=False, world="given")
    change = scale_from_camera_height(scene, EYES)
    np.testing.assert_allclose(change.apply_to(scene).views[0].depth, truth.views[0].depth, rtol=0.01)
    assert "5 cameras above the ground" in change.words


@pytest.mark.parametrize(
    ("first", "second", "metres", "reason"),
    [
        (ImagePoint(view=9, x=1, y=1), ImagePoint(view=0, x=1, y=1), 1.0, "no view 9"),
        (ImagePoint(view=1, x=1, y=1), ImagePoint(view=0, x=1, y=1), 1.0, "has no camera"),
        (ImagePoint(view=0, x=-3, y=1), ImagePoint(view=0, x=1, y=1), 1.0, "outside"),
        (ImagePoint(view=0, x=np.nan, y=1), ImagePoint(view=0, x=1, y=1), 1.0, "outside"),
        (ImagePoint(view=0, x=199, y=60), ImagePoint(view=0, x=90, y=60), 1.0, "no depth"),
        (ImagePoint(view=0, x=60, y=60), ImagePoint(view=0, x=60, y=60), 1.0, "no scale"),
        (ImagePoint(view=0, x=60, y=60), ImagePoint(view=0, x=90, y=60), 0.0, "above 0"),
        (ImagePoint(view=0, x=60, y=60), ImagePoint(view=0, x=90, y=60), np.inf, "above 0"),
    ],
)
def test_distances_that_give_no_scale_are_errors(first, second, metres, reason) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        scale_from_distance(without_camera(synthetic_scene(), 1), first, second, metres)
    assert caught.value.hint


def test_a_scene_without_ground_is_an_error_with_a_way_out() -> None:
    for scene in (without_points(room()), room(look_down=-0.6, table=False)):
        with pytest.raises(InputError) as caught:
            scale_from_camera_height(scene, 1.6)
        assert "up" in caught.value.hint


# ------------------------------------------------------------------ up
def checked_upright(scene: Scene, truth: Scene, degrees: float) -> None:
    """Floors are level, the first camera is the origin and looks along +z, up to the angle."""
    relative = scene.world_from_camera[0, :3, :3] @ truth.world_from_camera[0, :3, :3].T
    up = relative @ UP
    assert np.degrees(np.arccos(np.clip(up @ UP, -1, 1))) < degrees
    np.testing.assert_allclose(scene.world_from_camera[0, :3, 3], 0, atol=1e-9)
    looks = scene.world_from_camera[0, :3, 2]
    assert abs(looks[0]) < 1e-9 and looks[2] > 0
    assert scene.world == "gravity up"


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=8, deadline=None)
def test_up_is_found_by_every_way(seed: int) -> None:
    truth = room()
    similarity = random_similarity(seed)
    similarity = replace(similarity, rotation=Rotation.from_matrix(similarity.rotation).as_matrix())
    scene = apply(truth, similarity, metric=False, world="given")
    for change, degrees in (
        (up_from_vector(scene, 3 * similarity.rotation @ UP), 1e-4),
        (up_from_ground(scene), 0.5),
        (up_from_cameras(scene), 1e-4),
    ):
        moved = change.apply_to(scene)
        checked_upright(moved, truth, degrees)
        assert change.words.startswith("up: ") and not moved.metric and change.similarity.scale == 1


def test_cameras_that_all_look_one_way_say_what_is_assumed() -> None:
    scene = room(look_down=0.0)
    one_way = [replace(view, camera=scene.views[0].camera) for view in scene.views]
    change = up_from_cameras(replace(scene, views=tuple(one_way)))
    assert "straight ahead" in change.words
    turned = up_from_cameras(room(roll=0.05))
    assert "tilted sideways" in turned.words


def test_up_from_cameras_looking_down_is_not_bent_by_it() -> None:
    """The mean of the pictures' tops would lean forward by the angle at which cameras look down."""
    truth = room(look_down=0.6)
    checked_upright(up_from_cameras(truth).apply_to(truth), truth, 1e-4)


def test_a_camera_that_looks_straight_down_has_the_top_of_its_picture_ahead() -> None:
    scene = room(1)
    camera = scene.views[0].camera
    assert camera is not None
    down = np.eye(4)
    down[:3, :3] = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # z is -up of the world, that is +y
    scene = with_view(scene, 0, camera=replace(camera, world_from_camera=down))
    assert np.allclose(down[:3, 2], -UP)
    moved = up_from_vector(scene, UP).apply_to(scene)
    assert np.allclose(-moved.world_from_camera[0, :3, 1], [0, 0, 1])


@pytest.mark.parametrize("up", [(0, 0, 0), (np.nan, 0, 1), (1, 2)])
def test_what_is_no_direction_is_refused(up) -> None:
    with pytest.raises(InputError, match="direction up"):
        up_from_vector(room(1), up)


def test_without_cameras_nothing_says_where_up_is() -> None:
    scene = without_camera(synthetic_scene(1), 0)
    for find in (up_from_cameras, up_from_ground, lambda s: up_from_vector(s, UP)):
        with pytest.raises(InputError):
            find(scene)


def test_the_ground_is_the_lowest_large_plane_with_noise_and_outliers() -> None:
    scene = room(8)
    generator = np.random.default_rng(0)
    views = []
    for view in scene.views:
        noisy = view.points + generator.normal(size=view.points.shape) * 0.01
        noisy[generator.random(SIZE) < 0.15] += generator.normal(size=3) * 3
        views.append(replace(view, points=noisy.astype(np.float32)))
    plane = fit_ground_plane(replace(scene, views=tuple(views)))
    assert np.degrees(np.arccos(plane.normal @ UP)) < 0.5
    assert plane.heights(np.zeros(3)) == pytest.approx(EYES, rel=0.02)
    assert 0.1 < plane.share < 0.8 and plane.residual < 0.05


def test_a_plane_that_the_cameras_stand_askew_on_is_not_taken_for_the_ground() -> None:
    """All photos turned sideways by 30 degrees: then the floor is as askew as a slanted roof is for upright photos."""
    angle = np.radians(30)
    roll = np.eye(4)
    roll[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    scene = room(8)
    cameras = [view.camera for view in scene.views]
    turned = [
        replace(view, camera=replace(camera, world_from_camera=camera.world_from_camera @ roll))
        for view, camera in zip(scene.views, cameras, strict=True)
        if camera is not None
    ]
    fit_ground_plane(scene)
    with pytest.raises(InputError, match="no ground was found"):
        fit_ground_plane(replace(scene, views=tuple(turned)))


def test_cameras_at_very_different_heights_call_the_ground_into_question() -> None:
    scene = room(8)
    plane = fit_ground_plane(scene)
    assert up_from_ground(scene).warnings == ()
    first = scene.views[0].camera
    assert first is not None
    raised = first.world_from_camera.copy()
    raised[:3, 3] += plane.normal * plane.heights(first.centre)  # twice as high as the others
    scene = with_view(scene, 0, camera=replace(first, world_from_camera=raised))
    change = scale_from_camera_height(scene, 1.6, plane=plane)
    assert "differ by 100%" in change.warnings[0]
    assert change.warnings[0] in change.apply_to(scene).warnings


# ------------------------------------------------------------------ GPS
ORIGIN = GpsPosition(latitude=47.3769, longitude=8.5417, altitude=408.0)


def positions_at(east_north_up: np.ndarray) -> list[GpsPosition]:
    """Positions near the origin by a linear map, whose error is below a millimetre over some tens of metres."""
    step = 1e-5
    columns = [
        local_tangent_plane([replace(ORIGIN, latitude=ORIGIN.latitude + step)], ORIGIN)[0, 1] / step,
        local_tangent_plane([replace(ORIGIN, longitude=ORIGIN.longitude + step)], ORIGIN)[0, 0] / step,
    ]
    return [
        GpsPosition(
            latitude=ORIGIN.latitude + north / columns[0],
            longitude=ORIGIN.longitude + east / columns[1],
            altitude=ORIGIN.altitude + up,  # type: ignore[operator]
        )
        for east, north, up in east_north_up
    ]


def walk(count: int = 9, seed: int = 0) -> tuple[Scene, np.ndarray]:
    """A scene whose cameras are around a place of some forty metres, and their metres east, north and up."""
    generator = np.random.default_rng(seed)
    places = generator.uniform(-20, 20, (count, 3)) * [1, 1, 0.2]
    scene = room(count)
    views = []
    for view, (east, north, up) in zip(scene.views, places, strict=True):
        assert view.camera is not None
        matrix = view.camera.world_from_camera.copy()
        matrix[:3, 3] = [east, -up, north]
        views.append(replace(view, camera=replace(view.camera, world_from_camera=matrix)))
    return replace(scene, views=tuple(views)), places


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_gps_gives_metres_north_and_up(seed: int) -> None:
    truth, places = walk(seed=seed % 1000)
    scene = apply(truth, random_similarity(seed), metric=False, world="first camera")
    change = world_from_gps(scene, positions_at(places))
    moved = change.apply_to(scene)
    assert moved.metric and moved.world == "east down north" and change.residual is not None and change.residual < 0.02
    centred = truth.world_from_camera[:, :3, 3] - truth.world_from_camera[0, :3, 3]
    np.testing.assert_allclose(moved.world_from_camera[:, :3, 3], centred, atol=0.05)
    np.testing.assert_allclose(moved.world_from_camera[:, :3, :3], truth.world_from_camera[:, :3, :3], atol=2e-3)
    np.testing.assert_allclose(moved.views[0].depth, truth.views[0].depth, rtol=2e-3)


def test_gps_survives_wrong_positions_and_reports_what_is_left() -> None:
    truth, places = walk(12)
    noisy = places + np.random.default_rng(1).normal(size=places.shape) * 0.3
    noisy[[2, 7, 9]] += [[200, 0, 0], [0, -500, 30], [50, 50, 0]]
    change = world_from_gps(truth, positions_at(noisy))
    assert change.similarity.scale == pytest.approx(1, abs=0.03)
    assert change.residual is not None and 0.2 < change.residual < 1.0 and "of 12 photos" in change.words
    tilt = Rotation.from_matrix(change.similarity.rotation).magnitude()
    assert np.degrees(tilt) < 3


def test_gps_without_altitude_takes_photos_to_be_at_one_height() -> None:
    truth, places = walk()
    level = places * [1, 1, 0]
    views = []
    for view in truth.views:
        assert view.camera is not None
        matrix = view.camera.world_from_camera.copy()
        matrix[1, 3] = 0
        views.append(replace(view, camera=replace(view.camera, world_from_camera=matrix)))
    positions = [replace(position, altitude=None) for position in positions_at(level)]
    change = world_from_gps(replace(truth, views=tuple(views)), positions)
    assert "no altitude" in change.words and change.similarity.scale == pytest.approx(1, abs=1e-3)


def line_of(scene: Scene) -> list[GpsPosition]:
    return positions_at(np.outer(np.arange(len(scene.views)), [3.0, 4.0, 0.0]))


@pytest.mark.parametrize(
    ("positions", "reason"),
    [
        (lambda scene: line_of(scene), "one line"),
        (lambda scene: [ORIGIN] * len(scene.views), "one place"),
        (lambda scene: [ORIGIN, ORIGIN, *[None] * (len(scene.views) - 2)], "2 photos have"),
        (lambda scene: [ORIGIN], "1 positions for 9 views"),
        (lambda scene: positions_at(np.random.default_rng(5).uniform(-20, 20, (9, 3))), "do not agree"),
        (lambda scene: None, "0 photos have"),
    ],
)
def test_gps_that_says_nothing_is_an_error_with_a_way_out(positions, reason) -> None:
    scene, _ = walk()
    with pytest.raises(InputError, match=reason) as caught:
        world_from_gps(scene, positions(scene))
    assert caught.value.hint


def test_the_tangent_plane_agrees_with_lengths_of_degrees() -> None:
    """Published for WGS 84: at 45 degrees north a degree is 111 132 m of latitude and 78 847 m of longitude."""
    origin = GpsPosition(latitude=45.0, longitude=10.0, altitude=0.0)
    east = local_tangent_plane([replace(origin, longitude=10.001)], origin)[0]
    north = local_tangent_plane([replace(origin, latitude=45.001)], origin)[0]
    np.testing.assert_allclose(east, [78.847, 0, 0], atol=0.01)
    np.testing.assert_allclose(north, [0, 111.132, 0], atol=0.01)
    np.testing.assert_allclose(local_tangent_plane([replace(origin, altitude=7.0)], origin)[0], [0, 0, 7], atol=1e-6)


def photo_with_gps(path: Path, **tags) -> Path:
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({int(key[1:]): value for key, value in tags.items()})
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path, exif=exif)
    return path


SOUTH_WEST = {"t1": "S", "t2": (33.0, 51.0, 24.84), "t3": "W", "t4": (70.0, 40.0, 9.8), "t5": b"\x01", "t6": 12.5}


def test_positions_are_read_from_exif(tmp_path) -> None:
    found = read_gps(photo_with_gps(tmp_path / "a.jpg", **SOUTH_WEST))
    assert found is not None
    expected = (-(33 + 51 / 60 + 24.84 / 3600), -(70 + 40 / 60 + 9.8 / 3600), -12.5)
    assert (found.latitude, found.longitude, found.altitude) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    "wrong",
    [{"t2": (95.0, 0.0, 0.0)}, {"t4": (0.0, 0.0)}, {"t2": (0.0, 0.0, 0.0), "t4": (0.0, 0.0, 0.0)}],
)
def test_positions_that_cannot_be_true_are_none(tmp_path, wrong) -> None:
    assert read_gps(photo_with_gps(tmp_path / "a.jpg", **{**SOUTH_WEST, **wrong})) is None


def test_photos_without_position_or_damaged_ones_say_nothing_and_missing_ones_are_errors(tmp_path) -> None:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "plain.jpg")
    (tmp_path / "damaged.jpg").write_bytes(b"\xff\xd8\xff\xe1 nothing")
    assert read_gps(tmp_path / "plain.jpg") is None and read_gps(tmp_path / "damaged.jpg") is None
    with pytest.raises(InputError, match="no such file"):
        read_gps(tmp_path / "missing.jpg")


def test_gps_is_taken_from_the_photos_of_a_scene(tmp_path) -> None:
    scene, places = walk(5)
    views = []
    for view, position in zip(scene.views, positions_at(places), strict=True):
        tags = {"t1": "N", "t2": (position.latitude, 0.0, 0.0), "t3": "E", "t4": (position.longitude, 0.0, 0.0)}
        path = photo_with_gps(tmp_path / view.name, **tags, t5=b"\x00", t6=position.altitude)
        views.append(replace(view, source=str(path)))
    change = world_from_gps(replace(scene, views=tuple(views)))
    assert change.similarity.scale == pytest.approx(1, abs=0.01) and "5 photos" in change.words
