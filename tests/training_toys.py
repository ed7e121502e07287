"""A training run small enough for tests."""

from __future__ import annotations

from dataclasses import replace

import torch

from manyview.training.recipe import Recipe, Stage
from toys import SMALLEST, SMALLEST_PAIRS

TINY = Recipe(
    name="tiny", description="for tests", image_size=32, network=SMALLEST, steps=4, warmup_steps=1, decay_steps=2,
    learning_rate=2e-3, bf16=False,
    stages=(
        Stage(until=2, sizes=((24, 32),), views=(2,), images=4),
        Stage(until=4, sizes=((32, 24),), views=(3,), images=6),
    ),
)  # fmt: skip
LONG = replace(TINY, steps=30, ema_decay=0.9)
# Scenes that differ in their numbers of valid pixels and matches, split over processes that do not have equally many.
# A large epsilon: AdamW would make a step of full size of the rounding errors of a gradient that should be zero.
SHARED = replace(
    TINY, steps=3, decay_steps=0, epsilon=1e-2, learning_rate=1e-2, clip=0.5, ema_decay=0.5,
    stages=(Stage(until=3, sizes=((24, 32),), views=(2,), images=6),),
)  # fmt: skip
# A pairwise network with all its options.
TINY_PAIRS = replace(
    TINY, name="tiny-pairs", objective="dust3r",
    network=replace(SMALLEST_PAIRS, decoder_coordinates=True, decoder_sides=True, decoder_qk_norm=True),
    stages=(TINY.stages[0], replace(TINY.stages[1], views=(2,))),
)  # fmt: skip
SHARED_PAIRS = replace(SHARED, objective="dust3r", network=TINY_PAIRS.network)


def weights(network) -> torch.Tensor:
    """All weights in one vector."""
    return torch.cat([p.detach().flatten() for p in network.parameters()])
