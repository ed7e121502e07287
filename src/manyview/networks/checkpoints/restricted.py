"""Pickled checkpoints (`.pth`, `.pt`, `.ckpt`), read without running what they may contain.

Unpickling can execute any code. Only tensors, plain containers and `argparse.Namespace` (which official releases store
beside their weights) are let through; there is no unsafe second try.
"""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from manyview.errors import WeightsError

PICKLED_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin")


def load_pickled(path: Path) -> dict[str, Tensor]:
    """The weights in a pickled checkpoint, under their official names.

    Understands a bare state dict, `{"model": ...}` and Lightning's `{"state_dict": ...}`.

    Raises:
        WeightsError: the file cannot be read, holds other classes than allowed (all are named), or has no weights.
    """
    return weights_in(read_pickled(path), path)


def weights_in(content: Any, path: Path) -> dict[str, Tensor]:
    """The weights in what `read_pickled` gave.

    Raises:
        WeightsError: there are none.
    """
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    weights = (
        {name: value for name, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, dict)
        else {}
    )
    if not weights:
        raise WeightsError(
            f"{path} holds no weights; expected a dict of tensors, alone or under 'model' or 'state_dict'",
            hint="A DeepSpeed checkpoint is a folder that has to be merged to float32 first.",
        )
    return weights


def constructor_in(content: Any) -> str | None:
    """The text of the constructor call that DUSt3R's releases store beside their weights, or None."""
    arguments = content.get("args") if isinstance(content, dict) else None
    text = getattr(arguments, "model", None) if isinstance(arguments, argparse.Namespace) else None
    return text if isinstance(text, str) else None


def read_pickled(path: Path) -> Any:
    """What a checkpoint holds, by the restricted reader.

    Raises:
        WeightsError: the file cannot be read, or holds other classes than allowed.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except FileNotFoundError as error:
        raise WeightsError(f"no file {path}") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} was refused: {_first_line(error)}",
            hint="Only tensors, containers and argparse.Namespace are read. Ask its author for a safetensors file.",
        ) from error
    except Exception as error:  # whatever a damaged file provokes in the reader, it is the file's fault
        raise WeightsError(f"{path} is not a readable checkpoint: {_first_line(error)}") from error


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "GLOBAL" in line or "Unsupported" in line]
    return (lines or str(error).splitlines() or [type(error).__name__])[0]
