"""`render_worlds`: procedural scenes, ray-cast with exact depth, points and cameras.

Letters in shapes: B scenes, N views, M solids (the enclosure is number 0), R rays of a view (its pixels, row by row).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from manyview.errors import InputError
from manyview.worlds.cameras import pixel_grid
from manyview.worlds.materials import texture_atlas
from manyview.worlds.primitives import ball_interval, box_interval, cylinder_interval
from manyview.worlds.sampling import FACES, Worlds, sample_worlds, select_scenes
from manyview.worlds.settings import WorldSettings
from manyview.worlds.shading import Hits, shade, sky_colour

RAYS_AT_ONCE = 24_000
"""On the CPU scenes are traced in groups of about this many rays, so that temporaries stay in the cache."""


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
        active: (B, M) bool.
    """

    counts: tuple[int, int, int]
    unit_from_room: Tensor
    centre: Tensor
    half: Tensor
    active: Tensor


def render_worlds(
    seeds: Sequence[int],
    views: int,
    size: tuple[int, int],
    settings: WorldSettings = WorldSettings(),  # noqa: B008 (frozen)
    device: str | torch.device = "cpu",
) -> WorldBatch:
    """Make up one scene a seed and photograph it.

    A scene depends on its own seed, `views`, `size` and `settings` only, not on the others of its batch.

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
    worlds = cast(Worlds, _to_device(worlds, torch.device(device)))
    group = max(1, RAYS_AT_ONCE // (views * size[0] * size[1])) if torch.device(device).type == "cpu" else len(seeds)
    parts = []
    for first in range(0, len(seeds), group):
        scenes = slice(first, first + group)
        some = cast(Worlds, select_scenes(worlds, scenes))
        parts.append(photograph(some, size, settings, None if noise is None else noise[scenes]))
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
    direction = rotation @ pixel_grid(size).to(depth.device)
    return (direction * depth[..., None, :] + world_from_camera[..., :3, 3:]).transpose(-1, -2)


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
        active=torch.cat([torch.ones_like(solids.active[:, :1]), solids.active], dim=1),
    )


def cast_rays(worlds: Worlds, shapes: Shapes, size: tuple[int, int], offset: tuple[float, float]) -> Rays:
    """One ray a pixel, through its centre moved by `offset` (x, y) pixels."""
    grid = pixel_grid(size, offset).to(worlds.half.device)
    rotation = worlds.room_from_camera[..., :3, :3] @ torch.linalg.inv(worlds.K)
    position = worlds.room_from_camera[..., :3, 3]
    unit_from_room = shapes.unit_from_room[:, None]
    origin = unit_from_room @ (position[:, :, None] - shapes.centre[:, None])[..., None]
    unit_from_pixel = unit_from_room @ rotation[:, :, None]
    direction = (unit_from_pixel.flatten(0, 3) @ grid).unflatten(0, unit_from_pixel.shape[:-1])
    in_room = rotation @ grid
    length = in_room.norm(dim=-2)
    return Rays(origin=origin, direction=direction, length=length, rise=in_room[:, :, 2] / length)


def meet_solids(counts: tuple[int, int, int], origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Intervals (B, N, M - 1, R) in which rays (B, N, M - 1, 3, R or 1) are inside the solids, by kind."""
    origins, directions = origin.split(counts, dim=2), direction.split(counts, dim=2)
    kinds = (box_interval, ball_interval, cylinder_interval)
    met = [meet(o, d) for meet, o, d, n in zip(kinds, origins, directions, counts, strict=True) if n]
    if not met:
        return torch.zeros_like(direction[:, :, :, 0]), torch.zeros_like(direction[:, :, :, 0])
    return torch.cat([enter for enter, _ in met], dim=2), torch.cat([leave for _, leave in met], dim=2)


