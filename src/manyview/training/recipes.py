"""What to train, on what, and for how long; every number that a run depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from manyview.errors import InputError
from manyview.networks.fast3r import Fast3RConfig
from manyview.worlds import WorldSettings


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stretch of training with one kind of batch.

    Attributes:
        until: first step after this stage.
        sizes: (height, width) of the pictures; one is drawn for each batch.
        views: numbers of views; one is drawn for each batch.
        images: views times scenes of a batch.
        worlds: how the scenes are made.
    """

    until: int
    sizes: Sequence[tuple[int, int]]
    views: Sequence[int]
    images: int
    worlds: WorldSettings = field(default_factory=WorldSettings)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run. The same recipe and seed see the same scenes in the same order.

    Attributes:
        network: sizes and options of the network.
        stages: what the batches are made of, one stage after another.
        steps: optimiser steps in all.
        warmup_steps, decay_steps: the learning rate rises linearly, stays, and falls linearly to zero at the end. A run
            can therefore be ended at any time by resuming it with fewer `steps`.
        learning_rate, weight_decay, betas, clip: AdamW and the largest norm of a gradient.
        matching_weight, place_weight, camera_weight: weights of the helper losses (`matching`, `cameras`) on the tokens
            at one half, three quarters and the end of the fusion.
        matching_width: channels in which tokens are compared.
        bf16: compute products in bfloat16; weights, norms and the loss stay in float32.
        image_size: longer side of pictures that the trained model should be given.
        seed: of the initial weights and of the scenes.
    """

    name: str
    description: str
    image_size: int
    network: Fast3RConfig
    stages: Sequence[Stage]
    steps: int
    warmup_steps: int = 300
    decay_steps: int = 2000
    learning_rate: float = 5e-4
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    matching_weight: float = 0.2
    place_weight: float = 1.0
    camera_weight: float = 0.5
    matching_width: int = 64
    bf16: bool = True
    seed: int = 0

    def stage(self, step: int) -> Stage:
        """The stage that a step belongs to; the last one goes on for ever."""
        return next((stage for stage in self.stages if step < stage.until), self.stages[-1])

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        rise = (step + 1) / max(self.warmup_steps, 1)
        fall = (self.steps - step) / max(self.decay_steps, 1)
        return self.learning_rate * max(0.0, min(1.0, rise, fall))


SMALL_NETWORK = Fast3RConfig(
    patch_size=8,
    encoder_dim=192,
    encoder_heads=3,
    encoder_depth=4,
    fusion_dim=192,
    fusion_heads=3,
    fusion_depth=8,
    head_widths=(16, 32, 64, 96),
    head_features=32,
    head_last_features=16,
    fusion_attention="alternating",
    fusion_positions=True,
    fusion_coordinates=True,
    fusion_qk_norm=True,
)
LOW_SIZES = [(64, 80), (80, 64), (72, 72), (56, 96)]
MIDDLE_SIZES = [(96, 128), (128, 96), (112, 112), (88, 136)]


def small() -> Recipe:
    """The packaged model, `manyview-small`: two near views first, then more views, farther apart, then finer pictures.

    What led to it, and how the packaged weights came about, is in docs/training-log.md.
    """
    return Recipe(
        name="small",
        description="small, for a CPU; trained on procedural worlds alone, free to use",
        image_size=128,
        network=SMALL_NETWORK,
        steps=20_000,
        stages=[
            Stage(until=1500, sizes=LOW_SIZES, views=[2], images=32, worlds=WorldSettings(spread=0.4)),
            Stage(until=3000, sizes=LOW_SIZES, views=[2, 3], images=32, worlds=WorldSettings(spread=0.7)),
            Stage(until=5000, sizes=LOW_SIZES, views=[2, 3, 4], images=32, worlds=WorldSettings(spread=1.0)),
            Stage(until=20_000, sizes=MIDDLE_SIZES, views=[2, 3, 4, 6], images=16, worlds=WorldSettings(spread=1.0)),
        ],
    )


RECIPES = {"small": small}


def named_recipe(name: str, steps: int | None = None) -> Recipe:
    """A recipe by name, optionally ended after another number of steps.

    Raises:
        InputError: there is no such recipe.
    """
    if name not in RECIPES:
        raise InputError(f"there is no recipe {name!r}", hint=f"Recipes: {', '.join(RECIPES)}.")
    recipe = RECIPES[name]()
    return recipe if steps is None else replace(recipe, steps=steps)
