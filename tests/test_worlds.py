"""Procedural worlds: pictures, depth, points and cameras agree exactly, and each scene is its seed's alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from manyview.errors import InputError
from manyview.geometry.cameras import Camera, pixel_grid
from manyview.worlds import WorldBatch, WorldSettings, overlap, render_worlds
from manyview.worlds.overlap import reproject
from manyview.worlds.sampling import sample_worlds
from manyview.worlds.solids import FACES, half_heights

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
    }
    others = {"valid": torch.bool, "object_ids": torch.int32}
    assert all(getattr(batch, name).dtype == others.get(name, torch.float32) for name in FIELDS)


def test_a_seed_gives_the_same_scene_again_and_in_any_company(batch: WorldBatch) -> None:
    alone = render_worlds([4], 3, SIZE)
    company = render_worlds([11, 4, 0], 3, SIZE)
    for name in FIELDS:
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
    batch = render_worlds(range(6), 2, SIZE, WorldSettings(rooms=0.0))
    assert torch.equal(batch.valid, batch.object_ids >= 0)
    assert 0.02 < (~batch.valid).float().mean() < 0.7
    assert (batch.depth[batch.valid] > 0).all()
    assert not batch.depth[~batch.valid].any()
    assert not batch.points[~batch.valid].any()


def test_rooms_have_no_sky() -> None:
    assert render_worlds(range(4), 2, SIZE, WorldSettings(rooms=1.0)).valid.all()


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


def test_walls_and_floor_reproject_exactly_into_the_other_views(batch: WorldBatch) -> None:
    pixels, inside = reproject(batch)
    surface = batch.object_ids.flatten(2)[:, :, None].expand(inside.shape)
    inverse, same = inverse_depth_of_plane(batch, pixels, surface)
    planar = inside & same & (surface >= 0) & (surface < FACES)
    error = (inverse * pixels[..., 2] - 1).abs()[planar]
    assert planar.float().mean() > 0.25
    assert error.max() < 1e-3


def test_intrinsics_put_the_principal_point_in_the_middle_and_keep_the_field_of_view() -> None:
    settings = WorldSettings(field_of_view=(50.0, 60.0), focal_jitter=0.0)
    intrinsics = render_worlds(range(8), 2, SIZE, settings).K
    assert torch.equal(intrinsics[..., :2, 2], torch.tensor([29.5, 23.5]).expand(8, 2, 2))
    angles = 2 * torch.atan(SIZE[1] / 2 / intrinsics[..., 0, 0]).rad2deg()
    assert angles.min() >= 49.9
    assert angles.max() <= 60.1
    assert torch.equal(intrinsics[..., 0, 0], intrinsics[..., 1, 1])


def test_cameras_are_rigid_and_upright(batch: WorldBatch) -> None:
    rotation = batch.world_from_camera[..., :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand_as(rotation), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(6, 3), atol=1e-5, rtol=0)
    assert (rotation[..., 2, 1] < -0.5).all(), "the camera's y axis points down, the world's z axis up"


def test_pictures_show_something(batch: WorldBatch) -> None:
    assert batch.images.min() >= 0
    assert batch.images.max() <= 1
    assert (batch.images.std(dim=(-2, -1)).mean(-1) > 0.05).all(), "no picture is a flat colour"
    assert 0.25 < batch.images.mean() < 0.75
    assert ((batch.images <= 0) | (batch.images >= 1)).float().mean() < 0.05, "few pixels are burnt out"


def test_textures_are_antialiased() -> None:
    """Inside surfaces one ray a pixel shows what 16 rays average to, because textures are filtered."""
    plain = WorldSettings(noise=0.0, shadows=False)
    one = render_worlds(range(4), 2, SIZE, plain)
    many = render_worlds(range(4), 2, SIZE, WorldSettings(noise=0.0, shadows=False, supersampling=4))
    assert torch.equal(one.depth, many.depth)
    ids = one.object_ids
    same = (ids[..., 1:-1, 1:-1] == ids[..., :-2, 1:-1]) & (ids[..., 1:-1, 1:-1] == ids[..., 1:-1, 2:])
    same &= (ids[..., 1:-1, 1:-1] == ids[..., 2:, 1:-1]) & (ids[..., 1:-1, 1:-1] == ids[..., 1:-1, :-2])
    difference = (one.images - many.images).abs().mean(2)[..., 1:-1, 1:-1][same]
    assert difference.mean() < 0.02
    assert difference.quantile(0.99) < 0.12


def test_shadows_darken_some_pixels_and_brighten_none() -> None:
    settings = WorldSettings(noise=0.0, exposure=0.0)
    lit = render_worlds(range(3), 2, SIZE, settings)
    shadowed = render_worlds(range(3), 2, SIZE, replace(settings, shadows=True))
    assert (shadowed.images <= lit.images + 1e-6).all()
    assert 0.01 < (shadowed.images < lit.images - 0.02).float().mean() < 0.6


def test_noise_and_texture_can_be_switched_off() -> None:
    clean = render_worlds([5], 1, SIZE, WorldSettings(noise=0.0))
    noisy = render_worlds([5], 1, SIZE, WorldSettings(noise=0.05))
    plain = render_worlds([5], 1, SIZE, WorldSettings(noise=0.0, texture=0.0))
    assert torch.equal(clean.depth, noisy.depth)
    assert 0 < (clean.images - noisy.images).abs().mean() < 0.05
    neighbours = lambda batch: batch.images.diff(dim=-1).abs().median()  # noqa: E731
    assert neighbours(plain) < 0.3 * neighbours(clean)


def pair_overlaps(settings: WorldSettings) -> Tensor:
    fractions = overlap(render_worlds(range(20), 4, (32, 40), settings))
    return fractions[:, ~torch.eye(4, dtype=torch.bool)]


def test_typical_pairs_overlap_by_40_to_90_percent() -> None:
    fractions = pair_overlaps(WorldSettings())
    assert fractions.quantile(0.25) > 0.4
    assert fractions.quantile(0.75) < 0.9


def test_a_larger_spread_leaves_less_overlap() -> None:
    means = [pair_overlaps(WorldSettings(spread=spread)).mean() for spread in (0.1, 0.5, 1.0, 2.0)]
    assert means == sorted(means, reverse=True)
    assert means[0] > 0.85
    assert means[3] < means[0] - 0.25


def test_overlap_of_a_view_with_itself_is_complete(batch: WorldBatch) -> None:
    fractions = overlap(batch)
    assert fractions.shape == (6, 3, 3)
    torch.testing.assert_close(fractions.diagonal(dim1=1, dim2=2), torch.ones(6, 3))
    assert ((fractions >= 0) & (fractions <= 1)).all()


@pytest.mark.parametrize("rooms", [0.0, 1.0])
@pytest.mark.parametrize("spread", [0.3, 2.0])
def test_no_camera_is_inside_a_solid_or_outside_the_enclosure(rooms: float, spread: float) -> None:
    worlds, _ = sample_worlds(range(100), 6, SIZE, WorldSettings(rooms=rooms, spread=spread))
    cameras, solids = worlds.room_from_camera[:, :, :3, 3], worlds.solids
    relative = (cameras[:, :, None] - solids.centre[:, None])[..., None, :] @ solids.room_from_local[:, None]
    unit = (relative[..., 0, :] / solids.half[:, None]).abs().amax(-1)
    assert (unit > 1)[:, :, :].all(), "the cube around the unit shape holds no camera"
    centred = cameras - worlds.half[:, None] * torch.tensor([0.0, 0.0, 1.0])
    assert (centred.abs() < worlds.half[:, None]).all()


def test_solids_stand_on_the_floor_or_higher_and_there_are_as_many_as_asked_for() -> None:
    settings = WorldSettings(solids=(5, 9), posters=0)
    solids = sample_worlds(range(100), 3, SIZE, settings)[0].solids
    lowest = solids.centre[..., 2] - half_heights(solids.half, solids.room_from_local, solids.counts)
    on_floor = (lowest.abs() < 1e-5) & solids.active
    assert (lowest[solids.active] > -1e-5).all()
    assert 0.5 < on_floor.sum() / solids.active.sum() < 0.95
    count = solids.active.sum(1)
    assert count.max() <= 9
    assert count.float().mean() > 5, "few are left out to make room for cameras"


def test_half_heights_are_the_reach_of_the_surface() -> None:
    solids = sample_worlds([3], 1, SIZE, WorldSettings())[0].solids
    sphere = torch.nn.functional.normalize(torch.randn(40_000, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    cube = sphere / sphere.abs().amax(-1, keepdim=True)
    tube = torch.cat([torch.nn.functional.normalize(sphere[:, :2], dim=-1), cube[:, 2:].sign()], dim=-1)
    surfaces = [surface for surface, n in zip((cube, sphere, tube), solids.counts, strict=True) for _ in range(n)]
    for index, surface in enumerate(surfaces):
        reach = ((surface * solids.half[0, index]) @ solids.room_from_local[0, index].T)[:, 2].max()
        expected = half_heights(solids.half, solids.room_from_local, solids.counts)[0, index]
        assert float(reach) == pytest.approx(float(expected), rel=0.04)


def test_a_scene_may_be_empty_or_crowded() -> None:
    empty = render_worlds([1], 2, SIZE, WorldSettings(solids=(0, 0), posters=0))
    assert empty.object_ids.max() < FACES
    crowded = render_worlds([1], 2, SIZE, WorldSettings(solids=(40, 40)))
    assert len(crowded.object_ids.unique()) > 15


@pytest.mark.parametrize(
    "wrong",
    [
        {"rooms": 1.5},
        {"solids": (5, 3)},
        {"posters": -1},
        {"field_of_view": (80.0, 40.0)},
        {"focal_jitter": 1.0},
        {"spread": -0.1},
        {"scale": (0.0, 1.0)},
        {"noise": -1.0},
        {"supersampling": 0},
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
