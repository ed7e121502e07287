"""Depth maps check each other: truth confirms truth, what is wrong is left out, and no pixel makes two points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview.errors import InputError
from manyview.refine.consistency import (
    DepthView,
    Tolerance,
    check_consistency,
    compare,
    fuse,
    needed,
    without_speckles,
)
from textured_planes import BOARD, WALL, Photo, camera_at, photograph, row_of_photos


def depth_view(photo: Photo, scale: float = 1.0, confidence: float = 1.0) -> DepthView:
    depth = torch.as_tensor(scale * photo.depth, dtype=torch.float32)
    return DepthView(camera=photo.camera, depth=depth, confidence=torch.full_like(depth, confidence))


def others_of(count: int) -> list[list[int]]:
    return [[other for other in range(count) if other != index] for index in range(count)]


def seen_by(photo: Photo, other: Photo, margin: float) -> np.ndarray:
    """(H, W) bool: the photo's points that lie well inside the other picture."""
    grid = np.stack(np.meshgrid(np.arange(96), np.arange(72)), -1).astype(float)
    pixels, depth = other.camera.project(photo.camera.unproject(grid, photo.depth))
    return (depth > 0) & (pixels > margin).all(-1) & (pixels < np.array([95, 71]) - margin).all(-1)


@settings(max_examples=15, deadline=None)
@given(st.floats(-1.5, 1.5), st.floats(-0.8, 0.8), st.floats(-1.0, 1.0), st.floats(-0.3, 0.3))
def test_true_depth_agrees_with_itself_from_wherever_it_is_seen(x: float, y: float, z: float, turn: float) -> None:
    first, other = photograph(camera_at((0, 0, 0))), photograph(camera_at((x, y, z), turn=turn))
    found = compare(depth_view(first), depth_view(other), Tolerance(depth=1e-3, pixels=0.1))
    seen = seen_by(first, other, 1)
    assert found.agrees.numpy()[seen].all()
    np.testing.assert_allclose(found.depth.numpy()[seen], first.depth[seen], rtol=1e-4)
    assert (found.depth[~found.agrees] == 0).all()


def test_what_is_hidden_from_the_other_view_does_not_agree() -> None:
    first, other = row_of_photos(2, [WALL, BOARD], gap=1.0)
    wall_alone = photograph(other.camera, [WALL])
    found = compare(depth_view(first), depth_view(other), Tolerance()).agrees.numpy()
    with_wall = compare(depth_view(first), depth_view(wall_alone), Tolerance()).agrees.numpy()
    board = first.depth < photograph(first.camera, [WALL]).depth - 0.1
    hidden = seen_by(first, other, 1) & ~board & with_wall & ~found
    assert 50 < hidden.sum() < 0.2 * hidden.size
    assert not with_wall[board].any()


def test_a_wrong_depth_map_is_confirmed_by_none_and_harms_no_other() -> None:
    photos = row_of_photos(5)
    views = [depth_view(photo, scale=1.1 if index == 2 else 1.0) for index, photo in enumerate(photos)]
    checks = [check_consistency(views[i], [views[j] for j in near], Tolerance()) for i, near in enumerate(others_of(5))]
    assert float((checks[2].views > 0).float().mean()) < 0.02
    for index in (0, 1, 3, 4):
        assert float((checks[index].views >= 2).float().mean()) > 0.6
        assert float(((checks[index].depth / views[index].depth - 1).abs() > 3e-3).float().mean()) < 0.01


def test_depth_within_the_tolerance_is_averaged() -> None:
    photo = photograph(camera_at((0, 0, 0)))
    check = check_consistency(depth_view(photo), [depth_view(photo, 1.004), depth_view(photo, 1.5)], Tolerance())
    assert (check.views == 1).all()
    np.testing.assert_allclose(check.depth.numpy(), 1.002 * photo.depth, rtol=1e-5)


def test_depth_within_its_tolerance_must_also_fall_back_on_the_pixel() -> None:
    photos = [photograph(camera_at((x, 0, 0)), [WALL]) for x in (0.0, 1.0)]
    views = depth_view(photos[0]), depth_view(photos[1], 1.01)  # a quarter of a pixel away
    seen = seen_by(photos[0], photos[1], 2)
    assert compare(*views, Tolerance(depth=0.05, pixels=0.5)).agrees.numpy()[seen].all()
    assert not compare(*views, Tolerance(depth=0.05, pixels=0.1)).agrees.any()


@pytest.mark.parametrize("unsure", [0, 1])
def test_depth_without_confidence_proves_nothing(unsure: int) -> None:
    photo = photograph(camera_at((0, 0, 0)))
    views = [depth_view(photo, confidence=0.01 if number == unsure else 1.0) for number in (0, 1)]
    assert not compare(views[0], views[1], Tolerance()).agrees.any()
    assert compare(views[0], views[1], Tolerance(confidence=0.01)).agrees.all()


