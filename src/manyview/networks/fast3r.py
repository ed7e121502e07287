"""Fast3R: any number of views through one transformer (Yang et al. 2025, arXiv 2501.13928).

    image v -> encoder -> tokens --+
                                   |  + index embedding of v      +-> global head -> points in the first camera's frame
    image w -> encoder -> tokens --+-> fusion: self-attention  ---+
                                       over all tokens of all     +-> local head  -> points in each camera's own frame
                                       views, many blocks             (both with a confidence)

Shapes: B scenes, N views, T tokens, (h, w) a view's grid of patches, (H, W) its pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Literal

import torch
from torch import Tensor, nn

from manyview.networks.economy import USUAL, Economy, finish_transfers, to_host
from manyview.networks.layers.blocks import Block
from manyview.networks.layers.coordinates import FEATURES, coordinate_features
from manyview.networks.layers.dpt import DPTHead
from manyview.networks.layers.matmul import Linear
from manyview.networks.layers.orientation import head_in_natural_orientation, in_natural_orientation
from manyview.networks.layers.pointmap_activations import (
    ConfidenceActivation,
    DepthActivation,
    activate_confidence,
    activate_points,
)
from manyview.networks.layers.rope import Rotation, grid_positions, rotation
from manyview.networks.layers.view_index import draw_ids, index_embedding, sequential_ids
from manyview.networks.layers.vit import VisionTransformer
from manyview.networks.pointmaps import Pointmaps

# Inside the fusion blocks the released network has PyTorch's default epsilon, unlike its encoder and its final norm.
FUSION_BLOCK_NORM_EPS = 1e-5
# View counts in the released attention-scale option: trained with 20 views, "tested" with a fixed 137.
SCALED_TRAIN_VIEWS, SCALED_TEST_VIEWS = 20, 137


@dataclass(frozen=True, kw_only=True)
class Fast3RConfig:
    """Sizes and options. The defaults are the released network, `jedyang97/Fast3R_ViT_Large_512`.

    Attributes:
        patch_size: side of a patch; heights and widths of the images are multiples of it.
        encoder_*, fusion_*: dimension, heads and depth of the two transformers; `fusion_depth` is a multiple of 4.
        random_view_ids: views after the first get random rows of the index table (else 0, 1, 2, ...).
        length_scaled_attention: outside training, multiply the fusion's attention scale by sqrt(ln 137 / ln 20).
            An option of the official code that its released configuration switches off.
        head_*: widths of the two DPT heads.
        fusion_attention: "joint": every block attends to all tokens of all views, as published. "alternating": odd
            blocks attend to all, even blocks within a view. Not in the released network.
        fusion_positions: also rotate the fusion's queries and keys by the patch position (RoPE). In the released
            network the fusion knows positions only through the encoder's features.
        fusion_coordinates: tell the fusion where in its picture each patch lies (added to the tokens). Rotary positions
            are relative; what one view reads from another otherwise has to find its place from the picture's borders.
            Not in the released network.
        fusion_qk_norm: normalise queries and keys in the fusion. Not in the released network.
    """

    patch_size: int = 16
    encoder_dim: int = 1024
    encoder_heads: int = 16
    encoder_depth: int = 24
    fusion_dim: int = 1024
    fusion_heads: int = 16
    fusion_depth: int = 24
    mlp_ratio: float = 4.0
    rope_base: float = 100.0
    random_view_ids: bool = True
    length_scaled_attention: bool = False
    head_widths: tuple[int, int, int, int] = (96, 192, 384, 768)
    head_features: int = 256
    head_last_features: int = 128
    depth_activation: DepthActivation = "exp"
    confidence_activation: ConfidenceActivation = "exp"
    confidence_range: tuple[float, float] = (1.0, float("inf"))
    fusion_attention: Literal["joint", "alternating"] = "joint"
    fusion_positions: bool = False
    fusion_coordinates: bool = False
    fusion_qk_norm: bool = False

    @property
    def hooks(self) -> tuple[int, int, int, int]:
        """Depths whose tokens go to the heads; 0 is the encoder's output."""
        depth = self.fusion_depth
        return 0, depth * 2 // 4, depth * 3 // 4, depth


@dataclass(frozen=True)
class Layout:
    """Where the tokens of each view lie in the long sequence."""

    grids: tuple[tuple[int, int], ...]

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(h * w for h, w in self.grids)

    def span(self, first: int, last: int) -> slice:
        """Tokens of the views first..last-1."""
        lengths = self.lengths
        return slice(sum(lengths[:first]), sum(lengths[:last]))

    def runs(self, longest: int) -> Iterator[tuple[int, int]]:
        """(first, last) of neighbouring views that share one grid, at most `longest` views each."""
        for _, members in groupby(range(len(self.grids)), key=lambda view: self.grids[view]):
            while run := list(islice(members, longest)):
                yield run[0], run[-1] + 1


