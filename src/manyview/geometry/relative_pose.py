"""Where the second picture's camera stands beside the first's, from the pointmaps of a pair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from manyview.errors import InputError
from manyview.geometry.cameras import invert_rigid, transform_points
from manyview.geometry.depth import project_points
from manyview.geometry.pnp import MIN_POINTS, solve_pnp
from manyview.geometry.sampling import finite_points
from manyview.geometry.similarity import fit_similarity


@dataclass(frozen=True, kw_only=True)
class RelativePose:
    """The second camera in the first one's frame, in the unit of the pointmaps that it was found from.

    Attributes:
        first_from_second: (4, 4) float64, rigid: the second camera's place, the first camera being the world.
        points: how many of the second picture's points were used.
        inliers: how many of them it sees nearer to their pixel than the limit, and in front of it.
        median_error: pixels, over all points used; inf if most of them are behind it.
    """

    first_from_second: np.ndarray
    points: int
    inliers: int
    median_error: float

    @property
    def inlier_ratio(self) -> float:
        """Share of the points used, 0..1."""
        return self.inliers / self.points

    def inverse(self) -> np.ndarray:
        """(4, 4) second_from_first: the first camera in the second one's frame."""
        return invert_rigid(self.first_from_second)


def relative_pose_by_pnp(
    second_points: np.ndarray,
    second_K: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    iterations: int = 100,
    reprojection_error: float = 5.0,
    max_points: int | None = None,
    point_confidence: np.ndarray | None = None,
    refine: bool = True,
) -> RelativePose | None:
    """By PnP with RANSAC: the camera that sees the second picture's points at their own pixels.

    Args:
        second_points: (H, W, 3) of the second picture, in the first camera's frame.
        second_K: (3, 3), pixels of the second picture; its focal length comes from the pair run the other way round.
        mask, iterations, reprojection_error, max_points, point_confidence, refine: as in `solve_pnp`, which with
            `refine=False` is the published procedure (SQPnP, 100 iterations, 5 pixels).

    Returns:
        None where no camera can be found, for the reasons that `solve_pnp` names.
    """
    found = solve_pnp(
        second_points,
        second_K,
        mask,
        iterations=iterations,
        reprojection_error=reprojection_error,
        max_points=max_points,
        point_confidence=point_confidence,
        refine=refine,
    )
    if found is None:
        return None
    return RelativePose(
        first_from_second=found.world_from_camera,
        points=found.points,
        inliers=found.inliers,
        median_error=found.median_error,
    )


def relative_pose_by_procrustes(
    forward: tuple[np.ndarray, np.ndarray],
    backward: tuple[np.ndarray, np.ndarray],
    second_K: np.ndarray,
    *,
    forward_confidence: tuple[np.ndarray, np.ndarray] | None = None,
    backward_confidence: tuple[np.ndarray, np.ndarray] | None = None,
    reprojection_error: float = 5.0,
) -> RelativePose | None:
    """By the similarity between the two runs of a pair (DUSt3R, section 3.3 of the paper): quick, but outliers count.

    Both runs show the same points, once in each camera's frame, with a scale of their own.

    Args:
        forward: ((H1, W1, 3), (H2, W2, 3)) of the first and the second picture, both in the first camera's frame.
        backward: the same two pictures in the same order, both in the second camera's frame.
        second_K: (3, 3), pixels of the second picture; only used to count the inliers.
        forward_confidence, backward_confidence: (H1, W1) and (H2, W2) each; a point weighs the product of its two.
        reprojection_error: pixels; the limit for an inlier.

    Returns:
        None where the points do not determine it.
    """
    source, target = _flat(backward, 3), _flat(forward, 3)
    weights = None
    if forward_confidence is not None and backward_confidence is not None:
        weights = _flat(forward_confidence, 1)[:, 0] * _flat(backward_confidence, 1)[:, 0]
    try:
        fitted = fit_similarity(source, target, weights)
    except InputError:
        if source.shape != target.shape:
            raise
        return None
    first_from_second = np.eye(4)
    first_from_second[:3, :3], first_from_second[:3, 3] = fitted.rotation, fitted.translation
    return _judge(first_from_second, forward[1], np.asarray(second_K, dtype=np.float64), reprojection_error)


def _flat(maps: tuple[np.ndarray, np.ndarray], channels: int) -> np.ndarray:
    return np.concatenate([np.asarray(given, dtype=np.float64).reshape(-1, channels) for given in maps])


def _judge(first_from_second: np.ndarray, points: np.ndarray, K: np.ndarray, limit: float) -> RelativePose | None:
    """Measured as `solve_pnp` does, so that both ways can be compared."""
    rows = np.flatnonzero(finite_points(points))
    width = points.shape[1]
    pixels = np.stack([rows % width, rows // width], axis=-1)
    in_camera = transform_points(invert_rigid(first_from_second), points.reshape(-1, 3)[rows].astype(np.float64))
    projected, depth = project_points(in_camera, K)
    errors = np.where(depth > 0, np.hypot(*(projected - pixels).T), np.inf)
    inliers = int(np.count_nonzero(errors < limit))
    if inliers < MIN_POINTS:
        return None
    return RelativePose(
        first_from_second=first_from_second, points=len(rows), inliers=inliers, median_error=float(np.median(errors))
    )
