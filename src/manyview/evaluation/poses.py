"""Camera accuracy over all pairs of views: RRA, RTA and mAA as the CO3Dv2 and RealEstate10K tables report them.

Relative motions cancel the choice of the world frame, and directions cancel its scale, so nothing is aligned first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from manyview.errors import InputError
from manyview.geometry import invert_rigid

THRESHOLDS = (5, 15, 30)
# What a pair counts if one of its cameras was not found: the worst possible rotation and direction error, in degrees.
MISSING_ROTATION_ERROR = 180.0
MISSING_TRANSLATION_ERROR = 90.0
# The published procedure replaces acos by its tangent where |cos| exceeds one minus this.
EXTRAPOLATION_MARGIN = 1e-4
# Fast3R's evaluation splits 0..30 degrees into 31 bins.
FAST3R_BINS = 31


@dataclass(frozen=True, kw_only=True)
class PoseReport:
    """How accurate N cameras are, over their P = N (N - 1) / 2 pairs.

    Attributes:
        views: N; `missing` of them have no predicted camera, and every pair with such a view counts as wrong.
        rra, rta: share of the pairs (0..1) with rotation / translation-direction error below 5, 15 and 30 degrees.
        maa30: mean average accuracy up to 30 degrees, in thirty one-degree bins (the usual definition).
        maa30_fast3r: the same in 31 bins, as in Fast3R's published tables.
        median_rotation_error, median_translation_error: degrees.
        rotation_errors, translation_errors: (P,) degrees, pairs (0, 1), (0, 2), ... (N - 2, N - 1).
    """

    views: int
    missing: int
    rra: dict[int, float]
    rta: dict[int, float]
    maa30: float
    maa30_fast3r: float
    median_rotation_error: float
    median_translation_error: float
    rotation_errors: np.ndarray
    translation_errors: np.ndarray


def evaluate_poses(
    predicted: np.ndarray | Sequence[np.ndarray | None], truth: np.ndarray | Sequence[np.ndarray]
) -> PoseReport:
    """Compare predicted cameras with true ones.

    Args:
        predicted: N world_from_camera (4, 4) in any world frame and scale; None or non-finite numbers where a camera
            was not found.
        truth: (N, 4, 4) world_from_camera.

    Raises:
        InputError: fewer than two cameras, differing numbers, or matrices that are not rigid.
    """
    truth = _stacked(truth)
    predicted = _stacked(predicted)
    missing = ~np.isfinite(predicted).all(axis=(1, 2))
    rotation = pairwise_rotation_errors(predicted, truth)
    translation = pairwise_translation_errors(predicted, truth)
    return PoseReport(
        views=len(truth),
        missing=int(missing.sum()),
        rra={threshold: accuracy_below(rotation, threshold) for threshold in THRESHOLDS},
        rta={threshold: accuracy_below(translation, threshold) for threshold in THRESHOLDS},
        maa30=mean_average_accuracy(rotation, translation, 30),
        maa30_fast3r=mean_average_accuracy(rotation, translation, 30, bins=FAST3R_BINS),
        median_rotation_error=float(np.median(rotation)),
        median_translation_error=float(np.median(translation)),
        rotation_errors=rotation,
        translation_errors=translation,
    )


def pairwise_rotation_errors(
    predicted: np.ndarray, truth: np.ndarray, *, linear_extrapolation: bool = False
) -> np.ndarray:
    """(N, 4, 4) world_from_camera, twice -> (P,) degrees, 0..180: angle between the relative rotations of each pair.

    Args:
        predicted: a pair with non-finite numbers counts 180 degrees.
        linear_extrapolation: as in the published procedure, replace the arc cosine by its tangent where its argument is
            within 1e-4 of +-1. Errors below 0.81 degrees are then compressed to 0.405..0.81, so that a perfect rotation
            scores 0.405; no threshold and no bin of the published tables is affected.
    """
    predicted, truth = _checked(predicted, truth)
    difference = np.swapaxes(_relative(predicted)[:, :3, :3], -1, -2)
    difference = _relative(truth)[:, :3, :3] @ difference
    cosine = (np.trace(difference, axis1=-2, axis2=-1) - 1) / 2
    if np.any(np.abs(cosine) > 1 + EXTRAPOLATION_MARGIN):
        raise InputError(
            f"Got a relative rotation with trace {2 * cosine[np.nanargmax(np.abs(cosine))] + 1:.4g}, expected -1..3.",
            hint="Give rigid world_from_camera matrices: orthonormal rotations without a scale.",
        )
    angle = _extrapolated_arccos(cosine) if linear_extrapolation else _angle(difference)
    return np.where(np.isfinite(angle), np.degrees(angle), MISSING_ROTATION_ERROR)


def pairwise_translation_errors(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N, 4, 4) world_from_camera, twice -> (P,) degrees, 0..90: angle between the directions of relative translations.

    The sign of a direction is disregarded, as in the published procedure. A pair with non-finite numbers counts 90
    degrees, and so does one without a direction because both cameras are in one place.
    """
    predicted, truth = _checked(predicted, truth)
    first, second = _relative(predicted)[:, :3, 3], _relative(truth)[:, :3, 3]
    across = np.linalg.norm(np.cross(first, second), axis=-1)
    along = np.abs(np.einsum("pi,pi->p", first, second))
    angle = np.degrees(np.arctan2(across, along))
    defined = np.isfinite(angle) & ((across > 0) | (along > 0))
    return np.where(defined, angle, MISSING_TRANSLATION_ERROR)


