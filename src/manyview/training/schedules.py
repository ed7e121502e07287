"""The learning rate of each step, as a share of the recipe's largest one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

Schedule = Literal["constant-then-linear", "cosine"]


def constant_then_linear(step: int, steps: int, warmup: int, decay: int) -> float:
    """Rises linearly for `warmup` steps, stays at 1, and falls linearly to 0 over the last `decay` steps.

    A run can therefore be ended at any time, by resuming it with fewer steps.
    """
    return max(0.0, min(1.0, (step + 1) / max(warmup, 1), (steps - step) / max(decay, 1)))


def cosine(step: int, steps: int, warmup: int, decay: int) -> float:
    """Rises linearly from 0 for `warmup` steps, then falls to 0 along half a cosine, as Fast3R and DUSt3R do.

    It has no stretch of decay of its own: `decay` is not used.
    """
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(steps - warmup, 1))))


SCHEDULES: dict[Schedule, Callable[[int, int, int, int], float]] = {
    "constant-then-linear": constant_then_linear,
    "cosine": cosine,
}
