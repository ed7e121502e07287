"""Height fields: landscapes and walls in relief, met by marching along the ray and halving the last step.

A relief is the cube [-1, 1]^3 below a height map: the solid part is z <= height(x, y), with heights of a bank of
seamless maps. Heights are interpolated bilinearly, so that the surface is continuous and rays of all views meet the
same one.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Generator, Tensor

MAP = 128
"""Samples along each side of a height map."""

STEPS = 40
"""Steps along a ray through the relief's box."""

HALVINGS = 10
"""Halvings of the step in which the ray first is below the surface."""

LANDSCAPES = (0, 1, 2, 3)
FACADES = (4, 5, 6, 7)
"""Height maps of the bank that suit the ground, and those that suit walls."""


def height_bank(seed: int = 0) -> Tensor:
    """(8, MAP, MAP) float32: seamless heights in [-1, 1]: hills, rough hills, dunes, terraces; windows, pillars,
    blocks and rubble."""
    generator = Generator().manual_seed(seed)
    hills, rough = _smooth_noise(generator, 2.2), _smooth_noise(generator, 1.7)
    dunes = 1 - 2 * _smooth_noise(generator, 2.2).abs()
    terraces = (3 * _smooth_noise(generator, 2.0)).round() / 3
    maps = [hills, rough, dunes, terraces, _windows(), _pillars(), _blocks(generator), _smooth_noise(generator, 1.4)]
    return torch.stack([_within_one(heights) for heights in maps])


def _within_one(heights: Tensor) -> Tensor:
    low, high = heights.min(), heights.max()
    return 2 * (heights - low) / (high - low) - 1


def _smooth_noise(generator: Generator, slope: float) -> Tensor:
    """Gaussian noise whose amplitude falls with frequency^-slope, deviation 1/2."""
    frequency = torch.fft.fftfreq(MAP) * MAP
    radius = (frequency[:, None].square() + frequency[None].square()).sqrt()
    amplitude = radius.clamp_min(1.5).pow(-slope)
    amplitude[0, 0] = 0
    noise = torch.fft.ifft2(torch.fft.fft2(torch.randn(MAP, MAP, generator=generator)) * amplitude).real
    return (noise / (2 * noise.std())).clamp(-1, 1)


def _cells(count: int) -> tuple[Tensor, Tensor]:
    """Position (MAP, MAP) of each sample within its cell, -1..1, along the rows and along the columns."""
    steps = (torch.arange(MAP) + 0.5) / MAP * count % 1 * 2 - 1
    return steps[:, None].expand(MAP, MAP), steps[None].expand(MAP, MAP)


def _windows() -> Tensor:
    """Sunk rectangles with a frame."""
    y, x = _cells(2)
    frame = ((x.abs() < 0.62) & (y.abs() < 0.72)).float()
    hole = ((x.abs() < 0.5) & (y.abs() < 0.6)).float()
    return frame * 0.4 - hole * 1.4


def _pillars() -> Tensor:
    """Half columns beside one another, on a base."""
    _, x = _cells(4)
    base = (torch.arange(MAP) < MAP // 10).float()[:, None]
    return torch.maximum((1 - x.square()).clamp_min(0).sqrt(), base)


def _blocks(generator: Generator) -> Tensor:
    """Masonry: blocks that stand out by different amounts, with joints between them."""
    y, x = _cells(8)
    rows = torch.arange(MAP) * 8 // MAP
    out = torch.rand(8, 8, generator=generator)[rows[:, None], rows[None]]
    return torch.where((x.abs() < 0.85) & (y.abs() < 0.8), 0.4 + 0.6 * out, 0.0)


@lru_cache(maxsize=4)
def height_atlas(device: str = "cpu") -> Tensor:
    """(1, 1, 8 (MAP + 2), MAP + 2): the bank's maps below one another, each with a border from its other side."""
    bank = torch.nn.functional.pad(height_bank()[:, None], (1, 1, 1, 1), mode="circular")
    return bank.flatten(0, 2)[None, None].contiguous().to(device)


def height(atlas: Tensor, pattern: Tensor, repeats: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(R,) height at x, y in [-1, 1] of R reliefs.

    Args:
        atlas: of `height_atlas`.
        pattern: (R,) index of the map, as float.
        repeats: (2, R) how often it repeats along x and y.
    """
    u, v = (x + 1) / 2 * repeats[0], (y + 1) / 2 * repeats[1]
    column = (u - u.floor()) * MAP + 0.5
    row = (v - v.floor()) * MAP + 0.5 + pattern * (MAP + 2)
    rows, columns = atlas.shape[-2:]
    # align_corners=True: -1 and 1 are the centres of the first and last sample.
    grid = torch.stack([column * (2 / (columns - 1)) - 1, row * (2 / (rows - 1)) - 1], dim=-1)
    return torch.nn.functional.grid_sample(atlas, grid[None, None], mode="bilinear", align_corners=True)[0, 0, 0]


def meet_relief(
    origin: Tensor, direction: Tensor, enter: Tensor, leave: Tensor, pattern: Tensor, repeats: Tensor
) -> Tensor:
    """Where rays first are on or below the surface: t (R,), infinite where they never are.

    Args:
        origin, direction: (3, R) in the relief's unit frame.
        enter, leave: (R,) interval in which the ray is in the box, from t = 0 on.
        pattern, repeats: see `height`.
    """
    atlas = height_atlas(str(origin.device))

    def above(t: Tensor) -> Tensor:
        point = origin + t * direction
        return point[2] - height(atlas, pattern, repeats, point[0], point[1])

    span = leave - enter
    below = torch.full_like(enter, torch.inf)  # the first step's end that is below
    before = enter
    last = enter
    for step in range(STEPS + 1):
        # Steps grow with distance, as pixels do on the ground.
        t = enter + span * (step / STEPS) ** 1.5
        newly = (above(t) <= 0) & torch.isinf(below)
        below = torch.where(newly, t, below)
        before = torch.where(newly, last, before)
        last = t
    met = torch.isfinite(below)
    near, far = torch.where(met, before, enter), torch.where(met, below, enter)
    for _ in range(HALVINGS):
        middle = (near + far) / 2
        under = above(middle) <= 0
        near, far = torch.where(under, near, middle), torch.where(under, middle, far)
    return torch.where(met, far, torch.inf)


def relief_normal(point: Tensor, pattern: Tensor, repeats: Tensor) -> Tensor:
    """Outward normals (3, R), not normalised, at unit-frame points (3, R): of the surface, or of the box's sides."""
    atlas = height_atlas(str(point.device))
    x, y, z = point
    on_surface = (z - height(atlas, pattern, repeats, x, y)).abs() < 0.05
    step_x, step_y = 1 / (MAP * repeats)
    across = height(atlas, pattern, repeats, x - step_x, y) - height(atlas, pattern, repeats, x + step_x, y)
    along = height(atlas, pattern, repeats, x, y - step_y) - height(atlas, pattern, repeats, x, y + step_y)
    surface = torch.stack([across / (2 * step_x), along / (2 * step_y), torch.ones_like(z)])
    side = point * (point.abs() >= point.abs().amax(0))
    return torch.where(on_surface, surface, side)
