"""What the official releases of several families have in common: names of blocks and heads, values written as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from manyview.errors import WeightsError


def block_names(own: str, official: str) -> list[tuple[str, str]]:
    """Names of a self-attention block under the prefixes `own` and `official`."""
    return [
        (f"{own}.attention.qkv", f"{official}.attn.qkv"),
        (f"{own}.attention.project", f"{official}.attn.proj"),
        (f"{own}.mlp.expand", f"{official}.mlp.fc1"),
        (f"{own}.mlp.contract", f"{official}.mlp.fc2"),
        (own, official),
    ]


def dpt_names(own: str, official: str) -> list[tuple[str, str]]:
    """Names of a DPT head under the prefixes `own` and `official`."""
    levels = [(f"{own}.projections.{i}", f"{official}.act_postprocess.{i}.0") for i in range(4)] + [
        (f"{own}.resample.{i}", f"{official}.act_postprocess.{i}.1") for i in (0, 1, 3)
    ]
    for i in range(4):
        refine, refinenet = f"{own}.refine.{i}", f"{official}.scratch.refinenet{i + 1}"
        levels += [
            (f"{own}.narrow.{i}", f"{official}.scratch.layer{i + 1}_rn"),
            (f"{refine}.join", f"{refinenet}.resConfUnit1"),
            (f"{refine}.smooth", f"{refinenet}.resConfUnit2"),
            (f"{refine}.mix", f"{refinenet}.out_conv"),
        ]
    return [*levels, (f"{own}.output", f"{official}.head")]


def dpt_aliases(official: str) -> list[tuple[str, str]]:
    """In the official heads each 3x3 "rn" convolution is registered twice: one tensor, two names."""
    return [(f"{official}.scratch.layer{i + 1}_rn", f"{official}.scratch.layer_rn.{i}") for i in range(4)]


def number(value: float | int | str) -> float:
    """A number that may be written as text: config.json holds infinity bare or in quotes, long or short."""
    return float(str(value).lower().replace("infinity", "inf"))


def rope_base(kind: str) -> float:
    """The base in "RoPE100"."""
    if not kind.startswith("RoPE"):
        raise WeightsError(f"pos_embed {kind!r} is not supported; expected RoPE<base>, e.g. RoPE100")
    return float(kind.removeprefix("RoPE"))


def require(key: str, part: Mapping[str, Any], value: object) -> None:
    """Raises WeightsError unless a part of the configuration has this value under this key."""
    if part.get(key) != value:
        raise WeightsError(f"{key} {part.get(key)!r} is not supported; expected {value!r}")