@pytest.mark.parametrize("missing", [0, 1])
def test_unknown_depth_agrees_with_nothing(missing: int) -> None:
    photo = photograph(camera_at((0, 0, 0)))
    views = [depth_view(photo, scale=0.0 if number == missing else 1.0) for number in (0, 1)]
    found = compare(views[0], views[1], Tolerance())
    assert not found.agrees.any() and torch.isfinite(found.depth).all()


@pytest.mark.parametrize("options", [{"depth": 0.0}, {"pixels": -1.0}, {"confidence": 1.5}, {"depth": float("nan")}])
def test_tolerances_are_validated(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="tolerances"):
        Tolerance(**options)


# ------------------------------------------------------------------ small patches
def test_small_patches_go_and_large_ones_stay() -> None:
    photo = photograph(camera_at((0, 0, 0)))
    view = depth_view(photo)
    confirmed = torch.zeros(72, 96, dtype=torch.bool)
    confirmed[10:30, 10:30] = True
    confirmed[50:53, 50:53] = True
    kept = without_speckles(view, confirmed, Tolerance(), least=10)
    assert kept[10:30, 10:30].all() and int(kept.sum()) == 400
    assert int(without_speckles(view, confirmed, Tolerance(), least=9).sum()) == 409
    assert not without_speckles(view, torch.zeros_like(confirmed), Tolerance(), least=2).any()


def test_a_patch_ends_where_depth_jumps() -> None:
    view = depth_view(photograph(camera_at((0, 0, 0))))
    depth = view.depth.clone()
    depth[40:43, 40:43] *= 1.3
    kept = without_speckles(replace(view, depth=depth), torch.ones(72, 96, dtype=torch.bool), Tolerance(), least=20)
    assert not kept[40:43, 40:43].any() and int(kept.sum()) == 72 * 96 - 9


# ------------------------------------------------------------------ fusion
def test_what_two_equal_views_see_is_fused_into_one_point_a_pixel() -> None:
    photo = photograph(camera_at((0, 0, 0)))
    cloud = fuse([depth_view(photo)] * 3, [photo.pixels] * 3, others_of(3))
    assert len(cloud) == 72 * 96
    assert (cloud.view == 0).all() and (cloud.view_counts == 3).all()
    column, row = cloud.pixel.T
    np.testing.assert_array_equal(cloud.colours, photo.pixels[row, column])


def test_a_pixel_makes_one_point_at_most_and_points_lie_on_the_surfaces() -> None:
    photos = row_of_photos(4)
    views = [depth_view(photo) for photo in photos]
    cloud = fuse(views, [photo.pixels for photo in photos], others_of(4))
    apart = sum(
        int((check_consistency(views[i], [views[j] for j in others_of(4)[i]], Tolerance()).views >= 2).sum())
        for i in range(4)
    )
    assert len(cloud) < 0.6 * apart
    assert len(np.unique(np.column_stack([cloud.view, cloud.pixel]), axis=0)) == len(cloud)
    distance = np.abs(cloud.points @ np.array(WALL.normal) - WALL.distance) / np.linalg.norm(WALL.normal)
    board = np.abs(cloud.points @ np.array(BOARD.normal) - BOARD.distance)
    assert np.minimum(distance, board).max() < 0.05 and np.median(np.minimum(distance, board)) < 1e-3
    for index in range(4):
        pixels, depth = photos[index].camera.project(cloud.points[cloud.view == index].astype(float))
        assert np.abs(pixels - cloud.pixel[cloud.view == index]).max(initial=0) < 1e-3 and (depth > 0).all()


def test_points_need_as_many_views_as_asked_for_or_all_that_there_are() -> None:
    photo = photograph(camera_at((0, 0, 0)))
    pair = [depth_view(photo), depth_view(photo)]
    assert len(fuse(pair, [photo.pixels] * 2, [[1], [0]], min_views=2)) == 72 * 96
    third = depth_view(photo, scale=1.2)
    assert len(fuse([*pair, third], [photo.pixels] * 3, others_of(3), min_views=2)) == 0
    assert len(fuse([*pair, third], [photo.pixels] * 3, others_of(3), min_views=1)) == 72 * 96
    assert len(fuse(pair, [photo.pixels] * 2, [[], []])) == 0
    assert [needed(2, range(n)) for n in (0, 1, 2, 5)] == [1, 1, 2, 2]


def test_fusion_says_what_does_not_fit() -> None:
    photo = photograph(camera_at((0, 0, 0)))
    with pytest.raises(InputError, match="2 depth maps, 1 pictures"):
        fuse([depth_view(photo)] * 2, [photo.pixels], [[1], [0]])
    with pytest.raises(InputError, match="min_views"):
        fuse([depth_view(photo)], [photo.pixels], [[]], min_views=0)
    with pytest.raises(InputError, match="picture of shape"):
        fuse([depth_view(photo)], [photo.pixels[1:]], [[]])
