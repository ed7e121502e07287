"""Carved and moving solids: first surfaces against a march in small steps; flow and tracks against the geometry."""

from __future__ import annotations

import math
from random import Random

import pytest
import torch
from torch import Tensor

from manyview.errors import InputError
from manyview.worlds import WorldBatch, WorldSettings, render_worlds
from manyview.worlds.builder import Builder, Place, shape
from manyview.worlds.description import Motion, Tool, about_z, apply
from manyview.worlds.materials import Material
from manyview.worlds.motion import flow, tracks
from manyview.worlds.objects import SMALL_THINGS, Thing, figure
from manyview.worlds.packing import Worlds
from manyview.worlds.pairs import carried
from manyview.worlds.rays import camera_sights, cast_rays, nearest_hit
from manyview.worlds.world import World, describe_world, pack_worlds

SIZE = (32, 40)
PLAIN = Material(colour=(0.5, 0.5, 0.5))


def world_with(build: Builder, seed: int = 0) -> World:
    """An empty room in which only these solids stand, seen by two cameras from about 1.2 metres."""
    from dataclasses import replace

    settings = WorldSettings(compositions=("tabletop",), spread=0.4, paths=("orbit",))
    world = describe_world(Random(seed), 2, SIZE, settings)
    layout = replace(world.layout, solids=tuple(build.solids), reliefs=tuple(build.reliefs))
    aimed = []
    for number, view in enumerate(world.viewpoints):
        angle = 0.9 * number + seed
        position = (1.2 * math.cos(angle), 1.2 * math.sin(angle), 0.6 + 0.3 * number)
        aimed.append(replace(view, position=position, aim=(0.0, 0.0, 0.2), focal=34.0))
    return replace(world, layout=layout, viewpoints=tuple(aimed))


def marched_depth(worlds: Worlds, first: Tensor, origin: Tensor, direction: Tensor, steps: int) -> Tensor:
    """t of the first step inside some solid (bodies less what is cut, within what is kept), infinite without one."""
    shapes = worlds.shapes
    found = torch.full_like(origin[0], torch.inf)
    rays, slots = len(first), shapes.slots
    columns = (first + torch.arange(slots)[:, None]).flatten()
    for t in torch.linspace(0.2, 3, steps):
        points = (origin + t * direction).repeat(1, slots)
        inside = holds(shapes, columns, points).view(slots, rays)
        solid = torch.zeros_like(inside[0])
        for body in shapes.body[0].nonzero()[:, 0].tolist():
            part = inside[body].clone()
            keeper = int(shapes.keeper[0, body])
            if keeper:
                part &= inside[keeper]
            for tool, carved in shapes.cuts[0].tolist():
                if carved == body and tool:
                    part &= ~inside[tool]
            solid |= part
        found = torch.where(solid & torch.isinf(found), t, found)
    return found


def holds(shapes, column: Tensor, points: Tensor) -> Tensor:
    """(Q,) bool: points (3, Q) inside the shapes in the columns."""
    unit = carried(shapes, column, points)
    kind = shapes.table[15, column]
    tube = torch.maximum(unit[:2].norm(dim=0), unit[2].abs())
    size = torch.where(kind == 0, unit.abs().amax(0), torch.where(kind == 1, unit.norm(dim=0), tube))
    return size < 1


@pytest.mark.parametrize("thing", [*dict.fromkeys(SMALL_THINGS), figure], ids=lambda thing: thing.__name__)
def test_carved_things_are_seen_where_a_march_in_small_steps_finds_them(thing: Thing) -> None:
    build = Builder(Random(3), 0.0)
    thing(build, Place(0.0, 0.0, 0.0, 0.4), 0.25)
    worlds = pack_worlds([world_with(build)])
    rays = cast_rays(worlds, SIZE, (0.0, 0.0))
    depth, nearest = nearest_hit(worlds, rays, camera_sights(worlds, SIZE))
    on_solid = nearest > 0
    expected = marched_depth(worlds, rays.first, rays.origin, rays.direction, 800)
    hit = torch.isfinite(expected) & (expected > 0)
    assert on_solid.float().mean() > 0.01
    assert (hit == on_solid).float().mean() > 0.99, "but for rays that graze an edge"
    both = hit & on_solid
    assert ((expected - depth)[both].abs() < 2 * 3 / 800).float().mean() > 0.98


def test_a_window_cut_into_a_wall_shows_its_back_and_what_is_behind() -> None:
    build = Builder(Random(0), 0.0)
    place = Place(0.0, 0.0, 0.0, math.pi / 2)
    through = Tool(shape("box", place, (0, 0, 0.5), (0.1, 1.0, 0.2)))
    niche = Tool(shape("box", place, (0.4, -0.1, 0.5), (0.1, 0.06, 0.2)))
    build.add("box", place, (0, 0, 0.5), (0.8, 0.1, 0.5), PLAIN, tools=(through, niche))
    world = world_with(build)
    worlds = pack_worlds([world])
    rays = cast_rays(worlds, SIZE, (0.0, 0.0))
    _, nearest = nearest_hit(worlds, rays, camera_sights(worlds, SIZE))
    tools = set(worlds.shapes.cuts[0, :, 0].tolist())
    assert set(nearest.unique().tolist()) >= {0, 1} | tools, "background, wall, and the inside of both holes"


# ------------------------------------------------------------------ motion
@pytest.fixture(scope="module")
def moving() -> WorldBatch:
    return render_worlds(range(12), 3, (64, 80), WorldSettings(moving=(2, 4), compositions=("clutter", "pile")))


