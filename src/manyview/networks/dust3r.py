"""DUSt3R: a pair of views through two decoders that look at each other (Wang et al. 2024, arXiv 2312.14132).

    first  -> encoder -> tokens -> decoder of the first --+-> head of the first  -> its points      \\ both in the frame
                                   |   ^  blocks look at  |                                          > of the first
                                   v   |  each other      |                                         / view's camera
    second -> encoder -> tokens -> decoder of the second -+-> head of the second -> its points

Shapes: B pairs, T and S tokens of the first and second view, (h, w) a view's grid of patches, (H, W) its pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from manyview.networks.economy import USUAL, Economy, finish_transfers, to_host
from manyview.networks.layers.blocks import CrossBlock
from manyview.networks.layers.coordinates import FEATURES, coordinate_features
from manyview.networks.layers.dpt import DPTHead
from manyview.networks.layers.linear_head import LinearHead
from manyview.networks.layers.matmul import Linear
from manyview.networks.layers.pointmap_activations import (
    ConfidenceActivation,
    DepthActivation,
    activate_confidence,
    activate_points,
)
from manyview.networks.layers.rope import Rotation, grid_positions, rotation
from manyview.networks.layers.vit import VisionTransformer
from manyview.networks.pointmaps import Pointmaps

Grid = tuple[int, int]
Prepared = tuple[Tensor | None, Tensor | None]  # of the first and second side: what `Dust3R.prepare` gives
CHANNELS = 4  # x, y, z, confidence


@dataclass(frozen=True, kw_only=True)
class Dust3RConfig:
    """Sizes and options. The defaults are the released network `naver/DUSt3R_ViTLarge_BaseDecoder_512_dpt`.

    Attributes:
        patch_size: side of a patch; heights and widths of the images are multiples of it.
        encoder_*, decoder_*: dimension, heads and depth of the encoder and of each of the two decoders.
        head: "dpt", or "linear", which looks at the last tokens alone.
        head_widths, head_features, head_last_features: widths of the DPT heads.
        decoder_coordinates: tell the decoders where in its picture each patch lies (added to the tokens). Not in the
            released networks.
        decoder_sides: a learnt vector for each of the two sides, added to its tokens. Not in the released networks.
        decoder_qk_norm: normalise queries and keys in the decoders. Not in the released networks.
    """

    patch_size: int = 16
    encoder_dim: int = 1024
    encoder_heads: int = 16
    encoder_depth: int = 24
    decoder_dim: int = 768
    decoder_heads: int = 12
    decoder_depth: int = 12
    mlp_ratio: float = 4.0
    rope_base: float = 100.0
    head: Literal["dpt", "linear"] = "dpt"
    head_widths: tuple[int, int, int, int] = (96, 192, 384, 768)
    head_features: int = 256
    head_last_features: int = 128
    depth_activation: DepthActivation = "exp"
    confidence_activation: ConfidenceActivation = "exp"
    confidence_range: tuple[float, float] = (1.0, float("inf"))
    decoder_coordinates: bool = False
    decoder_sides: bool = False
    decoder_qk_norm: bool = False

    @property
    def hooks(self) -> tuple[int, ...]:
        """Depths whose tokens go to the heads; 0 is the encoder's output."""
        depth = self.decoder_depth
        return (0, depth * 2 // 4, depth * 3 // 4, depth) if self.head == "dpt" else (depth,)


class Dust3R(nn.Module):
    """Two images -> `Pointmaps` with two entries, both in the frame of the first camera."""

    def __init__(self, config: Dust3RConfig = Dust3RConfig()) -> None:
        super().__init__()
        self.config = config
        self.encoder = VisionTransformer(
            patch_size=config.patch_size,
            dim=config.encoder_dim,
            heads=config.encoder_heads,
            depth=config.encoder_depth,
            mlp_ratio=config.mlp_ratio,
            rope_base=config.rope_base,
        )
        self.decoder = PairDecoder(config)
        self.first_head = self._head()
        self.second_head = self._head()

    def _head(self) -> DPTHead | LinearHead:
        config = self.config
        if config.head == "linear":
            return LinearHead(dim=config.decoder_dim, channels=CHANNELS, patch_size=config.patch_size)
        return DPTHead(
            token_dims=(config.encoder_dim, *[config.decoder_dim] * 3),
            widths=config.head_widths,
            features=config.head_features,
            last_features=config.head_last_features,
            channels=CHANNELS,
            patch_size=config.patch_size,
        )

    def forward(
        self,
        images: Sequence[Tensor] | Tensor,
        *,
        stored_upright: Tensor | None = None,
        economy: Economy = USUAL,
    ) -> Pointmaps:
        """Predict points and confidence for every pixel of both views.

        Args:
            images: two tensors (B, 3, H, W), or one (B, 2, 3, H, W), in [-1, 1]. The two sizes may differ.
            stored_upright: (B, 2) bool, for batches that mix portrait and landscape in tensors of one (landscape)
                shape: False marks a portrait picture that is stored transposed. Its results come back transposed too.
            economy: where the results go; the batch is not cut up.

        Returns:
            Pointmaps with a (B, H, W, 3) / (B, H, W) entry for each of the two views, in float32.
        """
        images = list(images.unbind(1)) if isinstance(images, Tensor) else list(images)
        self._check(images)
        if stored_upright is None or bool(stored_upright.all()):
            result = self.predict_pairs(images[0], images[1], economy)
            finish_transfers(economy)
            return result
        # Tokens have their positions on each picture's own grid, so these pairs go one by one.
        samples = []
        for first, second, (first_up, second_up) in zip(
            *(i.split(1) for i in images), stored_upright.tolist(), strict=True
        ):
            upright = first if first_up else first.mT, second if second_up else second.mT
            samples.append(self.predict_pairs(*upright, economy))
        finish_transfers(economy)
        return _as_stored(samples, stored_upright)

    def predict_pairs(self, first: Tensor, second: Tensor, economy: Economy = USUAL) -> Pointmaps:
        """(B, 3, H, W) and (B, 3, H', W') -> Pointmaps of these two views."""
        encoded = self.encode_both(first, second)
        return self.decode(*encoded, self.grid(first), self.grid(second), economy)

    def encode_both(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of both views; equal shapes are encoded together."""
        if first.shape == second.shape:
            both = self.encode(torch.cat([first, second]))
            return both[: len(first)], both[len(first) :]
        return self.encode(first), self.encode(second)

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, T, encoder_dim). The tokens serve every pair that a picture is in, on either side."""
        return self.encoder(images.to(self.encoder.patch_embedding.weight.dtype))

    def prepare(self, tokens: Tensor, grid: Grid, *, side: int) -> Tensor | None:
        """What the head of a side (0 or 1) makes of a picture alone; None for a linear head, which only sees pairs.

        Encoded tokens (B, T, encoder_dim) -> (B, head_features, 4 h, 4 w). It serves every pair that has the picture
        on this side.
        """
        head = (self.first_head, self.second_head)[side]
        return head.finest(head.project(0, tokens), grid)

    def decode(
        self,
        first: Tensor,
        second: Tensor,
        first_grid: Grid,
        second_grid: Grid,
        economy: Economy = USUAL,
        prepared: Prepared = (None, None),
    ) -> Pointmaps:
        """Encoded tokens (B, T, encoder_dim) and (B, S, encoder_dim) of both views -> Pointmaps.

        What is `prepared` already is not made again; that changes no number.
        """
        heads = (self.first_head, self.second_head)
        maps: tuple[list[Tensor], list[Tensor]] = ([], [])
        for depth, sides in enumerate(self.decoder(first, second, first_grid, second_grid)):
            if depth in self.config.hooks:
                level = self.config.hooks.index(depth)
                for head, kept, tokens in zip(heads, maps, sides, strict=True):
                    kept.append(head.project(level, tokens))
        points, confidence = [], []
        for head, projected, grid, finest in zip(heads, maps, (first_grid, second_grid), prepared, strict=True):
            xyz, sure = self.activate(head(projected, grid, finest).float().permute(0, 2, 3, 1))
            points.append(to_host(xyz, economy))
            confidence.append(to_host(sure, economy))
        return Pointmaps(points=points, confidence=confidence)

    def activate(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Raw channels (..., 4) -> points (..., 3), confidence (...)."""
        low, high = self.config.confidence_range
        points = activate_points(raw[..., :3], self.config.depth_activation)
        return points, activate_confidence(raw[..., 3], self.config.confidence_activation, low, high)

    def grid(self, images: Tensor) -> Grid:
        """(h, w) in patches of images (..., H, W)."""
        return images.shape[-2] // self.config.patch_size, images.shape[-1] // self.config.patch_size

    def _check(self, images: Sequence[Tensor]) -> None:
        if len(images) != 2:
            raise ValueError(f"got {len(images)} views; DUSt3R takes two at a time (one photo: give it twice)")
        for view, image in enumerate(images):
            if image.ndim != 4 or image.shape[1] != 3 or any(side % self.config.patch_size for side in image.shape[2:]):
                raise ValueError(
                    f"view {view} has shape {tuple(image.shape)}; expected (B, 3, H, W) with H and W multiples of "
                    f"{self.config.patch_size}"
                )
        first, second = (len(image) for image in images)
        if first != second:
            raise ValueError(f"got {first} pictures on the first side and {second} on the second; expected pairs")


class PairDecoder(nn.Module):
    """Two stacks of blocks, one a view; each block reads what both stacks were one block before."""

    def __init__(self, config: Dust3RConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.decoder_dim
        self.embedding = Linear(config.encoder_dim, dim)
        self.coordinates = Linear(FEATURES, dim) if config.decoder_coordinates else None
        self.sides = nn.Parameter(torch.zeros(2, dim)) if config.decoder_sides else None
        self.first_blocks = self._blocks()
        self.second_blocks = self._blocks()
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def _blocks(self) -> nn.ModuleList:
        config = self.config
        return nn.ModuleList(
            CrossBlock(
                config.decoder_dim,
                config.decoder_heads,
                mlp_ratio=config.mlp_ratio,
                norm_eps=1e-6,
                qk_norm=config.decoder_qk_norm,
            )
            for _ in range(config.decoder_depth)
        )

    def forward(
        self, first: Tensor, second: Tensor, first_grid: Grid, second_grid: Grid
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(B, T, encoder_dim), (B, S, encoder_dim) -> both views' tokens of depth 0 (as they came), 1, 2, ...

        The last ones are normalised.
        """
        yield first, second
        positions, others = self.positions(first_grid, first.device), self.positions(second_grid, first.device)
        first, second = self.embed(first, first_grid, side=0), self.embed(second, second_grid, side=1)
        for number, (block, other_block) in enumerate(zip(self.first_blocks, self.second_blocks, strict=True), start=1):
            first, second = (
                block(first, second, positions, others),
                other_block(second, first, others, positions),
            )
            yield (self.norm(first), self.norm(second)) if number == len(self.first_blocks) else (first, second)

    def embed(self, encoded: Tensor, grid: Grid, *, side: int) -> Tensor:
        """(B, T, encoder_dim) -> (B, T, decoder_dim)."""
        tokens = self.embedding(encoded)
        if self.coordinates is not None:
            tokens = tokens + self.coordinates(coordinate_features(*grid, encoded.device).to(encoded.dtype))
        return tokens if self.sides is None else tokens + self.sides[side]

    def positions(self, grid: Grid, device: torch.device) -> Rotation:
        """Rotations of a view's tokens by patch position."""
        head_dim = self.config.decoder_dim // self.config.decoder_heads
        return rotation(grid_positions(*grid, device), head_dim, self.config.rope_base)


def _as_stored(samples: Sequence[Pointmaps], stored_upright: Tensor) -> Pointmaps:
    """Pairs one by one in their natural orientation -> one batch; portraits that are stored transposed stay so."""

    def batch(name: str, view: int) -> Tensor:
        results = [getattr(sample, name)[view] for sample in samples]
        flags = stored_upright[:, view].tolist()
        return torch.cat([r if up else r.transpose(1, 2) for r, up in zip(results, flags, strict=True)])

    return Pointmaps(
        points=[batch("points", view) for view in (0, 1)], confidence=[batch("confidence", view) for view in (0, 1)]
    )
