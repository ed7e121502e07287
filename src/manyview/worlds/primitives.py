"""Where rays meet solids.

Every solid is convex, so that a ray meets it in one interval [enter, leave] of its parameter t, and every solid is one
of three unit shapes after an affine map (its rotation, position and half sizes): the cube [-1, 1]^3, the unit ball
(an ellipsoid in the world) and the capped cylinder x^2 + y^2 <= 1, |z| <= 1. The map is affine, so t is the same
before and after it. A ray that misses has enter > leave.
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-12
"""Added to directions so that a component of exactly zero does not become 0 / 0; far below float32's resolution."""
BOX, BALL, CYLINDER = 0.0, 1.0, 2.0
"""Kinds of shapes, as they stand in tables of floats."""


def unit_interval(kind: Tensor, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Meet unit shapes of mixed kinds.

    Args:
        kind: (R,) `BOX`, `BALL` or `CYLINDER`.
        origin, direction: (3, R) rays origin + t direction in the shapes' frames.

    Returns:
        enter, leave: (R,).
    """
    x_near, x_far = slab(origin[0], direction[0])
    y_near, y_far = slab(origin[1], direction[1])
    z_near, z_far = slab(origin[2], direction[2])
    upright = kind != BALL
    round_near, round_far = round_interval(origin, direction, upright.to(origin.dtype))
    is_box = kind == BOX
    enter = torch.where(is_box, torch.maximum(x_near, y_near), round_near)
    leave = torch.where(is_box, torch.minimum(x_far, y_far), round_far)
    enter = torch.where(upright, torch.maximum(enter, z_near), enter)
    return enter, torch.where(upright, torch.minimum(leave, z_far), leave)


def box_interval(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Meet the cube [-1, 1]^3 (slab method); arguments and results as in `unit_interval`."""
    x_near, x_far = slab(origin[0], direction[0])
    y_near, y_far = slab(origin[1], direction[1])
    z_near, z_far = slab(origin[2], direction[2])
    enter = torch.maximum(torch.maximum(x_near, y_near), z_near)
    return enter, torch.minimum(torch.minimum(x_far, y_far), z_far)


def slab(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """|coordinate| <= 1 for one coordinate."""
    inverse = (direction + TINY).reciprocal()
    middle = -origin * inverse
    reach = inverse.abs()
    return middle - reach, middle + reach


def round_interval(origin: Tensor, direction: Tensor, upright: Tensor) -> tuple[Tensor, Tensor]:
    """The unit ball, or where `upright` is 1 the endless tube along z.

    Measured from the point of closest approach, which keeps float32 exact enough for small balls far away.
    """
    third = 1 - upright
    (x, y, z), (along_x, along_y, along_z) = origin, direction
    z, along_z = z * third, along_z * third
    inverse_square = (along_x.square() + along_y.square() + along_z.square() + TINY).reciprocal()
    closest = -(x * along_x + y * along_y + z * along_z) * inverse_square
    miss = (x + closest * along_x).square() + (y + closest * along_y).square() + (z + closest * along_z).square()
    half_chord_square = (1 - miss) * inverse_square
    half_chord = half_chord_square.clamp_min(0).sqrt()
    return torch.where(half_chord_square < 0, torch.inf, closest - half_chord), closest + half_chord


def box_normal(point: Tensor) -> Tensor:
    """Outward normal (3, R) of the cube at points (3, R) on its surface: the axis of the largest coordinate."""
    size = point.abs()
    return (size >= size.amax(0)).to(point.dtype) * point.sign()


def ball_normal(point: Tensor) -> Tensor:
    """Outward normal (3, R) of the unit ball at points (3, R) on its surface."""
    return point


def cylinder_normal(point: Tensor) -> Tensor:
    """Outward normal (3, R) of the cylinder at points (3, R) on its surface: the caps' axis or the radius."""
    x, y, z = point
    on_cap = (z.abs() > (x.square() + y.square()).sqrt()).to(point.dtype)
    on_side = 1 - on_cap
    return torch.stack([x * on_side, y * on_side, z.sign() * on_cap])
