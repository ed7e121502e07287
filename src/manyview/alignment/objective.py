"""The published objective of the global alignment, over all pixels of all edges (DUSt3R, section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from manyview.alignment.problem import PairMaps

FIRST, SECOND = 0, 1


def confidence_weights(confidence: Tensor) -> Tensor:
    """Confidences of any shape -> their logarithms, the published weights; 0 where the confidence is 1 or less."""
    return confidence.clamp_min(1.0).log()


def pixels_of_sides(pairs: PairMaps) -> tuple[int, int]:
    """How many pixels the first and the second pictures of all edges have: what the two sums are divided by."""
    areas = np.array([height * width for height, width in pairs.sizes])
    return int(areas[pairs.edges[:, FIRST]].sum()), int(areas[pairs.edges[:, SECOND]].sum())


def observations(pairs: PairMaps, view: int) -> list[tuple[int, int]]:
    """(edge, side) of every map of one picture: side 0 where it is the first of the edge, 1 where it is the second."""
    return [(int(edge), int(side)) for edge, side in np.argwhere(pairs.edges == view)]


def published_objective(
    pairs: PairMaps,
    *,
    world_from_camera: np.ndarray,
    K: np.ndarray,
    depth: Sequence[np.ndarray | Tensor],
    world_from_pair: np.ndarray,
    device: str | torch.device = "cpu",
) -> float:
    """Confidence-weighted distances between the pictures' points and the pairs' points, averaged over pixels.

    The sum over edges e = (i, j) and pixels p of log(confidence) |X_i(p) - T_e y_e(p)|, divided by the number of
    pixels of all first pictures, and the same of the second pictures; 0 without edges. It needs memory for one map at a
    time.

    Args:
        world_from_camera: (N, 4, 4), rigid.
        K: (N, 3, 3), pixels of the pointmaps.
        depth: N times (H, W), z-depth in world units.
        world_from_pair: (E, 4, 4), similarities: the upper left block carries the scale.
        device: where to compute.
    """
    if not len(pairs.edges):
        return 0.0
    areas = pixels_of_sides(pairs)
    transforms = torch.as_tensor(world_from_pair, dtype=torch.float32, device=device)
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    for view, size in enumerate(pairs.sizes):
        rays = rays_of_picture(K[view], world_from_camera[view], size, device)
        z_depth = torch.as_tensor(depth[view], dtype=torch.float32, device=device).reshape(-1, 1)
        centre = torch.as_tensor(world_from_camera[view][:3, 3], dtype=torch.float32, device=device)
        world = torch.addcmul(centre, rays, z_depth)
        for edge, side in observations(pairs, view):
            points = pairs.points[edge][side].to(device).reshape(-1, 3)
            placed = torch.addmm(transforms[edge, :3, 3], points, transforms[edge, :3, :3].T)
            weights = confidence_weights(pairs.confidence[edge][side].to(device)).reshape(-1)
            distance = torch.linalg.vector_norm(placed.sub_(world), dim=-1)
            sums[side] += distance.mul_(weights).sum(dtype=torch.float64)
    first, second = sums.tolist()
    return first / areas[FIRST] + second / areas[SECOND]


def rays_of_picture(
    K: np.ndarray, world_from_camera: np.ndarray, size: tuple[int, int], device: str | torch.device
) -> Tensor:
    """(H W, 3) float32: from the camera's centre to the points at z-depth 1, along the world's axes."""
    matrix = np.asarray(world_from_camera, dtype=np.float64)[:3, :3] @ np.linalg.inv(np.asarray(K, dtype=np.float64))
    x_axis, y_axis, origin = torch.as_tensor(matrix.T, dtype=torch.float32, device=device)
    y = torch.arange(size[0], dtype=torch.float32, device=device)
    x = torch.arange(size[1], dtype=torch.float32, device=device)
    return (origin + y[:, None, None] * y_axis + x[None, :, None] * x_axis).reshape(-1, 3)
