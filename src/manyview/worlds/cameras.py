"""Cameras of a procedural scene: hand-held, at a person's height, looking at a common place.

Frames: the room's frame has x and y on the floor and z up; cameras are OpenCV's (x right, y down, z forward). Pixel
coordinates are (x, y) with integers at pixel centres.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from manyview.worlds.draws import Draws
from manyview.worlds.settings import WorldSettings

WALL_GAP = 0.3
"""Metres that a camera keeps from the walls."""


def sample_intrinsics(draws: Draws, views: int, size: tuple[int, int], settings: WorldSettings) -> Tensor:
    """(B, N, 3, 3) pixels: square pixels, the principal point in the middle of the picture."""
    height, width = size
    angle = draws.uniform(*settings.field_of_view, 1).deg2rad()
    jitter = 1 + draws.uniform(-settings.focal_jitter, settings.focal_jitter, views)
    focal = width / 2 / torch.tan(angle / 2) * jitter
    intrinsics = torch.zeros(*focal.shape, 3, 3)
    intrinsics[..., 0, 0] = intrinsics[..., 1, 1] = focal
    intrinsics[..., 0, 2], intrinsics[..., 1, 2] = (width - 1) / 2, (height - 1) / 2
    intrinsics[..., 2, 2] = 1
    return intrinsics


def sample_cameras(
    draws: Draws, views: int, enclosure: Tensor, is_room: Tensor, settings: WorldSettings
) -> tuple[Tensor, Tensor]:
    """Place the cameras around a target and turn them to it.

    Args:
        enclosure: (B, 3) half sizes of the room, which stands on z = 0 and is centred on x = y = 0.
        is_room: (B,) bool.

    Returns:
        room_from_camera: (B, N, 4, 4) rigid.
        target: (B, 3) the common place, room frame.
    """
    spread = settings.spread
    target = sample_target(draws, enclosure, is_room)
    angle = draws.uniform(-math.pi, math.pi, 1) + spread * draws.uniform(-0.55, 0.55, views)
    distance = torch.where(is_room[:, None], draws.uniform(1.6, 3.6, 1), draws.uniform(2.5, 5.5, 1))
    distance = distance * (1 + spread * draws.uniform(-0.25, 0.25, views))
    height = draws.uniform(1.0, 1.8, 1) + spread * draws.uniform(-0.25, 0.25, views)
    position = torch.stack([distance * angle.cos(), distance * angle.sin(), height], dim=-1)
    position[..., :2] += target[:, None, :2]
    limit = (enclosure[:, None, :2] - WALL_GAP).clamp_min(0)
    position[..., :2] = torch.minimum(torch.maximum(position[..., :2], -limit), limit)
    # Half of the scenes are orbits that fix the target, half are walks that look past it, more or less in parallel.
    walk = draws.chance(0.5, 1)[..., None].float()
    sideways = position - position.mean(dim=1, keepdim=True)
    aim = target[:, None] + 0.6 * walk * sideways + spread * draws.uniform(-0.3, 0.3, views, 3)
    roll = draws.uniform(-settings.roll, settings.roll, views).deg2rad()
    return look_at(position, aim, roll), target


def sample_target(draws: Draws, enclosure: Tensor, is_room: Tensor) -> Tensor:
    """(B, 3): a place in the middle half of the enclosure, between knee and breast."""
    planar = draws.uniform(-0.4, 0.4, 2) * enclosure[:, :2]
    height = draws.uniform(0.3, 1.1, 1) * torch.where(is_room[:, None], 1.0, 0.9)
    return torch.cat([planar, height], dim=-1)


def look_at(position: Tensor, aim: Tensor, roll: Tensor) -> Tensor:
    """Cameras at `position` (..., 3) that see `aim` (..., 3) in the middle, upright but for `roll` (...) radians.

    Returns:
        (..., 4, 4) room_from_camera. A camera that looks straight up or down is not defined.
    """
    forward = torch.nn.functional.normalize(aim - position, dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0]).expand_as(forward)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
    down = torch.linalg.cross(forward, right)
    cosine, sine = roll.cos()[..., None], roll.sin()[..., None]
    matrix = torch.zeros(*position.shape[:-1], 4, 4)
    matrix[..., :3, 0] = cosine * right + sine * down
    matrix[..., :3, 1] = cosine * down - sine * right
    matrix[..., :3, 2] = forward
    matrix[..., :3, 3] = position
    matrix[..., 3, 3] = 1
    return matrix
