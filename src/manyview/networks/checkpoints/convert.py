"""From an official pickled checkpoint to one of our model files; done once, by the restricted reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from manyview.errors import WeightsError
from manyview.networks.checkpoints.find import network_from_official, official_info, read_config
from manyview.networks.checkpoints.model_file import ModelInfo, read_tensors, save_model
from manyview.networks.checkpoints.restricted import constructor_in, read_pickled, weights_in

# What the hub's config.json of the released Fast3R says; Lightning checkpoints do not carry it.
RELEASED_FAST3R_CONFIG: Mapping[str, Any] = {
    "encoder_args": {
        "encoder_type": "croco",
        "patch_size": 16,
        "embed_dim": 1024,
        "num_heads": 16,
        "depth": 24,
        "mlp_ratio": 4,
        "pos_embed": "RoPE100",
    },
    "decoder_args": {
        "decoder_type": "fast3r",
        "random_image_idx_embedding": True,
        "embed_dim": 1024,
        "num_heads": 16,
        "depth": 24,
        "mlp_ratio": 4.0,
        "attn_bias_for_inference_enabled": False,
    },
    "head_args": {
        "head_type": "dpt",
        "output_mode": "pts3d",
        "depth_mode": ["exp", "-inf", "inf"],
        "conf_mode": ["exp", 1, "inf"],
        "with_local_head": True,
    },
}


def convert(checkpoint: Path, output: Path, *, config: Path | None = None, overwrite: bool = False) -> ModelInfo:
    """Write `output` (.safetensors) from a `.pth`, `.ckpt` or official `.safetensors` file.

    Args:
        config: the release's config.json. If None: what the checkpoint says itself (DUSt3R's do), else that of the
            released Fast3R.

    Raises:
        WeightsError: the checkpoint is unreadable, unsafe or does not fit, or `output` exists.
    """
    if output.suffix != ".safetensors":
        raise WeightsError(f"the output {output} should end with .safetensors")
    if output.exists() and not overwrite:
        raise WeightsError(f"{output} exists", hint="Add --overwrite to replace it.")
    found, weights = _open(checkpoint)
    official = read_config(config) if config is not None else found or RELEASED_FAST3R_CONFIG
    network = network_from_official(official, weights, str(config or checkpoint))
    info = official_info(network, official, output.stem)
    info = replace(info, source=f"converted from {checkpoint.name}")
    save_model(network, output, info)
    return info


def _open(checkpoint: Path) -> tuple[str | None, dict[str, Tensor]]:
    """The constructor text, where a checkpoint carries one, and the weights."""
    if checkpoint.suffix == ".safetensors":
        return None, read_tensors(checkpoint)
    content = read_pickled(checkpoint)
    return constructor_in(content), weights_in(content, checkpoint)
