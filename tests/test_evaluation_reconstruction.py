"""Point-cloud and depth metrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from manyview.errors import InputError
from manyview.evaluation import (
    compare_clouds,
    estimate_normals,
    evaluate_depth,
    evaluate_reconstruction,
    median_relative_point_error,
)
from manyview.geometry import Similarity, align_local_to_global

MOVE = Similarity(scale=2.5, rotation=Rotation.from_euler("xyz", [1, 2, 3]).as_matrix(), translation=np.arange(3.0))


def test_the_metrics_of_two_clouds_are_the_reference_ones(shared: Path) -> None:
    with np.load(shared / "reference/fast3r/golden_recon_metrics.npz") as golden:
        report = compare_clouds(golden["rec_points"], golden["gt_points"], golden["rec_normals"], golden["gt_normals"])
        found = {
            "acc": report.accuracy,
            "acc_median": report.accuracy_median,
            "comp": report.completeness,
            "comp_median": report.completeness_median,
            "nc1": report.normal_consistency,
            "nc1_median": report.normal_consistency_median,
            "nc2": report.normal_completeness,
            "nc2_median": report.normal_completeness_median,
        }
        assert found == pytest.approx({name: float(golden[name]) for name in found}, abs=1e-9)
        assert (report.predicted_points, report.true_points) == (600, 800)


@pytest.mark.parametrize("head", ["local", "global"])
def test_the_protocol_gives_the_reference_figures(shared: Path, head: str) -> None:
    with np.load(shared / "reference/fast3r/golden_geometry.npz") as golden:

        def maps(name: str) -> list[np.ndarray]:
            return [golden[f"in_v{view}_{name}"][0] for view in range(4)]

        points, confidence = maps("pts3d_in_other_view"), maps("conf")
        if head == "local":
            local, valid = maps("pts3d_local"), maps("valid_mask")
            fits = [
                align_local_to_global(own, world, certain, percentile=85, valid=usable)
                for own, world, certain, usable in zip(local, points, confidence, valid, strict=True)
            ]
            points = [fit.apply(own) for fit, own in zip(fits, local, strict=True) if fit is not None]
            confidence = maps("conf_local")
        report = evaluate_reconstruction(points, maps("gt_pts3d"), confidence, maps("valid_mask"))
        for suffix in ("", "_median"):
            for name, reference, tolerance in [
                ("accuracy", "accuracy", 1e-5),
                ("completeness", "completion", 1e-5),
                ("normal_consistency", "nc1", 1e-4),
                ("normal_completeness", "nc2", 1e-4),
            ]:
                expected = float(golden[f"recon_{head}_{reference}{suffix}"])
                assert getattr(report, name + suffix) == pytest.approx(expected, abs=tolerance)


def scene(seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """True maps, confidences and masks of two views."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(-1, 1, 24), np.linspace(-1, 1, 18))
    truth = [np.stack([x + shift, y, 4 + np.sin(3 * x) * np.cos(2 * y)], axis=-1) for shift in (0, 0.7)]
    return truth, [1 + rng.random((18, 24)) for _ in truth], [np.ones((18, 24), dtype=bool) for _ in truth]


def test_a_moved_and_scaled_copy_of_the_truth_is_perfect() -> None:
    truth, confidence, valid = scene()
    report = evaluate_reconstruction([MOVE.apply(view) for view in truth], truth, confidence, valid)
    assert max(report.accuracy, report.completeness) < 1e-9
    assert min(report.normal_consistency, report.normal_completeness) > 1 - 1e-6


def test_the_fit_uses_confident_pixels_alone_and_the_comparison_all_valid_ones() -> None:
    truth, confidence, valid = scene()
    predicted = [view.copy() for view in truth]
    predicted[0][:3] += 5.0
    confidence[0][:3] = 1.0
    valid[1][0] = False
    predicted[1][0], predicted[1][1, 0] = 100.0, np.nan
    report = evaluate_reconstruction(predicted, truth, confidence, valid)
    assert report.accuracy_median < 1e-9
    assert report.accuracy > 0.1
    assert report.predicted_points == report.true_points == 2 * 18 * 24 - 24 - 1


def test_normals_of_a_plane_and_of_a_sphere_are_right() -> None:
    rng = np.random.default_rng(0)
    plane = np.column_stack([rng.uniform(size=(500, 2)), np.zeros(500)]) @ MOVE.rotation.T
    np.testing.assert_allclose(np.abs(estimate_normals(plane) @ MOVE.rotation[:, 2]), 1, atol=1e-9)
    sphere = rng.normal(size=(4000, 3))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    normals = estimate_normals(sphere)
    assert np.median(np.abs(np.sum(normals * sphere, axis=1))) > 0.998
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-12)


