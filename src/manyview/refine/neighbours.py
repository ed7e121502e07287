"""Which other views help to find a view's depth: those that see the same things from somewhat elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from manyview.geometry import Camera, pixel_grid

BEST_ANGLE = 10.0  # degrees between the two rays to a point: less gives depth less exactly, more looks too different
NARROW, WIDE = 5.0, 20.0  # degrees from the best angle at which a view is worth 0.6 of one at it
LEAST_ANGLE = 0.5  # degrees; two views with less are as good as one
LEAST_OVERLAP = 0.1  # of the points, that a view must see to be a neighbour
SAMPLES = 600  # points of a view that are looked for in the others
HIDDEN = 0.35  # a point this share farther than what the other view sees there is hidden from it


def choose_neighbours(cameras: Sequence[Camera], depths: Sequence[np.ndarray], count: int) -> list[tuple[int, ...]]:
    """For each view the `count` best others, best first; fewer or none where they see too little or stand too near.

    Args:
        cameras: N, of the pixels of the depth maps.
        depths: N maps (H, W), 0 where depth is not known. Rough depth will do.
    """
    chosen = []
    for index, (camera, depth) in enumerate(zip(cameras, depths, strict=True)):
        points = _some_points(camera, depth)
        worth = [
            0.0 if other == index else _worth(camera, cameras[other], depths[other], points)
            for other in range(len(cameras))
        ]
        order = sorted(range(len(cameras)), key=lambda other: -worth[other])
        chosen.append(tuple(other for other in order if worth[other] > 0)[:count])
    return chosen


def _some_points(camera: Camera, depth: np.ndarray) -> np.ndarray:
    """About `SAMPLES` world points, evenly over the picture."""
    step = max(1, int(np.sqrt(depth.size / SAMPLES)))
    pixels = pixel_grid(*depth.shape)[step // 2 :: step, step // 2 :: step].reshape(-1, 2)
    values = depth[step // 2 :: step, step // 2 :: step].reshape(-1).astype(np.float64)
    known = np.isfinite(values) & (values > 0)
    return camera.unproject(pixels[known], values[known])


def _worth(camera: Camera, other: Camera, other_depth: np.ndarray, points: np.ndarray) -> float:
    """0 for none: the share of the points that the other view sees, times how well its angle suits."""
    if not len(points):
        return 0.0
    seen = _sees(other, other_depth, points)
    if seen.mean() < LEAST_OVERLAP:
        return 0.0
    angle = float(np.median(_angles(camera.centre, other.centre, points[seen])))
    if angle < LEAST_ANGLE:
        return 0.0
    width = NARROW if angle < BEST_ANGLE else WIDE
    return float(seen.mean() * np.exp(-0.5 * ((angle - BEST_ANGLE) / width) ** 2))


def _sees(camera: Camera, depth: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(P,) bool: in the picture, and not far behind what is known to be there."""
    pixels, distance = camera.project(points)
    pixels = np.where(np.isfinite(pixels), pixels, -1e6)
    height, width = depth.shape
    column, row = np.floor(pixels + 0.5).clip(-1e6, 1e6).astype(np.int64).T
    inside = (distance > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    there = depth[row.clip(0, height - 1), column.clip(0, width - 1)]
    return inside & ((there <= 0) | (distance < (1 + HIDDEN) * there))


def _angles(first: np.ndarray, second: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(P,) degrees between the rays from two centres."""
    rays = [points - centre for centre in (first, second)]
    across = np.linalg.norm(np.cross(rays[0], rays[1]), axis=-1)
    return np.degrees(np.arctan2(across, (rays[0] * rays[1]).sum(-1)))
