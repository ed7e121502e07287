"""Accuracy of depth maps and of point maps, after the scale (and shift) that a prediction leaves open is removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from manyview.errors import InputError
from manyview.geometry import finite_points, fit_similarity

DepthAlignment = Literal["none", "median", "scale", "scale_shift"]
DELTA = 1.25


@dataclass(frozen=True, kw_only=True)
class DepthReport:
    """Errors of a depth map relative to the true depth.

    Attributes:
        abs_rel: mean of |predicted - true| / true.
        delta_125: share of the pixels (0..1) whose predicted depth is within a factor of 1.25 of the true one.
        median_relative_error: median of |predicted - true| / true.
        scale, shift: predicted depth * scale + shift is what was compared; shift is in units of the true depth.
        pixels: how many were compared.
        missing: share (0..1) of the pixels with true depth where the prediction is not finite; they are not compared.
    """

    abs_rel: float
    delta_125: float
    median_relative_error: float
    scale: float
    shift: float
    pixels: int
    missing: float


def evaluate_depth(
    predicted: np.ndarray,
    truth: np.ndarray,
    valid: np.ndarray | None = None,
    *,
    alignment: DepthAlignment = "median",
) -> DepthReport:
    """Compare z-depth maps. Give several views stacked to align them all by one scale.

    Args:
        predicted, truth: (..., H, W); true depth counts where it is finite and above zero.
        valid: (..., H, W) bool, pixels that count; None lets all.
        alignment: "median": scale by the ratio of the medians; "scale" and "scale_shift": least squares.

    Raises:
        InputError: the shapes disagree, nothing is left to compare, or the prediction cannot be scaled.
    """
    predicted, truth = np.asarray(predicted, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    counted = np.isfinite(truth) & (truth > 0)
    mask = counted if valid is None else np.asarray(valid, dtype=bool)
    if not predicted.shape == truth.shape == mask.shape:
        raise InputError(
            f"Got depths of shapes {predicted.shape} and {truth.shape} and a mask of shape {mask.shape}, "
            "expected the same shape for all.",
            hint="Bring the prediction to the size of the true depth first.",
        )
    counted &= mask
    compared = counted & np.isfinite(predicted)
    if not compared.any():
        raise InputError(
            f"None of {truth.size} pixels has both a predicted and a true depth.", hint="Check the mask and the units."
        )
    values, true_values = predicted[compared], truth[compared]
    scale, shift = _alignment(values, true_values, alignment)
    aligned = values * scale + shift
    relative = np.abs(aligned - true_values) / true_values
    # A depth of zero or below is wrong by any factor.
    within = (aligned < DELTA * true_values) & (aligned * DELTA > true_values)
    return DepthReport(
        abs_rel=float(relative.mean()),
        delta_125=float(within.mean()),
        median_relative_error=float(np.median(relative)),
        scale=scale,
        shift=shift,
        pixels=len(values),
        missing=float(1 - len(values) / np.count_nonzero(counted)),
    )


def median_relative_point_error(
    points: Sequence[np.ndarray],
    truth: Sequence[np.ndarray],
    valid: Sequence[np.ndarray] | None = None,
    *,
    origin: np.ndarray | None = None,
) -> float:
    """Median distance between predicted and true points, as a share of the scene's median distance.

    One similarity, by least squares over all views, takes the prediction to the truth first.

    Args:
        points, truth: N maps (H, W, 3), each set in one frame of its own. Non-finite pixels are left out.
        valid: N masks (H, W); None lets all pixels count.
        origin: (3,) where the scene's distance is measured from, in the true frame; None is that frame's origin, which
            is the first camera wherever the world is the first camera's frame.
    """
    masks = [np.ones(np.shape(view)[:-1], dtype=bool) for view in truth] if valid is None else valid
    predicted_rows, true_rows = [], []
    for view_points, view_truth, view_valid in zip(points, truth, masks, strict=True):
        mask = np.asarray(view_valid, dtype=bool) & finite_points(view_points) & finite_points(view_truth)
        predicted_rows.append(np.asarray(view_points, dtype=np.float64)[mask])
        true_rows.append(np.asarray(view_truth, dtype=np.float64)[mask])
    if not predicted_rows:
        raise InputError("Got no views to evaluate, expected at least one.", hint="Give one map for each view.")
    predicted, true_points = np.concatenate(predicted_rows), np.concatenate(true_rows)
    aligned = fit_similarity(predicted, true_points).apply(predicted)
    distance = np.linalg.norm(true_points - (np.zeros(3) if origin is None else origin), axis=-1)
    return float(np.median(np.linalg.norm(aligned - true_points, axis=-1)) / np.median(distance))


def _alignment(predicted: np.ndarray, truth: np.ndarray, alignment: DepthAlignment) -> tuple[float, float]:
    """Scale and shift that take the (P,) predicted depths to the true ones."""
    scale, shift = 1.0, 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        if alignment == "median":
            scale = float(np.median(truth) / np.median(predicted))
        elif alignment == "scale":
            scale = float(predicted @ truth / (predicted @ predicted))
        elif alignment == "scale_shift":
            centred = predicted - predicted.mean()
            scale = float(centred @ truth / (centred @ centred))
            shift = float(truth.mean() - scale * predicted.mean())
        elif alignment != "none":
            raise InputError(
                f"Got the alignment {alignment!r}.", hint="Expected one of none, median, scale and scale_shift."
            )
    if not np.isfinite(scale):
        raise InputError(
            f"The predicted depths cannot be scaled by {alignment!r}: they are all alike or their median is zero.",
            hint="Check the prediction.",
        )
    return scale, shift
