"""Textures: a bank of seamless patterns, mip-mapped into one atlas, and the lookup that blends them.

A texture finer than a pixel would turn into noise that differs from view to view and hides correspondences. Each
lookup therefore reads the two levels of the pyramid whose texels enclose the pixel's footprint on the surface
(Williams, "Pyramidal Parametrics", 1983), which is the average that a sensor would see.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from manyview.worlds.patterns import TILE, texture_bank

LEVELS = TILE.bit_length()
"""Levels of the pyramid: TILE, TILE / 2, ..., 1 texels."""

LAYERS = 2
"""Patterns laid over each other on a surface: a coarse and a fine one."""


@dataclass(frozen=True, kw_only=True)
class Materials:
    """Paint of S surfaces in B scenes, linear colours.

    Attributes:
        colour: (B, S, 3) mean colour.
        gain: (B, S, LAYERS, 3) what a layer's pattern adds, a channel.
        texture: (B, S, LAYERS) index of the pattern in the bank, as float.
        repeats: (B, S, LAYERS) tiles a length unit.
        shift: (B, S, LAYERS, 2) where on the tile the surface begins, tiles.
        shine: (B, S) strength of the highlight.
    """

    colour: Tensor
    gain: Tensor
    texture: Tensor
    repeats: Tensor
    shift: Tensor
    shine: Tensor

    def table(self) -> Tensor:
        """(P, B, S): the P numbers of each surface, in the order that `surface_colour` reads."""
        flat = [self.colour, self.gain.flatten(2), self.texture, self.repeats, self.shift.flatten(2)]
        rows = torch.cat([*flat, self.shine.unsqueeze(-1)], dim=-1)
        return rows.movedim(-1, 0)


def surface_colour(parameters: Tensor, u: Tensor, v: Tensor, footprint: Tensor, atlas: Tensor) -> Tensor:
    """Linear colours (3, B, R) of surface points.

    Args:
        parameters: (P, B, R) rows of `Materials.table` of the surface each ray met.
        u, v: (B, R) coordinates on the surface, length units.
        footprint: (B, R) size of the pixel on the surface, length units.
        atlas: of `texture_atlas`.
    """
    colour = parameters[:3].clone()
    gains = parameters[3 : 3 + 3 * LAYERS].unflatten(0, (LAYERS, 3))
    rest = parameters[3 + 3 * LAYERS : -1]
    for layer in range(LAYERS):
        repeats = rest[LAYERS + layer]
        shift_u, shift_v = rest[2 * LAYERS + 2 * layer], rest[2 * LAYERS + 2 * layer + 1]
        tile_u, tile_v = u * repeats + shift_u, v * repeats + shift_v
        pattern = sample_texture(atlas, rest[layer], tile_u, tile_v, footprint * repeats)
        colour += gains[layer] * pattern
    return colour.clamp_(0.015, 1)


def sample_texture(atlas: Tensor, texture: Tensor, u: Tensor, v: Tensor, footprint: Tensor) -> Tensor:
    """Trilinear lookup: (3, B, R) mean of a pattern over a pixel.

    Args:
        atlas: of `texture_atlas`.
        texture: (B, R) index of the pattern.
        u, v: (B, R) position in tiles; the pattern repeats with period 1.
        footprint: (B, R) size of the pixel in tiles.
    """
    level = (footprint * TILE).clamp_min_(1).log2_().clamp_max_(LEVELS - 1.001)
    finer = level.floor()
    u, v = u - u.floor(), v - v.floor()
    sharp = _sample_level(atlas, texture, u, v, finer)
    return sharp.lerp_(_sample_level(atlas, texture, u, v, finer + 1), level - finer)


def _sample_level(atlas: Tensor, texture: Tensor, u: Tensor, v: Tensor, level: Tensor) -> Tensor:
    """Bilinear lookup (3, B, R) at u, v in [0, 1) in one level of the pyramid."""
    size = torch.exp2(-level) * TILE
    # The full tile stands left; the smaller ones are stacked in a column right of it, level 1 on top.
    left = level.clamp_max(1) * (TILE + 2)
    top = (TILE - 2 * size + 2 * (level - 1)).clamp_min_(0)
    height, width = atlas.shape[-2:]
    x = (left + u * size + 1) * (2 / width) - 1
    y = (texture * _strip_height() + top + v * size + 1) * (2 / height) - 1
    grid = torch.stack([x, y], dim=-1)[None]
    return torch.nn.functional.grid_sample(atlas, grid, padding_mode="border", align_corners=False)[0]


def _strip_height() -> int:
    """Rows of the atlas that one texture takes: its column of small levels is the taller one."""
    return TILE - 1 + 2 * (LEVELS - 1)


@lru_cache(maxsize=4)
def texture_atlas(device: str = "cpu") -> Tensor:
    """(1, 3, texture count * strip height, width): all levels of all patterns, each with a border of 1 texel."""
    bank = texture_bank()
    atlas = torch.zeros(len(bank), 3, _strip_height(), TILE + 2 + TILE // 2 + 2)
    top = 0
    for level in range(LEVELS):
        size = TILE >> level
        tile = torch.nn.functional.pad(bank, (1, 1, 1, 1), mode="circular")
        left = TILE + 2 if level else 0
        atlas[:, :, top : top + size + 2, left : left + size + 2] = tile
        top += size + 2 if level else 0
        bank = torch.nn.functional.avg_pool2d(bank, 2) if size > 1 else bank
    return atlas.transpose(0, 1).flatten(1, 2)[None].contiguous().to(device)
