"""Depth fitted to sparse points: the true correction is found, wrong points count little, and nothing is overfitted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview.errors import InputError
from manyview.geometry import pixel_grid
from manyview.refine.depth_fit import FitKind, fit_depth, sample_depth
from manyview.refine.scene_depth import refit_scene, refit_view
from manyview.scene import Scene
from scenes import synthetic_scene, with_sparse_points, with_view, without_camera

SIZE = (60, 80)


def bumpy_depth(seed: int = 0) -> np.ndarray:
    """(H, W), about 1 to 7: waves in all directions, so that depth and place are not the same thing."""
    generator = np.random.default_rng(seed)
    x, y = np.moveaxis(pixel_grid(*SIZE), -1, 0) / 80
    total = np.zeros(SIZE)
    for _ in range(8):
        across, down, phase = generator.uniform([-12, -12, 0], [12, 12, 7])
        total += np.sin(across * x + down * y + phase)
    return np.exp(0.9 + 0.28 * total)


def bend() -> np.ndarray:
    """(H, W) smooth factor, about 0.7 to 1.4."""
    x, y = np.moveaxis(pixel_grid(*SIZE), -1, 0) / 80
    return np.exp(0.35 * np.sin(5 * x + 1) * np.cos(4 * y))


TRUTHS: dict[FitKind, Callable[[np.ndarray], np.ndarray]] = {
    "unchanged": lambda depth: depth,
    "scale": lambda depth: 3.7 * depth,
    "scale_shift": lambda depth: 2 * depth + 3,
    "inverse_scale_shift": lambda depth: 1 / (0.8 / depth + 0.25),
    "field": lambda depth: 1.8 * bend() * depth,
}


def points_on(depth: np.ndarray, count: int, seed: int = 1, noise: float = 0.003) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (P, 2) and their depth, with errors of that share."""
    generator = np.random.default_rng(seed)
    pixels = generator.uniform(0, np.array(SIZE[::-1]) - 1, (count, 2))
    return pixels, sample_depth(depth, pixels) * np.exp(noise * generator.normal(size=count))


def error(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.median(np.abs(found / truth - 1)))


# ------------------------------------------------------------------ each correction where it is the truth
@pytest.mark.parametrize("kind", list(TRUTHS))
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_kind_of_correction_that_is_the_truth_is_found(kind: FitKind, seed: int) -> None:
    depth = bumpy_depth(seed)
    truth = TRUTHS[kind](depth)
    fit = fit_depth(depth, *points_on(truth, 400, seed))
    assert fit.kind == kind
    assert error(fit.depth, truth) < 0.005
    assert fit.held_out is not None and fit.held_out < 0.01
    assert fit.points == 400 and fit.inliers > 360
    assert fit.residual_after <= 1.05 * min(fit.residual_before, fit.residual_scaled)
    assert [name for name, _ in fit.compared][:2] == ["unchanged", "scale"]


def test_scale_and_shift_are_told() -> None:
    depth = bumpy_depth()
    expected: dict[FitKind, tuple[float, float]] = {
        "unchanged": (1, 0),
        "scale": (3.7, 0),
        "scale_shift": (2, 3),
        "inverse_scale_shift": (0.8, 0.25),
    }
    for kind, numbers in expected.items():
        fit = fit_depth(depth, *points_on(TRUTHS[kind](depth), 300, noise=1e-4))
        assert (fit.scale, fit.shift) == pytest.approx(numbers, rel=2e-3)
    field = fit_depth(depth, *points_on(TRUTHS["field"](depth), 300))
    assert field.scale == pytest.approx(1.8, rel=0.15) and field.shift == 0


@pytest.mark.parametrize("kind", list(TRUTHS))
def test_points_that_are_wrong_count_little(kind: FitKind) -> None:
    depth = bumpy_depth()
    truth = TRUTHS[kind](depth)
    pixels, point_depth = points_on(truth, 400)
    generator = np.random.default_rng(5)
    wrong = generator.permutation(400)[:100]
    point_depth[wrong] *= np.exp(generator.uniform(0.3, 1.5, 100))  # all too far, as behind edges
    fit = fit_depth(depth, pixels, point_depth)
    assert fit.kind == kind
    assert error(fit.depth, truth) < (0.012 if kind == "field" else 0.006)
    assert 270 <= fit.inliers <= 305


