"""Which rays may meet which shapes: pairs, so that every shape is looked at only where it can be.

Letters in shapes: B scenes, N views, M shapes (see `packing`), Q rays (of all scenes and views), P pairs of a ray and a
shape, K rectangles.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from manyview.worlds.packing import Shapes
from manyview.worlds.primitives import unit_interval

NEAR = 1e-3
"""A corner nearer than this to the camera's plane has no useful projection: the shape may be anywhere."""


@dataclass(frozen=True, kw_only=True)
class Rays:
    """Rays origin + t direction in the room's frame; for the cameras' rays t is z-depth.

    Attributes:
        origin: (3, Q).
        direction: (3, Q), not normalised.
        first: (Q,) int64 column of the enclosure of the ray's scene (and moment) in the table of `Shapes`.
    """

    origin: Tensor
    direction: Tensor
    first: Tensor


def carried(shapes: Shapes, column: Tensor, points: Tensor, *, direction: bool = False) -> Tensor:
    """Points or directions (3, P) of the room -> the frames of the unit shapes in these columns (P,)."""
    rows = shapes.table[:12].index_select(1, column)
    return _turned(rows, points if direction else points - rows[9:12])


def _turned(rows: Tensor, vectors: Tensor) -> Tensor:
    """unit_from_room (its 9 numbers first in rows (.., P)) times vectors (3, P)."""
    x, y, z = vectors
    return torch.stack([rows[3 * i] * x + rows[3 * i + 1] * y + rows[3 * i + 2] * z for i in range(3)])


def meet(shapes: Shapes, rays: Rays, ray: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """Interval (P,), (P,) in which rays `ray` (P,) are inside the shapes in the columns (P,)."""
    rows = shapes.table.index_select(1, column)
    origin = _turned(rows, rays.origin.index_select(1, ray) - rows[9:12])
    direction = _turned(rows, rays.direction.index_select(1, ray))
    return unit_interval(rows[15], origin, direction)


def rectangles(shapes: Shapes, room_from_camera: Tensor, intrinsics: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, N, M, 4) int64: x0, x1, y0, y1: columns [x0, x1) and rows [y0, y1) of the picture where a shape may be seen.

    The box around the shape is projected; half a pixel is added for rays beside the pixels' centres.
    """
    scenes, views = room_from_camera.shape[:2]
    numbers = shapes.table.view(16, scenes, shapes.views, 1, shapes.slots)
    signs = torch.tensor([[x, y, z] for x in (-1.0, 1) for y in (-1.0, 1) for z in (-1.0, 1)], device=numbers.device)
    # room = centre + rotation (half * sign), and unit_from_room's rows are the rotation's columns over half.
    half = numbers[12:15]
    axes = numbers[:9].unflatten(0, (3, 3)) * half.square()[:, None]
    corners = numbers[9:12] + sum(axes[i][:, :, :, None, 0] * signs[:, i, None] for i in range(3))  # (3, B, V, 8, M)
    rotation, centre = room_from_camera[..., :3, :3], room_from_camera[..., :3, 3]
    relative = corners.movedim(0, -1) - centre[:, :, None, None]
    pixels = torch.einsum("bnij,bncmj->bncmi", intrinsics @ rotation.mT, relative.expand(-1, views, -1, -1, -1))
    depth = pixels[..., 2]
    place = pixels[..., :2] / depth.clamp_min(NEAR)[..., None]
    low, high = (place.amin(2) - 0.5).ceil(), (place.amax(2) + 0.5).floor() + 1
    some, all_ = (depth > NEAR).any(2), (depth > NEAR).all(2)
    limit = torch.tensor([size[1], size[0]], device=numbers.device, dtype=low.dtype)
    low = torch.where(all_[..., None], low, 0).clamp_min(0).minimum(limit)
    high = torch.where(all_[..., None], high, limit).minimum(limit)
    high = torch.where(some[..., None], high, low).maximum(low)
    return torch.stack([low[..., 0], high[..., 0], low[..., 1], high[..., 1]], dim=-1).long()


def pixels_of(rectangles: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """All pixels of K rectangles (K, 4), one after another: number of the rectangle (P,) and of the pixel (P,)."""
    left, right, top, bottom = rectangles.unbind(-1)
    across = right - left
    count = across * (bottom - top)
    which = torch.arange(len(count), device=count.device).repeat_interleave(count)
    place = torch.arange(len(which), device=count.device) - (count.cumsum(0) - count)[which]
    wide = across[which]
    row = torch.div(place, wide, rounding_mode="floor")
    return which, (top[which] + row) * width + left[which] + place - row * wide
