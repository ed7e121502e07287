"""A helper loss: the cameras, straight from the tokens.

A pointmap in the first camera's frame contains its camera, but says so with thousands of numbers that share one error.
Regressing the twelve numbers themselves makes the network look for them early. Used in training only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from manyview.geometry.posed_views import PosedViews
from manyview.training.batch_share import Share, divided, whole


class CameraLoss(nn.Module):
    """Every token votes for its view's camera; the mean vote is compared with the truth.

    Args:
        dim: channels of the tokens.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.vote = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 12))

    def forward(self, tokens: Tensor, truth: Tensor, share: Share = whole) -> Tensor:
        """Tokens (B, N, T, dim) and `true_cameras` (B, N, 3, 4) -> scalar: mean error of rotation plus translation."""
        voted = self.vote(tokens.float()).mean(dim=2).unflatten(-1, (3, 4))
        difference = (voted - truth)[:, 1:]  # the first camera is the identity by definition
        errors = difference[..., :3].flatten(2).norm(dim=-1) + difference[..., 3].norm(dim=-1)
        return divided(errors.sum(), share(torch.tensor(errors.numel(), device=errors.device)))


def true_cameras(batch: PosedViews) -> Tensor:
    """(B, N, 3, 4): first_from_camera; lengths in units of the scene's mean distance from the first camera."""
    first_from_world = torch.linalg.inv(batch.world_from_camera[:, :1])
    cameras = first_from_world @ batch.world_from_camera
    points = torch.einsum("bxy,bnhwy->bnhwx", first_from_world[:, 0, :3, :3], batch.points)
    points = points + first_from_world[:, 0, None, None, None, :3, 3]
    seen = batch.valid
    scale = (points.norm(dim=-1) * seen).flatten(1).sum(1) / seen.flatten(1).sum(1).clamp(min=1)
    translation = cameras[..., :3, 3:] / scale.clamp(min=1e-6)[:, None, None, None]
    return torch.cat([cameras[..., :3, :3], translation], dim=-1)
