"""The focal length of a point map."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview.errors import InputError
from manyview.geometry import default_focal, estimate_focal, intrinsics, picture_centre, points_from_depth

CENTRE_OFF_MIDDLE = (41.5, 22.25)


def view(focal: float, centre: tuple[float, float], seed: int, noise: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = points_from_depth(rng.uniform(1, 5, size=(60, 80)), intrinsics(focal, centre))
    return points * (1 + noise * rng.normal(size=points.shape))


@pytest.mark.parametrize(
    ("points", "confidence", "expected"),
    [("in_v0_pts3d_in_other_view", "in_v0_conf", "focal_v0_global_pct10")]
    + [(f"in_v{v}_pts3d_local", f"in_v{v}_conf_local", f"focal_v{v}_local_pct10") for v in range(4)],
)
def test_the_default_form_gives_the_reference_focal(shared: Path, points: str, confidence: str, expected: str) -> None:
    with np.load(shared / "reference/fast3r/golden_geometry.npz") as golden:
        found = estimate_focal(golden[points][0], golden[confidence][0])
        assert found == pytest.approx(float(golden[expected]), rel=1e-6)


def test_the_default_centre_is_half_a_pixel_off_the_middle_as_published() -> None:
    points = view(70.0, (40.0, 30.0), seed=0)
    assert picture_centre(60, 80) == (39.5, 29.5)
    assert estimate_focal(points) == pytest.approx(70.0, rel=1e-9)
    assert abs(estimate_focal(points, principal_point=picture_centre(60, 80)) - 70.0) > 1e-3


@given(st.floats(10, 1000), st.integers(0, 1000))
def test_a_known_focal_is_recovered_with_the_centre_off_the_middle(focal: float, seed: int) -> None:
    points = view(focal, CENTRE_OFF_MIDDLE, seed)
    assert estimate_focal(points, principal_point=CENTRE_OFF_MIDDLE) == pytest.approx(focal, rel=1e-7)
    assert estimate_focal(points * 37.0, principal_point=CENTRE_OFF_MIDDLE) == pytest.approx(focal, rel=1e-7)


def test_outliers_move_the_focal_little() -> None:
    points, rng = view(70.0, (40, 30), seed=0, noise=0.005), np.random.default_rng(1)
    wrong = rng.random((60, 80)) < 0.1
    points[wrong] += rng.normal(size=(wrong.sum(), 3))
    assert estimate_focal(points) == pytest.approx(70.0, rel=0.01)


def test_pixels_of_low_confidence_are_left_out() -> None:
    points, confidence = view(70.0, (40, 30), seed=0), np.full((60, 80), 2.0)
    points[:5, :, 0] *= 3
    confidence[:5] = 1.0
    assert estimate_focal(points, confidence) == pytest.approx(70.0, rel=1e-9)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(30, 300))
def test_few_well_spread_points_give_nearly_the_focal_of_all(seed: int, focal: float) -> None:
    points = view(focal, (40, 30), seed, noise=0.01)
    assert estimate_focal(points, max_points=800) == pytest.approx(estimate_focal(points), rel=5e-3)


def test_the_choice_of_few_points_is_the_same_every_time() -> None:
    points = view(70.0, (40, 30), seed=0, noise=0.05)
    assert estimate_focal(points, max_points=100) == estimate_focal(points, max_points=100)


def test_non_finite_points_and_confidences_are_masked() -> None:
    points, confidence = view(70.0, (40, 30), seed=0), np.ones((60, 80))
    points[0, 0], points[1, 1, 2], points[2, 2, 0], points[3, 3] = np.nan, 0.0, np.inf, [7, 7, 1]
    confidence[3, 3] = np.nan
    assert estimate_focal(points, confidence) == pytest.approx(70.0, rel=1e-9)


@pytest.mark.parametrize("point", [(0, 0, 0), (np.nan, np.nan, np.nan), (1, 1, 0), (0, 0, 1)])
def test_without_a_usable_point_it_is_the_documented_default(point: tuple[float, float, float]) -> None:
    points = np.tile(point, (60, 80, 1))
    assert estimate_focal(points) == default_focal(60, 80) == pytest.approx(80 / (2 * math.tan(math.radians(30))))


def test_it_is_never_negative() -> None:
    assert estimate_focal(view(70.0, (40, 30), seed=0) * [1, 1, -1]) == 0.0


def test_a_wrong_shape_is_an_error_that_says_what_is_expected() -> None:
    with pytest.raises(InputError, match=r"\(H, W, 3\)"):
        estimate_focal(np.zeros((2, 5, 5, 3)))
