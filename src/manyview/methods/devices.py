"""Where and how precisely a network runs, and what to do when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import nn

from manyview.errors import DeviceError
from manyview.images import Progress
from manyview.networks.dust3r import Dust3R
from manyview.networks.economy import Economy
from manyview.networks.families import empty_network, fill
from manyview.networks.fast3r import Fast3R, Layout

DtypeName = Literal["float32", "bfloat16", "float16"]
Result = TypeVar("Result")
AnyNetwork = TypeVar("AnyNetwork", Fast3R, Dust3R)


def choose_device(name: str = "auto") -> torch.device:
    """ "auto" is CUDA where there is one, else the CPU.

    Raises:
        DeviceError: the device asked for is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(
            f"device {name!r} cannot be used: {_first_sentence(error)}",
            hint="`manyview doctor` lists what is there; --device cpu always works.",
        ) from error
    return device


def _first_sentence(error: Exception) -> str:
    return str(error).splitlines()[0].split(". ")[0][:200]


def choose_dtype(name: DtypeName | None, device: torch.device) -> torch.dtype:
    """float32 on a CPU and bfloat16 on CUDA, unless `name` says otherwise."""
    if name is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in known:
        raise DeviceError(f"dtype {name!r} is not known", hint=f"Known: {', '.join(known)}.")
    return known[name]


@dataclass(frozen=True)
class Rung:
    """A step of the ladder that is climbed down when memory runs out."""

    economy: Economy
    dtype: torch.dtype
    words: str


def ladder(dtype: torch.dtype) -> list[Rung]:
    """Most to least memory. The first rung is the normal one; later ones are slower or less precise."""
    rungs = [
        Rung(Economy(results_on="cpu"), dtype, "normal"),
        Rung(Economy(encoder_images=8, head_images=1, results_on="cpu"), dtype, "smaller chunks"),
    ]
    if dtype == torch.float32:
        rungs.append(Rung(rungs[-1].economy, torch.bfloat16, "smaller chunks in bfloat16"))
    return rungs


def climb_down(run: Callable[[Rung], Result], dtype: torch.dtype) -> tuple[Result, Rung, tuple[str, ...]]:
    """Call `run` with one rung after another until memory suffices.

    Returns:
        The result, the rung it was made on, and what was changed on the way, in words.

    Raises:
        DeviceError: not even the last rung fits.
    """
    changes: list[str] = []
    for rung in ladder(dtype):
        if rung.words != "normal":
            changes.append(f"ran out of memory; went on with {rung.words}")
        try:
            return run(rung), rung, tuple(changes)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    raise DeviceError(
        "the device has too little memory for this many views, even in small chunks and half precision",
        hint="Use fewer or smaller pictures (--max-frames, --image-size), or --device cpu.",
    )


def _is_out_of_memory(error: Exception) -> bool:
    """CUDA has a type for it; on a CPU PyTorch raises a plain RuntimeError of its allocator."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)


@contextmanager
def in_precision(network: AnyNetwork, dtype: torch.dtype) -> Iterator[AnyNetwork]:
    """The network in another precision; the given one is unchanged afterwards, meanwhile out of the device's way."""
    own = next(network.parameters())
    if own.dtype == dtype:
        yield network
        return
    device = own.device
    network.to("cpu")
    try:
        weights = {name: tensor.to(device=device, dtype=dtype) for name, tensor in network.state_dict().items()}
        copy = fill(empty_network(network.config), weights)
        assert isinstance(copy, type(network))
        yield copy
    finally:
        network.to(device)


@contextmanager
def network_progress(
    network: Fast3R, sizes: Sequence[tuple[int, int]], economy: Economy, progress: Progress | None
) -> Iterator[None]:
    """Report each finished block and each finished call of a head while the context lasts.

    Args:
        sizes: (height, width) of every view.
    """
    if progress is None:
        yield
        return
    patch = network.config.patch_size
    layout = Layout(tuple((height // patch, width // patch) for height, width in sizes))
    encodings = len(list(layout.runs(economy.encoder_images)))
    head_calls = len(list(layout.runs(economy.head_images)))
    parts: list[tuple[str, Sequence[nn.Module], int]] = [
        ("encoding", list(network.encoder.blocks), encodings),
        ("fusing", list(network.fusion.blocks), 1),
        ("dense heads", [network.global_head, network.local_head], head_calls),
    ]
    handles = []
    for what, modules, calls in parts:
        counter = _counter(progress, f"{what}, {len(sizes)} views", len(modules) * calls)
        handles += [module.register_forward_hook(counter) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _counter(progress: Progress, what: str, total: int) -> Callable[..., None]:
    done = 0

    def count(*_: object) -> None:
        nonlocal done
        done += 1
        progress(min(done, total), total, what)

    return count
