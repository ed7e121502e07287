"""The exponential moving average of a network's weights: steadier than the weights of any one step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# The average of few steps would be mostly the random start: early decays are smaller, (1 + step) / (10 + step).
EARLY_STEPS = 10


class MovingAverage:
    """The average of a network's parameters, in float32, beside the network.

    Args:
        network: whose parameters; the average starts as a copy of them.
        decay: how much of the average stays at each step, 0..1.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in network.named_parameters()
        }

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards the network's parameters; `step` counts from 0."""
        decay = min(self.decay, (1 + step) / (EARLY_STEPS + step))
        current = dict(network.named_parameters())
        for name, average in self.weights.items():
            average.lerp_(current[name], 1 - decay)
