"""Short cuts of tracing against brute force: batches, bands, pairs of rays and shapes; lamps, dark corners, edges."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
import torch
from torch import Tensor

from manyview.errors import InputError
from manyview.worlds import WorldBatch, WorldSettings, render, render_mixed_worlds, render_worlds
from manyview.worlds import rays as rays_module
from manyview.worlds.builder import Builder, Place, one_thing
from manyview.worlds.cameras import clear_of
from manyview.worlds.compositions import compose
from manyview.worlds.furniture import FURNITURE
from manyview.worlds.materials import Material
from manyview.worlds.packing import Worlds
from manyview.worlds.pairs import Rays
from manyview.worlds.rays import Sights, camera_sights, cast_rays, lamp_visible, nearest_hit, openness
from manyview.worlds.settings import COMPOSITIONS, Composition
from manyview.worlds.world import describe_world, out_of_the_way, pack_worlds

SIZE = (20, 26)
STILL = WorldSettings(shadows=1.0, occlusion=1.0)
MOVING = replace(STILL, moving=(0, 3))
PLAIN = Material(colour=(0.5, 0.5, 0.5))
everything = pytest.mark.parametrize("settings", [STILL, MOVING], ids=["still", "moving"])


def mixed_batch(settings: WorldSettings, views: int = 2) -> Worlds:
    """A scene of each composition, which have different numbers of solids, tools and reliefs."""
    return pack_worlds(
        [
            describe_world(Random(f"mixed/{shown}"), views, SIZE, replace(settings, compositions=(shown,)))
            for shown in COMPOSITIONS
        ]
    )


def expect_same_scenes(found: WorldBatch, expected: WorldBatch) -> None:
    """The same but for rounding, which decides few pixels at edges."""
    same = found.object_ids == expected.object_ids
    assert same.float().mean() > 0.999
    near = (found.depth - expected.depth).abs() <= 1e-4 * expected.depth
    assert near[same].float().mean() > 0.999, "coordinates on one surface may still jump at its own edges"
    assert ((found.images - expected.images).abs().amax(2) < 0.02).float().mean() > 0.995
    assert torch.equal(found.K, expected.K)
    assert torch.equal(found.world_from_camera, expected.world_from_camera)


@everything
def test_a_batch_traced_at_once_shows_each_scene_as_if_it_were_alone(
    settings: WorldSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = range(16)
    alone = render.joined([render_worlds([seed], 2, SIZE, settings) for seed in seeds])
    monkeypatch.setattr(render, "RAYS_AT_ONCE", 10**9)
    monkeypatch.setattr(render, "LARGEST_BAND", 10**9)
    together = render_worlds(seeds, 2, SIZE, settings)
    expect_same_scenes(together, alone)
    torch.testing.assert_close(together.world_from_start, alone.world_from_start)
    assert (together.moving == alone.moving).float().mean() > 0.999
    assert alone.moving.any() == bool(settings.moving[1])


@everything
def test_pictures_traced_in_bands_are_whole_pictures(settings: WorldSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(settings, samples=2, off_centre=0.1)
    whole = render_worlds(range(8), 2, SIZE, settings)
    monkeypatch.setattr(render, "LARGEST_BAND", 3 * 2 * SIZE[1] + 1)  # three rows of two views; 20 is no multiple
    monkeypatch.setattr(render, "RAYS_AT_ONCE", 1)
    expect_same_scenes(render_worlds(range(8), 2, SIZE, settings), whole)


def all_sights(worlds: Worlds, rays: Rays) -> Sights:
    """All pairs: each ray with each body and with each tool that cuts."""
    shapes = worlds.shapes
    scene = rays.first // (shapes.slots * shapes.views)
    ray, slot = shapes.body[scene].nonzero(as_tuple=True)
    cuts = shapes.cuts[scene]
    cut_ray, row = (cuts[..., 0] > 0).nonzero(as_tuple=True)
    return Sights((ray, slot), (cut_ray, cuts[cut_ray, row, 0], cuts[cut_ray, row, 1]))


@everything
@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.49, -0.49)])
def test_rectangles_hold_every_pixel_where_a_shape_is_seen(
    settings: WorldSettings, offset: tuple[float, float]
) -> None:
    worlds = mixed_batch(settings)
    rays = cast_rays(worlds, SIZE, offset)
    depth, nearest = nearest_hit(worlds, rays, camera_sights(worlds, SIZE))
    expected_depth, expected = nearest_hit(worlds, rays, all_sights(worlds, rays))
    assert (expected > 0).float().mean() > 0.2
    assert torch.equal(nearest, expected)
    assert torch.equal(depth, expected_depth)


def all_beams(worlds: Worlds, beams: Rays, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """All pairs, in place of `beams_near_shapes`."""
    slots = torch.arange(1, worlds.shapes.slots - worlds.shapes.reliefs)
    ray = wanted.nonzero()[:, 0]
    return ray.repeat(len(slots)), slots.repeat_interleave(len(ray))


@everything
def test_no_shadow_is_lost_by_looking_at_near_shapes_only(
    settings: WorldSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    worlds = mixed_batch(settings)
    rays, points, _ = surfaces_of(worlds)
    wanted = torch.rand(points.shape[1], generator=torch.Generator().manual_seed(0)) < 0.7
    visible = lamp_visible(worlds, rays, points, wanted)
    monkeypatch.setattr(rays_module, "beams_near_shapes", all_beams)
    expected = lamp_visible(worlds, rays, points, wanted)
    assert 0.1 < (~expected).float().mean() < 0.6
    assert (visible == expected).float().mean() > 0.9999
    assert visible[~wanted].all()


def all_near(worlds: Worlds, points: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """All pairs, in place of `points_near_shapes`."""
    shapes = worlds.shapes
    scene = torch.arange(points.shape[1]) // (points.shape[1] // len(worlds.half))
    ray, slot = shapes.body[scene].nonzero(as_tuple=True)
    return ray, slot


@everything
def test_dark_corners_are_those_of_all_shapes(settings: WorldSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds = mixed_batch(settings)
    rays, points, nearest = surfaces_of(worlds)
    found = openness(worlds, rays, points, nearest)
    monkeypatch.setattr(rays_module, "points_near_shapes", all_near)
    expected = openness(worlds, rays, points, nearest)
    assert (expected < 0.9).float().mean() > 0.1
    # What is farther than the reach would still take exp(-5) of 0.55 away.
    torch.testing.assert_close(found, expected, atol=0.005, rtol=0)


def surfaces_of(worlds: Worlds) -> tuple[Rays, Tensor, Tensor]:
    """The cameras' rays, the points (3, Q) that they meet, and the slots (Q,) of these."""
    rays = cast_rays(worlds, SIZE, (0.0, 0.0))
    depth, nearest = nearest_hit(worlds, rays, camera_sights(worlds, SIZE))
    return rays, rays.origin + depth * rays.direction, nearest


