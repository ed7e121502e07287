"""Accuracy, completeness and normal consistency of a point cloud, and the tables' protocol (7-Scenes, DTU)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from manyview.errors import InputError
from manyview.geometry import confident_pixels, finite_points, fit_similarity

NEIGHBOURS = 30
# Points whose neighbourhoods are held in memory at once: about 100 MB.
CHUNK = 100_000


@dataclass(frozen=True, kw_only=True)
class ReconstructionReport:
    """Distances in the units of the true cloud, each as mean and median over points; smaller is better.

    Attributes:
        accuracy, accuracy_median: from a predicted point to the nearest true one.
        completeness, completeness_median: from a true point to the nearest predicted one.
        normal_consistency, normal_consistency_median: |cosine| (0..1, larger is better) between the normals of a
            predicted point and of its nearest true one ("NC1").
        normal_completeness, normal_completeness_median: the same from the true points ("NC2").
        predicted_points, true_points: sizes of the clouds.
    """

    accuracy: float
    accuracy_median: float
    completeness: float
    completeness_median: float
    normal_consistency: float
    normal_consistency_median: float
    normal_completeness: float
    normal_completeness_median: float
    predicted_points: int
    true_points: int


def compare_clouds(
    predicted: np.ndarray,
    truth: np.ndarray,
    predicted_normals: np.ndarray | None = None,
    true_normals: np.ndarray | None = None,
) -> ReconstructionReport:
    """Compare two clouds that are in one frame already.

    Args:
        predicted, truth: (P, 3) and (Q, 3), same frame and units, finite.
        predicted_normals, true_normals: (P, 3) and (Q, 3) of length one, sign irrelevant; None has them estimated.

    Raises:
        InputError: a cloud is empty, not (P, 3), or not finite.
    """
    from scipy.spatial import KDTree

    predicted, truth = _cloud(predicted, "predicted"), _cloud(truth, "true")
    predicted_normals = estimate_normals(predicted) if predicted_normals is None else np.asarray(predicted_normals)
    true_normals = estimate_normals(truth) if true_normals is None else np.asarray(true_normals)
    to_truth, nearest_true = KDTree(truth).query(predicted)
    to_predicted, nearest_predicted = KDTree(predicted).query(truth)
    consistency = _alikeness(predicted_normals, true_normals[nearest_true])
    completeness = _alikeness(true_normals, predicted_normals[nearest_predicted])
    return ReconstructionReport(
        accuracy=float(np.mean(to_truth)),
        accuracy_median=float(np.median(to_truth)),
        completeness=float(np.mean(to_predicted)),
        completeness_median=float(np.median(to_predicted)),
        normal_consistency=float(np.mean(consistency)),
        normal_consistency_median=float(np.median(consistency)),
        normal_completeness=float(np.mean(completeness)),
        normal_completeness_median=float(np.median(completeness)),
        predicted_points=len(predicted),
        true_points=len(truth),
    )


def evaluate_reconstruction(
    points: Sequence[np.ndarray],
    truth: Sequence[np.ndarray],
    confidence: Sequence[np.ndarray],
    valid: Sequence[np.ndarray],
    *,
    percentile: float = 85.0,
) -> ReconstructionReport:
    """The protocol of Fast3R's reconstruction tables for one scene.

    One similarity is fitted over all views from predicted to true points, using in each view the valid pixels whose
    confidence reaches that view's percentile. All valid pixels are then compared; there is no further registration.

    Args:
        points: N maps (H, W, 3), predicted, one common frame. Non-finite pixels are left out.
        truth: N maps (H, W, 3), true, one common frame; sets the unit of the report.
        confidence: N maps (H, W) for `points`.
        valid: N masks (H, W), pixels whose true point is known.
        percentile: 0..100.
    """
    predicted_rows, true_rows, weights = [], [], []
    for view_points, view_truth, view_confidence, view_valid in zip(points, truth, confidence, valid, strict=True):
        mask = np.asarray(view_valid, dtype=bool) & finite_points(view_truth) & finite_points(view_points)
        predicted_rows.append(np.asarray(view_points, dtype=np.float64)[mask])
        true_rows.append(np.asarray(view_truth, dtype=np.float64)[mask])
        weights.append(confident_pixels(view_confidence, percentile / 100)[mask])
    if not predicted_rows:
        raise InputError("Got no views to evaluate, expected at least one.", hint="Give one map for each view.")
    predicted, true_cloud = np.concatenate(predicted_rows), np.concatenate(true_rows)
    similarity = fit_similarity(predicted, true_cloud, np.concatenate(weights).astype(np.float64))
    return compare_clouds(similarity.apply(predicted), true_cloud)


def estimate_normals(points: np.ndarray, neighbours: int = NEIGHBOURS) -> np.ndarray:
    """Points (P, 3) -> unit normals (P, 3) float64 with arbitrary sign.

    The direction in which a point's nearest neighbours (itself among them) vary least, as in Open3D's default.
    """
    from scipy.spatial import KDTree

    points = _cloud(points, "given")
    tree = KDTree(points)
    count = min(neighbours, len(points))
    normals = np.empty_like(points)
    for start in range(0, len(points), CHUNK):
        rows = slice(start, start + CHUNK)
        _, nearest = tree.query(points[rows], k=count)
        near = points[nearest.reshape(-1, count)]
        near -= near.mean(axis=1, keepdims=True)
        covariance = np.swapaxes(near, 1, 2) @ near
        normals[rows] = np.linalg.eigh(covariance)[1][:, :, 0]
    return normals


def _cloud(points: np.ndarray, which: str) -> np.ndarray:
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or not len(points) or not np.all(finite_points(points)):
        finite = "all finite" if np.all(np.isfinite(points)) else "some not finite"
        raise InputError(
            f"Got a {which} cloud of shape {points.shape}, {finite}; expected (P, 3) with P above 0, finite.",
            hint="Keep only the valid pixels, as points[valid].",
        )
    return points


def _alikeness(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.abs(np.einsum("pi,pi->p", first, second))