def test_where_confidence_tells_which_half_is_right_it_is_believed() -> None:
    depth = bumpy_depth()
    truth = 2.0 * depth
    broken = depth.copy()
    broken[:, :42] *= 1.5
    confidence = np.where(np.arange(80) < 42, 1.0, 40.0) * np.ones((60, 1))
    pixels = np.array([[5 + 6 * i, 10 + 30 * (i % 2)] for i in range(6)] + [[46 + 7 * i, 12 + 9 * i] for i in range(5)])
    points = pixels, sample_depth(truth, pixels)  # too few for more than a scale
    assert error(fit_depth(broken, *points).depth[:, 42:], truth[:, 42:]) > 0.1
    assert error(fit_depth(broken, *points, confidence=confidence).depth[:, 42:], truth[:, 42:]) < 0.01
    same = fit_depth(depth, *points_on(truth, 60), confidence=7 * np.ones(SIZE))
    np.testing.assert_allclose(same.depth, fit_depth(depth, *points_on(truth, 60)).depth, rtol=1e-4)


def test_all_known_depth_stays_positive() -> None:
    depth = bumpy_depth() + 1.5
    depth[:4, :4] = 0.5  # nearer than any point: a shift would put it behind the camera
    pixels, point_depth = points_on(2 * depth - 2.5, 400)
    kept = (pixels > 8).any(axis=1)
    fit = fit_depth(depth, pixels[kept], point_depth[kept])
    assert fit.kind != "scale_shift"
    assert (fit.depth > 0).all() and np.isfinite(fit.depth).all()


# ------------------------------------------------------------------ no more freedom than points bear out
@pytest.mark.parametrize(
    ("count", "allowed", "words"),
    [
        (2, {"unchanged"}, "3 are needed"),
        (5, {"scale"}, "scale only: 5 points"),
        (30, {"scale", "scale_shift", "inverse_scale_shift"}, "30 points"),
    ],
)
def test_few_points_leave_little_freedom(count: int, allowed: set[FitKind], words: str) -> None:
    depth = bumpy_depth()
    fit = fit_depth(depth, *points_on(TRUTHS["field"](depth) * 3, count))
    assert fit.kind in allowed and words in fit.words and fit.points == count


def test_three_points_find_the_scale_of_a_map_that_is_right_up_to_it() -> None:
    depth = bumpy_depth()
    fit = fit_depth(depth, *points_on(5 * depth, 3))
    assert fit.kind == "scale" and fit.scale == pytest.approx(5, rel=0.01)


@pytest.mark.parametrize("seed", range(6))
def test_a_map_that_agrees_as_far_as_points_can_tell_stays_what_it_is(seed: int) -> None:
    depth = bumpy_depth(seed)
    for count in (6, 25, 300):
        fit = fit_depth(depth, *points_on(depth, count, seed, noise=0.1))
        if fit.kind == "unchanged":
            np.testing.assert_array_equal(fit.depth, depth.astype(np.float32))
            assert "unchanged" in fit.words
        assert fit.kind in ("unchanged", "scale") or count == 25
        assert error(fit.depth, depth) < 0.1  # chance cannot carry it farther than the noise


def test_freedom_that_hardly_pays_is_not_taken() -> None:
    for seed in range(6):
        depth = bumpy_depth(seed)
        fit = fit_depth(depth, *points_on(depth * bend() ** 0.025, 1400, seed, noise=0.05))
        assert fit.kind == "unchanged"  # a bend of less than 1 % beside errors of 5 %


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(list(TRUTHS)), st.integers(3, 150), st.integers(0, 999), st.floats(0.001, 0.2))
def test_points_that_were_not_fitted_to_never_say_that_it_became_worse(
    kind: FitKind, count: int, seed: int, noise: float
) -> None:
    depth = bumpy_depth(seed % 7)
    fit = fit_depth(depth, *points_on(TRUTHS[kind](depth), count, seed, noise))
    errors = dict(fit.compared)
    own = {"unchanged": "unchanged", "scale": "scale", "scale_shift": "scale and shift"}
    own["inverse_scale_shift"] = "scale and shift of inverse depth"
    chosen = errors[own[fit.kind]] if fit.kind in own else min(errors.values())
    assert chosen <= errors["unchanged"] + 1e-12
    assert (fit.depth > 0).all() and np.isfinite(fit.depth).all()


