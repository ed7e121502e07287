"""The training loop: steps, and what happens between them."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from manyview.errors import ManyviewError
from manyview.geometry.posed_views import PosedViews
from manyview.networks.checkpoints.model_file import save_model
from manyview.networks.families import Network
from manyview.networks.fast3r import Fast3R
from manyview.training.data import StepBatches, on_device, own_part, step_plan, stream
from manyview.training.held_out import FIRST_WATCHED_SEED, Evaluate, Measure, held_out_worlds
from manyview.training.journal import Journal, Meter, Report
from manyview.training.model_info import info_of
from manyview.training.overrides import to_json
from manyview.training.pictures import contact_sheet
from manyview.training.processes import check_batches, mean_over_processes
from manyview.training.recipe import Recipe, usual_sizes
from manyview.training.recipes import missing_data
from manyview.training.state import Run, start
from manyview.worlds import render_worlds

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

PICTURED_VIEWS = 4  # of networks that take so many; a pairwise one is shown with two
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often a run does what, in steps; where it runs, and with how much help. Changes no weight.

    Attributes:
        log, save, evaluate: steps between two lines of the log, saved states, evaluations.
        device: "auto", "cpu", "cuda", ...
        threads: of the CPU, for the network.
        workers: background processes that make batches; 0 makes them between the steps, worlds on `device`.
        tensorboard: True wants it, False does not, None takes it where it is installed.
    """

    log: int = 50
    save: int = 500
    evaluate: int = 1000
    device: str = "cpu"
    threads: int = 1
    workers: int = 1
    tensorboard: bool | None = False


@dataclass(frozen=True, kw_only=True)
class Tick:
    """How far a run is, after each step."""

    step: int
    steps: int
    scenes_per_second: float
    loss: float


class NotFinite(ManyviewError):
    """A loss or a gradient is infinite or not a number."""


def train(
    recipe: Recipe,
    folder: Path,
    *,
    pace: Pace = Pace(),
    evaluate: Evaluate | None = None,
    report: Report | None = None,
    progress: Callable[[Tick], None] | None = None,
) -> Network:
    """Train a network, or go on with the run in `folder`. With torchrun, all processes call this.

    Args:
        recipe: what to train on what. A run that goes on may have other steps, rates, schedules and stages.
        folder: receives `run.pt` and `run.previous.pt` (the states), `log.jsonl`, `recipe.json`, TensorBoard's files.
        pace: how often to log, save and evaluate, and where to run.
        evaluate: called with the model now and then; its numbers go into the log.
        report: called with every line of the log.
        progress: called after each step.

    Returns:
        The model, ready for inference; with averaged weights if the recipe has an `ema_decay`.

    Raises:
        InputError: data are missing, or the recipe does not fit the processes that are there.
        WeightsError: the state in `folder` is of another recipe, or the initial model cannot be loaded.
        ManyviewError: a loss is not finite; its batch is saved, and the last saved state is from before.
    """
    missing_data(recipe)
    torch.set_num_threads(pace.threads)
    run = start(recipe, pace.device)
    check_batches(recipe, run.fabric.world_size)
    folder.mkdir(parents=True, exist_ok=True)
    changes = run.restore(folder)
    run.fabric.barrier()
    journal = open_journal(run, folder, pace, changes, report)
    try:
        steps(run, folder, pace, journal, evaluate, progress)
        if run.step % pace.save:
            run.save(folder)
        return run.model()
    finally:
        if journal is not None:
            journal.close()


def train_and_save(
    recipe: Recipe,
    folder: Path,
    *,
    pace: Pace = Pace(),
    measure: Measure | None = None,
    report: Report | None = None,
    progress: Callable[[Tick], None] | None = None,
) -> Path | None:
    """`train`, then write the model as a file; returns its path, to the first of several processes alone.

    Args:
        measure: `manyview.evaluation.held_out.evaluate_on_worlds` to watch the model on held-out worlds.
        recipe, folder, pace, report, progress: as of `train`.
    """
    info = info_of(recipe)
    evaluate = None if measure is None else held_out_worlds(measure, info)
    network = train(recipe, folder, pace=pace, evaluate=evaluate, report=report, progress=progress)
    if torch.distributed.is_initialized() and torch.distributed.get_rank() > 0:
        return None
    path = folder / f"{info.name}.safetensors"
    save_model(network, path, info, dtype=torch.float16)
    return path


# ------------------------------------------------------------------ between the steps
def open_journal(run: Run, folder: Path, pace: Pace, changes: list[str], report: Report | None) -> Journal | None:
    """The first process writes; what was changed since the run was interrupted is its first line."""
    if not run.fabric.is_global_zero:
        return None
    journal = Journal(folder, step=run.step, tensorboard=pace.tensorboard, report=report)
    if changes:
        logger.warning("the run goes on with another recipe: %s", "; ".join(changes))
        journal.write({"step": run.step, "changed": changes})
    (folder / "recipe.json").write_text(json.dumps(to_json(run.recipe), indent=1))
    return journal


def steps(
    run: Run,
    folder: Path,
    pace: Pace,
    journal: Journal | None,
    evaluate: Evaluate | None,
    progress: Callable[[Tick], None] | None,
) -> None:
    """All steps that are left."""
    meter = Meter()
    for batch in batches(run, pace):
        before = run.scenes
        figures = guarded_step(run, batch, folder)
        meter.add(figures, run.scenes - before)
        if progress is not None and journal is not None:
            rate = meter.scenes / max(meter.seconds, 1e-9)
            progress(Tick(step=run.step, steps=run.recipe.steps, scenes_per_second=rate, loss=figures["loss"]))
        if run.step % pace.log == 0:
            meter = write_means(run, meter, journal)
        if run.step % pace.evaluate == 0 and (evaluate is not None or pace.tensorboard is not False):
            started = time.monotonic()
            look_at_model(run, journal, evaluate)
            meter.since += time.monotonic() - started  # evaluating is not training
        if run.step % pace.save == 0:
            run.save(folder)


