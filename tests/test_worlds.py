"""Procedural worlds: pictures, depth, points and cameras agree exactly, and each scene is its seed's alone."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch
from torch import Tensor

from manyview.errors import InputError
from manyview.geometry.cameras import Camera, pixel_grid
from manyview.worlds import WorldBatch, WorldSettings, overlap, render_mixed_worlds, render_worlds
from manyview.worlds.cameras import clear_of
from manyview.worlds.description import FACES
from manyview.worlds.motion import flow
from manyview.worlds.pairs import carried
from manyview.worlds.rays import camera_sights, cast_rays, lamp_visible, nearest_hit
from manyview.worlds.settings import CAMERA_PATHS, COMPOSITIONS, OUTDOORS, CameraPath, Composition
from manyview.worlds.world import describe_world, pack_worlds

SIZE = (48, 60)
FIELDS = tuple(WorldBatch.__dataclass_fields__)


@pytest.fixture(scope="module")
def batch() -> WorldBatch:
    return render_worlds(range(6), 3, SIZE)


def test_a_batch_has_the_promised_shapes_and_types(batch: WorldBatch) -> None:
    shapes = {name: tuple(getattr(batch, name).shape) for name in FIELDS}
    assert shapes == {
        "images": (6, 3, 3, *SIZE),
        "depth": (6, 3, *SIZE),
        "points": (6, 3, *SIZE, 3),
        "valid": (6, 3, *SIZE),
        "K": (6, 3, 3, 3),
        "world_from_camera": (6, 3, 4, 4),
        "object_ids": (6, 3, *SIZE),
        "world_from_start": (6, 3, batch.world_from_start.shape[2], 4, 4),
    }
    others = {"valid": torch.bool, "object_ids": torch.int32}
    assert all(getattr(batch, name).dtype == others.get(name, torch.float32) for name in FIELDS)


def test_a_seed_gives_the_same_scene_again_and_in_any_company(batch: WorldBatch) -> None:
    alone = render_worlds([4], 3, SIZE)
    company = render_worlds([11, 4, 0], 3, SIZE)
    for name in FIELDS[:-1]:
        torch.testing.assert_close(getattr(alone, name)[0], getattr(batch, name)[4], rtol=0, atol=0)
        torch.testing.assert_close(getattr(company, name)[1], getattr(batch, name)[4], rtol=0, atol=0)


def test_different_seeds_give_different_scenes(batch: WorldBatch) -> None:
    differences = [(batch.images[0] - batch.images[other]).abs().mean() for other in range(1, 6)]
    assert min(differences) > 0.05


def test_points_are_the_unprojected_depth(batch: WorldBatch) -> None:
    for scene, view in ((0, 0), (3, 2), (5, 1)):
        camera = Camera(
            K=batch.K[scene, view].double().numpy(),
            world_from_camera=batch.world_from_camera[scene, view].double().numpy(),
            width=SIZE[1],
            height=SIZE[0],
        )
        expected = camera.unproject(pixel_grid(*SIZE), batch.depth[scene, view].double().numpy())
        valid = batch.valid[scene, view].numpy()
        np.testing.assert_allclose(batch.points[scene, view].numpy()[valid], expected[valid], atol=2e-5)


def test_the_sky_and_nothing_else_is_invalid() -> None:
    batch = render_worlds(range(6), 2, SIZE, WorldSettings(compositions=OUTDOORS))
    assert torch.equal(batch.valid, batch.object_ids >= 0)
    assert 0.02 < (~batch.valid).float().mean() < 0.7
    assert (batch.depth[batch.valid] > 0).all()
    assert not batch.depth[~batch.valid].any()
    assert not batch.points[~batch.valid].any()


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_every_composition_shows_a_scene_with_depth(composition: Composition) -> None:
    shown = render_worlds(range(5), 2, SIZE, WorldSettings(compositions=(composition,)))
    assert shown.valid.float().mean() > 0.4
    assert torch.isfinite(shown.images).all()
    assert torch.isfinite(shown.points).all()
    spread_of_depth = [
        float(d[v].std() / d[v].mean()) for d, v in zip(shown.depth, shown.valid, strict=True) if v.any()
    ]
    assert max(spread_of_depth) > 0.1, "not all pictures show one flat wall"


@pytest.mark.parametrize("path", CAMERA_PATHS)
def test_every_path_moves_the_cameras_farther_with_more_spread(path: CameraPath) -> None:
    def travel(spread: float) -> float:
        centres = render_worlds(range(8), 4, (8, 8), WorldSettings(paths=(path,), spread=spread)).world_from_camera
        return float(centres[..., :3, 3].std(dim=1).norm(dim=-1).median())

    assert travel(0.0) < 1e-5
    assert 0 < travel(0.3) < travel(1.2)


def test_rooms_have_no_sky() -> None:
    assert render_worlds(range(4), 2, SIZE, WorldSettings(compositions=("room", "clutter"))).valid.all()


def inverse_depth_of_plane(batch: WorldBatch, pixels: Tensor, surface: Tensor) -> tuple[Tensor, Tensor]:
    """1 / z, which is linear in the pixel on a plane, between the 4 neighbours; and whether all 4 show `surface`."""
    height, width = SIZE
    corner = pixels[..., :2].floor().long()
    x = corner[..., 0].clamp(0, width - 2)
    y = corner[..., 1].clamp(0, height - 2)
    across, down = pixels[..., 0] - x, pixels[..., 1] - y
    views = batch.depth.shape[1]
    inverse = (1 / batch.depth).flatten(2)[:, None].expand(-1, views, -1, -1)
    ids = batch.object_ids.flatten(2)[:, None].expand(-1, views, -1, -1)
    total, same = torch.zeros_like(across), torch.ones_like(across, dtype=torch.bool)
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        index = (y + dy) * width + x + dx
        weight = (across if dx else 1 - across) * (down if dy else 1 - down)
        total += weight * inverse.gather(3, index)
        same &= ids.gather(3, index) == surface
    return total, same


def reproject(batch: WorldBatch) -> tuple[Tensor, Tensor]:
    """(B, N, N, R, 3) x, y and z-depth in view j of view i's pixels, and whether they are inside its picture."""
    views, (height, width) = batch.depth.shape[1], SIZE
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pairs = [[flow(batch, i, j) for j in range(views)] for i in range(views)]
    places = torch.stack([torch.stack([f.displacement + torch.stack([x, y], -1) for f in row]) for row in pairs])
    depth = torch.stack([torch.stack([f.depth for f in row]) for row in pairs])
    valid = torch.stack([torch.stack([f.valid for f in row]) for row in pairs])
    limit = torch.tensor([width - 0.5, height - 0.5])
    inside = valid & ((places > -0.5) & (places < limit)).all(-1)
    found = torch.cat([places, depth[..., None]], dim=-1)
    return found.movedim(2, 0).flatten(3, 4), inside.movedim(2, 0).flatten(3)


