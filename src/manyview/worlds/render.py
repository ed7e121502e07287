"""`render_worlds`: procedural scenes, ray-cast with exact depth, points and cameras.

Letters in shapes: B scenes, N views, M solids (the enclosure is number 0), R rays of a view (its pixels, row by row).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from manyview.errors import InputError
from manyview.worlds.materials import texture_atlas
from manyview.worlds.rays import (
    Rays,
    Shapes,
    cast_rays,
    lamp_visible,
    nearest_hit,
    pixel_directions,
    surface_numbers,
    unit_shapes,
)
from manyview.worlds.sampling import Worlds, sample_worlds
from manyview.worlds.settings import WorldSettings
from manyview.worlds.shading import Hits, shade, sky_colour
from manyview.worlds.solids import FACES

RAYS_AT_ONCE = 24_000
"""On the CPU scenes are traced in groups of about this many rays, so that temporaries stay in the cache."""

FILM_SPEED = 1.3
"""Slope of the tone curve at black; its shoulder keeps bright surfaces from turning flat white."""


@dataclass(frozen=True, kw_only=True)
class WorldBatch:
    """B scenes of N views with their exact geometry. Frames are OpenCV's; pixels have integers at their centres.

    Attributes:
        images: (B, N, 3, H, W) float32 RGB in [0, 1].
        depth: (B, N, H, W) float32 z-depth, scene units; 0 where not `valid`.
        points: (B, N, H, W, 3) float32, world frame (z up, of no further meaning); 0 where not `valid`.
        valid: (B, N, H, W) bool; False for the sky.
        K: (B, N, 3, 3) float32, pixels.
        world_from_camera: (B, N, 4, 4) float32, rigid.
        object_ids: (B, N, H, W) int32: -1 sky, 0..5 walls, floor and ceiling, from 6 on the solids.
    """

    images: Tensor
    depth: Tensor
    points: Tensor
    valid: Tensor
    K: Tensor
    world_from_camera: Tensor
    object_ids: Tensor


def render_worlds(
    seeds: Sequence[int],
    views: int,
    size: tuple[int, int],
    settings: WorldSettings = WorldSettings(),  # noqa: B008 (frozen)
    device: str | torch.device = "cpu",
) -> WorldBatch:
    """Make up one scene a seed and photograph it.

    A scene depends on its own seed, `views`, `size` and `settings` only, not on the others of its batch. The tensors
    of one group of scenes are small: on the CPU, several processes with one thread each beat one with many threads.

    Args:
        seeds: B integers of 0..2^63 - 1.
        views: N, at least 1.
        size: (height, width) of the pictures in pixels.
        settings: what scenes may look like.
        device: where to trace and where the results lie.

    Raises:
        InputError: no seeds, or no views, or pictures below 2 x 2 pixels.
    """
    if not len(seeds) or views < 1 or min(size) < 2:
        raise InputError(f"expected seeds, views >= 1 and size >= (2, 2), got {len(seeds)} seeds, {views=}, {size=}")
    worlds, draws = sample_worlds(seeds, views, size, settings)
    noise = draws.normal(views, 3, *size).to(device) if settings.noise > 0 else None
    group = max(1, RAYS_AT_ONCE // (views * size[0] * size[1])) if torch.device(device).type == "cpu" else len(seeds)
    parts = []
    for first in range(0, len(seeds), group):
        some = worlds.scenes(slice(first, first + group)).to(device)
        parts.append(photograph(some, size, settings, None if noise is None else noise[first : first + group]))
    names = WorldBatch.__dataclass_fields__
    return WorldBatch(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def photograph(worlds: Worlds, size: tuple[int, int], settings: WorldSettings, noise: Tensor | None) -> WorldBatch:
    """Trace and develop all views of the scenes; `noise` is (B, N, 3, H, W) standard normal or None."""
    shapes = unit_shapes(worlds)
    atlas = texture_atlas(str(worlds.half.device))
    colours, depth, surface = trace(worlds, shapes, size, (0.0, 0.0), atlas, settings)
    if settings.supersampling > 1:
        colours = torch.zeros_like(colours)
        for offset in subpixels(settings.supersampling):
            colours += trace(worlds, shapes, size, offset, atlas, settings)[0] / settings.supersampling**2
    valid = surface >= 0
    depth = depth * worlds.scale[:, None, None] * valid
    world_from_camera = place_cameras(worlds)
    points = unproject(depth, worlds.K, world_from_camera, size) * valid[..., None]
    picture = (*depth.shape[:2], *size)
    return WorldBatch(
        images=develop(colours.unflatten(-1, size), worlds, noise),
        depth=depth.view(picture),
        points=points.view(*picture, 3),
        valid=valid.view(picture),
        K=worlds.K,
        world_from_camera=world_from_camera,
        object_ids=surface.view(picture).int(),
    )


def subpixels(count: int) -> list[tuple[float, float]]:
    """Offsets (x, y) of count x count rays from the pixel's centre."""
    steps = [(index + 0.5) / count - 0.5 for index in range(count)]
    return [(x, y) for y in steps for x in steps]


