"""Depth maps <-> points, for a pinhole camera. Depth is z-depth, never distance along the ray."""

from __future__ import annotations

import numpy as np

from manyview.geometry.cameras import pixel_grid, transform_points


def points_from_depth(depth: np.ndarray, K: np.ndarray, world_from_camera: np.ndarray | None = None) -> np.ndarray:
    """Depth (H, W) -> points (H, W, 3) float64, same units, in the camera's frame or, if it is given, in the world.

    Pixels whose depth is not finite or not above zero have no point: their coordinates are nan.
    """
    depth = np.asarray(depth, dtype=np.float64)
    usable = np.isfinite(depth) & (depth > 0)
    homogeneous = np.concatenate([pixel_grid(*depth.shape), np.ones((*depth.shape, 1))], axis=-1)
    rays = homogeneous @ np.linalg.inv(np.asarray(K, dtype=np.float64)).T
    points = rays * np.where(usable, depth, np.nan)[..., None]
    return points if world_from_camera is None else transform_points(world_from_camera, points)


def depth_from_points(points: np.ndarray, camera_from_world: np.ndarray | None = None) -> np.ndarray:
    """Points (..., 3) -> z-depth (...) float64; 0 where a point is not finite or not in front of the camera.

    Args:
        points: in the world, or in the camera's frame if `camera_from_world` is None.
        camera_from_world: (4, 4) rigid.
    """
    points = np.asarray(points, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        depth = points[..., 2] if camera_from_world is None else points @ camera_from_world[2, :3]
        depth = depth + (0.0 if camera_from_world is None else camera_from_world[2, 3])
        usable = np.isfinite(depth) & (depth > 0)
    if camera_from_world is None:
        usable &= np.isfinite(points[..., 0]) & np.isfinite(points[..., 1])
    return np.where(usable, depth, 0.0)


def project_points(points: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (..., 3) in the camera's frame -> pixels (..., 2) and z-depth (...); pixels are nan where depth <= 0."""
    points = np.asarray(points, dtype=np.float64)
    depth = points[..., 2]
    safe = np.where(depth > 0, depth, np.nan)
    homogeneous = points @ np.asarray(K, dtype=np.float64).T
    return homogeneous[..., :2] / safe[..., None], depth
