"""Which pixels of a point map to use: finite, confident enough, and few but well spread over the picture."""

from __future__ import annotations

import math

import numpy as np


def finite_points(points: np.ndarray) -> np.ndarray:
    """Points (..., 3) -> (...) bool: True where all three coordinates are finite."""
    # A sum is finite only if its terms are, short of overflow, which is no usable point either.
    points = np.asarray(points)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.isfinite(points[..., 0] + points[..., 1] + points[..., 2])


def confidence_threshold(confidence: np.ndarray, fraction: float) -> float:
    """The quantile (0..1, linear interpolation) of the finite confidences; +inf where there are none."""
    values = np.asarray(confidence).reshape(-1)
    finite = np.isfinite(values)
    values = values if finite.all() else values[finite]
    if not values.size:
        return math.inf
    if fraction <= 0:
        return float(values.min())
    return float(np.quantile(values.astype(np.float64), fraction))


def confident_pixels(confidence: np.ndarray, fraction: float) -> np.ndarray:
    """Confidences of any shape -> bool of that shape: finite and at or above their own quantile `fraction` (0..1)."""
    confidence = np.asarray(confidence)
    return np.isfinite(confidence) & (confidence >= confidence_threshold(confidence, fraction))


def spread_sample(
    mask: np.ndarray, max_points: int, *, confidence: np.ndarray | None = None, seed: int = 0
) -> np.ndarray:
    """At most `max_points` pixels of a mask, spread evenly: one for each square cell of a grid laid over the picture.

    Args:
        mask: (H, W) bool, pixels that may be chosen.
        max_points: upper limit; all pixels of the mask are returned if there are no more than that.
        confidence: (H, W); the most confident pixel of each cell is chosen. Without it, one at random, so that no
            pattern of the grid coincides with a pattern of the picture.
        seed: of that random choice.

    Returns:
        (P,) int64, increasing by cell: indices into the flattened (H * W) picture.
    """
    mask = np.asarray(mask, dtype=bool)
    candidates = np.flatnonzero(mask)
    if candidates.size <= max_points:
        return candidates
    height, width = mask.shape
    side = math.ceil(math.sqrt(candidates.size / max_points))
    score = np.random.default_rng(seed).random(mask.shape, dtype=np.float32) if confidence is None else confidence
    rows, columns = -(-height // side), -(-width // side)
    cells = np.full((rows * side, columns * side), -np.inf)
    cells[:height, :width] = np.where(mask & np.isfinite(score), score, -np.inf)
    cells = cells.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(rows * columns, side * side)
    best = cells.argmax(axis=1)
    filled = np.flatnonzero(cells[np.arange(len(cells)), best] > -np.inf)
    y = filled // columns * side + best[filled] // side
    x = filled % columns * side + best[filled] % side
    chosen = y * width + x
    if chosen.size > max_points:
        chosen = chosen[np.linspace(0, chosen.size - 1, max_points).astype(np.int64)]
    return chosen
