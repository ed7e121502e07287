"""The patterns as a mip-mapped atlas, and the lookup that averages one over a pixel.

A texture finer than a pixel would turn into noise that differs from view to view and hides correspondences. Each
lookup therefore reads the two levels of the pyramid whose texels enclose the pixel's footprint on the surface
(Williams, "Pyramidal Parametrics", 1983), which is the average that a sensor would see.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from manyview.worlds.patterns import TILE, texture_bank

LEVELS = TILE.bit_length()
"""Levels of the pyramid: TILE, TILE / 2, ..., 1 texels."""


def sample_texture(atlas: Tensor, texture: Tensor, u: Tensor, v: Tensor, footprint: Tensor) -> Tensor:
    """Trilinear lookup: (3, ...) mean of a pattern over a pixel; all arguments but the atlas have the same shape.

    Args:
        atlas: of `texture_atlas`.
        texture: (...) index of the pattern.
        u, v: (...) position in tiles; the pattern repeats with period 1.
        footprint: (...) size of the pixel in tiles.
    """
    level = _level(footprint)
    finer = level.floor()
    u, v = u - u.floor(), v - v.floor()
    sharp = _sample_level(atlas, texture, u, v, finer)
    return sharp.lerp_(_sample_level(atlas, texture, u, v, finer + 1), level - finer)


def sample_smooth_texture(atlas: Tensor, texture: Tensor, u: Tensor, v: Tensor, footprint: Tensor) -> Tensor:
    """As `sample_texture`, from the nearest level alone: half the work, and enough for patterns without fine detail."""
    return _sample_level(atlas, texture, u - u.floor(), v - v.floor(), _level(footprint).round_())


def _level(footprint: Tensor) -> Tensor:
    """The level whose texels are as large as the footprint, in [0, LEVELS - 1)."""
    return (footprint * TILE).clamp_min_(1).log2_().clamp_max_(LEVELS - 1.001)


def _sample_level(atlas: Tensor, texture: Tensor, u: Tensor, v: Tensor, level: Tensor) -> Tensor:
    """Bilinear lookup (3, ...) at u, v in [0, 1) in one level of the pyramid."""
    size = torch.exp2(-level) * TILE
    # The full tile stands left; the smaller ones are stacked in a column right of it, level 1 on top.
    left = level.clamp_max(1) * (TILE + 2)
    top = (TILE - 2 * size + 2 * (level - 1)).clamp_min_(0)
    height, width = atlas.shape[-2:]
    x = (left + u * size + 1) * (2 / width) - 1
    y = (texture * _strip_height() + top + v * size + 1) * (2 / height) - 1
    grid = torch.stack([x, y], dim=-1).view(1, 1, -1, 2)
    colours = torch.nn.functional.grid_sample(atlas, grid, padding_mode="border", align_corners=False)
    return colours.view(3, *x.shape)


def _strip_height() -> int:
    """Rows of the atlas that one texture takes: its column of small levels is the taller one."""
    return TILE - 1 + 2 * (LEVELS - 1)


@lru_cache(maxsize=4)
def texture_atlas(device: str = "cpu") -> Tensor:
    """(1, 3, texture count * strip height, width): all levels of all patterns, each with a border of 1 texel."""
    bank = texture_bank()
    atlas = torch.zeros(3, len(bank), _strip_height(), TILE + 2 + TILE // 2 + 2)
    top = 0
    for level in range(LEVELS):
        size = TILE >> level
        tile = torch.nn.functional.pad(bank, (1, 1, 1, 1), mode="circular")
        left = TILE + 2 if level else 0
        atlas[:, :, top : top + size + 2, left : left + size + 2] = tile.transpose(0, 1)
        top += size + 2 if level else 0
        bank = torch.nn.functional.avg_pool2d(bank, 2) if size > 1 else bank
    return atlas.flatten(1, 2)[None].to(device)
