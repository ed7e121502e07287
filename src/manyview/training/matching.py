"""A helper loss: tokens of the same surface point should look alike in all views.

Pointmaps of one view can be learnt without looking at the others, and then all cameras come out equal. Contrasting
tokens between views makes cross-view geometry emerge early. Used in training only; the network does not need it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manyview.worlds import WorldBatch

TEMPERATURE = 0.07
# A surface point counts as seen by another view if its depth there agrees to this relative tolerance.
DEPTH_TOLERANCE = 0.05
NOT_SEEN = -1


class MatchingLoss(nn.Module):
    """InfoNCE between the tokens of every ordered pair of views (van den Oord et al. 2018, arXiv 1807.03748).

    Args:
        dim: channels of the tokens.
        width: channels in which tokens are compared.
    """

    def __init__(self, dim: int, width: int = 64) -> None:
        super().__init__()
        self.project = nn.Linear(dim, width)

    def forward(self, tokens: Tensor, matches: Tensor) -> Tensor:
        """Tokens (B, N, T, dim) and `token_matches` (B, N, N, T) -> scalar."""
        features = F.normalize(self.project(tokens.float()), dim=-1)
        logits = torch.einsum("bitc,bjsc->bijts", features, features) / TEMPERATURE
        return F.cross_entropy(logits.flatten(0, 3), matches.flatten(), ignore_index=NOT_SEEN, reduction="sum") / (
            matches.ne(NOT_SEEN).sum().clamp(min=1)
        )


def token_matches(batch: WorldBatch, patch_size: int) -> Tensor:
    """(B, N, N, T): the token of view j that sees the surface at the centre of token t of view i.

    `NOT_SEEN` where it is hidden, outside the picture, sky, or i == j.
    """
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
    other = ~torch.eye(views, dtype=torch.bool, device=depth.device)[None, :, :, None]
    seen = inside & agrees & visible[:, :, None] & other
    token = (row // patch_size) * (width // patch_size) + column // patch_size
    return torch.where(seen, token, NOT_SEEN)
