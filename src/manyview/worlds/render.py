"""`render_worlds`: procedural scenes, ray-cast with exact depth, points and cameras.

Letters in shapes: B scenes, N views, S surfaces (as in `packing`), R rays of a view (its pixels, row by row), Q = B N R
all rays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from random import Random

import torch
from torch import Generator, Tensor

from manyview.errors import InputError
from manyview.geometry.posed_views import PosedViews
from manyview.worlds.description import FACES
from manyview.worlds.packing import Worlds
from manyview.worlds.pairs import Rays, carried
from manyview.worlds.patterns import PATTERNS
from manyview.worlds.primitives import BALL, CYLINDER
from manyview.worlds.rays import (
    camera_sights,
    cast_rays,
    lamp_visible,
    nearest_hit,
    openness,
    pixel_directions,
    surface_numbers,
)
from manyview.worlds.relief import relief_normal
from manyview.worlds.sensor import develop
from manyview.worlds.settings import WorldSettings
from manyview.worlds.shading import Hits, shade, sky_colour
from manyview.worlds.textures import sample_texture, texture_atlas
from manyview.worlds.world import describe_world, pack_worlds

RAYS_AT_ONCE = 24_000
"""On the CPU scenes are traced in groups of about this many rays, so that temporaries stay in the cache."""

LARGEST_BAND = 60_000
"""Larger pictures are traced in bands of about this many rays of all views of a scene: memory stays bounded."""

RAYS_AT_ONCE_ON_GPU = 2_000_000
"""The same for both on other devices: enough to fill a GPU, and about 5 GB in crowded scenes."""


@dataclass(frozen=True, kw_only=True)
class WorldBatch(PosedViews):
    """B procedural scenes of N views with their exact geometry. The world's z axis points up.

    Attributes (beside those of `PosedViews`):
        object_ids: (B, N, H, W) int32: -1 sky, 0..5 walls, floor and ceiling, from 6 on solids and reliefs.
        world_from_start: (B, N, S, 4, 4) float32, rigid: carries a point of surface s from where it is at the first
            view's moment to where it is at view n's; identities where nothing moves.
    """

    object_ids: Tensor
    world_from_start: Tensor

    @property
    def moving(self) -> Tensor:
        """(B, N, H, W) bool: pixels that show something that moves."""
        still = torch.eye(4, device=self.depth.device)
        moves = (self.world_from_start - still).abs().amax(dim=(1, 3, 4)) > 1e-7  # (B, S)
        ids = self.object_ids.flatten(1).clamp_min(0).long()
        return moves.gather(1, ids).view(self.object_ids.shape) & (self.object_ids >= 0)


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
    Matrix products have to be full float32, as is PyTorch's default (`torch.set_float32_matmul_precision`).

    Args:
        seeds: B integers of 0..2^63 - 1.
        views: N, at least 1.
        size: (height, width) of the pictures in pixels.
        settings: what scenes may look like.
        device: where to trace and where the results lie.

    Raises:
        InputError: no seeds, a seed out of range, no views, or pictures below 2 x 2 pixels.
    """
    _expect_possible(seeds, views, [size])
    worlds = [describe_world(Random(f"world/{seed}"), views, size, settings) for seed in seeds]
    at_once = RAYS_AT_ONCE if torch.device(device).type == "cpu" else RAYS_AT_ONCE_ON_GPU
    group = max(1, at_once // (views * size[0] * size[1]))
    parts = []
    for first in range(0, len(seeds), group):
        some = slice(first, first + group)
        noise = sensor_noise(seeds[some], views, size).to(device) if settings.noise > 0 else None
        parts.append(photograph(pack_worlds(worlds[some]).to(device), size, settings, noise))
    return joined(parts)


def render_mixed_worlds(
    seeds: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    settings: WorldSettings = WorldSettings(),  # noqa: B008 (frozen)
    device: str | torch.device = "cpu",
) -> list[WorldBatch]:
    """`render_worlds` for views of different sizes and shapes, as a folder of photographs has them.

    Args:
        sizes: (height, width) of each of the N views. The field of view that the settings give is that of the first.

    Returns:
        A `WorldBatch` of one view each (its N is 1), in order; all of the same scenes and in the same world frame.

    Raises:
        InputError: no seeds, a seed out of range, no sizes, or one below 2 x 2 pixels.
    """
    if not sizes:
        raise InputError("no sizes were given", hint="Pass one (height, width) for each view.")
    _expect_possible(seeds, len(sizes), sizes)
    worlds = [describe_world(Random(f"world/{seed}"), len(sizes), sizes[0], settings) for seed in seeds]
    batches = []
    for view, size in enumerate(sizes):
        seen = [world.view(view, sizes[0], size) for world in worlds]
        noise = sensor_noise(seeds, len(sizes), size)[:, view : view + 1].to(device) if settings.noise > 0 else None
        batches.append(photograph(pack_worlds(seen).to(device), size, settings, noise))
    return batches


def _expect_possible(seeds: Sequence[int], views: int, sizes: Sequence[tuple[int, int]]) -> None:
    smallest = min(sizes, key=min)
    if not len(seeds) or views < 1 or min(smallest) < 2:
        raise InputError(
            f"expected seeds, views >= 1 and size >= (2, 2), got {len(seeds)} seeds, {views=}, size={smallest}"
        )
    if not all(0 <= seed < 2**63 for seed in seeds):
        raise InputError(f"a seed is an integer of 0..2^63 - 1, got {min(seeds)}..{max(seeds)}")


def sensor_noise(seeds: Sequence[int], views: int, size: tuple[int, int]) -> Tensor:
    """(B, N, 3, H, W) standard normal, each scene's from its seed."""
    generators = [Generator().manual_seed(int(seed)) for seed in seeds]
    return torch.stack([torch.randn(views, 3, *size, generator=generator) for generator in generators])


def joined(parts: Sequence[WorldBatch]) -> WorldBatch:
    """Batches one after another; the motions of fewer surfaces are filled up with identities."""
    surfaces = max(part.world_from_start.shape[2] for part in parts)
    names = [field.name for field in fields(WorldBatch) if field.name != "world_from_start"]
    tensors = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    motions = []
    for part in parts:
        missing = surfaces - part.world_from_start.shape[2]
        still = torch.eye(4, device=part.depth.device).expand(*part.world_from_start.shape[:2], missing, 4, 4)
        motions.append(torch.cat([part.world_from_start, still], dim=2))
    return WorldBatch(**tensors, world_from_start=torch.cat(motions))


def photograph(worlds: Worlds, size: tuple[int, int], settings: WorldSettings, noise: Tensor | None) -> WorldBatch:
    """Trace and develop all views of the scenes; `noise` is (B, N, 3, H, W) standard normal or None."""
    atlas = texture_atlas(str(worlds.half.device))
    colours, depth, surface = trace_bands(worlds, size, (0.0, 0.0), atlas)
    for offset in subpixels(settings.samples)[1:]:
        colours = colours + trace_bands(worlds, size, offset, atlas)[0]
    colours = colours / settings.samples
    valid = surface >= 0
    depth = depth * worlds.scale[:, None, None] * valid
    world_from_camera = place_cameras(worlds)
    points = unproject(depth, worlds.K, world_from_camera, size) * valid[..., None]
    picture = (*depth.shape[:2], *size)
    return WorldBatch(
        images=develop(colours.unflatten(-1, size), worlds.response, noise),
        depth=depth.view(picture),
        points=points.view(*picture, 3),
        valid=valid.view(picture),
        K=worlds.K,
        world_from_camera=world_from_camera,
        object_ids=surface.view(picture).int(),
        world_from_start=place_motions(worlds, depth.shape[1]),
    )


def subpixels(count: int) -> list[tuple[float, float]]:
    """Offsets (x, y) of `count` rays from the pixel's centre: itself, then evenly spread (Martin Roberts' R2)."""
    steps = (0.7548776662466927, 0.5698402909980532)
    return [((0.5 + i * steps[0]) % 1 - 0.5, (0.5 + i * steps[1]) % 1 - 0.5) for i in range(count)]


def place_cameras(worlds: Worlds) -> Tensor:
    """(B, N, 4, 4) world_from_camera in scene units: the room is scaled, then moved into the world."""
    scaled = worlds.room_from_camera.clone()
    scaled[..., :3, 3] *= worlds.scale[:, None, None]
    return worlds.world_from_room[:, None] @ scaled


def place_motions(worlds: Worlds, views: int) -> Tensor:
    """(B, N, S, 4, 4) `world_from_start` of the batch: the room's motions, seen in the world frame and its units."""
    scaled = worlds.room_from_start.clone()
    scaled[..., :3, 3] *= worlds.scale[:, None, None, None]
    frame = worlds.world_from_room[:, None, None]
    rotated = frame @ scaled @ torch.linalg.inv(frame)
    still = torch.eye(4, device=rotated.device)
    moves = (worlds.room_from_start != still).flatten(3).any(-1)[..., None, None]
    return torch.where(moves, rotated, still).expand(-1, views, -1, -1, -1)


def unproject(depth: Tensor, intrinsics: Tensor, world_from_camera: Tensor, size: tuple[int, int]) -> Tensor:
    """z-depth (B, N, R) -> world points (B, N, R, 3)."""
    rotation = world_from_camera[..., :3, :3] @ torch.linalg.inv(intrinsics)
    direction = pixel_directions(rotation, size)
    return (direction * depth[..., None, :] + world_from_camera[..., :3, 3:]).transpose(-1, -2)


def trace_bands(
    worlds: Worlds, size: tuple[int, int], offset: tuple[float, float], atlas: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`trace`, a band of rows after the other where pictures are large.

    A band is the whole picture of a camera whose principal point lies elsewhere.
    """
    height, width = size
    limit = LARGEST_BAND if worlds.half.device.type == "cpu" else RAYS_AT_ONCE_ON_GPU
    rows = max(1, limit // (worlds.K.shape[0] * worlds.K.shape[1] * width))
    if rows >= height:
        return trace(worlds, size, offset, atlas)
    bands = []
    for top in range(0, height, rows):
        intrinsics = worlds.K.clone()
        intrinsics[..., 1, 2] -= top
        bands.append(trace(replace(worlds, K=intrinsics), (min(rows, height - top), width), offset, atlas))
    colours, depth, surface = (torch.cat(parts, dim=-1) for parts in zip(*bands, strict=True))
    return colours, depth, surface


def trace(
    worlds: Worlds, size: tuple[int, int], offset: tuple[float, float], atlas: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Linear colours (B, N, 3, R), z-depth (B, N, R) in metres and surface numbers (B, N, R), -1 for the sky."""
    shapes = worlds.shapes
    rays = cast_rays(worlds, size, offset)
    depth, nearest = nearest_hit(worlds, rays, camera_sights(worlds, size))
    scene = shapes.scene(rays.first)
    points = rays.origin + depth * rays.direction
    column = rays.first + nearest
    unit = carried(shapes, column, points)
    surface = surface_numbers(shapes, unit, nearest, scene)
    is_sky = worlds.sky.flatten()[scene * FACES + surface.clamp_max(FACES - 1)] & (surface < FACES)
    lit = None
    if bool(worlds.light.shadows.any()):
        wanted = worlds.light.shadows[scene] & ~is_sky
        lit = lamp_visible(worlds, rays, points, wanted).to(depth.dtype)
    ambient = worlds.light.ambient.T[:, scene]
    if bool(worlds.light.occlusion.any()):
        ambient = ambient * openness(worlds, rays, points, nearest)
    hits = gather_hits(worlds, rays, unit, column, depth, surface, scene)
    colour = shade(hits, worlds.light.colour.permute(1, 2, 0)[:, :, scene], ambient, lit, atlas)
    if bool(worlds.sky.any()):
        colour = torch.where(is_sky, sky_of(worlds, rays, scene, atlas), colour)
    picture = (*worlds.room_from_camera.shape[:2], size[0] * size[1])
    surface = surface.masked_fill(is_sky, -1)
    return colour.view(3, *picture).movedim(0, 2), depth.view(picture), surface.view(picture)


def sky_of(worlds: Worlds, rays: Rays, scene: Tensor, atlas: Tensor) -> Tensor:
    """(3, Q) colour of the sky in the direction of each ray."""
    light = worlds.light
    x, y, rise = rays.direction / rays.direction.square().sum(0).sqrt()
    gradient = sky_colour(rise, light.horizon.T[:, scene], light.zenith.T[:, scene])
    # Clouds hang on a plane above; near the horizon they get finer, until the pyramid averages them out.
    slope = rise.clamp_min(0.02)
    u, v, footprint = 0.3 * x / slope, 0.3 * y / slope, 0.01 / slope.square()
    pattern = torch.full_like(u, float(CLOUDS))
    clouds = sample_texture(atlas, pattern[None], u[None], v[None], footprint[None])[0, 0]
    return (gradient + light.clouds[scene] * clouds).clamp_min_(0)


CLOUDS = next(number for number, pattern in enumerate(PATTERNS) if pattern.kind == "noise")
"""The pattern that clouds are made of."""


def gather_hits(
    worlds: Worlds, rays: Rays, unit: Tensor, column: Tensor, depth: Tensor, surface: Tensor, scene: Tensor
) -> Hits:
    """Collect for every ray the numbers of the shape and of the material that it met."""
    shapes = worlds.shapes
    rows = shapes.table[12:].index_select(1, column)
    half, kind = rows[:3], rows[3]
    lamps = [carried(shapes, column, worlds.light.position[:, index].T[:, scene]) * half for index in range(2)]
    material = worlds.materials.table()
    per_view = depth.view(len(worlds.half), worlds.K.shape[1], -1)
    length = rays.direction.square().sum(0).sqrt().view_as(per_view)
    return Hits(
        unit=unit,
        half=half,
        direction=carried(shapes, column, rays.direction, direction=True) * half,
        pixel=(per_view * length / worlds.K[..., 0, 0, None]).flatten(),
        is_ball=(kind == BALL).to(depth.dtype),
        is_cylinder=(kind == CYLINDER).to(depth.dtype),
        relief=relief_normals(worlds, unit, column, scene) if shapes.reliefs else None,
        material=material.flatten(1).index_select(1, scene * material.shape[2] + surface),
        lamps=(lamps[0], lamps[1]),
    )


def relief_normals(worlds: Worlds, unit: Tensor, column: Tensor, scene: Tensor) -> Tensor:
    """(3, Q) normals in the unit frame where a relief was met, 0 elsewhere."""
    shapes = worlds.shapes
    number = column % shapes.slots - (shapes.slots - shapes.reliefs)
    met = (number >= 0).nonzero()[:, 0]
    pattern = shapes.patterns[scene[met], number[met]].T
    normals = torch.zeros_like(unit)
    normals[:, met] = relief_normal(unit[:, met], pattern[0], pattern[1:])
    return normals
