"""Cameras from pixels and world points."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from manyview.errors import InputError
from manyview.geometry import solve_absolute_pose
from manyview.geometry.absolute_pose import Solver, could_be_chance, undistort_pixels

SIZE = (480, 640)
K = np.array([[600.0, 0, 310], [0, 610, 245], [0, 0, 1]])
LENSES = {
    "four": [-0.3, 0.1, 0.001, -0.002],
    "five": [-0.3, 0.1, 0.001, -0.002, 0.02],
    "eight": [0.2, -0.1, 0.0, 0.0, 0.01, 0.1, 0.02, 0.01],
}
EVERY_SOLVER: list[Solver] = ["pycolmap", "poselib", "opencv"]


@pytest.fixture(params=EVERY_SOLVER)
def solver(request: pytest.FixtureRequest) -> Solver:
    if request.param == "poselib":
        pytest.importorskip("poselib")
    return request.param


def matches(seed: int, count: int = 1000, outliers: float = 0.0, noise: float = 0.0):
    """Pixels (P, 2), world points (P, 3) and the true world_from_camera."""
    rng = np.random.default_rng(seed)
    camera = np.eye(4)
    camera[:3, :3], camera[:3, 3] = Rotation.random(rng=rng).as_matrix(), rng.normal(size=3) * 3
    pixels = rng.uniform([0, 0], [640, 480], (count, 2))
    rays = np.c_[pixels, np.ones(count)] @ np.linalg.inv(K).T
    points = (rays * rng.uniform(2, 6, (count, 1))) @ camera[:3, :3].T + camera[:3, 3]
    pixels += noise * rng.normal(size=pixels.shape)
    wrong = rng.random(count) < outliers
    pixels[wrong] = rng.uniform([0, 0], [640, 480], (int(wrong.sum()), 2))
    return pixels, points, camera


def check(found, camera: np.ndarray, degrees: float, distance: float) -> None:
    assert found.status == "found", found.reason
    assert found.reason == ""
    turn = Rotation.from_matrix(found.world_from_camera[:3, :3] @ camera[:3, :3].T).magnitude()
    assert np.degrees(turn) < degrees
    assert np.linalg.norm(found.world_from_camera[:3, 3] - camera[:3, 3]) < distance


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10_000), st.sampled_from(["pycolmap", "opencv"]), st.floats(0, 0.6))
def test_a_known_camera_is_found_among_outliers(seed: int, name: Solver, outliers: float) -> None:
    pixels, points, camera = matches(seed, outliers=outliers, noise=0.5)
    found = solve_absolute_pose(pixels, points, K, SIZE, solver=name)
    check(found, camera, 0.1, 0.02)
    assert (1 - outliers) * 1000 - 60 < found.inliers <= found.matches == 1000
    assert found.median_error < 1


def test_each_solver_is_exact_repeatable_and_keeps_to_double_precision(solver: Solver) -> None:
    pixels, points, camera = matches(1, outliers=0.3)
    first, second = (solve_absolute_pose(pixels, points, K, SIZE, solver=solver, seed=5) for _ in range(2))
    check(first, camera, 0.02, 1e-3)  # outliers that lie within the limit by chance pull a little
    assert first.solver == solver
    np.testing.assert_array_equal(first.world_from_camera, second.world_from_camera)
    assert np.asarray(first.world_from_camera).dtype == np.float64


def test_nine_wrong_matches_for_each_right_one_are_survived_with_poselib() -> None:
    pytest.importorskip("poselib")
    pixels, points, camera = matches(0, count=3000, outliers=0.9, noise=0.5)
    check(solve_absolute_pose(pixels, points, K, SIZE, solver="poselib"), camera, 0.1, 0.02)


def test_the_default_limits_are_the_published_ones(solver: Solver) -> None:
    pixels, points, _ = matches(0, count=100)
    expected = 5.0 if solver == "opencv" else 0.008 * 800
    assert solve_absolute_pose(pixels, points, K, SIZE, solver=solver).limit == pytest.approx(expected)
    assert solve_absolute_pose(pixels, points, K, SIZE, solver=solver, reprojection_error=2.0).limit == 2.0


@pytest.mark.parametrize("lens", LENSES)
def test_distortion_is_undone(lens: str, solver: Solver) -> None:
    pixels, points, camera = matches(2, count=400)
    coefficients = np.array(LENSES[lens])
    rays = np.c_[pixels, np.ones(400)] @ np.linalg.inv(K).T
    bent = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), K, coefficients)[0][:, 0]
    assert np.abs(bent - pixels).max() > 2
    np.testing.assert_allclose(undistort_pixels(bent, K, coefficients), pixels, atol=1e-5)
    check(solve_absolute_pose(bent, points, K, SIZE, distortion=coefficients, solver=solver), camera, 1e-3, 1e-4)


def test_few_or_no_matches_are_reported_and_no_camera_is_made_up(solver: Solver) -> None:
    pixels, points, camera = matches(0)
    for count in (0, 1, 4):
        found = solve_absolute_pose(pixels[:count], points[:count], K, SIZE, solver=solver)
        assert found.world_from_camera is None
        assert found.status == "not_found"
        assert f"{count} matches" in found.reason
        assert found.inlier_mask.shape == (count,)
    check(solve_absolute_pose(pixels[:8], points[:8], K, SIZE, solver=solver), camera, 0.01, 1e-3)


def test_matches_at_random_never_pass_for_a_camera(solver: Solver) -> None:
    for seed, count in enumerate((20, 300, 300, 900)):
        pixels, points, _ = matches(seed, count=count, outliers=1.0)
        found = solve_absolute_pose(pixels, points, K, SIZE, solver=solver, iterations=2000)
        assert found.status in ("doubtful", "not_found")
        assert found.reason
        assert (found.world_from_camera is None) == (found.status == "not_found")


@pytest.mark.parametrize("shape", ["line", "place"])
def test_points_on_a_line_or_in_one_place_give_no_camera(shape: str, solver: Solver) -> None:
    along = np.linspace(0, 1, 50)[:, None]
    points = along * [1.0, 0.5, 0.2] + [0, 0, 4] if shape == "line" else np.tile([[0.1, 0.2, 4.0]], (50, 1))
    homogeneous = points @ K.T
    found = solve_absolute_pose(homogeneous[:, :2] / homogeneous[:, 2:], points, K, SIZE, solver=solver)
    assert found.status == "not_found"
    assert found.world_from_camera is None


def test_of_many_matches_some_are_drawn_by_seed() -> None:
    pixels, points, camera = matches(0, count=3000, outliers=0.2, noise=0.5)
    found = [solve_absolute_pose(pixels, points, K, SIZE, max_matches=500, seed=seed) for seed in (1, 1, 2)]
    for each in found:
        check(each, camera, 0.2, 0.03)
        assert each.matches == 500
        assert each.inlier_mask.shape == (3000,)
    np.testing.assert_array_equal(found[0].inlier_mask, found[1].inlier_mask)
    assert (found[0].inlier_mask != found[2].inlier_mask).any()


def test_matches_that_are_not_finite_are_left_out() -> None:
    pixels, points, camera = matches(0, count=200)
    pixels[3, 0], points[7], points[9, 1] = np.nan, np.inf, np.nan
    found = solve_absolute_pose(pixels, points, K, SIZE)
    check(found, camera, 1e-3, 1e-4)
    assert found.matches == found.inliers == 197
    assert not found.inlier_mask[[3, 7, 9]].any()


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_unit_of_length_does_not_matter(scale: float, solver: Solver) -> None:
    pixels, points, camera = matches(4, outliers=0.2)
    found = solve_absolute_pose(pixels, points * scale, K, SIZE, solver=solver)
    assert found.world_from_camera is not None
    np.testing.assert_allclose(found.world_from_camera[:3, 3], camera[:3, 3] * scale, atol=2e-3 * scale)


def test_agreement_by_chance_is_told_from_agreement() -> None:
    assert could_be_chance(8, 1000, 6.4, SIZE, 10_000)
    assert not could_be_chance(60, 1000, 6.4, SIZE, 10_000)
    assert not could_be_chance(5, 5, 2.0, SIZE, 1)
    assert could_be_chance(1000, 1000, 500.0, SIZE, 1)  # a limit as large as the picture says nothing


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"K": np.eye(4)}, "camera matrix"),
        ({"K": K + np.diag([np.nan, 0, 0])}, "camera matrix"),
        ({"K": np.array([[600.0, 5, 310], [0, 610, 245], [0, 0, 1]])}, "skew"),
        ({"K": np.diag([-1, 1, 1]) @ K}, "does not fit"),
        ({"K": np.array([[600.0, 0, 3100], [0, 610, 245], [0, 0, 1]])}, "does not fit"),
        ({"distortion": np.zeros(3)}, "coefficients"),
        ({"distortion": np.full(4, np.nan)}, "coefficients"),
        ({"reprojection_error": 0.0}, "above 0"),
        ({"solver": "ceres"}, "pycolmap"),
        ({"points": np.zeros((9, 3))}, r"\(P, 3\)"),
    ],
)
def test_what_makes_no_sense_is_an_error_that_says_so(wrong: dict, message: str) -> None:
    pixels, points, _ = matches(0, count=10)
    arguments = {"pixels": pixels, "points": points, "K": K, "size": SIZE, **wrong}
    with pytest.raises(InputError, match=message):
        solve_absolute_pose(**arguments)


def test_without_poselib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "poselib", None)
    pixels, points, _ = matches(0, count=10)
    with pytest.raises(InputError, match=r"manyview\[localise\]"):
        solve_absolute_pose(pixels, points, K, SIZE, solver="poselib")