def test_the_foot_of_a_thin_board_is_dark_however_far_the_lamp_is() -> None:
    world = describe_world(Random(0), 1, SIZE, replace(STILL, compositions=("pile",)))
    build = Builder(Random(0), 0.0)
    build.box(Place(0.0, 0.0), (0, 0, 0.5), (0.005, 0.5, 0.5), PLAIN)
    lighting = replace(world.lighting, positions=((60.0, 0.0, 20.0), (0.0, 0.0, 60.0)))
    worlds = pack_worlds([replace(world, layout=replace(world.layout, solids=tuple(build.solids)), lighting=lighting)])
    behind = torch.tensor([[-0.02, 0.0, 0.0], [-0.3, 0.0, 0.0], [0.02, 0.0, 0.0], [-0.02, 0.6, 0.0]]).T
    first = torch.zeros(4, dtype=torch.int64)
    rays = Rays(origin=behind, direction=behind, first=first)
    assert lamp_visible(worlds, rays, behind, first == 0).tolist() == [False, False, True, True]


def test_surfaces_that_coincide_are_seen_as_the_last_of_them() -> None:
    world = describe_world(Random(0), 2, SIZE, replace(STILL, compositions=("tabletop",)))
    build = Builder(Random(0), 0.0)
    for _ in range(5):
        build.box(Place(0.0, 0.0), (0, 0, 0.5), (0.4, 0.4, 0.3), PLAIN)
    worlds = pack_worlds([replace(world, layout=replace(world.layout, solids=tuple(build.solids)))])
    _, _, nearest = surfaces_of(worlds)
    assert nearest.unique().tolist() == [0, 5]