class Fast3R(nn.Module):
    """N images of a scene -> `Pointmaps`, in one forward pass."""

    def __init__(self, config: Fast3RConfig = Fast3RConfig()) -> None:
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
        self.fusion = Fusion(config)
        self.global_head = self._head()
        self.local_head = self._head()

    def _head(self) -> DPTHead:
        config = self.config
        return DPTHead(
            token_dims=(config.encoder_dim, *[config.fusion_dim] * 3),
            widths=config.head_widths,
            features=config.head_features,
            last_features=config.head_last_features,
            channels=4,  # x, y, z, confidence
            patch_size=config.patch_size,
        )

    def forward(
        self,
        images: Sequence[Tensor] | Tensor,
        *,
        view_ids: Tensor | None = None,
        seed: int = 0,
        stored_upright: Tensor | None = None,
        local: bool = True,
        economy: Economy = USUAL,
    ) -> Pointmaps:
        """Predict points and confidence for every pixel of every view.

        Args:
            images: N tensors (B, 3, H, W), or one (B, N, 3, H, W), in [-1, 1]. Sizes may differ between views.
            view_ids: (B, N) rows of the index table; drawn from `seed` if None.
            seed: for the random rows; equal seeds give equal results.
            stored_upright: (B, N) bool, for batches that mix portrait and landscape in tensors of one (landscape)
                shape: False marks a portrait picture that is stored transposed. Its results come back transposed too.
            local: False leaves out the local head and its results.
            economy: how the work is cut up.

        Returns:
            Pointmaps with a (B, H, W, 3) / (B, H, W) entry a view, in float32.
        """
        images = list(images.unbind(1)) if isinstance(images, Tensor) else list(images)
        self._check(images)
        upright = (
            torch.ones(len(images[0]), len(images), dtype=torch.bool) if stored_upright is None else stored_upright
        )
        layout = Layout(
            tuple((i.shape[-2] // self.config.patch_size, i.shape[-1] // self.config.patch_size) for i in images)
        )
        if view_ids is None:
            view_ids = self.choose_ids(len(images[0]), len(images), seed)

        encoded = self.encode(images, layout, upright, economy)
        heads = [self.global_head, self.local_head] if local else [self.global_head]
        maps = self.fuse(encoded, layout, view_ids, heads)
        points, confidence = self.predict(self.global_head, maps[0], layout, upright, economy)
        local_points, local_confidence = None, None
        if local:
            local_points, local_confidence = self.predict(self.local_head, maps[1], layout, upright, economy)
        finish_transfers(economy)
        return Pointmaps(
            points=points, confidence=confidence, local_points=local_points, local_confidence=local_confidence
        )

    def choose_ids(self, batch: int, views: int, seed: int) -> Tensor:
        """(batch, views) rows of the index table; random ones come from `seed` alone."""
        return draw_ids(batch, views, seed) if self.config.random_view_ids else sequential_ids(batch, views)

    def encode(self, images: Sequence[Tensor], layout: Layout, upright: Tensor, economy: Economy) -> Tensor:
        """N x (B, 3, H, W) -> (B, T, encoder_dim), views one after another. Equal shapes are encoded together."""
        batch = len(images[0])
        dtype = self.encoder.patch_embedding.weight.dtype
        tokens = []
        for first, last in layout.runs(max(1, economy.encoder_images // batch)):
            stacked = torch.stack(list(images[first:last]), dim=1).flatten(0, 1).to(dtype)
            encoded = in_natural_orientation(self.encoder, stacked, upright[:, first:last].flatten())
            tokens.append(encoded.unflatten(0, (batch, -1)).flatten(1, 2))
        return torch.cat(tokens, dim=1)

    def fuse(self, encoded: Tensor, layout: Layout, view_ids: Tensor, heads: Sequence[DPTHead]) -> list[list[Tensor]]:
        """Tokens of all views -> what each head needs of them: four narrow token maps (B, T, width).

        Only these are kept of the hooked depths: a head's first 1x1 convolution looks at single tokens.
        """
        maps: list[list[Tensor]] = [[] for _ in heads]
        for depth, tokens in enumerate(self.fusion(encoded, layout, view_ids)):
            if depth in self.config.hooks:
                level = self.config.hooks.index(depth)
                for head, kept in zip(heads, maps, strict=True):
                    kept.append(head.project(level, tokens))
        return maps

    def predict(
        self, head: DPTHead, projected: Sequence[Tensor], layout: Layout, upright: Tensor, economy: Economy
    ) -> tuple[list[Tensor], list[Tensor]]:
        """One head over all views, a few at a time: points and confidence of each view."""
        points, confidence = [], []
        batch = len(projected[0])
        for first, last in layout.runs(max(1, economy.head_images // batch)):
            span, grid = layout.span(first, last), layout.grids[first]
            maps = [tokens[:, span].unflatten(1, (last - first, -1)).flatten(0, 1) for tokens in projected]
            raw = head_in_natural_orientation(head, maps, grid, upright[:, first:last].flatten())
            raw = raw.float().permute(0, 2, 3, 1).unflatten(0, (batch, -1))
            xyz, conf = self.activate(raw)
            points += to_host(xyz, economy).unbind(1)
            confidence += to_host(conf, economy).unbind(1)
        return points, confidence

    def activate(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Raw channels (..., 4) -> points (..., 3), confidence (...)."""
        low, high = self.config.confidence_range
        points = activate_points(raw[..., :3], self.config.depth_activation)
        return points, activate_confidence(raw[..., 3], self.config.confidence_activation, low, high)

    def _check(self, images: Sequence[Tensor]) -> None:
        for view, image in enumerate(images):
            if image.ndim != 4 or image.shape[1] != 3 or any(side % self.config.patch_size for side in image.shape[2:]):
                raise ValueError(
                    f"view {view} has shape {tuple(image.shape)}; expected (B, 3, H, W) with H and W multiples of "
                    f"{self.config.patch_size}"
                )


class Fusion(nn.Module):
    """The all-to-all transformer ("decoder" in the official code)."""

    def __init__(self, config: Fast3RConfig) -> None:
        super().__init__()
        self.config = config
        dim, heads = config.fusion_dim, config.fusion_heads
        scale = (dim // heads) ** -0.5
        if config.length_scaled_attention:
            scale *= math.sqrt(math.log(SCALED_TEST_VIEWS) / math.log(SCALED_TRAIN_VIEWS))
        self.embedding = Linear(config.encoder_dim, dim)
        self.coordinates = Linear(FEATURES, dim) if config.fusion_coordinates else None
        self.blocks = nn.ModuleList(
            Block(
                dim,
                heads,
                mlp_ratio=config.mlp_ratio,
                norm_eps=FUSION_BLOCK_NORM_EPS,
                attention_scale=scale,
                qk_norm=config.fusion_qk_norm,
            )
            for _ in range(config.fusion_depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, encoded: Tensor, layout: Layout, view_ids: Tensor) -> Iterator[Tensor]:
        """(B, T, encoder_dim) -> the tokens of depth 0 (as they came), 1, 2, ..., the last one normalised."""
        yield encoded
        tokens = self.embedding(encoded) + self.index_of_tokens(view_ids, layout, encoded)
        if self.coordinates is not None:
            features = torch.cat([coordinate_features(*grid, encoded.device) for grid in layout.grids])
            tokens = tokens + self.coordinates(features.to(encoded.dtype))
        positions = self.positions(layout, encoded.device)
        for number, block in enumerate(self.blocks):
            if self.config.fusion_attention == "alternating" and number % 2 == 0:
                tokens = within_views(block, tokens, layout, positions)
            else:
                tokens = block(tokens, positions)
            yield self.norm(tokens) if number == len(self.blocks) - 1 else tokens

    def index_of_tokens(self, view_ids: Tensor, layout: Layout, like: Tensor) -> Tensor:
        """(B, N) rows of the index table -> (B, T, fusion_dim): every token gets its view's embedding."""
        embedding = index_embedding(view_ids.to(like.device), self.config.fusion_dim).to(like.dtype)
        repeats = torch.tensor(layout.lengths, device=like.device)
        return embedding.repeat_interleave(repeats, dim=1, output_size=like.shape[1])

    def positions(self, layout: Layout, device: torch.device) -> Rotation | None:
        """The tokens' rotations by patch position, if the fusion uses them."""
        if not self.config.fusion_positions:
            return None
        grids = torch.cat([grid_positions(*grid, device) for grid in layout.grids])
        return rotation(grids, self.config.fusion_dim // self.config.fusion_heads, self.config.rope_base)


def within_views(block: nn.Module, tokens: Tensor, layout: Layout, positions: Rotation | None) -> Tensor:
    """Apply a block to each view's tokens by themselves; views of one shape together."""
    batch, parts = len(tokens), []
    for first, last in layout.runs(len(layout.grids)):
        span = layout.span(first, last)
        single = layout.span(first, first + 1)
        own = None if positions is None else Rotation(positions.cos[single], positions.sin[single])
        folded = tokens[:, span].unflatten(1, (last - first, -1)).flatten(0, 1)
        parts.append(block(folded, own).unflatten(0, (batch, -1)).flatten(1, 2))
    return torch.cat(parts, dim=1)
