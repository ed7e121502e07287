"""Features where the photos show them, pairs worth matching, and matches that survive verification."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from manyview.refine.colmap_log import quiet_colmap
from manyview.refine.exact_cameras import match_views
from manyview.refine.features import extract_features, features_of, notes_on_pictures
from manyview.refine.full_size import open_photo
from manyview.refine.lenses import find_lenses
from manyview.refine.matching import MatchDatabase, VerifiedPair, connected, linked_parts
from manyview.refine.options import GivenCameras, RefineOptions
from manyview.refine.overlap import bridging_pairs, choose_pairs, overlap
from manyview.scene import SceneView
from sparse_worlds import cameras_around, network_scene, photographed

OPTIONS = RefineOptions(threads=1)
BLOBS = np.array([[40.0, 50.0], [101.25, 60.5], [160.5, 130.75], [220.0, 90.0], [70.0, 140.0]])  # (x, y)
SIZE = (200, 280)  # (height, width)


def blobs(size: tuple[int, int] = SIZE, scale: float = 1.0) -> np.ndarray:
    """(H, W, 3) uint8: soft spots, each brighter than the last; `scale` pixels to one of theirs."""
    y, x = np.mgrid[: size[0], : size[1]].astype(float)
    picture = np.full(size, 40.0)
    for number, (column, row) in enumerate(BLOBS):
        where = (column + 0.5) * scale - 0.5, (row + 0.5) * scale - 0.5
        squared = (x - where[0]) ** 2 + (y - where[1]) ** 2
        picture += (90 + 25 * number) * np.exp(-squared / (2 * (5 * scale) ** 2))
    return np.repeat(np.rint(picture)[..., None], 3, axis=-1).astype(np.uint8)


def view_of(picture: np.ndarray, original_size: tuple[int, int], affine: np.ndarray, **others) -> SceneView:
    height, width = picture.shape[:2]
    return SceneView.masked(
        name="a.png",
        original_size=original_size,
        original_from_network=affine,
        image=picture,
        camera=None,
        depth=np.ones((height, width)),
        points=np.ones((height, width, 3)),
        confidence=np.ones((height, width)),
        valid=np.ones((height, width), bool),
        **others,
    )


@pytest.fixture
def photo(tmp_path) -> SceneView:
    Image.fromarray(blobs()).save(tmp_path / "a.png")
    return view_of(np.zeros((20, 28, 3), np.uint8), SIZE, np.diag([10.0, 10, 1]), source=str(tmp_path / "a.png"))


def nearest(pixels: np.ndarray) -> np.ndarray:
    return np.linalg.norm(BLOBS[:, None] - pixels[None], axis=-1).min(axis=1)


# ------------------------------------------------------------------ features
@pytest.mark.parametrize("upsample_below", [0, 1000])
def test_features_are_in_original_pixels_with_integers_at_centres(photo, upsample_below):
    found = features_of(photo, replace(OPTIONS, upsample_below=upsample_below))
    assert nearest(found.pixels).max() < 0.15 and found.note == ""
    assert found.resolution == 1 and found.descriptors.shape == (len(found), 128)


def test_features_of_a_reduced_photo_are_at_the_same_places(photo):
    found = features_of(photo, replace(OPTIONS, max_image_size=140))
    assert nearest(found.pixels).max() < 0.3
    assert found.resolution == pytest.approx(2)
    whole = features_of(photo, OPTIONS)
    assert np.median(found.scales) == pytest.approx(np.median(whole.scales), rel=0.5)


def test_features_are_in_the_upright_picture(photo, tmp_path):
    turned = Image.fromarray(np.rot90(blobs()).copy())
    exif = turned.getexif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    turned.save(tmp_path / "turned.png", exif=exif)
    found = features_of(replace(photo, source=str(tmp_path / "turned.png")), OPTIONS)
    assert found.note == "" and nearest(found.pixels).max() < 0.15


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": None}, "not from a photo"),
        ({"source": "/nowhere/a.png"}, "cannot be read"),
        ({"source": "/nowhere/a.mp4", "timestamp": 1.0}, "cannot be opened as a video"),
        ({"original_size": (400, 560)}, "changed its size"),
    ],
)
def test_without_the_photo_the_networks_picture_is_taken_and_that_is_noted(photo, changes, words):
    height, width = changes.get("original_size", SIZE)
    scale = height / SIZE[0] * 2
    affine = np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2], [0, 0, 1]])
    half = blobs((SIZE[0] // 2, SIZE[1] // 2), 0.5)
    view = replace(view_of(half, (height, width), affine, source=photo.source), **changes)
    found = features_of(view, OPTIONS)
    assert words in found.note
    factor = height / SIZE[0]
    assert nearest((found.pixels + 0.5) / factor - 0.5).max() < 0.3
    assert found.resolution == pytest.approx(scale)


def test_how_many_photos_are_not_matched_in_full_size_and_why_is_said_once_a_kind(photo):
    small = np.array([[2.0, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])
    half = blobs((SIZE[0] // 2, SIZE[1] // 2), 0.5)
    views = [photo, *(replace(photo, image=half, original_from_network=small, name=f"{i}.png") for i in range(7))]
    views[1:] = [replace(view, source=None if i < 6 else "/gone/x.png") for i, view in enumerate(views[1:])]
    array, gone = notes_on_pictures(views, extract_features(views, OPTIONS))
    assert "6 of 8 photos (0.png, 1.png, 2.png, 3.png, 4.png, ...)" in array and "not from a photo" in array
    assert "140 x 100 instead of 280 x 200 pixels" in array
    assert "1 of 8 photos (6.png)" in gone and "its file cannot be read" in gone and "/gone" not in gone.split("(")[1]
    assert notes_on_pictures([photo], extract_features([photo], OPTIONS)) == []


def test_features_in_the_padding_of_the_networks_picture_are_left_out():
    affine = np.array([[1.0, 0, 0], [0, 1, -80], [0, 0, 1]])  # the first 80 rows are padding
    found = features_of(view_of(blobs(), (120, 280), affine, source=None), OPTIONS)
    assert len(found) and (found.pixels[:, 1] >= -0.5).all()


def test_a_blank_photo_has_no_features():
    blank = view_of(np.full((64, 64, 3), 99, np.uint8), (64, 64), np.eye(3), source=None)
    found = extract_features([blank], OPTIONS)[0]
    assert len(found) == 0 and found.descriptors.shape == (0, 128) and found.pixels.shape == (0, 2)


def test_a_photo_is_opened_at_most_so_large(photo):
    whole, reduced = open_photo(photo, 10_000), open_photo(photo, 70)
    assert whole.pixels.shape == (*SIZE, 3) and np.array_equal(whole.original_from_photo, np.eye(3))
    assert reduced.pixels.shape == (50, 70, 3)
    corners = np.array([[-0.5, 69.5], [-0.5, 49.5], [1, 1]])
    np.testing.assert_allclose((reduced.original_from_photo @ corners)[:2], [[-0.5, 279.5], [-0.5, 199.5]])


# ------------------------------------------------------------------ matches
@pytest.fixture(scope="module")
def world():
    return photographed(cameras_around(5), points=120)


def database_of(world, folder, options: RefineOptions = OPTIONS) -> MatchDatabase:
    scene = network_scene(world)
    return MatchDatabase(folder / "m.db", world.features, find_lenses(scene.views, GivenCameras(), options), options)


def test_verified_matches_show_the_same_points(world, tmp_path):
    database = database_of(world, tmp_path)
    with quiet_colmap():
        database.match([(0, 1), (1, 4)])
    pairs = database.verified()
    assert [(pair.first, pair.second) for pair in pairs] == [(0, 1), (1, 4)]
    for pair in pairs:
        first, second = pair.rows.T
        np.testing.assert_array_equal(world.rows[pair.first][first], world.rows[pair.second][second])
        np.testing.assert_array_equal(pair.first_pixels, world.features[pair.first].pixels[pair.rows[:, 0]])
        assert 110 <= len(pair) <= pair.candidates
    assert [path.name for path in tmp_path.iterdir()] == ["m.db"]


def test_wrong_matches_do_not_pass_verification(world, tmp_path):
    generator = np.random.default_rng(0)
    mixed = list(world.features)
    descriptors = mixed[1].descriptors.copy()
    descriptors[:40] = descriptors[generator.permutation(40)]  # a third of its features look like others
    mixed[1] = replace(mixed[1], descriptors=descriptors)
    database = database_of(replace(world, features=tuple(mixed)), tmp_path)
    with quiet_colmap():
        database.match([(0, 1)])
    pair = database.verified()[0]
    wrong = world.rows[0][pair.rows[:, 0]] != world.rows[1][pair.rows[:, 1]]
    assert pair.candidates >= 115 and len(pair) < 95 and wrong.mean() < 0.1


def test_pairs_with_few_matches_do_not_count(world, tmp_path):
    database = database_of(world, tmp_path, replace(OPTIONS, min_matches=121))
    with quiet_colmap():
        database.match([(0, 1)])
    assert database.verified() == []


def pair(first: int, second: int) -> VerifiedPair:
    none = np.zeros((0, 2))
    return VerifiedPair(
        first=first, second=second, rows=none.astype(int), first_pixels=none, second_pixels=none, candidates=0
    )


def test_parts_are_what_pairs_link_the_largest_first():
    pairs = [pair(0, 5), pair(2, 3), pair(3, 6)]
    assert linked_parts(pairs, 7) == [(2, 3, 6), (0, 5), (1,), (4,)]
    assert linked_parts([], 2) == [(0,), (1,)] and connected([], 0) == []


# ------------------------------------------------------------------ pairs
def test_what_a_view_sees_of_another_is_the_share_of_its_points_in_the_picture(world):
    scene = network_scene(world)
    shares = overlap(scene.views)
    np.testing.assert_array_equal(np.diag(shares), 1)
    assert (shares > 0.9).all()  # all look at the same points
    away = scene.views[2].camera.world_from_camera @ np.diag([-1.0, 1, -1, 1])
    camera = replace(scene.views[2].camera, world_from_camera=away)
    turned = [replace(view, camera=camera) if index == 2 else view for index, view in enumerate(scene.views)]
    assert (np.delete(overlap(turned)[:, 2], 2) == 0).all()


def test_what_lies_far_behind_anothers_surface_is_hidden_from_it(world):
    scene = network_scene(world)
    wall = scene.views[1]
    near = replace(wall, depth=np.full_like(wall.depth, 0.1), valid=np.ones_like(wall.valid))
    shares = overlap([scene.views[0], near])
    assert shares[0, 1] == 0 and shares[1, 0] > 0


def test_views_without_a_camera_or_of_other_groups_share_nothing(world):
    scene = network_scene(world)
    lost = replace(scene.views[1], camera=None)
    other = replace(scene.views[2], group=1, group_camera=scene.views[2].camera, camera=None)
    shares = overlap([scene.views[0], lost, other])
    assert shares[0, 1] == shares[0, 2] == shares[2, 0] == 0


def ring(count: int) -> np.ndarray:
    """Shares of views on a line: each sees its neighbours, and less of those farther off."""
    apart = np.abs(np.arange(count)[:, None] - np.arange(count))
    return np.maximum(1 - 0.2 * apart, 0)


@pytest.fixture(scope="module")
def line():
    return network_scene(photographed(cameras_around(8, step=5), points=60)).views


def test_few_views_are_paired_all_with_all(line):
    assert choose_pairs(ring(8), line, all_up_to=8, per_view=1) == list(combinations(range(8), 2))


def test_of_many_views_those_are_paired_that_share_most(line):
    pairs = choose_pairs(ring(8), line, all_up_to=3, per_view=2)
    assert {(view, view + 1) for view in range(7)} <= set(pairs)
    assert pairs == sorted(pairs) and all(j - i <= 2 for i, j in pairs)


def test_a_view_of_which_nothing_is_known_is_paired_with_all(line):
    views = [replace(view, camera=None) if index == 3 else view for index, view in enumerate(line)]
    pairs = choose_pairs(ring(8), views, all_up_to=3, per_view=1)
    assert {tuple(sorted((3, other))) for other in range(8) if other != 3} <= set(pairs)


def test_frames_of_a_video_are_paired_with_those_that_follow(line):
    views = [replace(view, timestamp=float(index)) for index, view in enumerate(line)]
    shares = np.eye(8) + 0.1  # the network sees no neighbours
    pairs = choose_pairs(shares, views, all_up_to=3, per_view=1)
    assert {(view, view + 1) for view in range(7)} | {(view, view + 2) for view in range(6)} <= set(pairs)


def test_parts_that_the_network_does_not_link_are_bridged_by_matches(world, tmp_path):
    database = database_of(world, tmp_path, replace(OPTIONS, all_pairs_up_to=2, pairs_per_view=1))
    shares = np.zeros((5, 5))
    shares[:2, :2] = shares[2:, 2:] = 0.5
    with quiet_colmap():
        pairs = match_views(database, network_scene(world).views, shares)
    assert linked_parts(pairs, 5) == [(0, 1, 2, 3, 4)]


def test_bridges_are_pairs_between_parts_that_were_not_tried():
    parts, tried = [(0, 1, 2), (3, 4)], [(0, 3), (1, 2)]
    assert bridging_pairs(parts, tried, 100) == [(0, 4), (1, 3), (1, 4), (2, 3), (2, 4)]
    assert len(bridging_pairs(parts, tried, 2)) <= 2
    assert bridging_pairs([(0, 1)], [], 10) == []
