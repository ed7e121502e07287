"""Where and how precisely a network runs, and what to do when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import nn

from manyview.errors import DeviceError
from manyview.images import Progress
from manyview.networks.fast3r import Economy

DtypeName = Literal["float32", "bfloat16", "float16"]
Result = TypeVar("Result")


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
            f"device {name!r} cannot be used: {str(error).splitlines()[0]}",
            hint="`manyview doctor` lists what is there; --device cpu always works.",
        ) from error
    return device


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


def climb_down(run: Callable[[Rung], Result], dtype: torch.dtype) -> tuple[Result, tuple[str, ...]]:
    """Call `run` with one rung after another until memory suffices.

    Returns:
        The result and what was changed on the way, in words.

    Raises:
        DeviceError: not even the last rung fits.
    """
    changes: list[str] = []
    for rung in ladder(dtype):
        try:
            if rung.words != "normal":
                changes.append(f"ran out of memory; went on with {rung.words}")
            return run(rung), tuple(changes)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    raise DeviceError(
        "the device has too little memory for this many views, even in small chunks and half precision",
        hint="Use fewer or smaller pictures (--max-frames, --image-size), or --device cpu.",
    )


@contextmanager
def block_progress(network: nn.Module, views: int, progress: Progress | None) -> Iterator[None]:
    """Report each finished fusion block of `network` and each finished head while the context lasts."""
    if progress is None:
        yield
        return
    blocks = [*network.fusion.blocks]  # pyright: ignore
    total, done = len(blocks), 0

    def count(*_: object) -> None:
        nonlocal done
        done += 1
        progress(min(done, total), total, f"fusing {views} views")

    progress(0, total, f"encoding {views} views")
    handles = [block.register_forward_hook(count) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
