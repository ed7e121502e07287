"""Rays of the cameras, carried into the frames of all shapes, and what they meet first.

Letters in shapes: B scenes, N views, M shapes (the enclosure is number 0), R rays of a view (its pixels, row by row).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from manyview.worlds.primitives import ball_interval, box_interval, cylinder_interval
from manyview.worlds.sampling import Worlds


@dataclass(frozen=True, kw_only=True)
class Rays:
    """Rays origin + t direction of N views, carried into the frames of all the unit shapes; t is z-depth.

    Attributes:
        origin: (B, N, M, 3, 1).
        direction: (B, N, M, 3, R).
        length: (B, N, R) of the direction in metres.
        rise: (B, N, R) upward part of the direction, over its length.
    """

    origin: Tensor
    direction: Tensor
    length: Tensor
    rise: Tensor


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """The enclosure and the solids as unit shapes: unit = unit_from_room (room - centre).

    Attributes:
        counts: number of boxes, balls, cylinders after the enclosure.
        unit_from_room: (B, M, 3, 3).
        centre: (B, M, 3).
        half: (B, M, 3).
        surface: (B, M) number of the solid's surface; that of the enclosure depends on the face.
    """

    counts: tuple[int, int, int]
    unit_from_room: Tensor
    centre: Tensor
    half: Tensor
    surface: Tensor


def unit_shapes(worlds: Worlds) -> Shapes:
    """Put the enclosure, a box with its floor at z = 0, before the solids."""
    solids, half = worlds.solids, worlds.half
    centre = half * half.new_tensor([0.0, 0.0, 1.0])
    halves = torch.cat([half[:, None], solids.half], dim=1)
    upright = torch.eye(3, device=half.device).expand(len(half), 1, 3, 3)
    local_from_room = torch.cat([upright, solids.room_from_local.transpose(-1, -2)], dim=1)
    return Shapes(
        counts=solids.counts,
        unit_from_room=local_from_room / halves[..., None],
        centre=torch.cat([centre[:, None], solids.centre], dim=1),
        half=halves,
        surface=torch.nn.functional.pad(solids.surface, (1, 0)),
    )


def cast_rays(worlds: Worlds, shapes: Shapes, size: tuple[int, int], offset: tuple[float, float]) -> Rays:
    """One ray a pixel, through its centre moved by `offset` (x, y) pixels."""
    rotation = worlds.room_from_camera[..., :3, :3] @ torch.linalg.inv(worlds.K)
    position = worlds.room_from_camera[..., :3, 3]
    unit_from_room = shapes.unit_from_room[:, None]
    origin = unit_from_room @ (position[:, :, None] - shapes.centre[:, None])[..., None]
    in_room = pixel_directions(rotation, size, offset)
    length = in_room.square().sum(dim=2).sqrt_()
    return Rays(
        origin=origin,
        direction=pixel_directions(unit_from_room @ rotation[:, :, None], size, offset),
        length=length,
        rise=in_room[:, :, 2] / length,
    )


def pixel_directions(matrix: Tensor, size: tuple[int, int], offset: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    """matrix (..., 3, 3) times (x, y, 1) of all pixels: (..., 3, R). One addition each: x and y contribute apart."""
    height, width = size
    x = torch.arange(width, device=matrix.device) + offset[0]
    y = torch.arange(height, device=matrix.device) + offset[1]
    across = matrix[..., 0, None] * x
    down = matrix[..., 1, None] * y + matrix[..., 2, None]
    return (down[..., :, None] + across[..., None, :]).flatten(-2)


def meet_solids(counts: tuple[int, int, int], origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Intervals (B, N, M - 1, R) in which rays (B, N, M - 1, 3, R or 1) are inside the solids, by kind."""
    origins, directions = origin.split(counts, dim=2), direction.split(counts, dim=2)
    kinds = (box_interval, ball_interval, cylinder_interval)
    met = [meet(o, d) for meet, o, d, n in zip(kinds, origins, directions, counts, strict=True) if n]
    if not met:
        return torch.zeros_like(direction[:, :, :, 0]), torch.zeros_like(direction[:, :, :, 0])
    return torch.cat([enter for enter, _ in met], dim=2), torch.cat([leave for _, leave in met], dim=2)


def nearest_hit(shapes: Shapes, rays: Rays) -> tuple[Tensor, Tensor]:
    """z-depth (B, N, R) of the first surface, and which shape it is (B, N, R) int64: 0 is the enclosure."""
    _, depth = box_interval(rays.origin[:, :, 0], rays.direction[:, :, 0])
    nearest = torch.zeros_like(depth, dtype=torch.int64)
    enter, leave = meet_solids(shapes.counts, rays.origin[:, :, 1:], rays.direction[:, :, 1:])
    missed = (enter >= leave) | (enter <= 0)
    enter = enter.masked_fill_(missed, torch.inf)
    for index in range(enter.shape[2]):
        candidate = enter[:, :, index]
        nearest.masked_fill_(candidate < depth, index + 1)
        depth = torch.minimum(depth, candidate)
    return depth, nearest


def surface_numbers(shapes: Shapes, unit: Tensor, nearest: Tensor) -> Tensor:
    """(B, N, R): the face 0..5 of the enclosure by its largest coordinate, from 6 on the solids.

    Args:
        unit: (3, B, N, R) point on the unit shape.
        nearest: (B, N, R) number of the shape.
    """
    x, y, z = unit
    x_size, y_size, z_size = unit.abs()
    along_x = x_size >= torch.maximum(y_size, z_size)
    along_z = z_size > torch.maximum(x_size, y_size)
    positive = y > 0
    positive = (positive & ~along_x & ~along_z) | (along_x & (x > 0)) | (along_z & (z > 0))
    face = 2 * (1 - along_x.long() + along_z.long()) + positive.long()
    solid = shapes.surface.gather(1, nearest.flatten(1)).view_as(nearest)
    return solid + face.masked_fill_(nearest > 0, 0)


def lamp_visible(worlds: Worlds, shapes: Shapes, rays: Rays, depth: Tensor) -> Tensor:
    """(B, N * R) float: 1 where no solid stands between the point and the main lamp."""
    lamp = worlds.light.position[:, None, 0] - shapes.centre
    lamp_in_unit = (shapes.unit_from_room @ lamp[..., None])[:, None, 1:]
    point = rays.origin[:, :, 1:] + depth[:, :, None, None] * rays.direction[:, :, 1:]
    enter, leave = meet_solids(shapes.counts, point, lamp_in_unit - point)
    blocked = (enter < leave) & (leave > 1e-3) & (enter < 1)
    return 1 - blocked.any(dim=2).flatten(1).to(depth.dtype)
