"""The image encoder shared by CroCo's descendants (DUSt3R, MV-DUSt3R, Fast3R): a ViT with rotary positions."""

from __future__ import annotations

from torch import Tensor, nn

from manyview.networks.layers.blocks import Block
from manyview.networks.layers.rope import grid_positions, rotation


class VisionTransformer(nn.Module):
    """Patches -> tokens. No class token, no additive position.

    Args:
        patch_size: side of a square patch in pixels.
        dim, heads, depth, mlp_ratio: size of the transformer.
        rope_base: base of the rotary frequencies.
    """

    def __init__(
        self, *, patch_size: int, dim: int, heads: int, depth: int, mlp_ratio: float, rope_base: float
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.head_dim = dim // heads
        self.rope_base = rope_base
        self.patch_embedding = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio=mlp_ratio, norm_eps=1e-6) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, H/p * W/p, dim), tokens row by row."""
        patches = self.patch_embedding(images)
        height, width = patches.shape[-2:]
        positions = rotation(grid_positions(height, width, images.device), self.head_dim, self.rope_base)
        tokens = patches.flatten(2).transpose(1, 2).contiguous()
        for block in self.blocks:
            tokens = block(tokens, positions)
        return self.norm(tokens)
