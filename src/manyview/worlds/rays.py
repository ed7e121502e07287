"""Rays of the cameras and of the lamps, and what they meet first.

Letters in shapes: B scenes, N views, M shapes (the enclosure is number 0), R rays of a view (its pixels, row by row),
Q = B N R all rays, P pairs of a ray and a shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from manyview.worlds.packing import Shapes, Worlds
from manyview.worlds.pairs import Rays, carried, meet, pixels_of, rectangles
from manyview.worlds.primitives import box_interval
from manyview.worlds.relief import meet_relief

CONTACT = 0.12
"""Metres from a solid over which the ambient light comes back."""
CORNER = 0.35
"""The same for walls."""
NO_ACNE = 0.003
"""Metres from a surface within which nothing casts a shadow on it, lest it shadows itself."""


def cast_rays(worlds: Worlds, size: tuple[int, int], offset: tuple[float, float]) -> Rays:
    """One ray a pixel, through its centre moved by `offset` (x, y) pixels."""
    rotation = worlds.room_from_camera[..., :3, :3] @ torch.linalg.inv(worlds.K)
    direction = pixel_directions(rotation, size, offset)  # (B, N, 3, R)
    position = worlds.room_from_camera[..., :3, 3:].expand_as(direction)
    scenes, views, _, rays = direction.shape
    moment = torch.arange(scenes * worlds.shapes.views, device=direction.device).view(scenes, -1, 1)
    return Rays(
        origin=position.movedim(2, 0).flatten(1),
        direction=direction.movedim(2, 0).flatten(1),
        first=(moment * worlds.shapes.slots).expand(scenes, views, rays).flatten(),
    )


def pixel_directions(matrix: Tensor, size: tuple[int, int], offset: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    """matrix (..., 3, 3) times (x, y, 1) of all pixels: (..., 3, R). One addition each: x and y contribute apart."""
    height, width = size
    x = torch.arange(width, device=matrix.device) + offset[0]
    y = torch.arange(height, device=matrix.device) + offset[1]
    across = matrix[..., 0, None] * x
    down = matrix[..., 1, None] * y + matrix[..., 2, None]
    return (down[..., :, None] + across[..., None, :]).flatten(-2)


@dataclass(frozen=True)
class Sights:
    """Pairs of rays and shapes that may meet: of the bodies, and of the tools that cut.

    Attributes:
        body: ray and slot (P,) of each pair of a ray and a body.
        cut: ray, slot of the tool and slot of its body (P',) of each pair of a ray and a cut.
    """

    body: tuple[Tensor, Tensor]
    cut: tuple[Tensor, Tensor, Tensor]


def camera_sights(worlds: Worlds, size: tuple[int, int]) -> Sights:
    """What the pixels of the pictures may see: the shapes whose rectangle they are in."""
    shapes, rays = worlds.shapes, size[0] * size[1]
    boxes = rectangles(shapes, worlds.room_from_camera, worlds.K, size)
    scenes, views = boxes.shape[:2]
    empty = boxes.new_zeros(4)
    seen = torch.where(shapes.body[:, None, :, None], boxes, empty).flatten(0, 2)
    which, pixel = pixels_of(seen, size[1])
    body = torch.div(which, shapes.slots, rounding_mode="floor") * rays + pixel, which % shapes.slots
    tool, carved = shapes.cuts.unbind(-1)  # (B, C)
    cuts = tool.shape[1]
    scene = torch.arange(scenes, device=boxes.device)[:, None]
    first, second = boxes[scene, :, tool], boxes[scene, :, carved]  # (B, C, N, 4)
    low, high = torch.maximum(first, second)[..., ::2], torch.minimum(first, second)[..., 1::2]
    high = torch.where((tool > 0)[:, :, None, None], torch.maximum(high, low), low)
    overlap = torch.stack([low[..., 0], high[..., 0], low[..., 1], high[..., 1]], dim=-1)
    which, pixel = pixels_of(overlap.transpose(1, 2).flatten(0, 2), size[1])
    picture = torch.div(which, max(cuts, 1), rounding_mode="floor")
    row = torch.div(picture, views, rounding_mode="floor") * cuts + which % max(cuts, 1)
    return Sights(body, (picture * rays + pixel, tool.flatten()[row], carved.flatten()[row]))


def kept_interval(shapes: Shapes, rays: Rays, ray: Tensor, slot: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Interval of pairs with what is kept of the bodies (P,), (P,), and the slot (P,) whose surface comes first."""
    first = rays.first[ray]
    enter, leave = meet(shapes, rays, ray, first + slot)
    scene = shapes.scene(first)
    keeper = shapes.keeper.flatten()[scene * shapes.slots + slot]
    kept = keeper.nonzero()[:, 0]
    if len(kept):
        near, far = meet(shapes, rays, ray[kept], first[kept] + keeper[kept])
        slot = slot.index_put((kept,), torch.where(near > enter[kept], keeper[kept], slot[kept]))
        enter = enter.index_put((kept,), torch.maximum(enter[kept], near))
        leave = leave.index_put((kept,), torch.minimum(leave[kept], far))
    return enter, leave, slot


def first_solid(shapes: Shapes, rays: Rays, sights: Sights, depth: Tensor) -> tuple[Tensor, Tensor]:
    """t (Q,) of the first surface and its slot (Q,), given t (Q,) of the enclosure."""
    ray, body = sights.body
    enter, leave, slot = kept_interval(shapes, rays, ray, body)
    cut_ray, tool, carved = sights.cut
    if len(cut_ray):
        start, end, _ = kept_interval(shapes, rays, cut_ray, carved)
        near, far = meet(shapes, rays, cut_ray, rays.first[cut_ray] + tool)
        start = start.clamp_min(0)
        # The ray comes to the body where it is cut away; it goes on to the far side of the tool, if that is inside.
        through = (near < far) & (near <= start) & (start < far) & (start < end)
        gone = torch.zeros(len(depth) * shapes.slots, dtype=torch.bool, device=depth.device)
        gone[(cut_ray * shapes.slots + carved)[through]] = True
        enter = enter.masked_fill(gone[ray * shapes.slots + body], torch.inf)
        ray, slot = torch.cat([ray, cut_ray[through]]), torch.cat([slot, tool[through]])
        leave = torch.cat([leave, end[through]])
        enter = torch.cat([enter, torch.where(far < end, far, torch.inf)[through]])
    enter = enter.masked_fill((enter >= leave) | (enter <= 0), torch.inf)
    closest = depth.scatter_reduce(0, ray, enter, "amin")
    wins = (enter == closest[ray]) & (enter < depth[ray])
    # Of surfaces that coincide the last is seen, on any device and with any number of threads.
    nearest = torch.zeros_like(rays.first).scatter_reduce(0, ray[wins], slot[wins], "amax")
    return closest, nearest


def nearest_hit(worlds: Worlds, rays: Rays, sights: Sights) -> tuple[Tensor, Tensor]:
    """z-depth (Q,) of the first surface, and which shape it is (Q,) int64: 0 is the enclosure."""
    shapes = worlds.shapes
    inside = carried(shapes, rays.first, rays.origin), carried(shapes, rays.first, rays.direction, direction=True)
    _, depth = box_interval(*inside)
    depth, nearest = first_solid(shapes, rays, sights, depth)
    for index in range(shapes.reliefs):
        slot = shapes.slots - shapes.reliefs + index
        candidate = march(shapes, rays, slot, index, depth)
        nearest = torch.where(candidate < depth, slot, nearest)
        depth = torch.minimum(depth, candidate)
    return depth, nearest


def march(shapes: Shapes, rays: Rays, slot: int, index: int, nearer_than: Tensor) -> Tensor:
    """(Q,): where rays meet the relief of a slot; only those are followed that may see it."""
    column = rays.first + slot
    origin = carried(shapes, column, rays.origin)
    direction = carried(shapes, column, rays.direction, direction=True)
    enter, leave = box_interval(origin, direction)
    enter, leave = enter.clamp_min(0), torch.minimum(leave, nearer_than)
    followed = (enter < leave).nonzero()[:, 0]
    scene = shapes.scene(rays.first[followed])
    numbers = shapes.patterns[:, index].T[:, scene]
    met = meet_relief(
        origin[:, followed], direction[:, followed], enter[followed], leave[followed], numbers[0], numbers[1:]
    )
    return torch.full_like(enter, torch.inf).index_put_((followed,), met)


def surface_numbers(shapes: Shapes, unit: Tensor, nearest: Tensor, scene: Tensor) -> Tensor:
    """(Q,): the face 0..5 of the enclosure by its largest coordinate, from 6 on the solids and reliefs.

    Args:
        unit: (3, Q) point on the unit shape.
        nearest: (Q,) number of the shape. scene: (Q,).
    """
    x, y, z = unit
    x_size, y_size, z_size = unit.abs()
    along_x = x_size >= torch.maximum(y_size, z_size)
    along_z = z_size > torch.maximum(x_size, y_size)
    positive = y > 0
    positive = (positive & ~along_x & ~along_z) | (along_x & (x > 0)) | (along_z & (z > 0))
    face = 2 * (1 - along_x.long() + along_z.long()) + positive.long()
    return shapes.surface.flatten()[scene * shapes.slots + nearest] + face.masked_fill(nearest > 0, 0)


def lamp_visible(worlds: Worlds, rays: Rays, points: Tensor, wanted: Tensor) -> Tensor:
    """(Q,) bool: no solid stands between the point (3, Q) and the main lamp of its scene. Reliefs cast no shadows.

    Args:
        rays: only their `first` is used.
        wanted: (Q,) bool: rays for which it matters; the others are called visible.
    """
    shapes = worlds.shapes
    scene = shapes.scene(rays.first)
    lamp = worlds.light.position[:, 0].T[:, scene]
    beams = Rays(origin=points, direction=lamp - points, first=rays.first)
    start_of_beam = NO_ACNE / beams.direction.square().sum(0).sqrt().clamp_min(NO_ACNE)
    ray, slot = beams_near_shapes(worlds, beams, wanted)
    first = rays.first[ray]
    is_body = shapes.body.flatten()[scene[ray] * shapes.slots + slot]
    bodies, body = ray[is_body], slot[is_body]
    enter, leave, _ = kept_interval(shapes, beams, bodies, body)
    blocked = torch.maximum(enter, start_of_beam[bodies]) < leave.clamp_max(1)
    if shapes.cuts.shape[1]:
        body_of = torch.zeros_like(shapes.keeper).scatter(1, shapes.cuts[..., 0], shapes.cuts[..., 1])  # 0: no tool
        carved = body_of.flatten()[scene[ray] * shapes.slots + slot]
        cut = carved > 0
        near, far = meet(shapes, beams, ray[cut], (first + slot)[cut])
        start, end, _ = kept_interval(shapes, beams, ray[cut], carved[cut])
        # What the beam meets of the body lies inside one tool.
        start, end = torch.maximum(start, start_of_beam[ray[cut]]), end.clamp_max(1)
        passes = (near <= start) & (end <= far) & (near < far)
        through = torch.zeros(points.shape[1] * shapes.slots, dtype=torch.bool, device=ray.device)
        through[(ray[cut] * shapes.slots + carved[cut])[passes]] = True
        blocked = blocked & ~through[bodies * shapes.slots + body]
    visible = torch.ones(points.shape[1], dtype=torch.bool, device=ray.device)
    visible[bodies[blocked]] = False
    return visible


def beams_near_shapes(worlds: Worlds, beams: Rays, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs ray, slot (P,), (P,) of beams that pass through the ball around a solid or tool, seen from the lamp.

    Args:
        beams: as long as the way to the lamp.
        wanted: (Q,) bool: the others have no pairs.
    """
    shapes = worlds.shapes
    scenes, moments = len(worlds.half), shapes.views
    numbers = shapes.table.view(16, scenes, moments, shapes.slots)
    away = numbers[9:12] - worlds.light.position[:, 0].T[:, :, None, None]  # (3, B, V, M)
    radius = numbers[12:15].square().sum(0).sqrt()
    distance = away.square().sum(0).sqrt()
    limit = (1 - (radius / distance.clamp_min(1e-6)).square()).clamp_min(0).sqrt()  # cosine of the ball's half angle
    limit = torch.where(distance > radius, limit, -2.0)
    slot = torch.arange(shapes.slots, device=away.device)
    limit = limit.masked_fill((slot == 0) | (slot >= shapes.slots - shapes.reliefs), 2.0)  # enclosure and reliefs
    directions = -beams.direction / beams.direction.square().sum(0).sqrt().clamp_min(1e-6)
    per_moment = directions.view(3, scenes * moments, -1)
    towards = (away / distance.clamp_min(1e-6)).flatten(1, 2)  # (3, B V, M)
    cosine = torch.einsum("ibm,ibr->bmr", towards, per_moment)
    near = (cosine >= limit.flatten(0, 1)[..., None]) & wanted.view(scenes * moments, 1, -1)
    moment, slot, pixel = near.nonzero(as_tuple=True)
    return moment * per_moment.shape[-1] + pixel, slot


def openness(worlds: Worlds, rays: Rays, points: Tensor, nearest: Tensor) -> Tensor:
    """(Q,) factor on the ambient light: smaller near walls and near other solids (ambient occlusion).

    Args:
        points: (3, Q) that the rays met.
        nearest: (Q,) slots that they belong to; what is inside a hole is near the solid that has it.
    """
    shapes = worlds.shapes
    scene = shapes.scene(rays.first)
    unit = carried(shapes, rays.first, points)
    gap = (1 - unit.abs()) * worlds.half.T[:, scene]
    walls = ~worlds.sky.unflatten(1, (3, 2)).any(-1).T[:, scene]
    corner = torch.where(walls, (-gap.clamp_min(0) / CORNER).exp(), 0).sum(0)
    darkness = 0.35 * (corner - 1).clamp_min(0)
    ray, slot = points_near_shapes(worlds, points, 5 * CONTACT)
    other = slot != nearest[ray]
    ray, slot = ray[other], slot[other]
    column = rays.first[ray] + slot
    half = shapes.table[12:15, column]
    outside = ((carried(shapes, column, points[:, ray]).abs() - 1).clamp_min(0) * half).square().sum(0).sqrt()
    closest = torch.full_like(darkness, torch.inf).scatter_reduce(0, ray, outside, "amin")
    darkness = darkness + 0.55 * (-closest / CONTACT).exp()
    return 1 - worlds.light.occlusion[scene] * darkness.clamp_max(0.8)


def points_near_shapes(worlds: Worlds, points: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """Pairs ray, slot of points (3, Q) within `reach` of the ball around a body."""
    shapes = worlds.shapes
    scenes, moments = len(worlds.half), shapes.views
    numbers = shapes.table.view(16, scenes * moments, shapes.slots)
    centre, radius = numbers[9:12], numbers[12:15].square().sum(0).sqrt()
    per_moment = points.view(3, scenes * moments, -1)
    product = torch.einsum("ibm,ibr->bmr", centre, per_moment)
    square = centre.square().sum(0)[..., None] + per_moment.square().sum(0)[:, None] - 2 * product
    body = shapes.body[:, None].expand(-1, moments, -1).flatten(0, 1)
    moment, slot, pixel = ((square < (radius + reach).square()[..., None]) & body[..., None]).nonzero(as_tuple=True)
    return moment * per_moment.shape[-1] + pixel, slot