def test_a_field_does_not_run_away_where_there_are_no_points() -> None:
    depth = bumpy_depth()
    truth = TRUTHS["field"](depth)
    pixels, point_depth = points_on(truth, 600)
    left = pixels[:, 0] < 45
    fit = fit_depth(depth, pixels[left], point_depth[left])
    factor = fit.depth / depth
    at_points = factor[:, :45]
    assert factor.min() > 0.85 * at_points.min() and factor.max() < 1.15 * at_points.max()


# ------------------------------------------------------------------ degenerate input
def test_without_points_the_map_is_as_it_was() -> None:
    depth = bumpy_depth()
    fit = fit_depth(depth, np.zeros((0, 2)), np.zeros(0))
    np.testing.assert_array_equal(fit.depth, depth.astype(np.float32))
    assert fit.kind == "unchanged" and fit.points == 0 and np.isnan(fit.residual_before) and fit.held_out is None


@pytest.mark.parametrize("value", [0.0, -2.0, np.nan, np.inf])
def test_a_map_without_depth_stays_without(value: float) -> None:
    fit = fit_depth(np.full(SIZE, value), *points_on(bumpy_depth(), 50))
    assert (fit.depth == 0).all() and fit.points == 0 and fit.kind == "unchanged"


def test_what_cannot_be_used_is_left_out() -> None:
    depth = bumpy_depth()
    depth[:, :20] = np.nan
    pixels, point_depth = points_on(3 * bumpy_depth(), 200)
    bad_pixels = np.array([[-5.0, 3], [500, 3], [3, -0.6], [np.nan, 3], [np.inf, np.inf], [40, 30], [41, 30], [42, 30]])
    bad_depth = np.array([9.0, 9, 9, 9, 9, np.nan, 0, -3])
    fit = fit_depth(depth, np.concatenate([pixels, bad_pixels]), np.concatenate([point_depth, bad_depth]))
    assert fit.points == int((pixels[:, 0] >= 19.5).sum())
    assert fit.kind == "scale" and (fit.depth[:, :20] == 0).all()
    assert error(fit.depth[:, 20:], 3 * depth[:, 20:]) < 0.005


@pytest.mark.parametrize("spot", [1e-9, 3.0])
def test_points_in_one_spot_still_give_a_scale(spot: float) -> None:
    depth = np.full(SIZE, 2.0)
    pixels = np.array([20.0, 30.0]) + np.random.default_rng(0).uniform(0, spot, (50, 2))
    fit = fit_depth(depth, pixels, np.full(50, 5.0))
    assert fit.kind == "scale"
    np.testing.assert_allclose(fit.depth, 5, rtol=1e-4)


def test_points_in_two_spots_still_give_a_scale() -> None:
    depth = bumpy_depth()
    pixels = np.array([[2.0, 3.0], [75.0, 45.5]])[np.arange(60) % 2]
    fit = fit_depth(depth, pixels, 4 * sample_depth(depth, pixels))
    assert fit.kind == "scale" and fit.scale == pytest.approx(4, rel=1e-3)


def test_confidence_of_nothing_and_not_of_numbers_is_survived() -> None:
    depth = bumpy_depth()
    for confidence in (np.zeros(SIZE), np.full(SIZE, np.nan), np.full(SIZE, np.inf), np.full(SIZE, -1.0)):
        assert fit_depth(depth, *points_on(2 * depth, 50), confidence=confidence).scale == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize(
    ("depth", "pixels", "point_depth", "confidence"),
    [
        ((5,), (3, 2), (3,), None),
        ((5, 6), (3, 3), (3,), None),
        ((5, 6), (3, 2), (4,), None),
        ((5, 6), (3, 2), (3, 1), None),
        ((5, 6), (3, 2), (3,), (6, 5)),
    ],
)
def test_shapes_that_disagree_are_named(depth, pixels, point_depth, confidence) -> None:
    with pytest.raises(InputError, match="depth map of shape"):
        fit_depth(
            np.ones(depth),
            np.ones(pixels),
            np.ones(point_depth),
            confidence=None if confidence is None else np.ones(confidence),
        )


