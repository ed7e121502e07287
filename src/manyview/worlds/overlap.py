"""How much of each view is seen by each other view."""

from __future__ import annotations

import torch
from torch import Tensor

from manyview.worlds.render import WorldBatch


def overlap(batch: WorldBatch, *, tolerance: float = 0.03) -> Tensor:
    """(B, N, N): entry [b, i, j] is the fraction of view i's valid pixels that view j sees, too.

    A pixel is seen where its point falls into view j's picture and its depth there agrees with view j's depth within
    `tolerance` (relative). The diagonal is 1; views without valid pixels have 0.
    """
    depth, inside = reproject(batch)
    height, width = batch.depth.shape[-2:]
    x = depth[..., 0].round().clamp_(0, width - 1).long()
    y = depth[..., 1].round().clamp_(0, height - 1).long()
    seen = _lookup(batch.depth, y * width + x)
    agree = inside & ((seen - depth[..., 2]).abs() < tolerance * depth[..., 2]) & (seen > 0)
    valid = batch.valid.flatten(2)[:, :, None]
    return (agree & valid).sum(-1) / valid.sum(-1).clamp_min(1)


def reproject(batch: WorldBatch) -> tuple[Tensor, Tensor]:
    """Carry every view's points into every view.

    Returns:
        (B, N, N, R, 3): x, y in pixels of view j and z-depth there, of view i's pixels R (row by row), at [b, i, j].
        (B, N, N, R) bool: in front of view j and inside its picture.
    """
    points = batch.points.flatten(2, 3)
    rotation, centre = batch.world_from_camera[..., :3, :3], batch.world_from_camera[..., :3, 3]
    relative = points[:, :, None] - centre[:, None, :, None]
    in_camera = relative @ rotation[:, None]
    depth = in_camera[..., 2]
    pixels = (in_camera @ batch.K.transpose(-1, -2)[:, None])[..., :2] / depth.clamp_min(1e-6)[..., None]
    height, width = batch.depth.shape[-2:]
    limit = torch.tensor([width - 0.5, height - 0.5], device=pixels.device)
    inside = (depth > 1e-6) & ((pixels > -0.5) & (pixels < limit)).all(-1)
    return torch.cat([pixels, depth[..., None]], dim=-1), inside


def _lookup(depth: Tensor, index: Tensor) -> Tensor:
    """depth (B, N, H, W) of view j at pixels index (B, N, N, R), [b, i, j]."""
    table = depth.flatten(2)[:, None].expand(-1, depth.shape[1], -1, -1)
    return table.gather(3, index)