def test_normals_do_not_depend_on_how_many_points_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(0).normal(size=(300, 3))
    whole = estimate_normals(points)
    monkeypatch.setattr("manyview.evaluation.reconstruction.CHUNK", 70)
    np.testing.assert_array_equal(estimate_normals(points), whole)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_clouds_of_very_few_points_are_compared(count: int) -> None:
    cloud = np.arange(3.0 * count).reshape(count, 3)
    assert compare_clouds(cloud, cloud + np.array([0, 0, 1])).accuracy <= 1


@pytest.mark.parametrize("cloud", [np.zeros((0, 3)), np.zeros((5, 2)), np.full((5, 3), np.nan)])
def test_empty_misshapen_and_non_finite_clouds_are_errors(cloud: np.ndarray) -> None:
    with pytest.raises(InputError, match="predicted cloud"):
        compare_clouds(cloud, np.ones((5, 3)))
    with pytest.raises(InputError, match="no views"):
        evaluate_reconstruction([], [], [], [])


@given(st.sampled_from(["median", "scale", "scale_shift"]), st.floats(0.01, 100), st.floats(-2, 2))
def test_alignment_of_depth_removes_what_it_says(alignment: str, scale: float, shift: float) -> None:
    truth = np.random.default_rng(0).uniform(1, 5, size=(10, 12))
    predicted = (truth - (shift if alignment == "scale_shift" else 0)) / scale
    report = evaluate_depth(predicted, truth, alignment=alignment)
    assert report.abs_rel == pytest.approx(0, abs=1e-9)
    assert report.delta_125 == 1
    assert report.scale == pytest.approx(scale)
    assert report.pixels == 120


def test_depth_errors_are_the_textbook_ones() -> None:
    truth = np.array([[1.0, 2.0, 4.0, 10.0]])
    report = evaluate_depth(np.array([[1.1, 2.0, 2.0, -10.0]]), truth, alignment="none")
    assert report.abs_rel == pytest.approx((0.1 + 0 + 0.5 + 2) / 4)
    assert report.median_relative_error == pytest.approx(0.3)
    assert report.delta_125 == 0.5


def test_only_valid_pixels_of_known_depth_count_and_holes_are_reported() -> None:
    truth = np.array([[1.0, 1.0, 0.0, np.nan, 1.0, 1.0]])
    predicted = np.array([[2.0, 2.0, 9.0, 9.0, 9.0, np.nan]])
    valid = np.array([[True, True, True, True, False, True]])
    report = evaluate_depth(predicted, truth, valid)
    assert (report.pixels, report.scale, report.abs_rel) == (2, 0.5, 0.0)
    assert report.missing == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("predicted", "truth", "alignment"),
    [
        (np.ones((2, 3)), np.ones((3, 2)), "median"),
        (np.ones((2, 2)), np.zeros((2, 2)), "median"),
        (np.zeros((2, 2)), np.ones((2, 2)), "median"),
        (np.ones((2, 2)), np.ones((2, 2)), "scale_shift"),
        (np.ones((2, 2)), np.ones((2, 2)), "mean"),
    ],
    ids=["shapes", "no truth", "zero prediction", "flat prediction", "unknown alignment"],
)
def test_depths_that_cannot_be_compared_are_errors(predicted: np.ndarray, truth: np.ndarray, alignment: str) -> None:
    with pytest.raises(InputError):
        evaluate_depth(predicted, truth, alignment=alignment)


def test_the_point_error_is_a_share_of_the_distance_and_ignores_frame_and_scale() -> None:
    truth, _, valid = scene()
    rng = np.random.default_rng(1)
    noisy = [view + 0.01 * rng.normal(size=view.shape) for view in truth]
    error = median_relative_point_error(noisy, truth, valid)
    # The median length of a 3-D Gaussian is 1.54 sigma; the scene is about 4.1 away.
    assert error == pytest.approx(0.0154 / 4.1, rel=0.1)
    moved = [MOVE.apply(view) for view in noisy]
    assert median_relative_point_error(moved, truth) == pytest.approx(error, rel=1e-6)
    moved[0][0, 0] = np.nan
    assert median_relative_point_error(moved, truth) == pytest.approx(error, rel=0.02)
    far = median_relative_point_error(noisy, truth, origin=np.array([0, 0, -100.0]))
    assert far == pytest.approx(0.0154 / 104, rel=0.1)
