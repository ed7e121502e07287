"""Cameras from point maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from manyview.errors import InputError
from manyview.geometry import (
    intrinsics,
    invert_rigid,
    points_from_depth,
    solve_pnp,
    solve_pnp_unknown_focal,
    transform_points,
)

K = intrinsics(70.0, (41.0, 28.0))
FAST = {"max_points": 1000}
OFFICIAL = {"refine": False}


def rotation_degrees(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.degrees(Rotation.from_matrix(first[:3, :3] @ second[:3, :3].T).magnitude()))


def view(seed: int, outliers: float = 0.0, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """World points (60, 80, 3) of a bumpy surface, and the true world_from_camera."""
    rng = np.random.default_rng(seed)
    camera = np.eye(4)
    camera[:3, :3], camera[:3, 3] = Rotation.random(rng=rng).as_matrix(), rng.normal(size=3) * 3
    x, y = np.meshgrid(np.linspace(0, 6, 80), np.linspace(0, 5, 60))
    depth = 3 + np.sin(x + rng.uniform(0, 6)) + np.cos(1.3 * y + rng.uniform(0, 6))
    points = points_from_depth(depth, K, camera) + noise * rng.normal(size=(60, 80, 3))
    wrong = rng.random((60, 80)) < outliers
    points[wrong] += rng.normal(size=(wrong.sum(), 3)) * 2
    return points, camera


@pytest.mark.parametrize("view_index", range(4))
def test_the_official_form_gives_the_reference_cameras(shared: Path, view_index: int) -> None:
    with np.load(shared / "reference/fast3r/golden_geometry.npz") as golden:
        points = golden[f"in_v{view_index}_pts3d_in_other_view"][0]
        confidence = golden[f"in_v{view_index}_conf"][0]
        focal = float(golden["pnp_first_view_from_global_head_focals"][view_index])
        expected = golden["pnp_first_view_from_global_head_c2w"][view_index]
        truth = golden["c2w_true"][view_index]
    found = solve_pnp(points, intrinsics(focal, (24, 18)), confidence > 1.0, refine=False)
    assert found is not None
    assert rotation_degrees(found.world_from_camera, expected) < 0.1
    np.testing.assert_allclose(found.world_from_camera[:3, 3], expected[:3, 3], atol=1e-3)
    refined = solve_pnp(points, intrinsics(focal, (24, 18)), confidence > 1.0)
    assert refined is not None
    error = np.linalg.norm(refined.world_from_camera[:3, 3] - truth[:3, 3])
    assert error < 0.6 * np.linalg.norm(expected[:3, 3] - truth[:3, 3])


@pytest.mark.parametrize("view_index", range(4))
def test_the_official_search_for_a_focal_gives_about_the_reference_and_the_refined_one_the_truth(
    shared: Path, view_index: int
) -> None:
    with np.load(shared / "reference/fast3r/golden_geometry.npz") as golden:
        points = golden[f"in_v{view_index}_pts3d_in_other_view"][0]
        expected = golden["pnp_individual_c2w"][view_index]
        focal, true_focal = float(golden["pnp_individual_focals"][view_index]), float(golden["focal_true"])
    found = solve_pnp_unknown_focal(points, refine=False)
    assert found is not None
    # Neighbouring candidates differ by 1.8 %, and their counts of inliers by one or two.
    assert found.K[0, 0] == pytest.approx(focal, rel=0.1)
    assert rotation_degrees(found.world_from_camera, expected) < 2
    refined = solve_pnp_unknown_focal(points)
    assert refined is not None
    assert refined.K[0, 0] == pytest.approx(true_focal, rel=0.01)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([FAST, OFFICIAL, {}]), st.floats(0, 0.4))
def test_a_known_camera_is_recovered_among_outliers(seed: int, form: dict, outliers: float) -> None:
    points, camera = view(seed, outliers, noise=0.002)
    found = solve_pnp(points, K, **form)
    assert found is not None
    # Without refinement, outliers that happen to lie within five pixels pull the camera along.
    assert rotation_degrees(found.world_from_camera, camera) < (1.0 if form is OFFICIAL else 0.2)
    assert np.linalg.norm(found.world_from_camera - camera) < (0.05 if form is OFFICIAL else 0.01)
    assert 1 - outliers - 0.1 < found.inlier_ratio <= 1
    assert found.inliers <= found.points <= (1000 if form is FAST else 4800)
    assert found.median_error < 0.5


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_unit_of_length_does_not_matter(scale: float) -> None:
    points, camera = view(3, 0.2)
    found = solve_pnp(points * scale, K, **FAST)
    assert found is not None
    np.testing.assert_allclose(found.world_from_camera[:3, 3], camera[:3, 3] * scale, atol=1e-4 * scale)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10_000))
def test_an_unknown_focal_is_recovered(seed: int) -> None:
    points, camera = view(seed, outliers=0.1, noise=0.002)
    found = solve_pnp_unknown_focal(points, principal_point=(41.0, 28.0), candidates=40, max_points=500)
    assert found is not None
    assert found.K[0, 0] == pytest.approx(70.0, rel=0.01)
    assert rotation_degrees(found.world_from_camera, camera) < 1


def test_the_result_is_rigid_double_precision_and_repeatable() -> None:
    import cv2

    points, _ = view(1, outliers=0.3, noise=0.01)
    results = []
    for opencv_seed in (1, 2):
        cv2.setRNGSeed(opencv_seed)
        results += [solve_pnp(points.astype(np.float32), K, **form) for form in (FAST, OFFICIAL)]
    assert all(result is not None and result.world_from_camera.dtype == np.float64 for result in results)
    for first, second in zip(results[:2], results[2:], strict=True):
        np.testing.assert_array_equal(first.world_from_camera, second.world_from_camera)
    rotation = results[0].world_from_camera[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)


def test_only_masked_pixels_count_and_non_finite_ones_never_do() -> None:
    points, camera = view(2)
    mask = np.ones((60, 80), dtype=bool)
    mask[:50] = False
    points[:50] = 0.0
    points[50, :40], points[51, 0] = np.nan, np.inf
    found = solve_pnp(points, K, mask)
    assert found is not None
    assert found.points == 800 - 41
    np.testing.assert_allclose(found.world_from_camera, camera, atol=1e-5)


def test_few_points_are_the_most_confident_ones() -> None:
    points, camera = view(4)
    confidence = np.ones((60, 80))
    confidence[::3, ::3] = 2.0
    points[confidence == 1.0] += 50.0
    found = solve_pnp(points, K, max_points=100, point_confidence=confidence)
    assert found is not None
    assert found.inlier_ratio == 1.0
    np.testing.assert_allclose(found.world_from_camera, camera, atol=1e-5)


def bad_points(case: str) -> np.ndarray:
    points, _ = view(0)
    if case == "one place":
        return np.ones_like(points)
    if case == "one line":
        return np.arange(4800.0).reshape(60, 80, 1) * [1, 2, 3] + [0, 0, 4]
    if case == "nan":
        return np.full_like(points, np.nan)
    if case == "three points":
        points[:, 1:] = np.nan
        points[3:] = np.nan
        return points
    return np.zeros_like(points)


@pytest.mark.parametrize("case", ["one place", "one line", "nan", "three points", "zeros"])
@pytest.mark.parametrize("form", [FAST, OFFICIAL], ids=["fast", "official"])
@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_points_that_determine_no_camera_give_none_not_the_identity(case: str, form: dict, precision: type) -> None:
    points = bad_points(case).astype(precision)
    assert solve_pnp(points, K, **form) is None
    assert solve_pnp_unknown_focal(points, candidates=5, **form) is None


@pytest.mark.parametrize("focal", [0.0, -5.0, np.nan, np.inf])
def test_a_focal_that_is_no_focal_gives_none(focal: float) -> None:
    assert solve_pnp(view(0)[0], intrinsics(focal, (40, 30))) is None


def test_points_that_agree_on_nothing_give_none_or_admit_it() -> None:
    points = np.random.default_rng(0).normal(size=(60, 80, 3))
    found = solve_pnp(points, K, **FAST)
    assert found is None or (found.inlier_ratio < 0.2 and found.median_error > 10)


def test_wrong_shapes_are_errors_that_say_what_is_expected() -> None:
    with pytest.raises(InputError, match=r"\(H, W, 3\)"):
        solve_pnp(np.zeros((10, 3)), K)
    with pytest.raises(InputError, match=r"\(3, 3\)"):
        solve_pnp(np.zeros((10, 10, 3)), np.eye(4))


def test_the_found_camera_projects_its_points_onto_their_pixels() -> None:
    points, _ = view(6)
    found = solve_pnp(points, K)
    assert found is not None
    in_camera = transform_points(invert_rigid(found.world_from_camera), points)
    pixels = (in_camera @ K.T)[..., :2] / in_camera[..., 2:]
    np.testing.assert_allclose(pixels[17, 23], [23, 17], atol=1e-3)
