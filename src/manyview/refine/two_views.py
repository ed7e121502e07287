"""How two views stand to each other, from their matches and intrinsics alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from manyview.formats.describe import HALF_PIXEL

if TYPE_CHECKING:
    import pycolmap


def relative_motion(
    first: tuple[pycolmap.Camera, np.ndarray],
    second: tuple[pycolmap.Camera, np.ndarray],
    *,
    limit: float,
    seed: int,
) -> tuple[np.ndarray, float] | None:
    """The motion between two views by their essential matrix.

    Args:
        first, second: COLMAP's camera and (M, 2) original pixels of the same M points, integers at pixel centres.
        limit: pixels up to which a match agrees.
        seed: of RANSAC.

    Returns:
        second_from_first (4, 4) with a translation of length 1, and the median angle between the rays in degrees;
        None where there is none, or nothing but a turn.
    """
    import pycolmap

    settings = pycolmap.TwoViewGeometryOptions()
    settings.compute_relative_pose = True
    settings.ransac.random_seed = seed
    settings.ransac.max_error = limit
    rows = np.arange(len(first[1]))
    found = pycolmap.estimate_calibrated_two_view_geometry(
        first[0],
        np.ascontiguousarray(first[1] + HALF_PIXEL),
        second[0],
        np.ascontiguousarray(second[1] + HALF_PIXEL),
        np.stack([rows, rows], axis=1),
        settings,
    )
    if found.cam2_from_cam1 is None:
        return None
    motion = np.eye(4)
    motion[:3] = found.cam2_from_cam1.matrix()
    length = float(np.linalg.norm(motion[:3, 3]))
    if not length > 0:
        return None
    motion[:3, 3] /= length
    return motion, float(np.degrees(found.tri_angle))


def length_by_points(motion: np.ndarray, points: np.ndarray, rays: np.ndarray) -> float | None:
    """How long the translation of a motion is, from points that both views see.

    Args:
        motion: (4, 4) second_from_first, translation of length 1.
        points: (P, 3) in the first camera's frame, in the units asked for.
        rays: (P, 3) with z = 1: where the second camera sees them.

    Returns:
        The median over the points; None where it is not above 0.
    """
    turned = points @ motion[:3, :3].T
    # The ray must be parallel to turned + length * translation: least squares of the two cross products.
    along = motion[:2, 3] - rays[:, :2] * motion[2, 3]
    across = rays[:, :2] * turned[:, 2:] - turned[:, :2]
    squares = (along**2).sum(axis=1)
    lengths = (along * across).sum(axis=1) / np.where(squares > 0, squares, np.nan)
    length = float(np.nanmedian(lengths)) if np.isfinite(lengths).any() else -1.0
    return length if length > 0 else None
