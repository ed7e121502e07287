"""Batches of worlds for training, made in the background."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch.utils.data import DataLoader, IterableDataset

from manyview.training.losses import Targets
from manyview.training.recipes import Recipe, Stage
from manyview.worlds import WorldBatch, render_worlds

# Training uses seeds below this, evaluation those from here on.
FIRST_HELD_OUT_SEED = 1 << 40


@dataclass(frozen=True)
class WorldStream(IterableDataset):
    """The batches of a recipe from a step on. Step k's worlds depend on the recipe's seed and k alone."""

    recipe: Recipe
    first_step: int

    def __iter__(self) -> Iterator[WorldBatch]:
        torch.set_num_threads(1)  # of the background process; the others belong to the network
        for step in range(self.first_step, self.recipe.steps):
            yield step_batch(self.recipe, step)


def step_batch(recipe: Recipe, step: int) -> WorldBatch:
    """The worlds of one training step."""
    stage = recipe.stage(step)
    choice = random.Random(f"{recipe.seed}/{step}")
    size, views = choice.choice(list(stage.sizes)), choice.choice(list(stage.views))
    return render_worlds(step_seeds(recipe, stage, step, views), views, size, stage.worlds)


def step_seeds(recipe: Recipe, stage: Stage, step: int, views: int) -> list[int]:
    """Seeds of a step's scenes: never used by another step of any run with another seed, never held out."""
    scenes = max(1, stage.images // views)
    first = (recipe.seed * 10_000_000 + step) * 256
    if scenes > 256 or first + scenes > FIRST_HELD_OUT_SEED:
        raise ValueError(f"step {step} with {scenes} scenes runs out of seeds; use fewer images a batch or steps")
    return list(range(first, first + scenes))


def stream(recipe: Recipe, first_step: int) -> Iterator[WorldBatch]:
    """`WorldStream` with one background process that works ahead."""
    loader = DataLoader(WorldStream(recipe, first_step), batch_size=None, num_workers=1, prefetch_factor=4)
    return iter(loader)


def targets(batch: WorldBatch) -> Targets:
    """The truth of a batch, an entry a view."""
    return Targets(
        points=batch.points.unbind(1), valid=batch.valid.unbind(1), world_from_camera=batch.world_from_camera.unbind(1)
    )


def on_device(batch: WorldBatch, device: str) -> WorldBatch:
    """The same batch on another device."""
    return WorldBatch(**{field.name: getattr(batch, field.name).to(device) for field in fields(batch)})
