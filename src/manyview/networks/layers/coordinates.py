"""Where a patch lies in its picture, as features."""

from __future__ import annotations

import torch
from torch import Tensor

OCTAVES = 4
FEATURES = 2 * (1 + 2 * OCTAVES)


def coordinate_features(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """(height * width, FEATURES): position of every patch's centre and its Fourier features (four octaves).

    Positions are measured from the picture's centre in halves of its longer side, so that they mean the same viewing
    direction at every resolution.
    """
    y = (torch.arange(height, device=device) + 0.5 - height / 2) / (max(height, width) / 2)
    x = (torch.arange(width, device=device) + 0.5 - width / 2) / (max(height, width) / 2)
    position = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).flatten(0, 1)
    angles = torch.cat([position * (torch.pi * 2.0**octave) for octave in range(OCTAVES)], dim=-1)
    return torch.cat([position, angles.sin(), angles.cos()], dim=-1)
