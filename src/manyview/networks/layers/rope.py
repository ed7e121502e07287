"""Rotary positions on a 2-D grid (RoPE; Su et al. 2021, arXiv 2104.09864; in two dimensions as in CroCo v2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Rotation(NamedTuple):
    """Cosine and sine of every token's angles: (T, 1, 2 axes, D/4) for head size D; broadcasts over heads."""

    cos: Tensor
    sin: Tensor


def grid_positions(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """(height * width, 2) integer positions (y, x) of a grid, row by row."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack([y.flatten(), x.flatten()], dim=-1)


def rotation(positions: Tensor, head_dim: int, base: float) -> Rotation:
    """The rotation of tokens at `positions` (T, 2) as (y, x), for heads of `head_dim` channels (a multiple of 4).

    The first half of a head's channels turns by y, the second by x. Within a half of size D the pair (j, j + D/2) turns
    by position * base^(-2j/D).

    The angles stay in float32 whatever the dtype of the tokens. The official code rounds them to the tokens' dtype
    first, which costs up to 0.06 rad in bfloat16 at position 31; in float32 both agree.
    """
    axis_dim = head_dim // 2
    exponents = torch.arange(0, axis_dim, 2, device=positions.device, dtype=torch.float32) / axis_dim
    frequencies = 1.0 / base**exponents
    angles = positions.float()[:, None, :, None] * frequencies
    return Rotation(angles.cos(), angles.sin())


def rotate(tokens: Tensor, by: Rotation) -> Tensor:
    """Turn the channels of `tokens` (B, T, heads, D) by their position."""
    first, second = tokens.unflatten(-1, (2, 2, -1)).unbind(-2)
    cos, sin = by.cos.to(tokens.dtype), by.sin.to(tokens.dtype)
    return torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-2).flatten(-3)
