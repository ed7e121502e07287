"""From seeds to the description of scenes: what stands where, what it is made of, and who looks at it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass

import torch
from torch import Tensor

from manyview.worlds.cameras import sample_cameras, sample_intrinsics
from manyview.worlds.draws import Draws
from manyview.worlds.materials import LAYERS, Materials
from manyview.worlds.patterns import TEXTURES
from manyview.worlds.settings import WorldSettings

KINDS = ("box", "ball", "cylinder")
FACES = 6
"""Walls, floor and ceiling of the enclosure: -x, +x, -y, +y, -z (floor), +z (ceiling or sky)."""

CLEARANCE = 0.45
"""Metres between a camera and the ball around a solid."""

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
        active: (B, M) bool; the other slots are empty.
    """

    counts: tuple[int, int, int]
    centre: Tensor
    half: Tensor
    room_from_local: Tensor
    active: Tensor


@dataclass(frozen=True, kw_only=True)
class Light:
    """Two lamps (the first is the main one), a sky and the camera's response, linear colours.

    Attributes:
        position: (B, 2, 3) room frame; the sun is a lamp far away.
        colour: (B, 2, 3).
        ambient: (B, 3).
        horizon, zenith: (B, 3) colours of the sky.
        exposure: (B, N, 3) gain of each view's channels.
        vignette: (B,) how much darker the corners are.
        noise: (B,) standard deviation of the sensor noise.
    """

    position: Tensor
    colour: Tensor
    ambient: Tensor
    horizon: Tensor
    zenith: Tensor
    exposure: Tensor
    vignette: Tensor
    noise: Tensor


@dataclass(frozen=True, kw_only=True)
class Worlds:
    """B scenes, described. The room's frame has z up, the floor at z = 0 and metres.

    Attributes:
        half: (B, 3) half sizes of the enclosure.
        sky: (B, 6) bool: faces of the enclosure that are sky.
        materials: of the 6 faces, then of the solids.
        K: (B, N, 3, 3) pixels.
        room_from_camera: (B, N, 4, 4).
        world_from_room: (B, 4, 4) rigid, applied after `scale`.
        scale: (B,) scene units a metre.
    """

    half: Tensor
    sky: Tensor
    solids: Solids
    materials: Materials
    light: Light
    K: Tensor
    room_from_camera: Tensor
    world_from_room: Tensor
    scale: Tensor


def select_scenes(description: object, scenes: slice) -> object:
    """The same description (a dataclass of tensors) for some of its scenes."""
    if isinstance(description, Tensor):
        return description[scenes]
    if is_dataclass(description) and not isinstance(description, type):
        values = {f.name: select_scenes(getattr(description, f.name), scenes) for f in fields(description)}
        return type(description)(**values)
    return description


def draw_budget(views: int, settings: WorldSettings) -> int:
    """How many uniform numbers a scene may need at most."""
    return 512 + 16 * views + 128 * (2 * settings.solids[1] + 2 + settings.posters)


def sample_worlds(
    seeds: Sequence[int], views: int, size: tuple[int, int], settings: WorldSettings
) -> tuple[Worlds, Draws]:
    """Make up one scene a seed; also hands back the rest of the random numbers, for the sensor noise."""
    draws = Draws(seeds, draw_budget(views, settings))
    is_room = draws.chance(settings.rooms)
    half, sky = sample_enclosure(draws, is_room)
    intrinsics = sample_intrinsics(draws, views, size, settings)
    room_from_camera, target = sample_cameras(draws, views, half, is_room, settings)
    solids = sample_solids(draws, half, is_room, target, room_from_camera[..., :3, 3], settings)
    yaw = draws.uniform(-math.pi, math.pi)
    world_from_room = torch.eye(4).repeat(len(seeds), 1, 1)
    world_from_room[:, :3, :3] = rotation_about("z", yaw)
    world_from_room[:, :3, 3] = draws.uniform(-2, 2, 3)
    worlds = Worlds(
        half=half,
        sky=sky,
        solids=solids,
        materials=sample_materials(draws, FACES + solids.centre.shape[1], is_room, settings),
        light=sample_light(draws, views, half, is_room, settings),
        K=intrinsics,
        room_from_camera=room_from_camera,
        world_from_room=world_from_room,
        scale=draws.log_uniform(*settings.scale),
    )
    return worlds, draws


