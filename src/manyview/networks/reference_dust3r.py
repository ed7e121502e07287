"""DUSt3R written out the simplest way: the readable twin of `dust3r.Dust3R`, for tests and benchmarks.

As in `reference`: a network's own weights but none of its code. Every layer is a formula, each of the two views is
encoded by itself, the tokens of every depth are kept, a head sees one view at a time. Both must give the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manyview.networks.dust3r import CHANNELS, Dust3R
from manyview.networks.layers.coordinates import coordinate_features
from manyview.networks.layers.dpt import DPTHead
from manyview.networks.layers.linear_head import LinearHead
from manyview.networks.pointmaps import Pointmaps
from manyview.networks.reference import dense_prediction, encode, rotate_2d

Grid = tuple[int, int]


def dust3r_reference(network: Dust3R, first: Tensor, second: Tensor) -> Pointmaps:
    """(B, 3, H, W) and (B, 3, H', W') -> the same `Pointmaps` as `network([first, second])`."""
    patch = network.config.patch_size
    grids = [(image.shape[-2] // patch, image.shape[-1] // patch) for image in (first, second)]
    depths = decode(network, (encode(network, first), encode(network, second)), grids)
    points, confidence = [], []
    for side, head in enumerate((network.first_head, network.second_head)):
        raw = dense(head, [tokens[side] for tokens in depths], network.config.hooks, grids[side])
        xyz, sure = network.activate(raw.float().permute(0, 2, 3, 1))
        points.append(xyz)
        confidence.append(sure)
    return Pointmaps(points=points, confidence=confidence)


def decode(network: Dust3R, encoded: tuple[Tensor, Tensor], grids: Sequence[Grid]) -> list[tuple[Tensor, Tensor]]:
    """Encoded tokens (B, T, encoder_dim) of both views -> those of every depth, 0 (as they came) to the last.

    The last ones are normalised. A block of either side reads what both sides were one block before.
    """
    config, decoder = network.config, network.decoder
    places = [rows_and_columns(grid) for grid in grids]
    sides = [enter(network, tokens, grid, side) for side, (tokens, grid) in enumerate(zip(encoded, grids, strict=True))]
    depths = [encoded]
    for blocks in zip(decoder.first_blocks, decoder.second_blocks, strict=True):
        sides = [
            cross_block(
                blocks[own],
                sides[own],
                sides[other],
                places[own],
                places[other],
                config.decoder_heads,
                config.rope_base,
            )
            for own, other in ((0, 1), (1, 0))
        ]
        depths.append((sides[0], sides[1]))
    first, second = (
        F.layer_norm(tokens, tokens.shape[-1:], decoder.norm.weight, decoder.norm.bias, eps=1e-6) for tokens in sides
    )
    return [*depths[:-1], (first, second)]


def enter(network: Dust3R, encoded: Tensor, grid: Grid, side: int) -> Tensor:
    """(B, T, encoder_dim) -> (B, T, decoder_dim): a linear map, and what the options add."""
    decoder = network.decoder
    tokens = F.linear(encoded, decoder.embedding.weight, decoder.embedding.bias)
    if decoder.coordinates is not None:
        features = coordinate_features(*grid)
        tokens = tokens + F.linear(features, decoder.coordinates.weight, decoder.coordinates.bias)
    return tokens if decoder.sides is None else tokens + decoder.sides[side]


def rows_and_columns(grid: Grid) -> tuple[Tensor, Tensor]:
    """y and x (h * w,) of the patches of a grid (h, w), row by row."""
    height, width = grid
    return torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)


def cross_block(
    block: nn.Module,
    tokens: Tensor,
    others: Tensor,
    places: tuple[Tensor, Tensor],
    other_places: tuple[Tensor, Tensor],
    heads: int,
    rope_base: float,
) -> Tensor:
    """x += Attention(LN(x)); x += CrossAttention(LN(x), LN(y)); x += MLP(LN(x)), x (B, T, C) and y (B, S, C)."""
    weights = dict(block.named_parameters())

    def affine(name: str, x: Tensor) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name: str, x: Tensor, eps: float = 1e-6) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps=eps)

    def look(name: str, q: Tensor, k: Tensor, v: Tensor, k_places: tuple[Tensor, Tensor]) -> Tensor:
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
        if f"{name}.q_norm.weight" in weights:
            q, k = norm(f"{name}.q_norm", q, eps=1e-5), norm(f"{name}.k_norm", k, eps=1e-5)
        q, k = rotate_2d(q, *places, rope_base), rotate_2d(k, *k_places, rope_base)
        attended = torch.softmax(q @ k.mT * q.shape[-1] ** -0.5, dim=-1) @ v
        return affine(f"{name}.project", attended.transpose(1, 2).flatten(2))

    q, k, v = affine("attention.qkv", norm("norm1", tokens)).chunk(3, dim=-1)
    tokens = tokens + look("attention", q, k, v, places)
    asked, seen = norm("norm2", tokens), norm("norm_others", others)
    q = affine("cross_attention.query", asked)
    k, v = affine("cross_attention.key", seen), affine("cross_attention.value", seen)
    tokens = tokens + look("cross_attention", q, k, v, other_places)
    return tokens + affine("mlp.contract", F.gelu(affine("mlp.expand", norm("norm3", tokens))))


def dense(head: DPTHead | LinearHead, depths: Sequence[Tensor], hooks: Sequence[int], grid: Grid) -> Tensor:
    """Tokens (B, h * w, C) of every depth -> (B, 4, H, W)."""
    maps = [depths[hook] for hook in hooks]
    return dense_prediction(head, maps, grid) if isinstance(head, DPTHead) else patches(head, maps[-1], grid)


def patches(head: LinearHead, tokens: Tensor, grid: Grid) -> Tensor:
    """Each token (B, h * w, C) becomes p x p pixels: its value c p^2 + y p + x is channel c of row y, column x."""
    size = head.patch_size
    values = F.linear(tokens, head.patch.weight, head.patch.bias)
    values = values.reshape(len(tokens), *grid, CHANNELS, size, size)
    return values.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), CHANNELS, grid[0] * size, grid[1] * size)
