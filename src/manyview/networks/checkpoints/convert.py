"""From an official pickled checkpoint to one of our model files; done once, by the restricted reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from manyview.errors import WeightsError
from manyview.networks.checkpoints.fast3r import fast3r_from_official
from manyview.networks.checkpoints.find import OFFICIAL_MODELS, read_config
from manyview.networks.checkpoints.model_file import ModelInfo, read_tensors, save_model
from manyview.networks.checkpoints.restricted import load_pickled

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
        config: the release's config.json; the released Fast3R's if None.

    Raises:
        WeightsError: the checkpoint is unreadable, unsafe or does not fit, or `output` exists.
    """
    if output.suffix != ".safetensors":
        raise WeightsError(f"the output {output} should end with .safetensors")
    if output.exists() and not overwrite:
        raise WeightsError(f"{output} exists", hint="Add --overwrite to replace it.")
    official = RELEASED_FAST3R_CONFIG if config is None else read_config(config)
    weights = read_tensors(checkpoint) if checkpoint.suffix == ".safetensors" else load_pickled(checkpoint)
    network = fast3r_from_official(official, weights)
    released = OFFICIAL_MODELS["jedyang97/Fast3R_ViT_Large_512"]
    info = replace(released, name=output.stem, source=f"converted from {checkpoint.name}", description="")
    save_model(network, output, info)
    return info
