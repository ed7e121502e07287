"""What a training run holds between two steps, and the file that it survives in."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from manyview.errors import WeightsError
from manyview.networks.families import Network, empty_network, fill, new_network
from manyview.training.blocks import freeze_unused, prepare_blocks
from manyview.training.ema import MovingAverage
from manyview.training.initial import load_initial
from manyview.training.objective import Objective
from manyview.training.optimisers import MuonWithAdamW, make_optimiser
from manyview.training.overrides import to_json
from manyview.training.processes import gathered, launch, sharded_like, share_of
from manyview.training.recipe import Recipe

if TYPE_CHECKING:
    from lightning_fabric import Fabric

FORMAT_VERSION = 2
RUN_FILE, PREVIOUS_RUN_FILE = "run.pt", "run.previous.pt"
# What may be changed when a run goes on; anything else makes it another run.
CHANGEABLE = frozenset(
    (
        *("description", "data", "stages", "steps", "schedule", "warmup_steps", "decay_steps"),
        *("learning_rate", "smallest_rate", "clip", "matching_weight", "place_weight", "camera_weight"),
        *("bf16", "activation_checkpointing", "compile", "strategy", "cameras", "least_confidence"),
    )
)


@dataclass
class Run:
    """A run between two steps.

    Attributes:
        recipe: what is trained.
        fabric: devices and processes.
        objective: network and helper losses; "network" and "helpers" in the file.
        module: the objective as it has to be called, so that processes exchange gradients.
        optimiser: of all its parameters.
        average: moving average of the network's weights, if the recipe wants one.
        step, scenes: how many were done; scenes over all processes.
    """

    recipe: Recipe
    fabric: Fabric
    objective: Objective
    module: nn.Module
    optimiser: torch.optim.AdamW | MuonWithAdamW
    average: MovingAverage | None
    step: int = 0
    scenes: int = 0

    @property
    def network(self) -> Network:
        """The network as it is trained; `model` is what comes out."""
        return self.objective.network

    @property
    def helpers(self) -> nn.ModuleDict:
        return self.objective.helpers

    def model(self) -> Network:
        """A copy of the network, whole and ready for inference; with averaged weights if there are any.

        All processes have to call it.
        """
        tensors = dict(self.network.state_dict())
        if self.average is not None:
            tensors.update(self.average.weights)
        copies = {name: tensor.detach().clone() for name, tensor in gathered(tensors).items()}
        return fill(empty_network(self.recipe.network), copies).to(self.fabric.device).eval()

    def state(self) -> dict[str, Any]:
        """Everything that matters, whole. All processes have to call it.

        Nothing else does: scenes, sizes and rows of the views are drawn from the recipe's seed and the step.
        """
        return gathered(
            {
                "format_version": FORMAT_VERSION,
                "recipe": json.dumps(to_json(self.recipe)),
                "step": self.step,
                "scenes": self.scenes,
                "network": dict(self.network.state_dict()),
                "helpers": dict(self.helpers.state_dict()),
                "optimiser": self.optimiser.state_dict(),
                "average": {} if self.average is None else self.average.weights,
            }
        )

    def save(self, folder: Path) -> None:
        """Write the state to `run.pt`. All processes have to call it.

        A kill at any moment leaves a whole file: this state, or the last one; the one before is kept, too.
        """
        state = self.state()
        if self.fabric.is_global_zero:
            write_safely(state, folder / RUN_FILE, folder / PREVIOUS_RUN_FILE)

    def restore(self, folder: Path) -> list[str]:
        """Go on from the state in a folder; at step 0 if there is none.

        Returns:
            What was changed in the recipe since then, in words.

        Raises:
            WeightsError: the state is of another recipe or network, or not readable.
        """
        path = next((folder / name for name in (RUN_FILE, PREVIOUS_RUN_FILE) if (folder / name).exists()), None)
        if path is None:
            return []
        state = read_state(path)
        changes = changed_settings(json.loads(state["recipe"]), to_json(self.recipe))
        forbidden = [change for key, change in changes if key.split(".")[0] not in CHANGEABLE]
        if forbidden:
            more = f" (and {len(forbidden) - 3} more)" if len(forbidden) > 3 else ""
            raise WeightsError(
                f"{path} does not fit this recipe: {'; '.join(forbidden[:3])}{more}",
                hint="Start in another folder, or go on with the recipe of recipe.json there.",
            )
        try:
            self._load(state)
        except (RuntimeError, ValueError, KeyError) as error:
            first = str(error).replace("\n", " ")[:300]
            raise WeightsError(f"{path} does not fit this recipe: {first}", hint="Start in another folder.") from error
        return [change for _, change in changes]

    def _load(self, state: dict[str, Any]) -> None:
        for name, module in (("network", self.network), ("helpers", self.helpers)):
            own = module.state_dict()
            module.load_state_dict(
                {key: sharded_like(value, own[key]) if key in own else value for key, value in state[name].items()}
            )
        parameters = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        moments = {
            index: {key: sharded_like(value, parameters[index]) for key, value in entries.items()}
            for index, entries in state["optimiser"]["state"].items()
        }
        self.optimiser.load_state_dict({**state["optimiser"], "state": moments})
        if self.average is not None:
            weights = self.average.weights
            self.average.weights = {
                name: sharded_like(state["average"][name].to(own.device), own) for name, own in weights.items()
            }
        self.step, self.scenes = state["step"], state["scenes"]


def start(recipe: Recipe, device: str = "cpu") -> Run:
    """A run at step 0; random weights are drawn from the recipe's seed.

    Args:
        recipe: what to train.
        device: "auto", "cpu", "cuda", ...

    Raises:
        InputError: the recipe's strategy does not fit the processes that are there.
        DeviceError: the device is not there.
        WeightsError: the initial model cannot be loaded, or is not of the recipe's network.
    """
    fabric = launch(recipe.strategy, device)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        network = new_network(recipe.network)
        objective = Objective(network, recipe, share_of(fabric))
    if recipe.initial:
        load_initial(network, recipe)
    freeze_unused(network, local=recipe.objective == "fast3r")
    prepare_blocks(network, recompute=recipe.activation_checkpointing, compiled=recipe.compile)
    module = fabric.setup_module(objective)
    average = MovingAverage(network, recipe.ema_decay) if recipe.ema_decay else None
    return Run(recipe, fabric, objective, module, optimiser_of(objective, recipe), average)


def optimiser_of(objective: Objective, recipe: Recipe) -> torch.optim.AdamW | MuonWithAdamW:
    """The optimiser that the recipe wants."""
    return make_optimiser(
        objective,
        recipe.optimiser,
        learning_rate=recipe.learning_rate,
        betas=(recipe.betas[0], recipe.betas[1]),
        epsilon=recipe.epsilon,
        weight_decay=recipe.weight_decay,
        decay_vectors=recipe.decay_vectors,
    )


# ------------------------------------------------------------------ the file
def write_safely(state: dict[str, Any], path: Path, previous: Path) -> None:
    """Write a state so that at every moment `path` or `previous` is whole, also after a power cut."""
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        path.replace(previous)
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_state(path: Path) -> dict[str, Any]:
    """A state that `write_safely` wrote, on the host.

    Raises:
        WeightsError: it is not one.
    """
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        hint = f"Delete it to go on from {PREVIOUS_RUN_FILE}, if that is there, or start in another folder."
        raise WeightsError(f"{path} is not a readable state of a training run", hint=hint) from error
    version = state.get("format_version") if isinstance(state, dict) else None
    if version != FORMAT_VERSION:
        raise WeightsError(
            f"{path} has format version {version}; this program reads {FORMAT_VERSION}", hint="Start in another folder."
        )
    return state


def changed_settings(then: Any, now: Any) -> list[tuple[str, str]]:
    """(key, "key was X and is Y") for what differs between two recipes in JSON; keys that one lacks do not count."""
    before, after = dict(_leaves(then)), dict(_leaves(now))
    both = [key for key in before if key in after and before[key] != after[key]]
    changes = [(key, f"{key} was {before[key]!r} and is {after[key]!r}") for key in both]
    lengths = [
        (key, f"{key} had {len(then[key])} entries and has {len(now[key])}")
        for key in then
        if isinstance(then[key], list) and len(then[key]) != len(now.get(key, then[key]))
    ]
    return changes + lengths


def _leaves(plain: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(plain, (dict, list)):
        yield prefix, plain
        return
    members = plain.items() if isinstance(plain, dict) else enumerate(plain)
    for name, member in members:
        yield from _leaves(member, f"{prefix}.{name}" if prefix else str(name))
