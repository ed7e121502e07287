"""Fast3R written out the simplest way: the readable twin of `fast3r.Fast3R`, for tests and benchmarks.

It uses a network's own weights but none of its code: every layer is a formula, every view is encoded by itself,
attention keeps all its weights, the tokens of every depth are kept, a head sees one view at a time, nothing is fused,
cut up or moved early. Both must give the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manyview.networks.families import Network
from manyview.networks.fast3r import FUSION_BLOCK_NORM_EPS, SCALED_TEST_VIEWS, SCALED_TRAIN_VIEWS, Fast3R
from manyview.networks.layers.dpt import DPTHead, Refine, ResidualConvolutions
from manyview.networks.pointmaps import Pointmaps


def fast3r_reference(network: Fast3R, images: Sequence[Tensor], view_ids: Tensor) -> Pointmaps:
    """N x (B, 3, H, W), (B, N) rows of the index table -> the same `Pointmaps` as `network(images, view_ids=...)`."""
    config = network.config
    if (
        config.fusion_attention != "joint"
        or config.fusion_positions
        or config.fusion_coordinates
        or config.fusion_qk_norm
    ):
        raise ValueError("the reference path computes the published network only; this one has fusion options")
    encoded = [encode(network, image) for image in images]
    lengths = [tokens.shape[1] for tokens in encoded]
    depths = fuse(network, torch.cat(encoded, dim=1), lengths, view_ids)
    hooked = [depths[depth].split(lengths, dim=1) for depth in config.hooks]
    results: dict[str, list[Tensor]] = {"points": [], "confidence": [], "local_points": [], "local_confidence": []}
    for view, image in enumerate(images):
        grid = (image.shape[-2] // config.patch_size, image.shape[-1] // config.patch_size)
        maps = [level[view] for level in hooked]
        for prefix, head in (("", network.global_head), ("local_", network.local_head)):
            raw = dense_prediction(head, maps, grid).float().permute(0, 2, 3, 1)
            points, confidence = network.activate(raw)
            results[f"{prefix}points"].append(points)
            results[f"{prefix}confidence"].append(confidence)
    return Pointmaps(**results)


def encode(network: Network, image: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, h * w, encoder_dim)."""
    encoder, config = network.encoder, network.config
    patches = F.conv2d(image, encoder.patch_embedding.weight, encoder.patch_embedding.bias, stride=config.patch_size)
    height, width = patches.shape[-2:]
    tokens = patches.flatten(2).mT
    y = torch.arange(height).repeat_interleave(width)
    x = torch.arange(width).repeat(height)
    for block in encoder.blocks:
        tokens = transformer_block(block, tokens, config.encoder_heads, eps=1e-6, rope=(y, x, config.rope_base))
    return F.layer_norm(tokens, tokens.shape[-1:], encoder.norm.weight, encoder.norm.bias, eps=1e-6)


def fuse(network: Fast3R, encoded: Tensor, lengths: Sequence[int], view_ids: Tensor) -> list[Tensor]:
    """(B, T, encoder_dim) -> tokens of every depth, 0 (as they came) to the last (normalised)."""
    config, fusion = network.config, network.fusion
    half = config.fusion_dim // 2
    table_angles = view_ids.double()[..., None] * 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    embedding = torch.cat([table_angles.sin(), table_angles.cos()], dim=-1).to(encoded.dtype)
    added = torch.cat([embedding[:, v : v + 1].expand(-1, n, -1) for v, n in enumerate(lengths)], dim=1)
    tokens = F.linear(encoded, fusion.embedding.weight, fusion.embedding.bias) + added
    stretch = 1.0
    if config.length_scaled_attention:
        ratio = torch.tensor(SCALED_TEST_VIEWS).log() / torch.tensor(SCALED_TRAIN_VIEWS).log()
        stretch = float(ratio.sqrt())
    depths = [encoded]
    for block in fusion.blocks:
        tokens = transformer_block(block, tokens, config.fusion_heads, eps=FUSION_BLOCK_NORM_EPS, stretch=stretch)
        depths.append(tokens)
    depths[-1] = F.layer_norm(tokens, tokens.shape[-1:], fusion.norm.weight, fusion.norm.bias, eps=1e-6)
    return depths


