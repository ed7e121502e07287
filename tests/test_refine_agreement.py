"""The measure by which cameras are compared: how far matches miss them, and what a turn alone explains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from manyview.geometry import Camera, intrinsics
from manyview.refine.agreement import (
    Agreement,
    errors,
    explained_by_rotation,
    has_no_parallax,
    judge_cameras,
    limit_of,
    share_explained,
)
from manyview.refine.matching import VerifiedPair
from sparse_worlds import cameras_around

seeds = st.integers(0, 10**6)


def two_cameras(seed: int) -> tuple[Camera, Camera]:
    """Side by side, turned a little, with lenses of their own."""
    generator = np.random.default_rng(seed)
    cameras = []
    for centre in (np.zeros(3), generator.uniform([-1, -1, -0.9], [1, 1, 1.1])):
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_rotvec(generator.uniform(-0.2, 0.2, 3)).as_matrix()
        matrix[:3, 3] = centre
        K = intrinsics(generator.uniform(300, 900), (generator.uniform(250, 390), generator.uniform(180, 300)))
        cameras.append(Camera(K=K, world_from_camera=matrix, width=640, height=480))
    return cameras[0], cameras[1]


def points_in_front(seed: int, count: int = 50) -> np.ndarray:
    return np.random.default_rng(seed).uniform([-2, -2, 4], [2, 2, 12], (count, 3))


def pair_of(first: np.ndarray, second: np.ndarray, views: tuple[int, int] = (0, 1)) -> VerifiedPair:
    rows = np.repeat(np.arange(len(first))[:, None], 2, axis=1)
    return VerifiedPair(
        first=views[0], second=views[1], rows=rows, first_pixels=first, second_pixels=second, candidates=len(first)
    )


def seen(first: Camera, second: Camera, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return first.project(points)[0], second.project(points)[0]


@given(seeds)
def test_matches_of_exact_cameras_have_no_error(seed):
    cameras = two_cameras(seed)
    assert errors(*cameras, *seen(*cameras, points_in_front(seed))).max() < 1e-8


@given(seeds, st.floats(-20, 20))
def test_the_error_is_at_most_what_a_pixel_was_moved_by(seed, shift):
    first, second = two_cameras(seed)
    a, b = seen(first, second, points_in_front(seed))
    moved = b + shift * np.array([np.cos(seed), np.sin(seed)])
    # To first order, and the epipolar lines turn a little under the pixel.
    assert (errors(first, second, a, moved) <= 1.1 * abs(shift) + 1e-6).mean() > 0.9


def test_moving_across_the_epipolar_line_costs_and_along_it_does_not():
    K = intrinsics(500, (320, 240))
    first = Camera(K=K, world_from_camera=np.eye(4), width=640, height=480)
    aside = np.eye(4)
    aside[0, 3] = 1.0
    second = replace(first, world_from_camera=aside)
    a, b = seen(first, second, points_in_front(0))
    across, along = np.array([0, 2]), np.array([-2, 0])
    np.testing.assert_allclose(errors(first, second, a, b + across), np.sqrt(2), rtol=1e-6)  # both ends share it
    np.testing.assert_allclose(errors(first, second, a, b + along), 0, atol=1e-9)


@given(seeds)
def test_the_error_does_not_depend_on_which_view_is_first(seed):
    first, second = two_cameras(seed)
    a, b = seen(first, second, points_in_front(seed))
    b = b + np.random.default_rng(seed).normal(size=b.shape)
    one, other = errors(first, second, a, b), errors(second, first, b, a)
    in_front = np.isclose(one, other)
    assert in_front.mean() > 0.75  # of the rest, rays meet behind, and the distance is measured in one of the pictures


@given(seeds, st.floats(0.01, 100))
def test_the_error_does_not_depend_on_the_world_or_its_scale(seed, scale):
    first, second = two_cameras(seed)
    a, b = seen(first, second, points_in_front(seed))
    b = b + np.random.default_rng(seed).normal(size=b.shape)
    frame = np.eye(4)
    frame[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    frame[:3, 3] = [1, 2, 3]
    moved = []
    for camera in (first, second):
        matrix = frame @ camera.world_from_camera
        matrix[:3, 3] *= scale
        moved.append(replace(camera, world_from_camera=matrix))
    np.testing.assert_allclose(errors(*moved, a, b), errors(first, second, a, b), rtol=1e-5, atol=1e-6)


def test_matches_that_only_meet_behind_the_cameras_are_not_explained():
    first, second = cameras_around(2, step=30)
    points = np.random.default_rng(0).uniform(-1, 1, (100, 3))
    a, b = seen(first, second, points)
    swapped = replace(first, world_from_camera=second.world_from_camera), first
    mirrored = 2 * first.world_from_camera[:3, 3] - second.world_from_camera[:3, 3]  # baseline the other way round
    wrong = second.world_from_camera.copy()
    wrong[:3, 3] = mirrored
    assert errors(first, second, a, b).max() < 1e-6
    assert (errors(first, replace(second, world_from_camera=wrong), a, b) > limit_of(first, second)).all()
    assert (errors(*swapped, a, b) > limit_of(first, second)).mean() > 0.9


def test_matches_of_points_between_two_cameras_that_follow_each_other_are_not_explained():
    first = Camera(K=intrinsics(500, (320, 240)), world_from_camera=np.eye(4), width=640, height=480)
    ahead = np.eye(4)
    ahead[2, 3] = 5.0
    second = replace(first, world_from_camera=ahead)
    point = np.array([0.4, 0.3, 3.0])  # in front of the first alone; its line through the second meets the picture
    mirrored = (second.K @ ((point - [0, 0, 5]) / (point[2] - 5)))[:2]
    shown = first.project(point)[0][None]
    assert errors(first, second, shown, mirrored[None])[0] > limit_of(first, second)
    assert errors(second, first, mirrored[None], shown)[0] > limit_of(first, second)


def test_cameras_in_one_place_miss_by_the_distance_from_the_point_at_infinity():
    first = Camera(K=intrinsics(500, (320, 240)), world_from_camera=np.eye(4), width=640, height=480)
    pixels = np.array([[320.0, 240], [100, 50]])
    np.testing.assert_allclose(errors(first, first, pixels, pixels + np.array([3, 4])), 5, atol=1e-9)


def test_pixels_that_are_not_numbers_are_explained_by_nothing():
    first, second = cameras_around(2)
    a, b = seen(first, second, np.zeros((3, 3)))
    b[1] = np.nan
    assert np.isinf(errors(first, second, a, b)[1]) and errors(first, second, a, b)[[0, 2]].max() < 1e-6
    assert share_explained(first, second, pair_of(a, b)) == pytest.approx(2 / 3)
    assert judge_cameras([first, second], [pair_of(a, b)]).explained == pytest.approx(2 / 3)


# ------------------------------------------------------------------ judging
def test_views_without_a_camera_explain_nothing():
    cameras = cameras_around(3)
    points = np.random.default_rng(0).uniform(-1, 1, (40, 3))
    pairs = [pair_of(*seen(cameras[i], cameras[j], points), views=(i, j)) for i, j in ((0, 1), (0, 2), (1, 2))]
    whole = judge_cameras(cameras, pairs)
    assert (whole.matches, whole.explained, whole.score) == (120, 1, 1) and whole.median_error < 1e-8
    partly = judge_cameras([cameras[0], cameras[1], None], pairs)
    assert (partly.matches, partly.explained) == (120, pytest.approx(1 / 3))
    apart = judge_cameras(cameras, pairs, frames=[0, 0, 1])
    assert apart.explained == pytest.approx(1 / 3)
    nothing = judge_cameras([None, None, None], pairs)
    assert nothing.explained == 0 and np.isnan(nothing.median_error)


def judged(score: float, error: float) -> Agreement:
    return Agreement(matches=100, explained=score, score=score, median_error=error)


agreements = st.builds(judged, st.floats(0, 1), st.one_of(st.floats(0, 50), st.just(float("nan"))))


@given(agreements, agreements)
def test_of_two_at_most_one_is_worse_and_none_than_itself(one, other):
    assert not (one.is_worse_than(other) and other.is_worse_than(one))
    assert not one.is_worse_than(one)


def test_worse_is_to_explain_less_or_as_much_with_larger_errors():
    assert judged(0.5, 0.1).is_worse_than(judged(0.9, 3.0))
    assert judged(0.90, 2.0).is_worse_than(judged(0.91, 1.0))
    assert not judged(0.90, 1.0).is_worse_than(judged(0.91, 1.0))
    assert judged(0.0, float("nan")).is_worse_than(judged(0.0, 1.0))
    assert not judged(1.0, 1e-5).is_worse_than(judged(1.0, 1e-9))


# ------------------------------------------------------------------ parallax
def turned_pair(noise: float = 0.0) -> tuple[Camera, Camera, VerifiedPair]:
    first, second = cameras_around(2, in_one_place=True, seed=3)
    points = np.random.default_rng(0).uniform(-1.5, 1.5, (60, 3))
    a, b = seen(first, second, points)
    return first, second, pair_of(a, b + noise * np.random.default_rng(1).normal(size=b.shape))


def test_a_turn_explains_what_a_turn_has_made_even_with_a_wrong_focal_length():
    first, second, pair = turned_pair(noise=0.3)
    assert explained_by_rotation(first, second, pair) > 0.95
    wrong = intrinsics(1.2 * first.K[0, 0], (first.K[0, 2], first.K[1, 2]))
    assert explained_by_rotation(replace(first, K=wrong), replace(second, K=wrong), pair) > 0.9
    assert has_no_parallax([first, second], [pair])


def test_a_turn_does_not_explain_parallax():
    first, second = cameras_around(2)
    pair = pair_of(*seen(first, second, np.random.default_rng(0).uniform(-1.5, 1.5, (60, 3))))
    assert explained_by_rotation(first, second, pair) < 0.5
    assert not has_no_parallax([first, second], [pair])


def pair_shown(cameras: list[Camera], first: int, second: int, count: int, *, wrong: bool = False) -> VerifiedPair:
    """A pair with so many matches, of points or (wrong ones) of nothing."""
    generator = np.random.default_rng(first * 100 + second)
    points = generator.uniform(-1.5, 1.5, (count, 3))
    a, b = seen(cameras[first], cameras[second], points)
    return pair_of(a, generator.uniform([0, 0], [640, 480], b.shape) if wrong else b, views=(first, second))


def near_copies(*counts: int) -> tuple[list[Camera], list[int]]:
    """So many cameras in each of some places, and the place of each."""
    places = cameras_around(len(counts), step=14)
    cameras, place_of = [], []
    for number, (place, count) in enumerate(zip(places, counts, strict=True)):
        for copy in range(count):
            matrix = place.world_from_camera.copy()
            matrix[0, 3] += 0.002 * copy
            cameras.append(replace(place, world_from_camera=matrix))
            place_of.append(number)
    return cameras, place_of


@pytest.mark.parametrize("counts", [(8, 8), (6, 6, 6), (20, 1)])
def test_near_copies_do_not_hide_the_parallax_between_places(counts):
    cameras, place_of = near_copies(*counts)
    pairs = [
        pair_shown(cameras, i, j, 1500 if place_of[i] == place_of[j] else 70)
        for i in range(len(cameras))
        for j in range(i + 1, len(cameras))
        if abs(place_of[i] - place_of[j]) < 2
    ]
    assert not has_no_parallax(cameras, pairs)
    assert has_no_parallax(cameras, [pair for pair in pairs if place_of[pair.first] == place_of[pair.second] == 0])


def test_one_of_many_photos_of_a_place_that_is_linked_to_another_is_enough():
    cameras, place_of = near_copies(8, 2)
    within = [(i, j) for i in range(10) for j in range(i + 1, 10) if place_of[i] == place_of[j]]
    pairs = [pair_shown(cameras, i, j, 1500) for i, j in within]
    assert not has_no_parallax(cameras, [*pairs, pair_shown(cameras, 3, 9, 120)])


def test_a_few_wrong_matches_are_no_parallax():
    cameras = cameras_around(8, in_one_place=True)
    pairs = [pair_shown(cameras, i, j, 200) for i in range(7) for j in range(i + 1, 7)]
    # Also of a photo that nothing else links to the others.
    wrong = [pair_shown(cameras, i, j, 20, wrong=True) for i, j in ((0, 1), (2, 5), (3, 6), (4, 7))]
    assert has_no_parallax(cameras, [*pairs[1:], *wrong])


def test_without_any_pair_nothing_is_said_of_parallax():
    assert not has_no_parallax([None, None], [turned_pair()[2]])
    assert not has_no_parallax([], [])
