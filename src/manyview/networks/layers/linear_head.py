"""The plain dense head: every token becomes its patch of pixels by one linear map."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from manyview.networks.layers.matmul import Linear


class LinearHead(nn.Module):
    """Tokens -> dense map. Used in the same way as `DPTHead`, but it looks at the last tokens alone.

    Args:
        dim: channels of a token.
        channels: channels of the result.
        patch_size: side of a patch in pixels; the result has one value a pixel.
    """

    def __init__(self, *, dim: int, channels: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.patch = Linear(dim, channels * patch_size**2)

    def project(self, level: int, tokens: Tensor) -> Tensor:
        """The tokens themselves: (B, T, dim)."""
        return tokens

    def finest(self, projected: Tensor, grid: tuple[int, int]) -> None:
        """Nothing can be done before the last tokens are known."""

    def forward(self, projected: Sequence[Tensor], grid: tuple[int, int], finest: None = None) -> Tensor:
        """The last entry, (B, h * w, dim) on a grid (h, w) -> (B, channels, h * p, w * p)."""
        patches = self.patch(projected[-1]).mT.unflatten(-1, grid)  # within a patch: channel, then row, then column
        return F.pixel_shuffle(patches, self.patch_size)
