"""Where rays meet solids.

Every solid is convex, so that a ray meets it in one interval [enter, leave] of its parameter t, and every solid is one
of three unit shapes after an affine map (its rotation, position and half sizes): the cube [-1, 1]^3, the unit ball
(an ellipsoid in the world) and the capped cylinder x^2 + y^2 <= 1, |z| <= 1. The map is affine, so t is the same
before and after it. A ray that misses has enter > leave.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

TINY = 1e-12
"""Added to directions so that a component of exactly zero does not become 0 / 0; far below float32's resolution."""


def box_interval(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Meet the cube [-1, 1]^3 (slab method).

    Args:
        origin, direction: (..., 3, R) rays origin + t direction in the cube's frame; shapes may broadcast.

    Returns:
        enter, leave: (..., R).
    """
    inverse = (direction + TINY).reciprocal()
    middle = -origin * inverse
    reach = inverse.abs_()
    near, far = middle - reach, middle + reach
    return _fold(torch.maximum, near), _fold(torch.minimum, far)


def ball_interval(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Meet the unit ball; arguments and results as in `box_interval`.

    Measured from the point of closest approach, which keeps float32 exact enough for small balls far away.
    """
    return _round_interval(origin, direction)


def cylinder_interval(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Meet the cylinder x^2 + y^2 <= 1, |z| <= 1: a tube cut by a slab; arguments and results as in `box_interval`."""
    tube_enter, tube_leave = _round_interval(origin[..., :2, :], direction[..., :2, :])
    slab_enter, slab_leave = box_interval(origin[..., 2:, :], direction[..., 2:, :])
    return torch.maximum(tube_enter, slab_enter), torch.minimum(tube_leave, slab_leave)


def _round_interval(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """|x| <= 1 for all the coordinates given: a ball for three of them, a tube for two."""
    inverse_square = (_fold(torch.add, direction.square()) + TINY).reciprocal_()
    closest = -_fold(torch.add, origin * direction) * inverse_square
    miss_square = _fold(torch.add, (closest.unsqueeze(-2) * direction).add_(origin).square_())
    half_chord_square = (1 - miss_square) * inverse_square
    missed = half_chord_square < 0
    half_chord = half_chord_square.clamp_min_(0).sqrt_()
    return (closest - half_chord).masked_fill_(missed, torch.inf), closest + half_chord


def _fold(combine: Callable[[Tensor, Tensor], Tensor], components: Tensor) -> Tensor:
    """(..., C, R) -> (..., R): pair by pair, which for C of 1 to 3 is several times faster than a reduction."""
    return reduce(combine, components.unbind(-2))


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
