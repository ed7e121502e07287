"""Random numbers for a batch of scenes, each scene's from its own seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from manyview.errors import InputError


class Draws:
    """A supply of random numbers in which row b depends on seed b and on what was asked before, and nothing else.

    Each scene draws its uniform numbers in one go; `uniform` and its siblings hand out columns of the table, so that
    a batch of scenes is made up with the number of tensor operations of one.
    """

    def __init__(self, seeds: Sequence[int], size: int) -> None:
        """Draw `size` numbers for each of the seeds (integers of 0..2^63 - 1)."""
        for seed in seeds:
            if not 0 <= seed < 2**63:
                raise InputError(f"a seed is an integer of 0..2^63 - 1, got {seed}")
        self._generators = [Generator().manual_seed(int(seed)) for seed in seeds]
        self._table = torch.stack([torch.rand(size, generator=generator) for generator in self._generators])
        self._used = 0

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """(B, *shape) between low and high."""
        count = math.prod(shape)
        columns = self._table[:, self._used : self._used + count]
        if columns.shape[1] < count:
            raise InputError(f"asked for more than the {self._table.shape[1]} numbers drawn for each scene")
        self._used += count
        return columns.reshape(len(columns), *shape) * (high - low) + low

    def log_uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """(B, *shape) between low and high (both above 0), each factor equally likely."""
        return self.uniform(math.log(low), math.log(high), *shape).exp_()

    def signs(self, *shape: int) -> Tensor:
        """(B, *shape) of -1 and 1."""
        return self.uniform(-1, 1, *shape).sign()

    def chance(self, probability: float | Tensor, *shape: int) -> Tensor:
        """(B, *shape) bool, True with this probability."""
        return self.uniform(0, 1, *shape) < probability

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape) standard normal; drawn apart from the table, for pictures full of noise."""
        return torch.stack([torch.randn(shape, generator=generator) for generator in self._generators])
