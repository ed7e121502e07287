"""Camera metrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from manyview.errors import InputError
from manyview.evaluation import (
    evaluate_poses,
    mean_average_accuracy,
    pairwise_rotation_errors,
    pairwise_translation_errors,
)


def random_cameras(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    cameras = np.tile(np.eye(4), (count, 1, 1))
    cameras[:, :3, :3] = Rotation.random(count, rng=rng).as_matrix()
    cameras[:, :3, 3] = rng.normal(size=(count, 3))
    return cameras


def test_the_errors_of_all_pairs_and_the_scores_are_the_reference_ones(shared: Path) -> None:
    with np.load(shared / "reference/fast3r/golden_pose_metrics.npz") as golden:
        predicted, truth = golden["pred_c2w"], golden["gt_c2w"]
        report = evaluate_poses(predicted, truth)
        # The reference is single precision, where an arc cosine near 1 keeps three digits.
        np.testing.assert_allclose(report.rotation_errors, golden["rel_r_deg"], atol=3e-4)
        np.testing.assert_allclose(report.translation_errors, golden["rel_t_deg"], atol=3e-3)
        np.testing.assert_allclose(
            pairwise_rotation_errors(predicted, truth, linear_extrapolation=True), golden["rel_r_deg"], atol=3e-4
        )
        for threshold in (5, 15, 30):
            assert report.rra[threshold] == pytest.approx(float(golden[f"RRA_{threshold}"]), abs=1e-6)
            assert report.rta[threshold] == pytest.approx(float(golden[f"RTA_{threshold}"]), abs=1e-6)
        assert report.maa30 == pytest.approx(float(golden["mAA_30_histogram30"]), abs=1e-6)
        assert report.maa30_fast3r == pytest.approx(float(golden["mAA_30_fast3r"]), abs=1e-6)


def test_small_errors_are_the_reference_ones_with_its_extrapolation(shared: Path) -> None:
    with np.load(shared / "reference/fast3r/golden_geometry.npz") as golden:
        predicted, truth = golden["pnp_first_view_from_global_head_c2w"], golden["c2w_true"]
        rotation = pairwise_rotation_errors(predicted, truth, linear_extrapolation=True)
        np.testing.assert_allclose(rotation, golden["posemetric_rel_r_deg"], atol=5e-4)
        assert np.all(pairwise_rotation_errors(predicted, truth) < 0.25)
        np.testing.assert_allclose(
            pairwise_translation_errors(predicted, truth), golden["posemetric_rel_t_deg"], atol=1e-3
        )
        maa = evaluate_poses(predicted, truth).maa30_fast3r
        assert maa == pytest.approx(float(golden["posemetric_mAA30"]), abs=1e-6)


def test_a_perfect_rotation_scores_405_thousandths_in_the_published_form_and_nothing_in_ours() -> None:
    cameras = random_cameras(3)
    np.testing.assert_allclose(pairwise_rotation_errors(cameras, cameras, linear_extrapolation=True), 0.405, atol=1e-3)
    np.testing.assert_allclose(pairwise_rotation_errors(cameras, cameras), 0.0, atol=1e-9)


@given(st.floats(0, 180))
def test_a_known_rotation_error_is_measured(degrees: float) -> None:
    truth = random_cameras(2)
    predicted = truth.copy()
    predicted[1, :3, :3] = predicted[1, :3, :3] @ Rotation.from_euler("y", degrees, degrees=True).as_matrix()
    assert pairwise_rotation_errors(predicted, truth)[0] == pytest.approx(degrees, abs=1e-6)
    if 1 < degrees < 179:
        published = pairwise_rotation_errors(predicted, truth, linear_extrapolation=True)[0]
        assert published == pytest.approx(degrees, abs=1e-6)


@given(st.floats(0, 180))
def test_a_known_direction_error_is_measured_without_its_sign(degrees: float) -> None:
    truth = np.tile(np.eye(4), (2, 1, 1))
    truth[1, :3, 3] = [2, 0, 0]
    predicted = truth.copy()
    predicted[1, :3, 3] = 7 * np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), 0])
    assert pairwise_translation_errors(predicted, truth)[0] == pytest.approx(min(degrees, 180 - degrees), abs=1e-6)


def test_world_frame_and_scale_of_the_prediction_do_not_matter() -> None:
    truth, frame = random_cameras(6), random_cameras(1, seed=1)[0]
    moved = frame @ truth
    moved[:, :3, 3] *= 3.7
    report = evaluate_poses(moved, truth)
    assert report.median_rotation_error == pytest.approx(0, abs=1e-6)
    assert report.median_translation_error == pytest.approx(0, abs=1e-6)
    assert report.maa30 == report.maa30_fast3r == 1.0
    assert (report.views, report.missing, len(report.rotation_errors)) == (6, 0, 15)


@pytest.mark.parametrize("absent", [None, np.full((4, 4), np.nan), np.diag([1, 1, 1, np.inf])])
def test_every_pair_with_a_missing_camera_counts_as_wrong(absent: np.ndarray | None) -> None:
    truth = random_cameras(4)
    predicted: list[np.ndarray | None] = list(truth)
    predicted[1] = absent
    report = evaluate_poses(predicted, truth)
    assert report.missing == 1
    assert report.rra == report.rta == {5: 0.5, 15: 0.5, 30: 0.5}
    assert report.maa30 == 0.5
    # Pairs in order: (0,1) (0,2) (0,3) (1,2) (1,3) (2,3).
    np.testing.assert_allclose(report.rotation_errors, [180, 0, 0, 180, 180, 0], atol=1e-6)
    np.testing.assert_allclose(report.translation_errors, [90, 0, 0, 90, 90, 0], atol=1e-5)


def test_cameras_in_one_place_have_no_direction_to_be_right_about() -> None:
    truth = np.tile(np.eye(4), (2, 1, 1))
    assert pairwise_translation_errors(truth, truth)[0] == 90


def test_the_two_definitions_of_maa_differ_as_stated() -> None:
    errors = np.array([0.5, 29.5, 40.0])
    assert mean_average_accuracy(errors, np.zeros(3), 30) == pytest.approx((1 + 1 / 30) / 3)
    assert mean_average_accuracy(np.zeros(3), errors, 30, bins=31) == pytest.approx((1 + 1 / 31) / 3)
    assert mean_average_accuracy(np.full(3, 0.98), np.zeros(3), 30) == 1
    assert mean_average_accuracy(np.full(3, 0.98), np.zeros(3), 30, bins=31) == pytest.approx(30 / 31)


@pytest.mark.parametrize(
    ("predicted", "truth"),
    [
        (random_cameras(3), random_cameras(4)),
        (random_cameras(1), random_cameras(1)),
        ([], []),
        (random_cameras(2)[:, :3], random_cameras(2)[:, :3]),
        (random_cameras(2), np.full((2, 4, 4), np.nan)),
        (random_cameras(2) * [[[1.2], [1.2], [1.2], [1]]], random_cameras(2)),
    ],
    ids=["differing numbers", "one camera", "none", "3x4", "truth unknown", "scaled rotation"],
)
def test_unusable_cameras_are_errors(predicted: np.ndarray, truth: np.ndarray) -> None:
    with pytest.raises(InputError):
        evaluate_poses(predicted, truth)
