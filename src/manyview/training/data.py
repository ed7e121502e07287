"""The batches of a recipe: which scenes a step sees, and how they are made, in the background."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from manyview.geometry.posed_views import PosedViews
from manyview.training.losses import Targets
from manyview.training.recipe import MOST_SCENES, Recipe, Source, Stage
from manyview.training.recipes import source_folder
from manyview.worlds import render_worlds

# Training uses seeds below this, evaluation those from here on.
FIRST_HELD_OUT_SEED = 1 << 40


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """What a step sees: a function of the recipe's seed, its stages and the step alone.

    Attributes:
        size: (height, width).
        views: of each scene.
        source: where the scenes come from.
        seeds: one a scene.
    """

    size: tuple[int, int]
    views: int
    source: Source
    seeds: Sequence[int]


def step_plan(recipe: Recipe, step: int) -> StepPlan:
    """Draw size, views and source of a step."""
    stage = recipe.stage(step)
    choice = random.Random(f"{recipe.seed}/{step}")
    size, views = choice.choice(list(recipe.sizes(stage))), choice.choice(list(stage.views))
    source = choice.choices(list(stage.sources), [source.share for source in stage.sources])[0]
    height, width = size
    return StepPlan(size=(height, width), views=views, source=source, seeds=step_seeds(recipe, stage, step, views))


def step_seeds(recipe: Recipe, stage: Stage, step: int, views: int) -> list[int]:
    """Seeds of a step's scenes: never used by another step of any run with another seed, never held out."""
    scenes = stage.scenes(views)
    first = (recipe.seed * 10_000_000 + step) * MOST_SCENES
    if scenes > MOST_SCENES or first + scenes > FIRST_HELD_OUT_SEED:
        raise ValueError(f"step {step} with {scenes} scenes runs out of seeds; use fewer images a batch or steps")
    return list(range(first, first + scenes))


def own_part(count: int, rank: int, processes: int) -> slice:
    """The entries, of `count`, that are a process's own; neighbouring processes have neighbouring parts."""
    return slice(rank * count // processes, (rank + 1) * count // processes)


def step_batch(
    recipe: Recipe, step: int, *, rank: int = 0, processes: int = 1, device: str | torch.device = "cpu"
) -> PosedViews:
    """The scenes of one training step that belong to one process.

    Args:
        recipe: what is trained on.
        step: from 0 on.
        rank, processes: which process's scenes; together they have all scenes of the step.
        device: where made-up worlds are rendered, and where the batch is.
    """
    plan = step_plan(recipe, step)
    seeds = plan.seeds[own_part(len(plan.seeds), rank, processes)]
    if plan.source.kind == "worlds":
        return posed(render_worlds(seeds, plan.views, plan.size, plan.source.worlds, device))
    dataset = _opened(plan.source.kind, source_folder(recipe, plan.source))
    samples = []
    for seed in seeds:
        draw = random.Random(seed)
        index, sample_seed = draw.randrange(len(dataset)), draw.getrandbits(31)
        samples.append(dataset.sample(index, plan.views, plan.size, sample_seed))
    return on_device(stacked(samples), device)


@cache
def _opened(kind: str, folder: Path) -> Any:
    """A data set, opened once a process; reading its index can take a while."""
    from manyview.datasets import open_dataset

    return open_dataset(kind, folder)


@dataclass(frozen=True, kw_only=True)
class StepBatches(Dataset):
    """The batches of a recipe by step, for one process."""

    recipe: Recipe
    rank: int = 0
    processes: int = 1
    device: str | torch.device = "cpu"

    def __len__(self) -> int:
        return self.recipe.steps

    def __getitem__(self, step: int) -> PosedViews:
        return step_batch(self.recipe, step, rank=self.rank, processes=self.processes, device=self.device)


def stream(batches: StepBatches, first_step: int, workers: int) -> Iterator[PosedViews]:
    """The batches from a step on, in order, made by `workers` processes that work ahead; by this one if 0.

    Worlds are rendered on the CPU where there are workers, else on `batches.device`.
    """
    steps = range(first_step, len(batches))
    if workers == 0:
        return (batches[step] for step in steps)
    ahead = StepBatches(recipe=batches.recipe, rank=batches.rank, processes=batches.processes)
    loader = DataLoader(ahead, batch_size=None, sampler=steps, num_workers=workers, prefetch_factor=4)
    return iter(loader)


def posed(batch: PosedViews) -> PosedViews:
    """A batch without what training does not look at (object numbers, masks, ...)."""
    return PosedViews(**{field.name: getattr(batch, field.name) for field in fields(PosedViews)})


def stacked(samples: Sequence[PosedViews]) -> PosedViews:
    """One batch of several."""
    names = [field.name for field in fields(PosedViews)]
    return PosedViews(**{name: torch.cat([getattr(sample, name) for sample in samples]) for name in names})


def on_device(batch: PosedViews, device: str | torch.device) -> PosedViews:
    """The same batch on another device."""
    names = [field.name for field in fields(PosedViews)]
    return PosedViews(**{name: getattr(batch, name).to(device, non_blocking=True) for name in names})


def targets(batch: PosedViews) -> Targets:
    """The truth of a batch, an entry a view."""
    return Targets(
        points=batch.points.unbind(1), valid=batch.valid.unbind(1), world_from_camera=batch.world_from_camera.unbind(1)
    )
