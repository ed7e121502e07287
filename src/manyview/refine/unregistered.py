"""From the network's frame to the refined one, by the views that have a camera in both."""

from __future__ import annotations

import numpy as np

from manyview.geometry import Similarity, fit_similarity

STEPS = 20  # of re-weighting: it has long converged by then
AXIS_LENGTH = 0.3  # of a camera's usual distance from what it sees: what a direction counts beside a place
NEAR = 0.25  # of the median distance of two cameras: errors of their places would count too much
SMALLEST_DISTANCE = 1e-3  # of that length: below it all cameras fit equally well


def fit_cameras(
    source: np.ndarray,
    target: np.ndarray,
    *,
    scale: float,
    reach: float,
    keep_scale: bool = False,
    weights: np.ndarray | None = None,
) -> Similarity:
    """The similarity that takes cameras to the same cameras in another frame, by their centres and directions.

    Each camera counts by its centre and by three points on its axes, so that even one camera tells where things go.
    The sum of distances is minimised, not of their squares (re-weighted least squares), so that a few wrong cameras
    count little.

    Args:
        source, target: (N, 4, 4) world_from_camera in both frames, N at least 1.
        scale: target units per source unit, as far as it is known; centres that are far apart overrule it, unless
        keep_scale: says that they do not.
        reach: usual depth of what the cameras see, source units.
        weights: (N,) above 0; how much each camera counts.
    """
    source = np.array(source, dtype=np.float64)
    source[:, :3, 3] *= scale
    given = np.ones(len(source)) if weights is None else np.asarray(weights, dtype=np.float64)
    axis = AXIS_LENGTH * reach * scale
    points, images = _with_axes(source, axis), _with_axes(np.asarray(target, dtype=np.float64), axis)
    robust = np.ones(len(source))
    fitted = Similarity.identity()
    for _ in range(STEPS):
        fitted = fit_similarity(
            points.reshape(-1, 3), images.reshape(-1, 3), np.repeat(given * robust, 4), with_scale=not keep_scale
        )
        distance = np.sqrt(((fitted.apply(points) - images) ** 2).sum(axis=(1, 2)))
        robust = 1 / np.maximum(distance, SMALLEST_DISTANCE * axis)
        robust /= robust.max()
    return Similarity(scale=scale * fitted.scale, rotation=fitted.rotation, translation=fitted.translation)


def movement(before: np.ndarray, after: np.ndarray, fitted: Similarity) -> tuple[float, float]:
    """How far a camera has moved against the frame: degrees, and distance of its centre in the target's units.

    Args:
        before, after: (4, 4) world_from_camera, in the source and the target frame.
        fitted: the map from one to the other.
    """
    carried = fitted.apply_to_camera(before)
    difference = carried[:3, :3].T @ after[:3, :3]
    twist = difference - difference.T
    sine = np.sqrt(twist[0, 1] ** 2 + twist[0, 2] ** 2 + twist[1, 2] ** 2)
    angle = float(np.degrees(np.arctan2(sine, np.trace(difference) - 1)))
    return angle, float(np.linalg.norm(carried[:3, 3] - after[:3, 3]))


def ratio_of_spreads(source: np.ndarray, target: np.ndarray) -> float | None:
    """How much farther apart the cameras are in the target's frame; None where most are in one place.

    The median over the pairs that are not near each other: a few wrong cameras do not matter.
    """
    first, second = np.triu_indices(len(source), k=1)
    apart = [np.linalg.norm(c[first, :3, 3] - c[second, :3, 3], axis=1) for c in (source, target)]
    if not apart[0].any():
        return None
    told = apart[0] > NEAR * np.median(apart[0])
    ratio = float(np.median(apart[1][told] / apart[0][told]))
    return ratio if ratio > 0 else None


def _with_axes(cameras: np.ndarray, length: float) -> np.ndarray:
    """(N, 4, 4) -> (N, 4, 3): the centre, and the ends of the three axes."""
    centres = cameras[:, None, :3, 3]
    return np.concatenate([centres, centres + length * np.swapaxes(cameras[:, :3, :3], 1, 2)], axis=1)
