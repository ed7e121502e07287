"""Where training runs: devices, and processes that were started by torchrun, by way of Lightning Fabric."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from manyview.errors import InputError
from manyview.methods.devices import choose_device
from manyview.training.batch_share import Share, over_processes, whole
from manyview.training.blocks import blocks
from manyview.training.recipe import Recipe, Strategy

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LAUNCH_HINT = "Start them with: torchrun --nproc-per-node N $(which manyview) train ..."


def launch(strategy: Strategy, device: str) -> Fabric:
    """Join the processes that torchrun started, or be the only one.

    Args:
        strategy: see `Recipe`.
        device: "auto", "cpu", "cuda", "cuda:1"; with several processes each takes a CUDA device of its own.

    Raises:
        InputError: the strategy does not fit the number of processes, or Lightning Fabric is not installed.
        DeviceError: the device is not there.
    """
    started_together = torch.distributed.is_torchelastic_launched()
    processes = int(os.environ["WORLD_SIZE"]) if started_together else 1
    if strategy == "one" and processes > 1:
        raise InputError(f"strategy=one, but torchrun started {processes} processes", hint="Use strategy=ddp or fsdp.")
    if strategy in ("ddp", "fsdp") and not started_together:
        raise InputError(f"strategy={strategy} needs processes that torchrun started", hint=LAUNCH_HINT)
    chosen = choose_device(device)
    alone = processes == 1 and strategy != "fsdp"
    fabric = _single(chosen) if alone else _several(chosen, strategy, processes)
    fabric.launch()
    return fabric


def _single(device: torch.device) -> Fabric:
    fabric = _fabric()
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment

    devices = [device.index or 0] if device.type == "cuda" else 1
    # The environment is named, or Fabric would look for those of cluster schedulers.
    return fabric(accelerator=device.type, devices=devices, plugins=LightningEnvironment())


def _several(device: torch.device, strategy: Strategy, processes: int) -> Fabric:
    fabric = _fabric()
    from lightning_fabric.strategies.ddp import DDPStrategy
    from lightning_fabric.strategies.model_parallel import ModelParallelStrategy

    here = int(os.environ["LOCAL_WORLD_SIZE"])
    if strategy == "fsdp":
        way: Any = ModelParallelStrategy(parallelize_fn=_sharded, data_parallel_size=processes, tensor_parallel_size=1)
    else:
        way = DDPStrategy()
    return fabric(accelerator=device.type, devices=here, num_nodes=processes // here, strategy=way)


def _fabric() -> type[Fabric]:
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise InputError(
            "training needs Lightning Fabric, which is not installed", hint="Install the extra manyview[train]."
        ) from error
    return Fabric


def _sharded(module: nn.Module, mesh: Any) -> nn.Module:
    """FSDP2: each block's weights are gathered when it runs, all others with the whole."""
    from torch.distributed.fsdp import fully_shard

    for parameter in module.parameters():  # the heads' convolutions lie channels-last, which FSDP does not take
        parameter.data = parameter.data.contiguous()
    shard = partial(fully_shard, mesh=mesh["data_parallel"])
    for block in blocks(module):
        shard(block)
    shard(module)
    return module


def share_of(fabric: Fabric) -> Share:
    """How counts become those of the whole batch."""
    return over_processes if fabric.world_size > 1 else whole


def mean_over_processes(fabric: Fabric, figures: Tensor) -> Tensor:
    """The mean of each entry over the processes."""
    if fabric.world_size == 1:
        return figures
    torch.distributed.all_reduce(figures)
    return figures / fabric.world_size


def check_batches(recipe: Recipe, processes: int) -> None:
    """Raises InputError if some batch has fewer scenes than there are processes."""
    for index, stage in enumerate(recipe.stages):
        for views in stage.views:
            if stage.scenes(views) < processes:
                raise InputError(
                    f"batches of stage {index} with {views} views have {stage.scenes(views)} scenes, fewer than the "
                    f"{processes} processes that share them",
                    hint=f"Use at least --set stages.{index}.images={views * processes}, or fewer processes.",
                )


# ------------------------------------------------------------------ weights that are sharded over processes
def gathered(state: Any) -> Any:
    """Dicts and lists of tensors with every sharded one whole, on the host. All processes have to call it."""
    from torch.distributed.tensor import DTensor

    if isinstance(state, DTensor):
        return state.full_tensor().cpu()
    if isinstance(state, dict):
        return {name: gathered(value) for name, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(gathered(value) for value in state)
    return state


def sharded_like(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor sharded as another one of its shape is; as it comes if that is whole, too."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
