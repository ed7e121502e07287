"""Helper losses on correspondences: which tokens of two views show the same surface, and where in the other view it is.

Pointmaps of one view can be learnt without looking at the others, and then all cameras come out equal. Contrasting
tokens between views, and asking each token where the first view sees its surface, makes cross-view geometry emerge
early. Used in training only; the network does not need these layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manyview.geometry.posed_views import PosedViews
from manyview.training.batch_share import Share, divided, whole

TEMPERATURE = 0.07
# A surface point counts as seen by another view if its depth there agrees to this relative tolerance.
DEPTH_TOLERANCE = 0.05
NOT_SEEN = -1


@dataclass(frozen=True)
class Matches:
    """Where view j sees the surface at the centre of token t of view i.

    Attributes:
        token: (B, N, N, T) token of view j, or `NOT_SEEN` where it is hidden, outside the picture, or sky.
        place: (B, N, N, T, 2) (x, y) in view j from its centre, in halves of its longer side; nonsense where not seen.
    """

    token: Tensor
    place: Tensor

    @property
    def seen(self) -> Tensor:
        """(B, N, N, T) bool."""
        return self.token != NOT_SEEN


class MatchingLoss(nn.Module):
    """InfoNCE between the tokens of every ordered pair of views (van den Oord et al. 2018, arXiv 1807.03748).

    Args:
        dim: channels of the tokens.
        width: channels in which tokens are compared.
    """

    def __init__(self, dim: int, width: int = 64) -> None:
        super().__init__()
        self.project = nn.Linear(dim, width)

    def forward(self, tokens: Tensor, matches: Matches, share: Share = whole) -> Tensor:
        """Tokens (B, N, T, dim) -> scalar; views are not compared with themselves."""
        features = F.normalize(self.project(tokens.float()), dim=-1)
        logits = torch.einsum("bitc,bjsc->bijts", features, features) / TEMPERATURE
        itself = torch.eye(tokens.shape[1], dtype=torch.bool, device=tokens.device)[None, :, :, None]
        wanted = matches.token.masked_fill(itself, NOT_SEEN)
        total = F.cross_entropy(logits.flatten(0, 3), wanted.flatten(), ignore_index=NOT_SEEN, reduction="sum")
        return divided(total, share(wanted.ne(NOT_SEEN).sum()))


class PlaceLoss(nn.Module):
    """Each token of the other views says where the first view sees its surface; mean distance to the truth.

    Args:
        dim: channels of the tokens.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.say = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2))

    def forward(self, tokens: Tensor, matches: Matches, share: Share = whole) -> Tensor:
        """Tokens (B, N, T, dim) -> scalar, in halves of the picture's longer side."""
        said = self.say(tokens[:, 1:].float())
        distance = (said - matches.place[:, 1:, 0]).norm(dim=-1)
        seen = matches.seen[:, 1:, 0]
        return divided(torch.where(seen, distance, 0).sum(), share(seen.sum()))


def token_matches(batch: PosedViews, patch_size: int) -> Matches:
    """The true matches between all tokens of all views of a batch."""
    views, (height, width) = batch.depth.shape[1], batch.depth.shape[-2:]
    centre = slice(patch_size // 2, None, patch_size)
    points = batch.points[:, :, centre, centre].flatten(2, 3)  # (B, N, T, 3)
    visible = batch.valid[:, :, centre, centre].flatten(2, 3)
    camera_from_world = torch.linalg.inv(batch.world_from_camera)
    in_camera = torch.einsum("bjxy,bity->bijtx", camera_from_world[..., :3, :3], points)
    in_camera = in_camera + camera_from_world[:, None, :, None, :3, 3]
    depth = in_camera[..., 2]
    pixels = torch.einsum("bjxy,bijty->bijtx", batch.K, in_camera)[..., :2] / depth.clamp(min=1e-6)[..., None]
    x, y = pixels.round().unbind(-1)
    inside = (depth > 1e-3) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    column, row = x.clamp(0, width - 1).long(), y.clamp(0, height - 1).long()
    flat = batch.depth[:, None].expand(-1, views, -1, -1, -1).flatten(3)
    there = flat.gather(3, row * width + column)
    agrees = (there - depth).abs() < DEPTH_TOLERANCE * depth
    seen = inside & agrees & visible[:, :, None]
    token = (row // patch_size) * (width // patch_size) + column // patch_size
    middle = torch.tensor([(width - 1) / 2, (height - 1) / 2], device=pixels.device)
    return Matches(torch.where(seen, token, NOT_SEEN), (pixels - middle) / (max(height, width) / 2))