def test_walls_and_floor_reproject_exactly_into_the_other_views(batch: WorldBatch) -> None:
    pixels, inside = reproject(batch)
    surface = batch.object_ids.flatten(2)[:, :, None].expand(inside.shape)
    inverse, same = inverse_depth_of_plane(batch, pixels, surface)
    planar = inside & same & (surface >= 0) & (surface < FACES)
    error = (inverse * pixels[..., 2] - 1).abs()[planar]
    assert planar.float().mean() > 0.25
    assert error.max() < 1e-3


def test_intrinsics_put_the_principal_point_in_the_middle_and_keep_the_field_of_view() -> None:
    settings = WorldSettings(field_of_view=(50.0, 60.0), focal_jitter=0.0, paths=("orbit",))
    intrinsics = render_worlds(range(8), 2, SIZE, settings).K
    assert torch.equal(intrinsics[..., :2, 2], torch.tensor([29.5, 23.5]).expand(8, 2, 2))
    angles = 2 * torch.atan(SIZE[1] / 2 / intrinsics[..., 0, 0]).rad2deg()
    assert angles.min() >= 49.9
    assert angles.max() <= 60.1
    assert torch.equal(intrinsics[..., 0, 0], intrinsics[..., 1, 1])


def test_crops_move_the_principal_point_and_photographs_differ_in_zoom() -> None:
    intrinsics = render_worlds(range(8), 3, SIZE, WorldSettings(off_centre=0.2, paths=("photographs",))).K
    aside = (intrinsics[..., :2, 2] - torch.tensor([29.5, 23.5])) / torch.tensor([60.0, 48.0])
    assert 0.1 < aside.abs().max() <= 0.2
    zoom = intrinsics[..., 0, 0].amax(1) / intrinsics[..., 0, 0].amin(1)
    assert zoom.max() > 1.1


def test_cameras_are_rigid_and_upright(batch: WorldBatch) -> None:
    rotation = batch.world_from_camera[..., :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand_as(rotation), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(6, 3), atol=1e-5, rtol=0)
    assert (rotation[..., 2, 1] < -0.3).all(), "the camera's y axis points down, the world's z axis up"


def test_pictures_show_something(batch: WorldBatch) -> None:
    assert batch.images.min() >= 0
    assert batch.images.max() <= 1
    assert (batch.images.std(dim=(-2, -1)).mean(-1) > 0.02).float().mean() > 0.9, "few pictures are a flat colour"
    assert 0.2 < batch.images.mean() < 0.8
    assert ((batch.images <= 0) | (batch.images >= 1)).float().mean() < 0.05, "few pixels are burnt out"