def test_more_rays_a_pixel_smooth_the_edges() -> None:
    """At the edges of objects 4 rays a pixel are nearer to the mean of 24 than one ray is; depth stays the same."""
    plain = WorldSettings(noise=0.0, blur=0.0, jpeg=0.0, texture=0.0)
    one, four, many = (render_worlds(range(8), 2, SIZE, replace(plain, samples=count)) for count in (1, 4, 24))
    assert torch.equal(one.depth, four.depth)
    assert torch.equal(one.object_ids, four.object_ids)
    ids = one.object_ids
    edge = torch.zeros_like(ids, dtype=torch.bool)
    edge[..., :, 1:] |= ids.diff(dim=-1) != 0
    edge[..., 1:, :] |= ids.diff(dim=-2) != 0
    error = [(batch.images - many.images).abs().mean(2)[edge].mean() for batch in (one, four)]
    assert error[1] < 0.6 * error[0]


@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_no_camera_is_in_a_relief_or_above_the_ceiling(spread: float) -> None:
    for shown in ("terrain", "facade", "corridor", "clutter"):
        settings = WorldSettings(compositions=(shown,), spread=spread)
        for seed in range(60):
            world = describe_world(Random(seed), 4, SIZE, settings)
            for camera in world.viewpoints:
                assert 0 < camera.position[2] < 2 * world.layout.half[2]
                assert all(clear_of(relief.shape, camera.position, 0.0) for relief in world.layout.reliefs)


def test_a_thing_with_a_part_in_the_way_is_left_out_as_a_whole() -> None:
    @one_thing
    def pair(build: Builder, place: Place) -> None:
        build.box(place, (0, 0, 0.5), (0.1, 0.1, 0.5), PLAIN)
        build.box(place, (0, 0, 1.5), (0.1, 0.1, 0.5), PLAIN)

    @one_thing
    def pairs(build: Builder, place: Place) -> None:
        pair(build, place)
        pair(build, place.there((2, 0, 0)))

    world = describe_world(Random(0), 1, SIZE, STILL)
    build = Builder(Random(0))
    pair(build, Place(-2.0, 0.0))
    pairs(build, Place(0.0, 0.0))
    build.box(Place(4.0, 0.0), (0, 0, 0.5), (0.1, 0.1, 0.5), PLAIN)
    assert [solid.thing for solid in build.solids] == [1, 1, 2, 2, 2, 2, 3]
    layout = replace(world.layout, solids=tuple(build.solids))
    camera = replace(world.viewpoints[0], position=(2.0, 0.0, 1.5))
    assert {solid.thing for solid in out_of_the_way(layout, [camera])} == {1, 3}


@pytest.mark.parametrize("shown", ["room", "corridor", "tabletop", "street"])
def test_what_is_left_out_leaves_nothing_in_the_air(shown: Composition) -> None:
    """Of the things that are left none has lost a part."""
    settings = WorldSettings(compositions=(shown,))
    for seed in range(30):
        full = compose(Random(seed), settings)
        kept = describe_world(Random(seed), 3, SIZE, settings).layout
        parts = {thing: sum(solid.thing == thing for solid in full.solids) for thing in {s.thing for s in kept.solids}}
        assert all(sum(s.thing == thing for s in kept.solids) == count for thing, count in parts.items())


@pytest.mark.parametrize("make", [*dict.fromkeys(FURNITURE)], ids=lambda make: make.__name__)
def test_furniture_stands_on_the_floor_and_is_one_thing(make) -> None:
    for seed in range(5):
        build = Builder(Random(seed))
        make(build, Place(0.0, 0.0))
        lowest = min(solid.shape.centre[2] - solid.shape.half[2] for solid in build.solids)
        assert lowest == pytest.approx(0.0, abs=0.03)
        assert {solid.thing for solid in build.solids} == {1}


def test_moving_things_are_the_same_in_pictures_of_mixed_sizes() -> None:
    settings = WorldSettings(moving=(2, 2), compositions=("clutter", "pile"))
    mixed = render_mixed_worlds(range(4), [SIZE, SIZE, SIZE], settings)
    together = render_worlds(range(4), 3, SIZE, settings)
    for view, batch in enumerate(mixed):
        torch.testing.assert_close(batch.world_from_start[:, 0], together.world_from_start[:, view])
        assert (batch.object_ids[:, 0] == together.object_ids[:, view]).float().mean() > 0.999
    assert together.moving.any()


@pytest.mark.parametrize(
    ("seeds", "sizes"), [([], [SIZE]), ([0], []), ([0], [SIZE, (1, 9)]), ([-1], [SIZE]), ([2**63], [SIZE])]
)
def test_impossible_requests_of_mixed_sizes_are_refused(seeds: list[int], sizes: list[tuple[int, int]]) -> None:
    with pytest.raises(InputError, match=r"seed|size"):
        render_mixed_worlds(seeds, sizes)
