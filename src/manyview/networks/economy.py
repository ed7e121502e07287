"""How a network's work is cut up, and where its results go as they are made."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Economy:
    """How the work is cut up; changes memory and speed, not the numbers (beyond rounding).

    Attributes:
        encoder_images: images encoded at once.
        head_images: images that go through a head at once.
        results_on: device that receives the results as they are made; None leaves them where they are.
    """

    encoder_images: int = 64
    head_images: int = 8
    results_on: torch.device | str | None = None


USUAL = Economy()


def to_host(result: Tensor, economy: Economy) -> Tensor:
    """Send a result on its way to `economy.results_on`, without waiting for it where the device allows that."""
    target = economy.results_on
    if target is None or torch.device(target) == result.device:
        return result
    if result.is_cuda and torch.device(target).type == "cpu":
        return torch.empty(result.shape, dtype=result.dtype, pin_memory=True).copy_(result, non_blocking=True)
    return result.to(target)


def finish_transfers(economy: Economy) -> None:
    """Wait once, at the end, for the results that are still on their way to the host."""
    if economy.results_on is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.current_stream().synchronize()
