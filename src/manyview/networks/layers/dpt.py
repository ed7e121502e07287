"""The dense prediction head (DPT; Ranftl et al. 2021, arXiv 2103.13413), shared by all families.

Token maps of four depths become feature maps at four scales, which are fused from coarse to fine.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manyview.networks.layers.matmul import Linear


class DPTHead(nn.Module):
    """Four token maps -> one dense map.

    Args:
        token_dims: channels of the four hooked token maps, shallow to deep.
        widths: channels of the four feature maps after the 1x1 projections.
        features: channels while fusing.
        last_features: channels before the last convolution.
        channels: channels of the result.
        patch_size: side of a patch in pixels; the result has one value a pixel.
    """

    def __init__(
        self,
        *,
        token_dims: Sequence[int],
        widths: Sequence[int],
        features: int,
        last_features: int,
        channels: int,
        patch_size: int,
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.projections = nn.ModuleList(Linear(dim, width) for dim, width in zip(token_dims, widths, strict=True))
        self.resample = nn.ModuleList(
            [
                nn.ConvTranspose2d(widths[0], widths[0], kernel_size=4, stride=4),
                nn.ConvTranspose2d(widths[1], widths[1], kernel_size=2, stride=2),
                nn.Identity(),
                nn.Conv2d(widths[3], widths[3], kernel_size=3, stride=2, padding=1),
            ]
        )
        self.narrow = nn.ModuleList(nn.Conv2d(width, features, 3, padding=1, bias=False) for width in widths)
        self.refine = nn.ModuleList(Refine(features) for _ in widths)
        self.output = nn.Sequential(
            nn.Conv2d(features, last_features, 3, padding=1),
            nn.Identity(),  # the place of the last upsampling, done in `forward`; keeps the official numbering
            nn.Conv2d(last_features, last_features, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(last_features, channels, 1),
        )
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def project(self, level: int, tokens: Tensor) -> Tensor:
        """First 1x1 convolution of a level: (B, T, token_dims[level]) -> (B, T, widths[level]).

        It looks at single tokens, so it can be applied to all views at once, as soon as the tokens exist; only its
        narrower result has to be kept.
        """
        return self.projections[level](tokens)

    def refinement(self, level: int) -> Refine:
        """The block that fuses `level` (0 is the finest) with the coarser ones."""
        block = self.refine[level]
        assert isinstance(block, Refine)
        return block

    def scale(self, level: int, projected: Tensor, grid: tuple[int, int]) -> Tensor:
        """Projected tokens (B, h * w, widths[level]) on a grid (h, w) -> (B, features, H, W) at the level's scale."""
        tokens = projected.unflatten(1, grid).permute(0, 3, 1, 2)  # channels-last already
        return self.narrow[level](self.resample[level](tokens))

    def finest(self, projected: Tensor, grid: tuple[int, int]) -> Tensor:
        """All that becomes of the shallowest tokens before coarser levels join in, a fifth of the head's work.

        Where these tokens are the same in many calls (DUSt3R hooks the encoder's, which know nothing of the other
        picture of a pair), this can be done once and handed to each call.

        Args:
            projected: (B, h * w, widths[0]), of level 0.
            grid: (h, w).

        Returns:
            (B, features, 4 h, 4 w).
        """
        return self.refinement(0).join(self.scale(0, projected, grid))

    def forward(self, projected: Sequence[Tensor], grid: tuple[int, int], finest: Tensor | None = None) -> Tensor:
        """Four projected token maps -> one value a pixel and channel.

        Args:
            projected: four times (B, h * w, widths[i]).
            grid: (h, w).
            finest: what `finest` gives for `projected[0]`, if that is known already.

        Returns:
            (B, channels, h * p, w * p), p the side of a patch.
        """
        height, width = grid
        fused = self.refine[3](self.scale(3, projected[3], grid))
        fused = fused[..., :height, :width]  # an odd grid was rounded up by the stride of level 3
        for level in (2, 1):
            fused = self.refine[level](self.scale(level, projected[level], grid), fused)
        fused = self.refinement(0).grow(fused + (self.finest(projected[0], grid) if finest is None else finest))
        fused = self.output[0](fused)
        fused = upsample(fused, (height * self.patch_size, width * self.patch_size))
        return self.output[2:](fused)


class Refine(nn.Module):
    """Join a coarser map to one of this scale, refine, double the size ("RefineNet" block)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.join = ResidualConvolutions(features)  # of the coarsest level: in the checkpoints, but never used
        self.smooth = ResidualConvolutions(features)
        self.mix = nn.Conv2d(features, features, 1)

    def forward(self, here: Tensor, coarser: Tensor | None = None) -> Tensor:
        """(B, C, h, w) and optionally (B, C, h, w) from the coarser level -> (B, C, 2h, 2w)."""
        return self.grow(here if coarser is None else coarser + self.join(here))

    def grow(self, merged: Tensor) -> Tensor:
        """Refine what is joined and double its size: (B, C, h, w) -> (B, C, 2h, 2w)."""
        # The published order is upsample, then 1x1 convolution. Both are linear and the weights of a bilinear sample
        # sum to one, so they commute exactly; in this order the convolution sees a quarter of the pixels.
        mixed = self.mix(self.smooth(merged))
        return upsample(mixed, (2 * merged.shape[-2], 2 * merged.shape[-1]))


class ResidualConvolutions(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu_(self.conv1(F.relu(x))))


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear with corners aligned, as in all published DPT heads."""
    return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="bilinear", align_corners=True)
