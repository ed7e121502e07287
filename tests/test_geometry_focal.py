"""The focal length of a point map."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview.errors import InputError
from manyview.geometry import (
    default_focal,
    depth_and_focal,
    estimate_focal,
    intrinsics,
    picture_centre,
    points_from_depth,
)
from manyview.geometry.focal import FocalMethod

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


@pytest.mark.parametrize("case", range(5))
@pytest.mark.parametrize("method", ["weiszfeld", "median"])
@pytest.mark.parametrize(("suffix", "limits"), [("", None), ("_clip", (0.5, 3.5))])
def test_dust3rs_focals_are_reproduced(
    shared: Path, case: int, method: FocalMethod, suffix: str, limits: tuple[float, float] | None
) -> None:
    with np.load(shared / "reference/dust3r/golden_focal.npz") as golden:
        points, (x, y) = golden[f"pts3d_{case}"], golden[f"pp_{case}"].tolist()
        expected = float(golden[f"{method}{suffix}_{case}"][0])
    found = estimate_focal(points, method=method, iterations=10, principal_point=(x, y), limits=limits)
    assert found == pytest.approx(expected, rel=5e-7)


@given(st.floats(10, 1000), st.integers(0, 1000))
def test_the_median_recovers_a_known_focal_among_outliers(focal: float, seed: int) -> None:
    points = view(focal, CENTRE_OFF_MIDDLE, seed)
    points[10:25] *= np.random.default_rng(seed).uniform(0.2, 3, size=(15, 80, 3))
    found = estimate_focal(points, method="median", principal_point=CENTRE_OFF_MIDDLE)
    assert found == pytest.approx(focal, rel=0.02)


def test_the_median_of_an_even_number_of_votes_is_the_lower_one() -> None:
    points = np.array([[[1.0, 1.0, 1.0]]])  # its votes are its offsets from the principal point
    assert estimate_focal(points, method="median", principal_point=(-3.0, -8.0)) == 3.0


@pytest.mark.parametrize("method", ["weiszfeld", "median"])
def test_without_a_usable_point_both_methods_give_the_default(method: FocalMethod) -> None:
    assert estimate_focal(np.full((60, 80, 3), np.nan), method=method) == default_focal(60, 80)


def test_limits_are_multiples_of_the_default_focal() -> None:
    points = view(70.0, (40, 30), seed=0)
    assert estimate_focal(points, limits=(2.0, 3.0)) == 2 * default_focal(60, 80)
    assert estimate_focal(points, limits=(0.1, 0.2)) == pytest.approx(0.2 * default_focal(60, 80))
    assert estimate_focal(points, limits=(0.1, 3.0)) == pytest.approx(70.0, rel=1e-9)


def test_an_unknown_method_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="median"):
        estimate_focal(np.zeros((5, 5, 3)), method="mean")  # type: ignore[arg-type]


def test_depth_and_camera_of_one_map_give_the_map_back() -> None:
    points = view(70.0, CENTRE_OFF_MIDDLE, seed=0)
    points[0, 0], points[1, 1, 2] = np.nan, -1.0
    found = depth_and_focal(points, principal_point=CENTRE_OFF_MIDDLE)
    assert found.K[0, 0] == found.K[1, 1] == pytest.approx(70.0, rel=1e-6)
    assert tuple(found.K[:2, 2]) == CENTRE_OFF_MIDDLE
    assert found.depth[0, 0] == found.depth[1, 1] == 0
    assert np.isnan(found.points[0, 0]).all()
    np.testing.assert_allclose(found.points[2:], points[2:], rtol=1e-6)


def test_a_map_that_contradicts_every_focal_has_no_depth() -> None:
    with pytest.raises(InputError, match="contradict"):
        depth_and_focal(view(70.0, (40, 30), seed=0) * [1, 1, -1])