def accuracy_below(errors: np.ndarray, threshold: float) -> float:
    """Share of the errors (0..1) that are below the threshold, in the same unit: RRA@t or RTA@t."""
    return float(np.mean(np.asarray(errors) < threshold))


def mean_average_accuracy(
    rotation_errors: np.ndarray, translation_errors: np.ndarray, threshold: int = 30, *, bins: int | None = None
) -> float:
    """Mean over the bins of the share of pairs whose larger error falls in that bin or an earlier one (0..1).

    Args:
        rotation_errors, translation_errors: (P,) degrees.
        threshold: degrees, upper edge of the last bin.
        bins: None for one a degree, the usual definition; 31 with a threshold of 30 is Fast3R's.
    """
    worst = np.maximum(rotation_errors, translation_errors)
    counts, _ = np.histogram(worst, bins=threshold if bins is None else bins, range=(0, threshold))
    return float(np.mean(np.cumsum(counts / len(worst))))


def _stacked(cameras: np.ndarray | Sequence[np.ndarray | None]) -> np.ndarray:
    absent = np.full((4, 4), np.nan)
    matrices = [absent if camera is None else np.asarray(camera, dtype=np.float64) for camera in cameras]
    wrong = [matrix.shape for matrix in matrices if matrix.shape != (4, 4)]
    if wrong:
        raise InputError(f"Got a camera of shape {wrong[0]}, expected (4, 4).", hint="Give world_from_camera matrices.")
    return np.stack(matrices) if matrices else np.zeros((0, 4, 4))


def _checked(predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    predicted, truth = np.asarray(predicted, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if predicted.shape != truth.shape or truth.shape[1:] != (4, 4) or len(truth) < 2:
        raise InputError(
            f"Got predicted cameras of shape {predicted.shape} and true ones of shape {truth.shape}, "
            "expected (N, 4, 4) twice with N at least 2.",
            hint="Give one predicted entry for each true camera, None where none was found.",
        )
    if not np.all(np.isfinite(truth)):
        raise InputError("Got true cameras with non-finite numbers.", hint="Leave out views without a true camera.")
    found = np.isfinite(predicted).all(axis=(1, 2), keepdims=True)
    return np.where(found, predicted, np.nan), truth


def _relative(world_from_camera: np.ndarray) -> np.ndarray:
    """(N, 4, 4) -> (P, 4, 4): camera i from camera j for all pairs i < j."""
    first, second = np.triu_indices(len(world_from_camera), k=1)
    return invert_rigid(world_from_camera)[first] @ world_from_camera[second]


def _angle(rotation: np.ndarray) -> np.ndarray:
    """(P, 3, 3) -> (P,) radians; unlike the arc cosine of the trace it stays accurate near 0 and pi."""
    twist = rotation - np.swapaxes(rotation, -1, -2)
    sine = np.sqrt(twist[:, 0, 1] ** 2 + twist[:, 0, 2] ** 2 + twist[:, 1, 2] ** 2)
    return np.arctan2(sine, np.trace(rotation, axis1=-2, axis2=-1) - 1)


def _extrapolated_arccos(cosine: np.ndarray) -> np.ndarray:
    bound = 1 - EXTRAPOLATION_MARGIN
    inside = np.clip(cosine, -bound, bound)
    # Zero inside; outside, the tangent at the bound takes over.
    return np.arccos(inside) - (cosine - inside) / np.sqrt(1 - bound**2)
