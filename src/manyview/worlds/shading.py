"""The colour of what rays have met: surface coordinates, texture, Lambert's law, highlights and sky.

Everything is worked out in the frame of the solid that was met, where normals and surface coordinates are simple; the
lamps are carried there, too. Q is the number of rays of all views of all scenes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from manyview.worlds.materials import surface_colour
from manyview.worlds.primitives import ball_normal, box_normal, cylinder_normal


@dataclass(frozen=True, kw_only=True)
class Hits:
    """Where Q rays met surfaces, in the frame of the solid they met (its axes and centre, metres).

    Attributes:
        unit: (3, Q) the point after the map to the unit shape.
        half: (3, Q) half sizes of the solid.
        direction: (3, Q) of the ray, not normalised; points from the camera.
        pixel: (Q,) size of a pixel at that distance, across the ray.
        is_ball, is_cylinder: (Q,) float 0 or 1.
        relief: (3, Q) normals in the unit frame where a relief was met, else 0; None without reliefs.
        material: (P, Q) rows of `Materials.table`.
        lamps: two of (3, Q) positions.
    """

    unit: Tensor
    half: Tensor
    direction: Tensor
    pixel: Tensor
    is_ball: Tensor
    is_cylinder: Tensor
    relief: Tensor | None
    material: Tensor
    lamps: tuple[Tensor, Tensor]


def shade(hits: Hits, lamp_colours: Tensor, ambient: Tensor, lit: Tensor | None, atlas: Tensor) -> Tensor:
    """Linear colours (3, Q) of what was met.

    Args:
        lamp_colours: (2, 3, Q).
        ambient: (3, Q) light that comes from everywhere.
        lit: (Q,) 1 where the main lamp is seen, 0 in its shadow; None without shadows.
        atlas: of `texture_atlas`.
    """
    towards_camera = -_normalised(hits.direction)
    normal = facing_normal(hits, towards_camera)
    cosine = _dot(normal, towards_camera).clamp_min_(0.05)
    point = hits.unit * hits.half
    u, v = surface_coordinates(point, normal)
    footprint = hits.pixel / cosine
    paint = surface_colour(hits.material[:, None], u[None], v[None], footprint[None], atlas)[:, 0]
    light = ambient
    highlight = torch.zeros_like(paint)
    gloss, shine = hits.material[-2:]
    for index, lamp in enumerate(hits.lamps):
        towards_lamp = _normalised(lamp - point)
        received = lamp_colours[index] * _dot(normal, towards_lamp).clamp_min_(0)
        if index == 0:
            received = received if lit is None else received * lit
            halfway = _normalised(towards_lamp + towards_camera)
            highlight = received * _dot(normal, halfway).clamp_min_(0).pow_(gloss) * shine
        light = light + received
    return paint * light + highlight


def facing_normal(hits: Hits, towards_camera: Tensor) -> Tensor:
    """Unit normals (3, Q) on the camera's side of the surface."""
    box = box_normal(hits.unit)
    ball = ball_normal(hits.unit) / hits.half
    cylinder = cylinder_normal(hits.unit) / hits.half
    is_box = 1 - hits.is_ball - hits.is_cylinder
    normal = box * is_box + ball * hits.is_ball + cylinder * hits.is_cylinder
    if hits.relief is not None:
        normal = torch.where(hits.relief.any(dim=0), hits.relief / hits.half, normal)
    normal = _normalised(normal)
    return normal * _dot(normal, towards_camera).sign()


def surface_coordinates(point: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
    """Two coordinates (Q,), (Q,) in metres: the point seen along the main axis of its normal (box mapping)."""
    x_size, y_size, z_size = normal.abs()
    along_x = (x_size >= torch.maximum(y_size, z_size)).to(point.dtype)
    along_z = (z_size > torch.maximum(x_size, y_size)).to(point.dtype)
    x_sign, y_sign, z_sign = normal.sign()
    x, y, z = point
    u = x + along_x * (y - x)
    v = z + along_z * (y - z)
    # Different faces of a solid show different parts of the pattern.
    side = y_sign + along_x * (x_sign - y_sign) + along_z * (z_sign - y_sign)
    return u + 1.37 * side + 0.77 * along_x, v + 2.11 * along_z


def sky_colour(rise: Tensor, horizon: Tensor, zenith: Tensor) -> Tensor:
    """(3, Q) linear: from horizon to zenith colour (3, Q) with the sine of the elevation, rise (Q,)."""
    return horizon + rise.clamp(0, 1).sqrt() * (zenith - horizon)


def _dot(first: Tensor, second: Tensor) -> Tensor:
    return first[0] * second[0] + first[1] * second[1] + first[2] * second[2]


def _normalised(vector: Tensor) -> Tensor:
    return vector * _dot(vector, vector).clamp_min(1e-20).rsqrt()
