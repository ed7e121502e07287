"""A plain training loop: one process, one device, resumable."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from manyview.errors import ManyviewError, WeightsError
from manyview.networks.checkpoints.model_file import ModelInfo, save_model
from manyview.networks.fast3r import Economy, Fast3R, Layout
from manyview.networks.pointmaps import Pointmaps
from manyview.training.cameras import CameraLoss, true_cameras
from manyview.training.data import on_device, stream, targets
from manyview.training.losses import PointmapLoss, fast3r_loss
from manyview.training.matching import MatchingLoss, PlaceLoss, token_matches
from manyview.training.recipes import Recipe
from manyview.worlds import WorldBatch

STATEFUL = ("network", "helpers", "optimiser")
Evaluate = Callable[[Fast3R], dict[str, float]]


@dataclass
class Run:
    """What a training run holds between two steps; saved whole."""

    network: Fast3R
    helpers: nn.ModuleDict  # "matching", "place" and "camera": losses with weights of their own
    optimiser: torch.optim.AdamW
    step: int = 0
    scenes: int = 0

    def save(self, path: Path) -> None:
        """Write the state whole or not at all: a kill leaves the last one."""
        state = {name: getattr(self, name).state_dict() for name in STATEFUL}
        temporary = path.with_name(f"{path.name}.tmp")
        torch.save({**state, "step": self.step, "scenes": self.scenes}, temporary)
        temporary.replace(path)

    def restore(self, path: Path) -> None:
        state = torch.load(path, weights_only=True, map_location="cpu")
        try:
            for name in STATEFUL:
                getattr(self, name).load_state_dict(state[name])
        except (RuntimeError, ValueError, KeyError) as error:
            raise WeightsError(f"{path} does not fit this recipe: {error}", hint="Start in another folder.") from error
        self.step, self.scenes = state["step"], state["scenes"]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often a run does what, in steps; where it runs, and with how many CPU threads."""

    log: int = 50
    save: int = 500
    evaluate: int = 1000
    device: str = "cpu"
    threads: int = 1


@dataclass
class Meter:
    """Running sums between two lines of the log."""

    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0
    since: float = field(default_factory=time.monotonic)

    def add(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1

    def means(self) -> dict[str, float]:
        return {name: value / self.count for name, value in self.sums.items()}


def train(
    recipe: Recipe,
    folder: Path,
    *,
    pace: Pace = Pace(),
    evaluate: Evaluate | None = None,
    report: Callable[[dict[str, float]], None] | None = None,
) -> Fast3R:
    """Train a network, or go on with the run in `folder`.

    Args:
        recipe: what to train on what.
        folder: receives `run.pt` (the state, replaced whole), `log.jsonl` and `recipe.json`.
        pace: how often to log, save and evaluate.
        evaluate: called with the network now and then; its numbers go into the log.
        report: called with every line of the log.

    Raises:
        ManyviewError: the loss is not finite; the last saved state is from before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(pace.threads)
    run = start(recipe, pace.device)
    if (folder / "run.pt").exists():
        run.restore(folder / "run.pt")
    (folder / "recipe.json").write_text(json.dumps(asdict(recipe), indent=1))
    meter = Meter()
    for batch in stream(recipe, run.step):
        meter.add(train_step(run, recipe, on_device(batch, pace.device)))
        if run.step % pace.log == 0:
            meter = write_log(run, recipe, meter, folder, report)
        if evaluate is not None and run.step % pace.evaluate == 0:
            log(folder, {"step": run.step, **evaluate(run.network.eval())}, report)
        if run.step % pace.save == 0:
            run.save(folder / "run.pt")
    run.save(folder / "run.pt")
    return run.network.eval()


def train_and_save(
    recipe: Recipe, folder: Path, *, pace: Pace, report: Callable[[dict[str, float]], None] | None = None
) -> Path:
    """`train`, then write the network as a model file; returns its path."""
    network = train(recipe, folder, pace=pace, report=report)
    info = ModelInfo(
        name=f"manyview-{recipe.name}",
        family="fast3r",
        licence="Apache-2.0",
        source=f"trained on procedural worlds: manyview train {recipe.name} --steps {recipe.steps}",
        image_size=recipe.image_size,
        square_ok=True,
        description=recipe.description,
    )
    path = folder / f"{info.name}.safetensors"
    save_model(network, path, info, dtype=torch.float16)
    return path


def start(recipe: Recipe, device: str) -> Run:
    """A run at step 0 with weights drawn from the recipe's seed."""
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        network = Fast3R(recipe.network).to(device)
        dim = recipe.network.fusion_dim
        matching = MatchingLoss(dim, recipe.matching_width)
        helpers = nn.ModuleDict({"matching": matching, "place": PlaceLoss(dim), "camera": CameraLoss(dim)})
    parameters = [*network.parameters(), *helpers.to(device).parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return Run(network, helpers, torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, fused=True))


def train_step(run: Run, recipe: Recipe, batch: WorldBatch) -> dict[str, float]:
    """One step of the optimiser; returns what to log."""
    network = run.network.train()
    for group in run.optimiser.param_groups:
        group["lr"] = recipe.rate(run.step)
    with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=recipe.bf16):
        predicted, hooked = forward_with_tokens(network, batch.images * 2 - 1, seed=run.step)
    loss = fast3r_loss(predicted, targets(batch))
    matches = token_matches(batch, recipe.network.patch_size)
    helpers = {
        "matching": run.helpers["matching"](hooked[1], matches),
        "place": run.helpers["place"](hooked[2], matches),
        "camera": run.helpers["camera"](hooked[3], true_cameras(batch)),
    }
    total = loss.total + sum(getattr(recipe, f"{name}_weight") * value for name, value in helpers.items())
    if not torch.isfinite(total):
        raise ManyviewError(
            f"the loss of step {run.step} is {total.item()}", hint="Lower the learning rate, or resume."
        )
    run.optimiser.zero_grad()
    total.backward()
    norm = nn.utils.clip_grad_norm_([*network.parameters(), *run.helpers.parameters()], recipe.clip)
    run.optimiser.step()
    run.step += 1
    run.scenes += len(batch.images)
    return summary(loss, helpers, norm)