def nearest_hit(shapes: Shapes, rays: Rays) -> tuple[Tensor, Tensor]:
    """z-depth (B, N, R) of the first surface and which shape it is (B, N, R) int64, 0 the enclosure seen from inside."""
    _, depth = box_interval(rays.origin[:, :, 0], rays.direction[:, :, 0])
    nearest = torch.zeros_like(depth, dtype=torch.int64)
    enter, leave = meet_solids(shapes.counts, rays.origin[:, :, 1:], rays.direction[:, :, 1:])
    missed = (enter >= leave) | (enter <= 0) | ~shapes.active[:, None, 1:, None]
    enter = enter.masked_fill_(missed, torch.inf)
    for index in range(enter.shape[2]):
        candidate = enter[:, :, index]
        nearest.masked_fill_(candidate < depth, index + 1)
        depth = torch.minimum(depth, candidate)
    return depth, nearest


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
    origin = rays.origin[..., 0].movedim(-1, 0)
    unit = _pick(origin.flatten(1, 2).unsqueeze(1), nearest.flatten(0, 1)[None]).view_as(direction) + depth * direction
    surface = surface_numbers(unit, nearest)
    lit = lamp_visible(worlds, shapes, rays, depth, size, offset) if settings.shadows else None
    hits = gather_hits(worlds, shapes, rays, unit, direction, depth, nearest, surface)
    lamps = worlds.light.colour.permute(1, 2, 0)[..., None].expand(-1, -1, -1, nearest[0].numel()).flatten(2)
    ambient = worlds.light.ambient.T[..., None].expand(-1, -1, nearest[0].numel()).flatten(1)
    colour = shade(hits, lamps, ambient, lit, atlas).view_as(direction)
    is_sky = worlds.sky.gather(1, surface.flatten(1).clamp_max(FACES - 1)).view_as(surface) & (surface < FACES)
    sky = sky_colour(rays.rise, *(c.T[..., None, None] for c in (worlds.light.horizon, worlds.light.zenith)))
    colour = torch.lerp(colour, sky, is_sky.to(colour.dtype))
    return colour.movedim(0, 2), depth, surface.masked_fill(is_sky, -1)


def surface_numbers(unit: Tensor, nearest: Tensor) -> Tensor:
    """(B, N, R): the face 0..5 of the enclosure by its largest coordinate, 6.. for the solids.

    Args:
        unit: (3, B, N, R) point on the unit shape.
        nearest: (B, N, R) number of the shape.
    """
    x, y, z = unit
    x_size, y_size, z_size = unit.abs()
    along_x = x_size >= torch.maximum(y_size, z_size)
    along_z = (z_size > torch.maximum(x_size, y_size)).long()
    axis = 1 - along_x.long() + along_z
    positive = ((x * along_x + y * (axis == 1) + z * along_z) > 0).long()
    is_solid = (nearest > 0).long()
    return (2 * axis + positive) * (1 - is_solid) + (nearest + FACES - 1) * is_solid


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
    of_shape = _pick(table, nearest.flatten(1)[None])
    material = worlds.materials.table().unflatten(1, (scenes, -1))
    focal = worlds.K[..., 0, 0, None]
    half = of_shape[:3]
    return Hits(
        unit=unit.flatten(1),
        half=half,
        direction=direction.flatten(1) * half,
        pixel=(depth * rays.length / focal).flatten(),
        is_ball=of_shape[3],
        is_cylinder=of_shape[4],
        material=_pick(material, surface.flatten(1)[None]),
        lamps=(of_shape[5:8], of_shape[8:11]),
    )


def _pick(table: Tensor, index: Tensor) -> Tensor:
    """Columns of tables, one table a scene: (P, B, M), (1, B, R) -> (P, B * R)."""
    table = table.squeeze(1) if table.dim() == 4 else table
    return table.gather(2, index.expand(len(table), -1, -1)).flatten(1)


def lamp_visible(
    worlds: Worlds, shapes: Shapes, rays: Rays, depth: Tensor, size: tuple[int, int], offset: tuple[float, float]
) -> Tensor:
    """(B * N * R,) float: 1 where no solid stands between the point and the main lamp."""
    lamp = worlds.light.position[:, None, None, 0, :, None]
    lamp_in_unit = (shapes.unit_from_room @ (lamp[:, 0] - shapes.centre[..., None]))[:, None, 1:]
    point = rays.origin[:, :, 1:] + depth[:, :, None, None] * rays.direction[:, :, 1:]
    enter, leave = meet_solids(shapes.counts, point, lamp_in_unit - point)
    blocked = (enter < leave) & (leave > 1e-3) & (enter < 1) & shapes.active[:, None, 1:, None]
    return 1 - blocked.any(dim=2).flatten().to(depth.dtype)


def develop(colours: Tensor, worlds: Worlds, noise: Tensor | None) -> Tensor:
    """Linear colours (B, N, 3, H, W) -> picture in [0, 1]: exposure, vignette, tone curve, sensor noise."""
    light = worlds.light
    height, width = colours.shape[-2:]
    across = torch.linspace(-1, 1, width, device=colours.device).square()
    down = torch.linspace(-1, 1, height, device=colours.device).square()[:, None]
    darkening = 1 - light.vignette[:, None, None, None, None] * (across + down) / 2
    picture = (colours * darkening * light.exposure[..., None, None]).clamp_(0, 1).sqrt_()
    if noise is not None:
        picture = picture + noise * light.noise[:, None, None, None, None]
    return picture.clamp_(0, 1)


def _to_device(description: object, device: torch.device) -> object:
    """A description of scenes with all its tensors on the device."""
    if isinstance(description, Tensor):
        return description.to(device)
    if hasattr(description, "__dataclass_fields__"):
        values = {name: _to_device(getattr(description, name), device) for name in description.__dataclass_fields__}
        return type(description)(**values)
    return description
