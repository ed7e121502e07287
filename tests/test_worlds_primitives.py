"""Rays and solids: the parts of the worlds against analysis and brute force."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from manyview.worlds.primitives import (
    BALL,
    BOX,
    CYLINDER,
    ball_normal,
    box_interval,
    box_normal,
    cylinder_normal,
    unit_interval,
)
from manyview.worlds.relief import (
    FACADES,
    LANDSCAPES,
    height,
    height_atlas,
    height_bank,
    meet_relief,
    relief_normal,
)

Interval = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def interval_of(kind: float) -> Interval:
    """`unit_interval` for rays that all meet one kind."""
    return lambda origin, direction: unit_interval(torch.full_like(direction[0], kind), origin, direction)


KINDS = {
    "box": (interval_of(BOX), box_normal, lambda p: p.abs().amax(-2) - 1),
    "ball": (interval_of(BALL), ball_normal, lambda p: p.norm(dim=-2) - 1),
    "cylinder": (
        interval_of(CYLINDER),
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
    ball = interval_of(BALL)(origin, diagonal)
    # |(-3 + t, t / 2)| = 1: 1.25 t^2 - 6 t + 8 = 0 has no real root.
    assert ball[0] > ball[1]
    assert float(box_interval(origin, diagonal * torch.tensor([[1.0], [0.4], [1.0]]))[0]) == pytest.approx(2.0)


@pytest.mark.parametrize("interval", [box_interval, interval_of(CYLINDER)])
def test_rays_along_the_axis_are_no_special_case(interval: Interval) -> None:
    origin, direction = torch.tensor([[0.0], [0.0], [-5.0]]), torch.tensor([[0.0], [0.0], [2.0]])
    enter, leave = interval(origin, direction)
    assert (float(enter), float(leave)) == (pytest.approx(2.0), pytest.approx(3.0))


def test_kinds_may_be_mixed_in_one_call() -> None:
    origin, direction = random_rays(1, 300)
    kinds = torch.arange(300).remainder(3).float()
    enter, leave = unit_interval(kinds, origin, direction)
    for kind in (BOX, BALL, CYLINDER):
        own = kinds == kind
        alone = interval_of(kind)(origin[:, own], direction[:, own])
        assert torch.equal(enter[own], alone[0])
        assert torch.equal(leave[own], alone[1])


@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_rays_meet_a_relief_on_its_surface_and_never_below_it(seed: int) -> None:
    origin, direction = random_rays(seed, 300)
    origin[2] = origin[2].abs() + 1.0
    generator = torch.Generator().manual_seed(seed)
    pattern = torch.randint(0, 8, (300,), generator=generator).float()
    repeats = 1 + 2 * torch.rand(2, 300, generator=generator)
    enter, leave = box_interval(origin, direction)
    enter = enter.clamp_min(0)
    t = meet_relief(origin, direction, enter, leave, pattern, repeats)
    met = torch.isfinite(t) & (enter < leave)
    assert met.any()
    point = (origin + t * direction)[:, met]
    above = point[2] - height(height_atlas(), pattern[met], repeats[:, met], point[0], point[1])
    inside = t[met] > enter[met] + 1e-4  # the others come through a side of the box, below the surface
    assert above[inside].abs().max() < 0.03
    assert (above <= 1e-4).all()
    # What lies before the surface is above it (where the ray did not come through a side of the box).
    before = enter + 0.97 * (t - enter)
    point = (origin + before * direction)[:, met][:, inside]
    heights = height(height_atlas(), pattern[met][inside], repeats[:, met][:, inside], point[0], point[1])
    assert (point[2] - heights > -1e-2).float().mean() > 0.95, "few rays step over something thin"


def test_heights_repeat_without_a_seam_and_stay_within_the_box() -> None:
    atlas = height_atlas()
    y = torch.linspace(-1, 1, 200)
    for pattern in (*LANDSCAPES, *FACADES):
        rows, repeats = torch.full_like(y, float(pattern)), torch.full((2, 200), 2.0)
        left = height(atlas, rows, repeats, torch.full_like(y, -1.0), y)
        middle = height(atlas, rows, repeats, torch.full_like(y, -1e-7), y)
        torch.testing.assert_close(left, middle, atol=1e-3, rtol=0)
        assert left.abs().max() <= 1
    bank = height_bank()
    assert bank.amin((1, 2)).eq(-1).all()
    assert bank.amax((1, 2)).eq(1).all()


def test_normals_of_a_relief_are_across_its_slope() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = 1.8 * torch.rand(2, 500, generator=generator) - 0.9
    pattern, repeats = torch.zeros(500), torch.ones(2, 500)
    z = height(height_atlas(), pattern, repeats, x, y)
    normal = torch.nn.functional.normalize(relief_normal(torch.stack([x, y, z]), pattern, repeats), dim=0)
    step = 0.004
    for dx, dy in ((step, 0.0), (0.0, step)):
        there = height(height_atlas(), pattern, repeats, x + dx, y + dy)
        back = height(height_atlas(), pattern, repeats, x - dx, y - dy)
        tangent = torch.nn.functional.normalize(
            torch.stack([torch.full_like(x, 2 * dx), torch.full_like(x, 2 * dy), there - back]), dim=0
        )
        assert (tangent * normal).sum(0).abs().median() < 0.05
