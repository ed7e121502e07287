"""From seeds to the description of scenes: what stands where, what it is made of, and who looks at it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from manyview.worlds.cameras import sample_cameras, sample_intrinsics
from manyview.worlds.draws import Draws
from manyview.worlds.materials import LAYERS, Materials
from manyview.worlds.patterns import TEXTURES
from manyview.worlds.settings import WorldSettings
from manyview.worlds.solids import FACES, Solids, rotation_about, sample_solids, without_empty_slots

Described = TypeVar("Described", bound=Any)


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

    def scenes(self, which: slice) -> Worlds:
        """Some of the scenes, with no more slots for solids than they need."""
        some = _each_tensor(self, lambda tensor: tensor[which])
        return replace(some, solids=without_empty_slots(some.solids))

    def to(self, device: str | torch.device) -> Worlds:
        """All tensors on a device."""
        return _each_tensor(self, lambda tensor: tensor.to(device))


def _each_tensor(description: Described, change: Callable[[Tensor], Tensor]) -> Described:
    """The same description with `change` applied to all its tensors."""
    changes = {}
    for field in fields(description):
        value = getattr(description, field.name)
        if isinstance(value, Tensor):
            changes[field.name] = change(value)
        elif is_dataclass(value):
            changes[field.name] = _each_tensor(value, change)
    return replace(description, **changes)


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