def batches(run: Run, pace: Pace) -> Iterator[PosedViews]:
    """This process's part of the batch of each step that is left, on its device."""
    fabric = run.fabric
    source = StepBatches(recipe=run.recipe, rank=fabric.global_rank, processes=fabric.world_size, device=fabric.device)
    return (on_device(batch, fabric.device) for batch in stream(source, run.step, pace.workers))


def write_means(run: Run, meter: Meter, journal: Journal | None) -> Meter:
    """A line of the log with the means since the last one; returns an empty meter."""
    seconds = meter.seconds / meter.steps
    line = {
        "step": run.step,
        "scenes": run.scenes,
        "rate": run.recipe.rate(run.step),
        "seconds_per_step": seconds,
        "scenes_per_second": meter.scenes / max(meter.seconds, 1e-9),
        **meter.means(),
        "hours_left": (run.recipe.steps - run.step) * seconds / 3600,
    }
    if journal is not None:
        journal.write(line)
    return Meter()


def look_at_model(run: Run, journal: Journal | None, evaluate: Evaluate | None) -> None:
    """Figures and pictures of the model as it is; the first process looks, the others wait."""
    model = run.model()
    if journal is not None:
        if evaluate is not None:
            journal.write({"step": run.step, **evaluate(model)}, group="held out worlds")
        if journal.wants_pictures:
            size = usual_sizes(run.recipe.image_size, run.recipe.network.patch_size)[0]
            views = PICTURED_VIEWS if isinstance(run.network, Fast3R) else 2
            world = on_device(render_worlds([FIRST_WATCHED_SEED], views, size), run.fabric.device)
            local = run.recipe.objective == "fast3r"
            journal.picture("views, depth, true depth, confidence", contact_sheet(model, world, local=local), run.step)
    run.fabric.barrier()


# ------------------------------------------------------------------ one step
def train_step(run: Run, batch: PosedViews) -> dict[str, float]:
    """One step of the optimiser on this process's part of a batch; returns what to log, of the whole batch.

    Raises:
        NotFinite: the loss or its gradient is not finite; no weight was changed.
    """
    run.module.train()
    for group in run.optimiser.param_groups:
        group["lr"] = run.recipe.rate(run.step)
    inputs = {field.name: getattr(batch, field.name) for field in fields(PosedViews)}
    scenes, rows = view_rows(run, batch)
    losses = run.module(**inputs, view_ids=rows)
    figures = summary(run, losses)
    if not torch.isfinite(torch.tensor(figures["total"])):
        raise NotFinite(f"the loss of step {run.step} is {figures['total']}")
    run.optimiser.zero_grad()
    run.fabric.backward(losses["total"])
    norm = clip(run.module, run.recipe.clip)
    if not torch.isfinite(norm):
        raise NotFinite(f"the gradient of step {run.step} has norm {norm.item()}")
    run.optimiser.step()
    if run.average is not None:
        run.average.update(run.network, run.step)
    run.step += 1
    run.scenes += scenes
    return {**figures, "gradient_norm": norm.item()}


def view_rows(run: Run, batch: PosedViews) -> tuple[int, Tensor]:
    """Scenes of the whole batch, and this process's (B, N) rows of the index table, drawn for all scenes together."""
    own, views = batch.images.shape[:2]
    processes, rank = run.fabric.world_size, run.fabric.global_rank
    scenes = own if processes == 1 else run.recipe.stage(run.step).scenes(views)
    if not isinstance(run.network, Fast3R):
        return scenes, torch.zeros(own, views, dtype=torch.int64)  # a pairwise network has no such table
    rows = run.network.choose_ids(scenes, views, seed=run.step)
    return scenes, rows[own_part(scenes, rank, processes)]


def clip(module: nn.Module, largest: float) -> Tensor:
    """Shorten the gradient to a norm of `largest` at most (0: leave it); returns the norm before."""
    norm: Tensor | DTensor = nn.utils.clip_grad_norm_(module.parameters(), largest or float("inf"))
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # pyright: ignore


def summary(run: Run, losses: dict[str, Tensor]) -> dict[str, float]:
    """The numbers of a step; waits for the device once."""
    values = torch.stack([value.detach().float() for value in losses.values()])
    return dict(zip(losses, mean_over_processes(run.fabric, values).tolist(), strict=True))


def guarded_step(run: Run, batch: PosedViews, folder: Path) -> dict[str, float]:
    """`train_step`; a batch whose loss is not finite is saved and named."""
    try:
        return train_step(run, batch)
    except NotFinite as error:
        path = folder / f"not-finite-step{run.step}-process{run.fabric.global_rank}.safetensors"
        save_batch(batch, path)
        plan = step_plan(run.recipe, run.step)
        seeds = f"{plan.seeds[0]}..{plan.seeds[-1]}"
        raise NotFinite(
            f"{error} ({plan.source.kind}, seeds {seeds}); its batch is in {path}",
            hint="Lower the learning rate, or resume: the last saved state is from before.",
        ) from error


def save_batch(batch: PosedViews, path: Path) -> None:
    """A batch as safetensors, a tensor for each field of `PosedViews`."""
    from safetensors.torch import save_file

    save_file({field.name: getattr(batch, field.name).cpu().contiguous() for field in fields(batch)}, path)