def transformer_block(
    block: nn.Module,
    tokens: Tensor,
    heads: int,
    *,
    eps: float,
    rope: tuple[Tensor, Tensor, float] | None = None,
    stretch: float = 1.0,
) -> Tensor:
    """x += Attention(LN(x)); x += MLP(LN(x)) for tokens (B, T, C)."""
    weights = dict(block.named_parameters())

    def affine(name: str, x: Tensor) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps=eps)

    q, k, v = affine("attention.qkv", norm("norm1", tokens)).chunk(3, dim=-1)
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    if rope is not None:
        y, x, base = rope
        q, k = rotate_2d(q, y, x, base), rotate_2d(k, y, x, base)
    scale = stretch * q.shape[-1] ** -0.5
    attended = torch.softmax(q @ k.mT * scale, dim=-1) @ v
    tokens = tokens + affine("attention.project", attended.transpose(1, 2).flatten(2))
    hidden = F.gelu(affine("mlp.expand", norm("norm2", tokens)))
    return tokens + affine("mlp.contract", hidden)


def rotate_2d(tokens: Tensor, y: Tensor, x: Tensor, base: float) -> Tensor:
    """RoPE on (B, heads, T, D): the first half of the channels turns by y, the second by x."""
    by_y, by_x = tokens.chunk(2, dim=-1)
    return torch.cat([rotate_1d(by_y, y, base), rotate_1d(by_x, x, base)], dim=-1)


def rotate_1d(t: Tensor, positions: Tensor, base: float) -> Tensor:
    """t cos(a) + rot(t) sin(a), rot([u, v]) = [-v, u], a_j = position * base^(-2j/D) for j and for j + D/2."""
    half = t.shape[-1] // 2
    frequencies = base ** (-torch.arange(half).float() / half)
    angles = (positions.float()[:, None] * frequencies).repeat(1, 2)
    u, v = t.chunk(2, dim=-1)
    return t * angles.cos().to(t.dtype) + torch.cat([-v, u], dim=-1) * angles.sin().to(t.dtype)


def dense_prediction(head: DPTHead, maps: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
    """Four token maps (B, h * w, C_i) -> (B, channels, H, W), in the published order of operations."""
    scales = []
    for level, tokens in enumerate(maps):
        feature = tokens.mT.unflatten(-1, grid)
        projection = head.projections[level]
        assert isinstance(projection, nn.Linear)
        feature = F.conv2d(feature, projection.weight[..., None, None], projection.bias)
        scales.append(head.narrow[level](head.resample[level](feature)))
    fused = refine(head.refinement(3), scales[3])[..., : grid[0], : grid[1]]
    for level in (2, 1, 0):
        fused = refine(head.refinement(level), fused, scales[level])
    fused = head.output[0](fused)
    if head.patch_size != 8:
        fused = F.interpolate(fused, scale_factor=head.patch_size / 8, mode="bilinear", align_corners=True)
    return head.output[4](F.relu(head.output[2](fused)))


def refine(block: Refine, a: Tensor, b: Tensor | None = None) -> Tensor:
    """a (+ residual(b)), residual, double the size, 1x1 convolution."""
    if b is not None:
        a = a + residual(block.join, b)
    a = F.interpolate(residual(block.smooth, a), scale_factor=2, mode="bilinear", align_corners=True)
    return block.mix(a)


def residual(block: ResidualConvolutions, x: Tensor) -> Tensor:
    """x + conv(relu(conv(relu(x))))."""
    return x + block.conv2(F.relu(block.conv1(F.relu(x))))