def test_inputs_stay_as_they_were_and_the_same_call_gives_the_same() -> None:
    depth = bumpy_depth()
    given_arrays = [depth, *points_on(TRUTHS["field"](depth), 200), np.ones(SIZE)]
    before = [array.copy() for array in given_arrays]
    fits = [fit_depth(*given_arrays[:3], confidence=given_arrays[3]) for _ in range(2)]
    np.testing.assert_array_equal(fits[0].depth, fits[1].depth)
    for array, copy in zip(given_arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


# ------------------------------------------------------------------ depth between pixels
def test_depth_between_pixels_of_a_plane_is_exact() -> None:
    x, y = np.moveaxis(pixel_grid(*SIZE), -1, 0)
    pixels = np.random.default_rng(0).uniform(0, [79, 59], (200, 2))
    found = sample_depth(1 / (0.5 - 0.003 * x + 0.001 * y), pixels)
    np.testing.assert_allclose(found, 1 / (0.5 - 0.003 * pixels[:, 0] + 0.001 * pixels[:, 1]), rtol=1e-12)


def test_depth_at_an_edge_is_that_of_the_nearest_pixel_and_none_outside() -> None:
    depth = np.ones(SIZE)
    depth[:, 40:] = 3.0
    depth[:, 70:] = 0
    pixels = np.array([[39.4, 5], [39.6, 5], [69.4, 5], [69.6, 5], [-0.6, 5], [-0.4, 5], [20, 59.4], [20, 59.6]])
    np.testing.assert_array_equal(sample_depth(depth, pixels), [1, 3, 3, np.nan, np.nan, 1, 1, np.nan])


# ------------------------------------------------------------------ scenes
def sparse_scene(points: int = 300) -> Scene:
    return with_sparse_points(synthetic_scene(), per_view=points)


def test_every_view_of_a_scene_is_brought_back_to_its_points() -> None:
    scene = sparse_scene()
    assert scene.sparse is not None
    wrong = scene
    for index, factor in enumerate((0.5, 1.0, 3.0)):
        wrong = with_view(wrong, index, depth=scene.views[index].depth * np.float32(factor))
    fitted, fits = refit_scene(wrong, scene.sparse)
    assert sorted(fits) == [0, 1, 2]
    for index, (view, true) in enumerate(zip(fitted.views, scene.views, strict=True)):
        assert fits[index].points > 20
        np.testing.assert_array_equal(view.valid, true.valid)
        assert error(view.depth[true.valid], true.depth[true.valid]) < 0.01
        distance = np.linalg.norm(view.points - true.points, axis=-1)[true.valid]
        assert np.median(distance) < 0.01 * np.median(true.depth[true.valid])
        assert (view.depth[~true.valid] == 0).all() and view.camera is true.camera
    assert fits[1].kind == "unchanged"


def test_views_without_a_camera_or_depth_are_left_alone() -> None:
    scene = sparse_scene()
    assert scene.sparse is not None
    empty = np.zeros_like(scene.views[2].valid)
    changed = with_view(without_camera(scene, 1), 2, valid=empty, depth=np.zeros_like(scene.views[2].depth))
    fitted, fits = refit_scene(changed, scene.sparse)
    assert list(fits) == [0]
    assert fitted.views[1] is changed.views[1] and fitted.views[2] is changed.views[2]
    with pytest.raises(InputError, match="no camera"):
        refit_view(changed.views[1], np.zeros((0, 2)), np.zeros(0))


def test_views_of_other_groups_are_fitted_in_their_own_frame() -> None:
    scene = sparse_scene()
    assert scene.sparse is not None
    view = scene.views[1]
    assert view.camera is not None
    moved = view.camera.world_from_camera.copy()
    moved[:3, 3] += 50
    elsewhere = replace(view.camera, world_from_camera=moved)
    other = with_view(scene, 1, camera=None, group=1, group_camera=elsewhere, status="other_group")
    other = with_view(other, 1, depth=view.depth * np.float32(2))
    fitted, fits = refit_scene(other, scene.sparse)
    assert fits[1].kind == "scale"
    expected = np.where(view.valid[..., None], view.points + 50, 0)
    assert np.median(np.abs(fitted.views[1].points - expected)) < 0.05


@pytest.mark.filterwarnings("error")
def test_without_any_point_the_depth_stays_and_nothing_is_complained_of() -> None:
    depth = np.full((6, 8), 2.0)
    fit = fit_depth(depth, np.zeros((0, 2)), np.zeros(0), confidence=np.ones((6, 8)))
    assert fit.kind == "unchanged" and fit.points == 0
    np.testing.assert_array_equal(fit.depth, depth)
