"""Counts of a batch that is split over several processes.

A loss is a sum over a batch's valid pixels (or matches, or scenes) divided by their count. Where each process holds
some of the scenes, it has to divide by the count of the whole batch, not by its own. Dividing by the *mean count a
process* gives losses whose mean over the processes is the loss of the whole batch; gradients averaged over the
processes, as DDP and FSDP make them, are then exactly those of one process with all scenes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Share = Callable[[Tensor], Tensor]
"""Counts of this process (any shape) -> mean counts a process."""

# Below any mean count that is not zero; keeps sums over nothing at zero.
SMALLEST_COUNT = 1e-6


def whole(counts: Tensor) -> Tensor:
    """The batch is not split: counts are as they are."""
    return counts


def over_processes(counts: Tensor) -> Tensor:
    """The batch is split over all processes of `torch.distributed`."""
    total = counts.to(torch.float32)  # a copy, unless it is float32 already: counts are integers
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()


def divided(sums: Tensor, counts: Tensor) -> Tensor:
    """sums / counts; 0 where nothing was counted."""
    return sums / counts.clamp(min=SMALLEST_COUNT)