def test_textures_are_antialiased() -> None:
    """Inside surfaces one ray a pixel shows what 16 rays average to, because textures are filtered."""
    plain = WorldSettings(noise=0.0, shadows=0.0, jpeg=0.0, occlusion=0.0)
    one = render_worlds(range(4), 2, SIZE, plain)
    many = render_worlds(range(4), 2, SIZE, replace(plain, samples=16))
    assert torch.equal(one.depth, many.depth)
    ids = one.object_ids
    same = (ids[..., 1:-1, 1:-1] == ids[..., :-2, 1:-1]) & (ids[..., 1:-1, 1:-1] == ids[..., 1:-1, 2:])
    same &= (ids[..., 1:-1, 1:-1] == ids[..., 2:, 1:-1]) & (ids[..., 1:-1, 1:-1] == ids[..., 1:-1, :-2])
    difference = (one.images - many.images).abs().mean(2)[..., 1:-1, 1:-1][same]
    assert difference.mean() < 0.02
    assert difference.quantile(0.99) < 0.12


PERFECT = WorldSettings(noise=0.0, exposure=0.0, blur=0.0, jpeg=0.0, shadows=0.0, occlusion=0.0)


@pytest.mark.parametrize("dark", [{"shadows": 1.0}, {"occlusion": 1.0}])
def test_shadows_and_occlusion_darken_some_pixels_and_brighten_none(dark: dict) -> None:
    lit = render_worlds(range(8), 2, SIZE, PERFECT)
    darker = render_worlds(range(8), 2, SIZE, replace(PERFECT, **dark))
    same = [index for index in range(8) if torch.equal(lit.depth[index], darker.depth[index])]
    assert len(same) >= 6, "chance for the light is drawn after that for the geometry"
    before, after = lit.images[same].mean(2), darker.images[same].mean(2)
    assert (after > before + 1e-3).float().mean() < 0.01
    assert 0.01 < (after < before - 0.02).float().mean() < 0.7


def test_shadows_agree_with_a_ray_traced_one_by_one() -> None:
    """A box over a floor: what the lamp sees, by the projection of the box's corners onto the floor."""
    settings = replace(PERFECT, compositions=("clutter",), solids=(1, 1), texture=0.0)
    worlds = pack_worlds([describe_world(Random("a box and a lamp"), 1, SIZE, settings)])
    rays = cast_rays(worlds, SIZE, (0.0, 0.0))
    depth, nearest = nearest_hit(worlds, rays, camera_sights(worlds, SIZE))
    points = rays.origin + depth * rays.direction
    visible = lamp_visible(worlds, rays, points, torch.ones_like(nearest, dtype=torch.bool))
    lamp = worlds.light.position[0, 0]
    marched = torch.ones_like(visible)
    for step in torch.linspace(0.002, 0.999, 1500):
        between = points + step * (lamp[:, None] - points)
        for slot in worlds.shapes.body[0].nonzero()[:, 0]:
            unit = carried(worlds.shapes, rays.first + slot, between)
            kind = float(worlds.shapes.table[15, slot])
            size = {0.0: unit.abs().amax(0), 1.0: unit.norm(dim=0)}.get(
                kind, torch.maximum(unit[:2].norm(dim=0), unit[2].abs())
            )
            marched &= size > 0.998
    assert (marched == visible).float().mean() > 0.985


def test_noise_and_texture_can_be_switched_off() -> None:
    clean = render_worlds(range(3), 1, SIZE, PERFECT)
    noisy = render_worlds(range(3), 1, SIZE, replace(PERFECT, noise=0.05))
    plain = render_worlds(range(3), 1, SIZE, replace(PERFECT, texture=0.0))
    assert torch.equal(clean.depth, noisy.depth)
    assert 0 < (clean.images - noisy.images).abs().mean() < 0.05
    neighbours = lambda batch: batch.images.diff(dim=-1).abs().median()  # noqa: E731
    assert neighbours(plain) < 0.5 * neighbours(clean)


def pair_overlaps(settings: WorldSettings) -> Tensor:
    fractions = overlap(render_worlds(range(20), 4, (32, 40), settings))
    return fractions[:, ~torch.eye(4, dtype=torch.bool)]


def test_typical_pairs_overlap_by_30_to_90_percent() -> None:
    fractions = pair_overlaps(WorldSettings())
    assert fractions.quantile(0.25) > 0.3
    assert fractions.quantile(0.75) < 0.95


def test_views_that_turn_away_share_nothing_with_the_first() -> None:
    turned = overlap(render_worlds(range(12), 3, (32, 40), WorldSettings(turned_away=1.0, paths=("orbit",))))
    usual = overlap(render_worlds(range(12), 3, (32, 40), WorldSettings(paths=("orbit",))))
    assert turned[:, 0, 1:].mean() < 0.05
    assert usual[:, 0, 1:].mean() > 0.4