def sample_enclosure(draws: Draws, is_room: Tensor) -> tuple[Tensor, Tensor]:
    """Half sizes (B, 3) and which faces are sky (B, 6): none in a room; above and mostly around on open ground."""
    room = torch.cat([draws.uniform(1.7, 3.8, 2), draws.uniform(1.2, 1.7, 1)], dim=-1)
    ground = torch.cat([draws.uniform(6, 13, 2), draws.uniform(1.5, 4, 1)], dim=-1)
    walls = draws.chance(0.6, 4)
    floor_and_ceiling = torch.tensor([False, True]).expand(len(walls), 2)
    sky = torch.cat([walls, floor_and_ceiling], dim=-1) & ~is_room[:, None]
    return torch.where(is_room[:, None], room, ground), sky


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
    merged = [torch.cat([hung, free], dim=1) for hung, free in zip(posters, (centre, half, rotation, active), strict=True)]
    centre, half, rotation, active = merged
    distance = (cameras[:, :, None] - centre[:, None]).norm(dim=-1).amin(dim=1)
    clear = distance > half.norm(dim=-1) + 0.5 * CLEARANCE
    counts = (boxes + settings.posters, *counts[1:])
    return Solids(counts=counts, centre=centre, half=half, room_from_local=rotation, active=active & clear)


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


def sample_posters(draws: Draws, enclosure: Tensor, is_room: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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


def sample_materials(draws: Draws, surfaces: int, is_room: Tensor, settings: WorldSettings) -> Materials:
    """Paint for the faces of the enclosure and the solids; a coarse pattern and a finer one on each."""
    brightness = draws.log_uniform(0.1, 0.75, surfaces, 1)
    tint = draws.uniform(0, 1, surfaces, 1).square() * draws.uniform(-1, 1, surfaces, 3)
    colour = (brightness * (1 + 0.9 * tint)).clamp(0.03, 0.9)
    strength = draws.uniform(0.15, 0.6, surfaces, LAYERS, 1) * settings.texture
    hue = 1 + 0.5 * draws.uniform(-1, 1, surfaces, LAYERS, 3)
    gain = draws.signs(surfaces, LAYERS, 1) * strength * hue * colour[:, :, None]
    coarse = draws.log_uniform(1.8, 6.0, surfaces, 1)
    fine = draws.log_uniform(0.7, 2.0, surfaces, 1)
    coarse[:, :FACES] *= torch.where(is_room, 1.0, 1.8)[:, None, None]
    return Materials(
        colour=colour,
        gain=gain,
        texture=draws.uniform(0, TEXTURES, surfaces, LAYERS).floor().clamp_max(TEXTURES - 1),
        repeats=1 / torch.cat([coarse, fine], dim=-1),
        shift=draws.uniform(0, 1, surfaces, LAYERS, 2),
        shine=draws.uniform(-0.5, 0.5, surfaces).clamp_min(0),
    )


def sample_light(draws: Draws, views: int, enclosure: Tensor, is_room: Tensor, settings: WorldSettings) -> Light:
    """A lamp below the ceiling and a weaker one elsewhere in rooms; the sun and light from the other side outdoors."""
    inside = draws.uniform(-0.8, 0.8, 2, 3) * enclosure[:, None]
    inside[..., 2] = enclosure[:, None, 2] * draws.uniform(1.5, 1.9, 2)
    angle = draws.uniform(-math.pi, math.pi, 2)
    sun = 60 * torch.stack([angle.cos(), angle.sin(), draws.uniform(0.5, 1.6, 2)], dim=-1)
    warmth = draws.uniform(-0.15, 0.15, 3, 1) * torch.tensor([1.0, 0.0, -1.0])
    strength = torch.cat([draws.uniform(0.6, 1.1, 1), draws.uniform(0.1, 0.4, 1), draws.uniform(0.3, 0.6, 1)], dim=-1)
    colour = strength[..., None] * (1 + warmth)
    brightness = draws.uniform(0.55, 0.95, 1)
    gain = 1 + settings.exposure * draws.uniform(-1, 1, views, 1) * torch.ones(3)
    gain = gain + 0.4 * settings.exposure * draws.uniform(-1, 1, views, 3)
    blue = draws.uniform(0.3, 1, 1)
    return Light(
        position=torch.where(is_room[:, None, None], inside, sun),
        colour=colour[:, :2],
        ambient=colour[:, 2],
        horizon=brightness * torch.ones(3),
        zenith=brightness * torch.cat([1 - 0.75 * blue, 1 - 0.45 * blue, torch.ones_like(blue)], dim=-1),
        exposure=gain * draws.uniform(0.8, 1.25, 1, 1),
        vignette=draws.uniform(0, 0.3),
        noise=draws.uniform(0, settings.noise),
    )
