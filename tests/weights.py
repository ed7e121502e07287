"""Deterministic weights and inputs of the reference numbers, by the rule their README states."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path

import numpy as np
import torch

TINY_OFFICIAL = {
    "encoder_args": {
        "encoder_type": "croco",
        "img_size": 512,
        "patch_size": 16,
        "patch_embed_cls": "PatchEmbedDust3R",
        "embed_dim": 64,
        "num_heads": 4,
        "depth": 2,
        "mlp_ratio": 4,
        "pos_embed": "RoPE100",
        "attn_implementation": "flash_attention",
    },
    "decoder_args": {
        "decoder_type": "fast3r",
        "random_image_idx_embedding": True,
        "enc_embed_dim": 64,
        "embed_dim": 48,
        "num_heads": 4,
        "depth": 10,
        "mlp_ratio": 4.0,
        "qkv_bias": True,
        "drop": 0.0,
        "attn_drop": 0.0,
        "attn_implementation": "flash_attention",
        "attn_bias_for_inference_enabled": False,
    },
    "head_args": {
        "head_type": "dpt",
        "output_mode": "pts3d",
        "landscape_only": False,
        "depth_mode": ["exp", float("-inf"), float("inf")],
        "conf_mode": ["exp", 1, float("inf")],
        "patch_size": 16,
        "with_local_head": True,
    },
    "freeze": "none",
}

# DUSt3R: the constructor call that a release stores as text.
TINY_DUST3R = {
    "linear": (
        "AsymmetricCroCo3DStereo(pos_embed='RoPE100', patch_embed_cls='PatchEmbedDust3R', img_size=(64, 64), "
        "head_type='linear', output_mode='pts3d', depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), "
        "enc_embed_dim=64, enc_depth=3, enc_num_heads=4, dec_embed_dim=48, dec_depth=4, dec_num_heads=3, "
        "landscape_only=False)"
    ),
    "dpt": (
        "AsymmetricCroCo3DStereo(pos_embed='RoPE100', patch_embed_cls='PatchEmbedDust3R', img_size=(64, 64), "
        "head_type='dpt', output_mode='pts3d', depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), "
        "enc_embed_dim=64, enc_depth=2, enc_num_heads=4, dec_embed_dim=48, dec_depth=12, dec_num_heads=3, "
        "landscape_only=False)"
    ),
}
RELEASED_DUST3R = {
    f"{size}_{head}": (
        f"AsymmetricCroCo3DStereo(pos_embed='RoPE100', patch_embed_cls='ManyAR_PatchEmbed', img_size=({size}, {size}), "
        f"head_type='{head}', output_mode='pts3d', depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), "
        "enc_embed_dim=1024, enc_depth=24, enc_num_heads=16, dec_embed_dim=768, dec_depth=12, dec_num_heads=12)"
    )
    for size, head in ((224, "linear"), (512, "linear"), (512, "dpt"))
}


def rule_weight(name: str, shape: list[int]) -> torch.Tensor:
    """The value of a weight by its name alone."""
    alias = re.sub(r"layer(\d)_rn", lambda match: f"layer_rn.{int(match[1]) - 1}", name)
    z = np.random.RandomState(zlib.crc32(alias.encode())).standard_normal(shape).astype(np.float32)
    if len(shape) >= 2:
        z = z / np.sqrt(np.float32(np.prod(shape[1:]))) * np.float32(0.2 if name.endswith(".dpt.head.4.weight") else 1)
    else:
        z = 1 + 0.1 * z if name.endswith(("weight", "gamma")) else 0.1 * z
    return torch.from_numpy(np.ascontiguousarray(z, dtype=np.float32))


def manifest(path: Path) -> list[tuple[str, list[int]]]:
    """[(official name, shape)]."""
    return [(name, shape) for name, shape, _ in json.loads(path.read_text())]


def rule_weights(path: Path) -> dict[str, torch.Tensor]:
    """{official name: tensor} of a manifest."""
    return {name: rule_weight(name, shape) for name, shape in manifest(path)}


def rule_image(view: int, height: int, width: int, sample: int = 0) -> torch.Tensor:
    """(1, 3, H, W) in [-1, 1]."""
    state = np.random.RandomState(1000 + view + 100 * sample)
    return torch.from_numpy(state.uniform(-1, 1, (1, 3, height, width)).astype(np.float32))
