"""The official Fast3R release: its configuration and its names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from manyview.errors import WeightsError
from manyview.networks.checkpoints.names import NameTable, to_own
from manyview.networks.fast3r import Fast3R, Fast3RConfig


def _block_names(own: str, official: str) -> list[tuple[str, str]]:
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


FAST3R_NAMES = NameTable(
    rules=[
        ("encoder.patch_embedding", "encoder.patch_embed.proj"),
        *_block_names("encoder.blocks.{}", "encoder.enc_blocks.{}"),
        ("encoder.norm", "encoder.enc_norm"),
        ("fusion.embedding", "decoder.decoder_embed"),
        *_block_names("fusion.blocks.{}", "decoder.dec_blocks.{}"),
        ("fusion.norm", "decoder.dec_norm"),
        *dpt_names("global_head", "downstream_head.dpt"),
        *dpt_names("local_head", "downstream_head_local.dpt"),
    ],
    aliases=[*dpt_aliases("downstream_head.dpt"), *dpt_aliases("downstream_head_local.dpt")],
)


def fast3r_from_official(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Fast3R:
    """Build the network that an official config.json describes and fill it with official weights.

    Raises:
        WeightsError: the configuration asks for something that is not built here, or names or shapes do not fit.
    """
    network = empty_fast3r(fast3r_config(config))
    return fill(network, to_own(_network_weights(weights), FAST3R_NAMES, network.state_dict()))


def empty_fast3r(config: Fast3RConfig) -> Fast3R:
    """The network without memory for its weights, to be filled."""
    with torch.device("meta"):
        return Fast3R(config)


def fill(network: Fast3R, weights: Mapping[str, Tensor]) -> Fast3R:
    """Put weights into an empty network without a copy, for inference; the heads' convolutions as they run fastest."""
    network.load_state_dict(weights, assign=True)
    for head in (network.global_head, network.local_head):
        head.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return network.eval().requires_grad_(False)


def fast3r_config(official: Mapping[str, Any]) -> Fast3RConfig:
    """The official config.json (encoder_args, decoder_args, head_args) as ours."""
    try:
        encoder, decoder, head = (official[f"{part}_args"] for part in ("encoder", "decoder", "head"))
    except KeyError as missing:
        raise WeightsError(
            f"the configuration has no {missing}; it has {', '.join(official)}",
            hint="Expected the config.json of a Fast3R release.",
        ) from missing
    try:
        return _config(encoder, decoder, head)
    except KeyError as missing:
        raise WeightsError(f"the configuration lacks {missing}", hint="Expected a complete config.json.") from missing


def _config(encoder: Mapping[str, Any], decoder: Mapping[str, Any], head: Mapping[str, Any]) -> Fast3RConfig:
    _require("encoder_type", encoder, "croco")
    _require("decoder_type", decoder, "fast3r")
    _require("head_type", head, "dpt")
    _require("output_mode", head, "pts3d")
    _require("with_local_head", head, True)
    depth_kind, *depth_limits = head["depth_mode"]
    if [number(limit) for limit in depth_limits] != [float("-inf"), float("inf")]:
        raise WeightsError(f"depth_mode with limits {depth_limits} is not supported; expected -inf and inf")
    confidence_kind, low, high = head["conf_mode"]
    return Fast3RConfig(
        patch_size=encoder["patch_size"],
        encoder_dim=encoder["embed_dim"],
        encoder_heads=encoder["num_heads"],
        encoder_depth=encoder["depth"],
        fusion_dim=decoder["embed_dim"],
        fusion_heads=decoder["num_heads"],
        fusion_depth=decoder["depth"],
        mlp_ratio=decoder["mlp_ratio"],
        rope_base=_rope_base(encoder["pos_embed"]),
        random_view_ids=decoder["random_image_idx_embedding"],
        # Absent in the training configuration, where the code's default is true; the released evaluation always
        # switches it off, so absent means off.
        length_scaled_attention=decoder.get("attn_bias_for_inference_enabled", False),
        depth_activation=depth_kind,
        confidence_activation=confidence_kind,
        confidence_range=(number(low), number(high)),
    )


def number(value: float | int | str) -> float:
    """A number that may be written as text: config.json holds infinity bare or in quotes, long or short."""
    return float(str(value).lower().replace("infinity", "inf"))


def _rope_base(kind: str) -> float:
    if not kind.startswith("RoPE"):
        raise WeightsError(f"pos_embed {kind!r} is not supported; expected RoPE<base>, e.g. RoPE100")
    return float(kind.removeprefix("RoPE"))


def _require(key: str, part: Mapping[str, Any], value: object) -> None:
    if part.get(key) != value:
        raise WeightsError(f"{key} {part.get(key)!r} is not supported; expected {value!r}")


def _network_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a Lightning checkpoint only the network (prefix `net.`); anything else as it is."""
    inside = {name.removeprefix("net."): tensor for name, tensor in weights.items() if name.startswith("net.")}
    return inside or dict(weights)