def test_a_larger_spread_leaves_less_overlap() -> None:
    means = [pair_overlaps(WorldSettings(spread=spread)).mean() for spread in (0.1, 0.5, 1.0, 2.0)]
    assert means == sorted(means, reverse=True)
    assert means[0] > 0.8
    assert means[3] < means[0] - 0.25


def test_overlap_follows_things_that_move() -> None:
    """A large moving object hides nothing of itself: it counts as seen where it has gone."""
    batch = render_worlds(range(6), 2, SIZE, WorldSettings(moving=(4, 4), spread=0.0, compositions=("clutter",)))
    still = replace(batch, world_from_start=torch.eye(4).expand_as(batch.world_from_start))
    assert batch.moving.any()
    assert overlap(batch)[:, 0, 1].sum() > overlap(still)[:, 0, 1].sum()


def test_overlap_of_a_view_with_itself_is_complete(batch: WorldBatch) -> None:
    fractions = overlap(batch)
    assert fractions.shape == (6, 3, 3)
    torch.testing.assert_close(fractions.diagonal(dim1=1, dim2=2), torch.ones(6, 3))
    assert ((fractions >= 0) & (fractions <= 1)).all()


@pytest.mark.parametrize("spread", [0.3, 2.0])
def test_no_camera_is_inside_a_solid_or_outside_the_enclosure(spread: float) -> None:
    settings = WorldSettings(spread=spread, moving=(0, 2))
    for seed in range(60):
        world = describe_world(Random(seed), 6, SIZE, settings)
        width, depth, high = world.layout.half
        for time, camera in zip(world.times, world.viewpoints, strict=True):
            x, y, z = camera.position
            assert abs(x) < width
            assert abs(y) < depth
            assert 0 < z < 2 * high
            for solid in world.layout.solids:
                shape = solid.motion.place(solid.shape, time) if solid.motion else solid.shape
                assert clear_of(shape, camera.position, 0.0), "the box around the solid holds no camera"


def test_a_scene_may_be_empty_or_crowded() -> None:
    for composition in ("clutter", "pile"):
        empty = render_worlds([1], 2, SIZE, WorldSettings(compositions=(composition,), solids=(0, 0)))
        crowded = render_worlds([1], 2, SIZE, WorldSettings(compositions=(composition,), solids=(40, 40)))
        assert len(crowded.object_ids.unique()) > len(empty.object_ids.unique()) + 5


def test_mixed_sizes_show_the_same_scene() -> None:
    sizes = [(48, 64), (64, 48), (40, 40)]
    mixed = render_mixed_worlds([3, 4], sizes, PERFECT)
    assert [tuple(view.images.shape) for view in mixed] == [(2, 1, 3, *size) for size in sizes]
    together = render_worlds([3, 4], 3, (48, 64), PERFECT)
    torch.testing.assert_close(mixed[0].depth[:, 0], together.depth[:, 0])
    for view, batch in enumerate(mixed):
        torch.testing.assert_close(batch.world_from_camera[:, 0], together.world_from_camera[:, view])
        height, width = sizes[view]
        assert batch.K[0, 0, 0, 2] == pytest.approx((width - 1) / 2)
        assert batch.K[0, 0, 0, 0] / max(height, width) == pytest.approx(
            float(together.K[0, view, 0, 0] / 64), rel=1e-5
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"compositions": ("castle",)},
        {"paths": ()},
        {"solids": (5, 3)},
        {"moving": (0, 99)},
        {"shadows": 1.5},
        {"off_centre": 0.7},
        {"field_of_view": (80.0, 40.0)},
        {"focal_jitter": 1.0},
        {"spread": -0.1},
        {"scale": (0.0, 1.0)},
        {"noise": -1.0},
        {"samples": 0},
    ],
)
def test_impossible_settings_are_refused_by_name(wrong: dict) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        WorldSettings(**wrong)


@pytest.mark.parametrize(
    ("seeds", "views", "size"), [([], 2, SIZE), ([0], 0, SIZE), ([0], 1, (1, 60)), ([-1], 1, SIZE)]
)
def test_impossible_requests_are_refused(seeds: list[int], views: int, size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"seed|views"):
        render_worlds(seeds, views, size)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_traces_the_same_scene(batch: WorldBatch) -> None:
    traced = render_worlds(range(6), 3, SIZE, device="cuda")
    same = traced.object_ids.cpu() == batch.object_ids
    assert same.float().mean() > 0.995
    torch.testing.assert_close(traced.depth.cpu()[same], batch.depth[same], rtol=1e-3, atol=1e-3)
    assert (traced.images.cpu() - batch.images).abs().median() < 1e-3
