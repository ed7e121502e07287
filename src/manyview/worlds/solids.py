"""The solids of a scene: how many, how large, how turned, and where they stand, lie or hang."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from manyview.worlds.draws import Draws
from manyview.worlds.settings import WorldSettings

FACES = 6
"""Walls, floor and ceiling of the enclosure: -x, +x, -y, +y, -z (floor), +z (ceiling or sky)."""

CLEARANCE = 0.45
"""Metres between a camera and the ball around a solid."""

BELOW = -1000.0
"""Height in metres of the empty slots."""

PLACES = 8
"""Places that are tried for each solid before it is left out."""


@dataclass(frozen=True, kw_only=True)
class Solids:
    """M solids of each of B scenes in the room's frame, ordered by kind: boxes, balls, cylinders.

    Attributes:
        counts: how many slots are boxes, balls, cylinders.
        centre: (B, M, 3).
        half: (B, M, 3) half sizes along the solid's own axes.
        room_from_local: (B, M, 3, 3) rotations.
        active: (B, M) bool; the other slots are empty: they lie below the enclosure, where no ray gets.
        surface: (B, M) int64: the solid's number among the surfaces of its scene, from FACES on.
    """

    counts: tuple[int, int, int]
    centre: Tensor
    half: Tensor
    room_from_local: Tensor
    active: Tensor
    surface: Tensor


def rotation_about(axis: str, angle: Tensor) -> Tensor:
    """(..., 3, 3) rotation by `angle` (...) radians about a coordinate axis."""
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    rotation = torch.eye(3).repeat(*angle.shape, 1, 1)
    rotation[..., first, first] = rotation[..., second, second] = angle.cos()
    rotation[..., second, first] = angle.sin()
    rotation[..., first, second] = -rotation[..., second, first]
    return rotation


def sample_solids(
    draws: Draws, enclosure: Tensor, is_room: Tensor, target: Tensor, cameras: Tensor, settings: WorldSettings
) -> Solids:
    """Solids on the floor or on boxes, and posters on the walls; none comes near a camera.

    Args:
        enclosure: (B, 3) half sizes. is_room: (B,) bool. target: (B, 3). cameras: (B, N, 3) positions.
    """
    counts, active = sample_counts(draws, settings)
    half = sample_sizes(draws, counts, is_room)
    rotation = sample_rotations(draws, counts)
    centre = stand(draws, half, rotation, counts, enclosure, is_room, target, cameras)
    posters = sample_posters(draws, enclosure, is_room, settings.posters)
    boxes = counts[0]
    merged = [
        torch.cat([hung, free], dim=1) for hung, free in zip(posters, (centre, half, rotation, active), strict=True)
    ]
    centre, half, rotation, active = merged
    distance = (cameras[:, :, None] - centre[:, None]).norm(dim=-1).amin(dim=1)
    clear = distance > half.norm(dim=-1) + 0.5 * CLEARANCE
    active = active & clear
    centre = torch.where(active[..., None], centre, torch.tensor([0.0, 0.0, BELOW]))
    return Solids(
        counts=(boxes + settings.posters, *counts[1:]),
        centre=centre,
        half=half,
        room_from_local=rotation,
        active=active,
        surface=torch.arange(FACES, FACES + active.shape[1]).expand_as(active),
    )


def without_empty_slots(solids: Solids) -> Solids:
    """The same solids in as few slots as the fullest of these scenes needs."""
    counts, kept = [], []
    for first, used in zip(_starts(solids.counts), solids.active.split(solids.counts, dim=1), strict=True):
        needed = int(used.sum(dim=1).max()) if used.numel() else 0
        order = used.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
        counts.append(needed)
        kept.append(first + order[:, :needed])
    slots = torch.cat(kept, dim=1)
    scene = torch.arange(len(slots))[:, None]
    tensors = {f.name: getattr(solids, f.name)[scene, slots] for f in fields(solids) if f.name != "counts"}
    return Solids(counts=(counts[0], counts[1], counts[2]), **tensors)


def _starts(counts: tuple[int, int, int]) -> tuple[int, int, int]:
    return 0, counts[0], counts[0] + counts[1]


def sample_counts(draws: Draws, settings: WorldSettings) -> tuple[tuple[int, int, int], Tensor]:
    """Slots for each kind, and which of them are used (B, M): about half of the solids are boxes."""
    fewest, most = settings.solids
    total = draws.uniform(fewest, most + 1, 1).floor().clamp_max(most)
    boxes = (total * draws.uniform(0.35, 0.65, 1)).round()
    balls = ((total - boxes) * draws.uniform(0.2, 0.7, 1)).round()
    slots = (math.ceil(0.65 * most), math.ceil(0.46 * most), math.ceil(0.55 * most))
    used = [torch.arange(n) < wanted for n, wanted in zip(slots, (boxes, balls, total - boxes - balls), strict=True)]
    return slots, torch.cat(used, dim=1)


def sample_sizes(draws: Draws, counts: tuple[int, int, int], is_room: Tensor) -> Tensor:
    """(B, M, 3) half sizes: furniture in rooms, half as large again outdoors."""
    boxes, balls, cylinders = counts
    box = draws.log_uniform(0.14, 0.6, boxes, 3)
    ball = draws.log_uniform(0.15, 0.42, balls, 1) * draws.uniform(0.75, 1.2, balls, 3)
    radius = draws.log_uniform(0.1, 0.4, cylinders, 1)
    cylinder = torch.cat([radius, radius, draws.log_uniform(0.15, 0.8, cylinders, 1)], dim=-1)
    return torch.cat([box, ball, cylinder], dim=1) * torch.where(is_room, 1.0, 1.5)[:, None, None]


def sample_rotations(draws: Draws, counts: tuple[int, int, int]) -> Tensor:
    """(B, M, 3, 3) room_from_local: any yaw, boxes half of the time along the walls; some solids are tipped over."""
    boxes, total = counts[0], sum(counts)
    yaw = draws.uniform(-math.pi, math.pi, total)
    along_walls = draws.chance(0.5, boxes)
    yaw[:, :boxes] = torch.where(along_walls, 0.0, yaw[:, :boxes])
    tipped = draws.chance(0.2, total)
    tilt = torch.where(tipped, draws.uniform(0.2, math.pi / 2, total), 0.0)
    return rotation_about("z", yaw) @ rotation_about("x", tilt)


def half_heights(half: Tensor, rotation: Tensor, counts: tuple[int, int, int]) -> Tensor:
    """(B, M): how far each solid reaches above and below its centre (its support function along z)."""
    reach = (rotation[..., 2, :] * half).abs()
    boxes, balls, _ = counts
    box = reach[:, :boxes].sum(-1)
    ball = reach[:, boxes : boxes + balls].norm(dim=-1)
    tube = reach[:, boxes + balls :]
    return torch.cat([box, ball, tube[..., :2].norm(dim=-1) + tube[..., 2]], dim=1)


def stand(
    draws: Draws,
    half: Tensor,
    rotation: Tensor,
    counts: tuple[int, int, int],
    enclosure: Tensor,
    is_room: Tensor,
    target: Tensor,
    cameras: Tensor,
) -> Tensor:
    """(B, M, 3) centres: around the target and clear of the cameras, on the floor or on top of an upright box."""
    boxes, total = counts[0], sum(counts)
    radius = half[..., :2].norm(dim=-1)
    reach = torch.where(is_room, 2.2, 4.0)[:, None, None]
    angle = draws.uniform(-math.pi, math.pi, total, PLACES)
    away = reach * draws.uniform(0.0, 1.0, total, PLACES).sqrt()
    planar = target[:, None, None, :2] + torch.stack([away * angle.cos(), away * angle.sin()], dim=-1)
    limit = (enclosure[:, None, None, :2] - radius[..., None, None]).clamp_min(0)
    planar = torch.minimum(torch.maximum(planar, -limit), limit)
    gap = (planar[:, :, :, None] - cameras[:, None, None, :, :2]).norm(dim=-1).amin(-1) - radius[..., None] - CLEARANCE
    chosen = gap.clamp_max(0.6).argmax(dim=-1, keepdim=True)  # the first place that is far enough, else the best
    planar = planar.gather(2, chosen[..., None].expand(-1, -1, -1, 2)).squeeze(2)
    height = half_heights(half, rotation, counts)
    centre = torch.cat([planar, height[..., None]], dim=-1)
    if boxes > 1:
        centre = _stack(draws, centre, height, rotation, half, boxes)
    return centre


def _stack(draws: Draws, centre: Tensor, height: Tensor, rotation: Tensor, half: Tensor, boxes: int) -> Tensor:
    """Lift some solids (never the first half of the boxes) onto one of the first half of the boxes."""
    total, bases = centre.shape[1], boxes // 2
    base = (draws.uniform(0, bases, total)).long().clamp_max(bases - 1)
    upright = rotation[:, :bases, 2, 2] > 0.999
    lifted = draws.chance(0.35, total) & upright.gather(1, base)
    lifted[:, :bases] = False
    base_centre = centre.gather(1, base[..., None].expand(-1, -1, 3))
    base_half = half.gather(1, base[..., None].expand(-1, -1, 3))
    offset = draws.uniform(-0.6, 0.6, total, 2) * base_half[..., :2].amin(-1, keepdim=True)
    top = base_centre[..., 2:] + base_half[..., 2:] + height[..., None]
    return torch.where(lifted[..., None], torch.cat([base_centre[..., :2] + offset, top], dim=-1), centre)


def sample_posters(
    draws: Draws, enclosure: Tensor, is_room: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Thin boxes on the walls of rooms: centre (B, C, 3), half (B, C, 3), rotation (B, C, 3, 3), active (B, C)."""
    wide, high = draws.uniform(0.2, 0.7, count), draws.uniform(0.2, 0.6, count)
    thick = draws.uniform(0.01, 0.06, count)
    on_x, side = draws.chance(0.5, count), draws.signs(count)
    along = draws.uniform(-0.8, 0.8, count)
    half = torch.stack([torch.where(on_x, thick, wide), torch.where(on_x, wide, thick), high], dim=-1)
    wall = side[..., None] * enclosure[:, None, :2]
    slide = along[..., None] * enclosure[:, None, :2]
    planar = torch.where(torch.stack([on_x, ~on_x], dim=-1), wall, slide)
    height = draws.uniform(0.8, 1.2, count) * enclosure[:, 2:]
    rotation = torch.eye(3).expand(*on_x.shape, 3, 3)
    active = draws.chance(0.8, count) & is_room[:, None]
    return torch.cat([planar, height[..., None]], dim=-1), half, rotation, active
