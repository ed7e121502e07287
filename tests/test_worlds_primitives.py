"""Rays and solids, textures and their pyramid: the parts of the worlds against analysis and brute force."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from manyview.worlds.materials import LEVELS, sample_texture, texture_atlas
from manyview.worlds.patterns import TEXTURES, TILE, texture_bank
from manyview.worlds.primitives import (
    ball_interval,
    ball_normal,
    box_interval,
    box_normal,
    cylinder_interval,
    cylinder_normal,
)

Interval = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

KINDS = {
    "box": (box_interval, box_normal, lambda p: p.abs().amax(-2) - 1),
    "ball": (ball_interval, ball_normal, lambda p: p.norm(dim=-2) - 1),
    "cylinder": (
        cylinder_interval,
        cylinder_normal,
        lambda p: torch.maximum(p[..., :2, :].norm(dim=-2), p[..., 2, :].abs()) - 1,
    ),
}
"""Interval, normal, and a function that is 0 on the surface and negative inside."""

everywhere = pytest.mark.parametrize("kind", list(KINDS))
seeds = st.integers(0, 10_000)


def random_rays(seed: int, count: int = 400) -> tuple[Tensor, Tensor]:
    """(3, count) origins outside the cube [-1.8, 1.8]^3 and directions that mostly head for the solid."""
    generator = torch.Generator().manual_seed(seed)
    origin = torch.nn.functional.normalize(torch.randn(3, count, generator=generator), dim=0)
    origin = origin / origin.abs().amax(0) * (1.8 + 4 * torch.rand(count, generator=generator))
    aim = 2.4 * torch.rand(3, count, generator=generator) - 1.2
    return origin, (aim - origin) * (0.2 + torch.rand(count, generator=generator))


@everywhere
@given(seed=seeds)
@settings(max_examples=25, deadline=None)
def test_rays_enter_and_leave_on_the_surface_and_their_middle_is_inside(kind: str, seed: int) -> None:
    interval, _, outside = KINDS[kind]
    origin, direction = random_rays(seed)
    enter, leave = interval(origin, direction)
    hit = enter < leave
    assert hit.any()
    origin, direction, enter, leave = origin[:, hit], direction[:, hit], enter[hit], leave[hit]
    assert outside(origin + enter * direction).abs().max() < 2e-4
    assert outside(origin + leave * direction).abs().max() < 2e-4
    assert (outside(origin + (enter + leave) / 2 * direction) < 1e-5).all()


@everywhere
@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_rays_agree_with_a_march_in_small_steps(kind: str, seed: int) -> None:
    interval, _, outside = KINDS[kind]
    origin, direction = random_rays(seed, 60)
    steps = torch.linspace(0, 12, 4001)
    inside = outside(origin[..., None].movedim(-1, 0) + steps[:, None, None] * direction) < 0
    enter, leave = interval(origin, direction)
    marched = steps[inside.long().argmax(0)]
    hit = inside.any(0)
    assert (enter < leave)[hit].all()
    assert (marched - enter)[hit].abs().max() < 2 * 12 / 4000
    grazing = (leave - enter) < 2 * 12 / 4000
    assert not ((enter < leave) & (enter < 12) & ~grazing & ~hit).any()


@everywhere
@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_normals_are_unit_and_face_the_ray_that_enters(kind: str, seed: int) -> None:
    interval, normal_of, outside = KINDS[kind]
    origin, direction = random_rays(seed)
    enter, leave = interval(origin, direction)
    hit = leave - enter > 1e-2
    point = (origin + enter * direction)[:, hit]
    normal = normal_of(point)
    torch.testing.assert_close(normal.norm(dim=0), torch.ones(int(hit.sum())), atol=1e-3, rtol=0)
    assert ((normal * direction[:, hit]).sum(0) < 1e-3).all()
    assert (outside(point + 0.05 * normal) > 0).all()
    assert (outside(point - 0.05 * normal) < 0).float().mean() > 0.9, "but near edges, the normal leads inside"


def test_known_rays_meet_at_known_places() -> None:
    origin = torch.tensor([[-3.0], [0.0], [0.0]])
    along, above = torch.tensor([[1.0], [0.0], [0.0]]), torch.tensor([[0.0], [0.0], [1.0]])
    for interval, _, _ in KINDS.values():
        enter, leave = interval(origin, along)
        assert (float(enter), float(leave)) == (pytest.approx(2.0), pytest.approx(4.0))
        missed = interval(origin, above)
        assert missed[0] > missed[1]
    diagonal = torch.tensor([[1.0], [0.5], [0.0]])
    ball = ball_interval(origin, diagonal)
    # |(-3 + t, t / 2)| = 1: 1.25 t^2 - 6 t + 8 = 0 has no real root.
    assert ball[0] > ball[1]
    assert float(box_interval(origin, diagonal * torch.tensor([[1.0], [0.4], [1.0]]))[0]) == pytest.approx(2.0)


@pytest.mark.parametrize("interval", [box_interval, cylinder_interval])
def test_rays_along_the_axis_are_no_special_case(interval: Interval) -> None:
    origin, direction = torch.tensor([[0.0], [0.0], [-5.0]]), torch.tensor([[0.0], [0.0], [2.0]])
    enter, leave = interval(origin, direction)
    assert (float(enter), float(leave)) == (pytest.approx(2.0), pytest.approx(3.0))


def test_the_bank_holds_normalised_seamless_patterns() -> None:
    bank = texture_bank()
    assert bank.shape == (TEXTURES, 3, TILE, TILE)
    assert bank.mean(dim=(1, 2, 3)).abs().max() < 0.2
    assert ((bank.std(dim=(1, 2, 3)) > 0.8) & (bank.std(dim=(1, 2, 3)) < 1.1)).all()
    inner = bank.diff(dim=-1).abs().mean(dim=(1, 2, 3))
    seam = (bank[..., 0] - bank[..., -1]).abs().mean(dim=(1, 2))
    # Patterns with a grid have an edge at the seam as at every other line of the grid, but noise has none.
    assert (seam[:6] < 1.6 * inner[:6]).all()


@pytest.mark.parametrize("level", range(LEVELS))
def test_each_level_of_the_pyramid_is_the_mean_of_its_pixels(level: int) -> None:
    bank, atlas = texture_bank(), texture_atlas()
    size = TILE >> level
    expected = torch.nn.functional.avg_pool2d(bank, 1 << level)
    generator = torch.Generator().manual_seed(level)
    texture = torch.randint(0, TEXTURES, (1, 200), generator=generator)
    row, column = torch.randint(0, size, (2, 1, 200), generator=generator)
    footprint = torch.full((1, 200), 1 / size)
    colour = sample_texture(atlas, texture.float(), (column + 0.5) / size, (row + 0.5) / size, footprint)
    torch.testing.assert_close(colour[:, 0], expected[texture[0], :, row[0], column[0]].T, atol=2e-2, rtol=0)


def test_the_pattern_repeats_without_a_seam() -> None:
    generator = torch.Generator().manual_seed(0)
    texture = torch.randint(0, TEXTURES, (1, 500), generator=generator).float()
    u, v = torch.rand(2, 1, 500, generator=generator)
    footprint = torch.rand(1, 500, generator=generator) * 0.1
    here = sample_texture(texture_atlas(), texture, u, v, footprint)
    torch.testing.assert_close(
        sample_texture(texture_atlas(), texture, u + 3, v - 2, footprint), here, atol=2e-2, rtol=0
    )
    left = sample_texture(texture_atlas(), texture, torch.full_like(u, 1 - 1e-6), v, footprint)
    right = sample_texture(texture_atlas(), texture, torch.zeros_like(u), v, footprint)
    torch.testing.assert_close(left, right, atol=2e-2, rtol=0)


def test_contrast_falls_with_the_footprint_and_ends_at_the_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    u, v = torch.rand(2, 1, 4000, generator=generator)
    texture = torch.randint(0, TEXTURES, (1, 4000), generator=generator).float()
    contrast = [
        float(sample_texture(texture_atlas(), texture, u, v, torch.full_like(u, footprint)).std())
        for footprint in (0.001, 0.03, 0.1, 0.3, 2.0)
    ]
    assert contrast == sorted(contrast, reverse=True)
    assert contrast[0] > 0.8
    assert contrast[-1] < 0.15