def forward_with_tokens(network: Fast3R, images: Tensor, seed: int) -> tuple[Pointmaps, list[Tensor]]:
    """The network's forward pass on (B, N, 3, H, W), and the tokens (B, N, T, dim) of the four hooked depths."""
    batch, views, _, height, width = images.shape
    patch = network.config.patch_size
    layout = Layout(((height // patch, width // patch),) * views)
    upright = torch.ones(batch, views, dtype=torch.bool)
    economy = Economy(encoder_images=batch * views, head_images=batch * views)
    encoded = network.encode(images.unbind(1), layout, upright, economy)
    depths = list(network.fusion(encoded, layout, network.choose_ids(batch, views, seed)))
    hooked = [depths[depth] for depth in network.config.hooks]
    predictions = []
    for head in (network.global_head, network.local_head):
        projected = [head.project(level, tokens) for level, tokens in enumerate(hooked)]
        predictions += network.predict(head, projected, layout, upright, economy)
    points, confidence, local_points, local_confidence = predictions
    predicted = Pointmaps(
        points=points, confidence=confidence, local_points=local_points, local_confidence=local_confidence
    )
    return predicted, [tokens.unflatten(1, (views, -1)) for tokens in hooked]


def summary(loss: PointmapLoss, helpers: dict[str, Tensor], norm: Tensor) -> dict[str, float]:
    """The numbers of a step."""
    return {
        "loss": loss.total.item(),
        "global_error": loss.global_error.mean().item(),
        "other_views_global_error": loss.global_error[1:].mean().item(),
        "local_error": loss.local_error.mean().item(),
        **{name: value.item() for name, value in helpers.items()},
        "gradient_norm": norm.item(),
    }


def write_log(run: Run, recipe: Recipe, meter: Meter, folder: Path, report: Callable | None) -> Meter:
    """A line of the log with the means since the last one; returns an empty meter."""
    seconds = (time.monotonic() - meter.since) / meter.count
    line = {"step": run.step, "scenes": run.scenes, "rate": recipe.rate(run.step), "seconds_per_step": seconds}
    log(folder, {**line, **meter.means(), "hours_left": (recipe.steps - run.step) * seconds / 3600}, report)
    return Meter()


def log(folder: Path, line: dict[str, float], report: Callable | None) -> None:
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps({name: float(f"{value:.5g}") for name, value in line.items()}) + "\n")
    if report is not None:
        report(line)


def read_log(folder: Path) -> Iterator[dict[str, float]]:
    """The lines of a run's log."""
    with (folder / "log.jsonl").open() as file:
        yield from map(json.loads, file)
