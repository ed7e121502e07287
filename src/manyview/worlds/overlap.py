"""How much of each view is seen by each other view."""

from __future__ import annotations

import torch
from torch import Tensor

from manyview.worlds.motion import flow
from manyview.worlds.render import WorldBatch


def overlap(batch: WorldBatch) -> Tensor:
    """(B, N, N): entry [b, i, j] is the fraction of view i's valid pixels that view j sees, too (`motion.flow`).

    The diagonal is 1; views without valid pixels have 0.
    """
    views = range(batch.depth.shape[1])
    seen = torch.stack([torch.stack([flow(batch, i, j).visible.sum((1, 2)) for j in views]) for i in views])
    valid = batch.valid.sum((2, 3)).T[:, None]  # (N, 1, B)
    return (seen / valid.clamp_min(1)).permute(2, 0, 1)