def place_cameras(worlds: Worlds) -> Tensor:
    """(B, N, 4, 4) world_from_camera in scene units: the room is scaled, then moved into the world."""
    scaled = worlds.room_from_camera.clone()
    scaled[..., :3, 3] *= worlds.scale[:, None, None]
    return worlds.world_from_room[:, None] @ scaled


def unproject(depth: Tensor, intrinsics: Tensor, world_from_camera: Tensor, size: tuple[int, int]) -> Tensor:
    """z-depth (B, N, R) -> world points (B, N, R, 3)."""
    rotation = world_from_camera[..., :3, :3] @ torch.linalg.inv(intrinsics)
    direction = pixel_directions(rotation, size)
    return (direction * depth[..., None, :] + world_from_camera[..., :3, 3:]).transpose(-1, -2)


def trace(
    worlds: Worlds,
    shapes: Shapes,
    size: tuple[int, int],
    offset: tuple[float, float],
    atlas: Tensor,
    settings: WorldSettings,
) -> tuple[Tensor, Tensor, Tensor]:
    """Linear colours (B, N, 3, R), z-depth (B, N, R) in metres and surface numbers (B, N, R), -1 for the sky."""
    rays = cast_rays(worlds, shapes, size, offset)
    depth, nearest = nearest_hit(shapes, rays)
    chosen = nearest[:, :, None, None].expand(-1, -1, 1, 3, -1)
    direction = rays.direction.gather(2, chosen)[:, :, 0].movedim(2, 0)
    origin = rays.origin.expand_as(rays.direction).gather(2, chosen)[:, :, 0].movedim(2, 0)
    unit = origin + depth * direction
    surface = surface_numbers(shapes, unit, nearest)
    lit = lamp_visible(worlds, shapes, rays, depth) if settings.shadows else None
    hits = gather_hits(worlds, shapes, rays, unit, direction, depth, nearest, surface)
    colour = shade(hits, worlds.light.colour, worlds.light.ambient, lit, atlas).view_as(direction)
    face = surface.clamp_max(FACES - 1).flatten(1)
    is_sky = worlds.sky.gather(1, face).view_as(surface) & (surface < FACES)
    sky = sky_colour(rays.rise, *(c.T[..., None, None] for c in (worlds.light.horizon, worlds.light.zenith)))
    colour = torch.lerp(colour, sky, is_sky.to(colour.dtype))
    return colour.movedim(0, 2), depth, surface.masked_fill_(is_sky, -1)


def gather_hits(
    worlds: Worlds,
    shapes: Shapes,
    rays: Rays,
    unit: Tensor,
    direction: Tensor,
    depth: Tensor,
    nearest: Tensor,
    surface: Tensor,
) -> Hits:
    """Collect for every ray the numbers of the shape and of the material that it met."""
    scenes = len(nearest)
    boxes, balls, cylinders = shapes.counts
    kind = torch.tensor([0] * (1 + boxes) + [1] * balls + [2] * cylinders, device=depth.device)
    lamps = [worlds.light.position[:, None, index] - shapes.centre for index in range(2)]
    local = [(shapes.unit_from_room @ lamp[..., None])[..., 0] * shapes.half for lamp in lamps]
    kinds = torch.stack([kind == 1, kind == 2], dim=-1).to(depth.dtype).expand(scenes, -1, -1)
    table = torch.cat([shapes.half, kinds, *local], dim=-1).movedim(-1, 0)
    of_shape = _pick(table, nearest)
    material = worlds.materials.table()
    focal = worlds.K[..., 0, 0, None]
    half = of_shape[:3]
    return Hits(
        unit=unit.flatten(2),
        half=half,
        direction=direction.flatten(2) * half,
        pixel=(depth * rays.length / focal).flatten(1),
        is_ball=of_shape[3],
        is_cylinder=of_shape[4],
        material=_pick(material, surface),
        lamps=(of_shape[5:8], of_shape[8:11]),
    )


def _pick(table: Tensor, index: Tensor) -> Tensor:
    """Columns of tables, one table a scene: (P, B, M), index (B, N, R) -> (P, B, N * R)."""
    return table.gather(2, index.flatten(1).expand(len(table), -1, -1))


def develop(colours: Tensor, worlds: Worlds, noise: Tensor | None) -> Tensor:
    """Linear colours (B, N, 3, H, W) -> picture in [0, 1]: exposure, vignette, tone curve, sensor noise."""
    light = worlds.light
    height, width = colours.shape[-2:]
    across = torch.linspace(-1, 1, width, device=colours.device).square()
    down = torch.linspace(-1, 1, height, device=colours.device).square()[:, None]
    darkening = 1 - light.vignette[:, None, None, None, None] * (across + down) / 2
    exposed = colours * darkening * light.exposure[..., None, None]
    picture = (1 - (-FILM_SPEED * exposed).exp_()).sqrt_()
    if noise is not None:
        picture = picture + noise * light.noise[:, None, None, None, None]
    return picture.clamp_(0, 1)