def test_a_motion_carries_shapes_rigidly_and_at_constant_speed() -> None:
    motion = Motion((0.4, -0.2, 0.1), 1.2, (0.5, 0.5, 0.0))
    start = shape("box", Place(0.6, 0.4), (0, 0, 0.2), (0.1, 0.2, 0.3))
    assert motion.place(start, 0.0) == start
    half, whole = motion.place(start, 0.5), motion.place(start, 1.0)
    pivot = Motion((0.4, -0.2, 0.1), 1.2, start.centre)
    assert pivot.place(start, 0.5).centre == pytest.approx((0.8, 0.3, 0.25))
    corner = apply(about_z(1.2), (0.1, -0.1, 0.2))
    expected = (0.5 + 0.4 + corner[0], 0.5 - 0.2 + corner[1], 0.1 + corner[2])
    assert whole.centre == pytest.approx(expected)
    assert half.half == whole.half == start.half


def test_moving_pixels_are_those_of_objects_that_move(moving: WorldBatch) -> None:
    assert 0.002 < moving.moving.float().mean() < 0.5
    still = render_worlds(range(3), 3, (32, 40))
    assert not still.moving.any()
    assert (moving.object_ids[moving.moving] >= 6).all()


def test_flow_leads_to_the_same_surface_at_the_same_depth(moving: WorldBatch) -> None:
    """Seen from the target view: where flow says a pixel is visible, the target shows the same object there."""
    for source, target in ((0, 1), (2, 0)):
        found = flow(moving, source, target)
        assert found.visible.float().mean() > 0.25
        scene, row, column = found.visible.nonzero(as_tuple=True)
        there = found.displacement[scene, row, column] + torch.stack([column, row], dim=-1)
        x, y = there.round().long().unbind(-1)
        same = moving.object_ids[scene, target, y, x] == moving.object_ids[scene, source, row, column]
        assert same.float().mean() > 0.96
        moved = moving.moving[scene, source, row, column]
        assert moved.sum() > 100
        assert same[moved].float().mean() > 0.85, "moving things are small: many of their pixels are at edges"
        texture = (moving.images[scene, target, :, y, x] - moving.images[scene, source, :, row, column]).abs().mean(-1)
        assert texture.median() < 0.06


def test_flow_of_moving_things_is_not_that_of_the_cameras_alone(moving: WorldBatch) -> None:
    still = WorldBatch(
        **{
            **{name: getattr(moving, name) for name in WorldBatch.__dataclass_fields__},
            "world_from_start": torch.eye(4).expand_as(moving.world_from_start),
        }
    )
    real, fixed = flow(moving, 0, 2), flow(still, 0, 2)
    difference = (real.displacement - fixed.displacement).norm(dim=-1)
    shown = moving.moving[:, 0] & real.valid & fixed.valid
    assert difference[shown].median() > 0.5
    assert difference[~moving.moving[:, 0] & real.valid].max() < 1e-3


def test_flow_there_and_back_returns_to_the_pixel(moving: WorldBatch) -> None:
    there = flow(moving, 0, 1)
    scene, row, column = there.visible.nonzero(as_tuple=True)
    place = there.displacement[scene, row, column] + torch.stack([column, row], dim=-1)
    x, y = place.round().long().unbind(-1)
    back = flow(moving, 1, 0).displacement[scene, y, x]
    home = torch.stack([x, y], dim=-1) + back
    assert ((home - torch.stack([column, row], dim=-1)).norm(dim=-1) < 2.0).float().mean() > 0.95


def test_tracks_start_at_their_pixels_and_agree_with_flow(moving: WorldBatch) -> None:
    flat = [mask.nonzero()[:40].flip(-1) for mask in moving.valid[:, 1]]
    pixels = torch.stack([rows if len(rows) == 40 else rows.expand(40, 2) for rows in flat])
    found = tracks(moving, 1, pixels)
    assert found.positions.shape == (12, 3, 40, 2)
    torch.testing.assert_close(found.positions[:, 1], pixels.float(), atol=2e-2, rtol=0)
    assert found.visible[:, 1].float().mean() > 0.98
    led = flow(moving, 1, 2).displacement
    scene = torch.arange(12)[:, None]
    expected = led[scene, pixels[..., 1], pixels[..., 0]] + pixels
    inside = found.visible[:, 2]
    torch.testing.assert_close(found.positions[:, 2][inside], expected[inside], atol=1e-3, rtol=0)


def test_a_point_on_a_still_surface_stays_where_it_is(moving: WorldBatch) -> None:
    scene = next(s for s in range(12) if (moving.valid & ~moving.moving)[s, 0].any())
    row, column = (moving.valid & ~moving.moving)[scene, 0].nonzero()[0]
    one = WorldBatch(**{name: getattr(moving, name)[scene : scene + 1] for name in WorldBatch.__dataclass_fields__})
    points = tracks(one, 0, torch.stack([column, row])[None, None]).points[0, :, 0]
    torch.testing.assert_close(points[1], points[0])


def test_tracks_from_the_sky_or_outside_the_picture_are_refused(moving: WorldBatch) -> None:
    with pytest.raises(InputError, match="within 80 x 64"):
        tracks(moving, 0, torch.tensor([[[80, 0]]]).expand(12, 1, 2))
    sky = render_worlds(range(30), 1, (24, 32), WorldSettings(compositions=("pile",)))
    scene, row, column = (~sky.valid[:, 0]).nonzero()[0]
    one = WorldBatch(**{name: getattr(sky, name)[scene : scene + 1] for name in WorldBatch.__dataclass_fields__})
    with pytest.raises(InputError, match="sky"):
        tracks(one, 0, torch.stack([column, row])[None, None])
    with pytest.raises(InputError, match="no view 7"):
        flow(moving, 0, 7)
