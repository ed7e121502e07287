"""Pinhole cameras and rigid motions.

Frames are OpenCV's: x right, y down, z forward. Pixel coordinates are (x, y) with integers at pixel centres, so the
top-left pixel's centre is (0, 0) and the picture spans [-0.5, width - 0.5] (docs/conventions.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera without distortion, placed in the world.

    Attributes:
        K: (3, 3) float64, pixels.
        world_from_camera: (4, 4) float64, rigid; lengths in world units.
        width, height: size in pixels of the picture that K refers to.
    """

    K: np.ndarray
    world_from_camera: np.ndarray
    width: int
    height: int

    @property
    def camera_from_world(self) -> np.ndarray:
        """(4, 4) float64."""
        return invert_rigid(self.world_from_camera)

    @property
    def centre(self) -> np.ndarray:
        """(3,) position in the world."""
        return self.world_from_camera[:3, 3]

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World points (..., 3) -> pixels (..., 2) and z-depth (...); pixels are nan where depth <= 0."""
        in_camera = transform_points(self.camera_from_world, points)
        depth = in_camera[..., 2]
        in_front = depth > 0
        homogeneous = in_camera @ self.K.T
        safe = np.where(in_front, depth, 1.0)[..., None]
        return np.where(in_front[..., None], homogeneous[..., :2] / safe, np.nan), depth

    def unproject(self, pixels: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) at z-depth (...) -> world points (..., 3)."""
        homogeneous = np.concatenate([pixels, np.ones_like(pixels[..., :1])], axis=-1)
        in_camera = homogeneous @ np.linalg.inv(self.K).T * depth[..., None]
        return transform_points(self.world_from_camera, in_camera)

    def frustum(self, depth: float) -> np.ndarray:
        """(5, 3) world points: the centre, then the picture's corners, clockwise from the top left, at z-depth."""
        right, bottom = self.width - 0.5, self.height - 0.5
        corners = np.array([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]])
        return np.vstack([self.centre, self.unproject(corners, np.full(4, depth))])


def intrinsics(focal: float, principal_point: tuple[float, float]) -> np.ndarray:
    """(3, 3) float64 K of a camera with square pixels; both arguments in pixels, the principal point as (x, y)."""
    return np.array([[focal, 0.0, principal_point[0]], [0.0, focal, principal_point[1]], [0.0, 0.0, 1.0]])


def picture_centre(height: int, width: int) -> tuple[float, float]:
    """(x, y) of the middle of a picture, with integers at pixel centres: half a pixel before (W / 2, H / 2)."""
    return (width - 1) / 2, (height - 1) / 2


def pixel_grid(height: int, width: int) -> np.ndarray:
    """(H, W, 2) float64: the (x, y) coordinates of every pixel centre."""
    x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    return np.stack([x, y], axis=-1)


def transform_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a (4, 4) affine matrix to points (..., 3)."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def transform_pixels(matrix: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Apply a (3, 3) affine matrix to pixels (..., 2), given as (x, y)."""
    return pixels @ matrix[:2, :2].T + matrix[:2, 2]


def invert_rigid(matrix: np.ndarray) -> np.ndarray:
    """Inverse of rigid motions (..., 4, 4), float64."""
    matrix = np.asarray(matrix, dtype=np.float64)
    rotation_t = np.swapaxes(matrix[..., :3, :3], -1, -2)
    inverse = np.zeros_like(matrix)
    inverse[..., :3, :3] = rotation_t
    inverse[..., :3, 3] = -np.einsum("...ij,...j->...i", rotation_t, matrix[..., :3, 3])
    inverse[..., 3, 3] = 1
    return inverse
