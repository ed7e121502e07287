"""The official Fast3R release: its configuration and its names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from manyview.errors import WeightsError
from manyview.networks.checkpoints.names import NameTable, to_own
from manyview.networks.checkpoints.official_parts import (
    block_names,
    dpt_aliases,
    dpt_names,
    number,
    require,
    rope_base,
)
from manyview.networks.families import empty_network, fill
from manyview.networks.fast3r import Fast3R, Fast3RConfig

FAST3R_NAMES = NameTable(
    rules=[
        ("encoder.patch_embedding", "encoder.patch_embed.proj"),
        *block_names("encoder.blocks.{}", "encoder.enc_blocks.{}"),
        ("encoder.norm", "encoder.enc_norm"),
        ("fusion.embedding", "decoder.decoder_embed"),
        *block_names("fusion.blocks.{}", "decoder.dec_blocks.{}"),
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
    network = empty_network(fast3r_config(config))
    fill(network, to_own(_network_weights(weights), FAST3R_NAMES, network.state_dict()))
    assert isinstance(network, Fast3R)
    return network


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
    require("encoder_type", encoder, "croco")
    require("decoder_type", decoder, "fast3r")
    require("head_type", head, "dpt")
    require("output_mode", head, "pts3d")
    require("with_local_head", head, True)
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
        rope_base=rope_base(encoder["pos_embed"]),
        random_view_ids=decoder["random_image_idx_embedding"],
        # Absent in the training configuration, where the code's default is true; the released evaluation always
        # switches it off, so absent means off.
        length_scaled_attention=decoder.get("attn_bias_for_inference_enabled", False),
        depth_activation=depth_kind,
        confidence_activation=confidence_kind,
        confidence_range=(number(low), number(high)),
    )


def _network_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a Lightning checkpoint only the network (prefix `net.`); anything else as it is."""
    inside = {name.removeprefix("net."): tensor for name, tensor in weights.items() if name.startswith("net.")}
    return inside or dict(weights)
