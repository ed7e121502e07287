"""Exact flow and tracks between the views of a batch, through things that move and things that do not.

Letters in shapes: B scenes, N views, R pixels of a view (row by row), S surfaces, K tracks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from manyview.errors import InputError
from manyview.worlds.render import WorldBatch

DEPTH_TOLERANCE = 0.03
"""Relative difference of depths up to which a point counts as the one that is seen there."""


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Where view j sees what the pixels of view i show.

    Attributes:
        displacement: (B, H, W, 2) pixels, (x, y) in view j minus (x, y) in view i; 0 where `valid` is False.
        depth: (B, H, W) z-depth in view j.
        valid: (B, H, W) bool: view i shows a surface there, and it is in front of view j's camera.
        visible: (B, H, W) bool: `valid`, inside view j's picture and not hidden there.
    """

    displacement: Tensor
    depth: Tensor
    valid: Tensor
    visible: Tensor


@dataclass(frozen=True, kw_only=True)
class Tracks:
    """K points of a scene in all N views.

    Attributes:
        positions: (B, N, K, 2) (x, y) pixels; also where the point is hidden or outside the picture.
        visible: (B, N, K) bool.
        points: (B, N, K, 3) world frame, at each view's moment.
    """

    positions: Tensor
    visible: Tensor
    points: Tensor


def flow(batch: WorldBatch, source: int, target: int) -> Flow:
    """Flow from one view to another, exact to rounding.

    Raises:
        InputError: there is no such view.
    """
    _expect_views(batch, source, target)
    size = batch.depth.shape[-2:]
    moved = move_points(batch, source, target)
    pixels, depth = project(batch, target, moved)
    grid = pixel_places(size, batch.depth.device)
    valid = batch.valid[:, source].flatten(1) & (depth > 1e-6)
    visible = valid & seen(batch, target, pixels, depth)
    displacement = torch.where(valid[..., None], pixels - grid, 0)
    return Flow(
        displacement=displacement.unflatten(1, size),
        depth=torch.where(valid, depth, 0).unflatten(1, size),
        valid=valid.unflatten(1, size),
        visible=visible.unflatten(1, size),
    )


def tracks(batch: WorldBatch, view: int, pixels: Tensor) -> Tracks:
    """Follow what one view shows at K pixels through all views.

    Args:
        pixels: (B, K, 2) integer (x, y) in `view`, all of them on a surface.

    Raises:
        InputError: a pixel is outside the picture or shows the sky.
    """
    _expect_views(batch, view)
    height, width = batch.depth.shape[-2:]
    column, row = pixels.long().unbind(-1)
    if bool(((column < 0) | (column >= width) | (row < 0) | (row >= height)).any()):
        raise InputError(f"pixels are (x, y) within {width} x {height}, got some outside")
    index = row * width + column
    if not bool(batch.valid[:, view].flatten(1).gather(1, index).all()):
        raise InputError("some of the pixels show the sky", hint="Choose among those where batch.valid is True.")
    chosen = index[..., None].expand(-1, -1, 3)
    found = []
    for target in range(batch.depth.shape[1]):
        points = move_points(batch, view, target).gather(1, chosen)
        places, depth = project(batch, target, points)
        found.append((places, seen(batch, target, places, depth), points))
    positions, visible, points = (torch.stack(parts, dim=1) for parts in zip(*found, strict=True))
    return Tracks(positions=positions, visible=visible, points=points)


def move_points(batch: WorldBatch, source: int, target: int) -> Tensor:
    """(B, R, 3): the points of view `source` where they are at the moment of view `target`, world frame."""
    points = batch.points[:, source].flatten(1, 2)
    motion = batch.world_from_start[:, target] @ torch.linalg.inv(batch.world_from_start[:, source])  # (B, S, 4, 4)
    still = torch.eye(4, device=points.device)
    if not bool((motion - still).abs().amax() > 1e-7):
        return points
    ids = batch.object_ids[:, source].flatten(1).clamp_min(0).long()
    own = motion.flatten(2).gather(1, ids[..., None].expand(-1, -1, 16)).unflatten(2, (4, 4))
    return (own[..., :3, :3] @ points[..., None])[..., 0] + own[..., :3, 3]


def project(batch: WorldBatch, view: int, points: Tensor) -> tuple[Tensor, Tensor]:
    """World points (B, K, 3) -> pixels (B, K, 2) and z-depth (B, K) in a view."""
    rotation, centre = batch.world_from_camera[:, view, :3, :3], batch.world_from_camera[:, view, None, :3, 3]
    in_camera = (points - centre) @ rotation
    depth = in_camera[..., 2]
    return (in_camera @ batch.K[:, view].mT)[..., :2] / depth.clamp_min(1e-6)[..., None], depth


def seen(batch: WorldBatch, view: int, pixels: Tensor, depth: Tensor) -> Tensor:
    """(B, K) bool: inside the picture, and as far away as the nearest pixel there says."""
    height, width = batch.depth.shape[-2:]
    x, y = pixels.round().long().unbind(-1)
    inside = (depth > 1e-6) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    there = batch.depth[:, view].flatten(1).gather(1, y.clamp(0, height - 1) * width + x.clamp(0, width - 1))
    return inside & (there > 0) & ((there - depth).abs() < DEPTH_TOLERANCE * depth)


def pixel_places(size: torch.Size, device: torch.device) -> Tensor:
    """(R, 2) float (x, y) of all pixels."""
    y, x = torch.meshgrid(torch.arange(size[0], device=device), torch.arange(size[1], device=device), indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1).float()


def _expect_views(batch: WorldBatch, *views: int) -> None:
    count = batch.depth.shape[1]
    for view in views:
        if not 0 <= view < count:
            raise InputError(f"there is no view {view}; the batch has {count}")
