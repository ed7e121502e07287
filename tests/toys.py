"""Toys that several test files play with: the smallest networks, their pictures, and scenes whose truth is known."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from manyview.evaluation.held_out import Truth
from manyview.geometry import Camera, Similarity, pixel_grid
from manyview.methods.model import Model
from manyview.networks.checkpoints.dust3r import DUST3R_NAMES, dust3r_config
from manyview.networks.checkpoints.fast3r import FAST3R_NAMES, fast3r_config
from manyview.networks.checkpoints.model_file import ModelInfo
from manyview.networks.checkpoints.names import to_official
from manyview.networks.dust3r import Dust3R, Dust3RConfig
from manyview.networks.fast3r import Fast3R, Fast3RConfig
from manyview.scene import Provenance, Scene, SceneView
from weights import TINY_OFFICIAL

# ---------------------------------------------------------------- networks
# The smallest network that has every part: four fusion blocks, since the heads look at four depths.
SMALLEST = Fast3RConfig(
    patch_size=8, encoder_dim=32, encoder_heads=2, encoder_depth=1, fusion_dim=32, fusion_heads=2, fusion_depth=4,
    head_widths=(8, 8, 8, 8), head_features=8, head_last_features=8,
)  # fmt: skip
# The same as a pairwise network; with linear heads as `replace(SMALLEST_PAIRS, head="linear")`.
SMALLEST_PAIRS = Dust3RConfig(
    patch_size=8, encoder_dim=32, encoder_heads=2, encoder_depth=1, decoder_dim=32, decoder_heads=2, decoder_depth=4,
    head_widths=(8, 8, 8, 8), head_features=8, head_last_features=8,
)  # fmt: skip
# A small network as an official config.json describes it: patches of 16 pixels, heads of the released widths.
SMALLEST_OFFICIAL = {
    "encoder_args": {**TINY_OFFICIAL["encoder_args"], "embed_dim": 32, "num_heads": 2, "depth": 1},
    "decoder_args": {**TINY_OFFICIAL["decoder_args"], "embed_dim": 32, "num_heads": 2, "depth": 4},
    "head_args": TINY_OFFICIAL["head_args"],
}
# The same as the constructor call of a pairwise release, with linear heads.
SMALLEST_CONSTRUCTOR = (
    "AsymmetricCroCo3DStereo(pos_embed='RoPE100', patch_embed_cls='PatchEmbedDust3R', img_size=(64, 48), "
    "head_type='linear', output_mode='pts3d', depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), "
    "enc_embed_dim=32, enc_depth=1, enc_num_heads=2, dec_embed_dim=32, dec_depth=2, dec_num_heads=2, "
    "landscape_only=False)"
)
INFO = ModelInfo(name="toy", family="fast3r", licence="none", source="a test", image_size=64, square_ok=True)
PAIRS_INFO = replace(INFO, name="toy-pairs", family="dust3r")


def random_network(config: Fast3RConfig = SMALLEST, seed: int = 0) -> Fast3R:
    """An untrained network, ready for inference; its weights come from `seed` alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Fast3R(config).eval()


def random_pair_network(config: Dust3RConfig = SMALLEST_PAIRS, seed: int = 0) -> Dust3R:
    """An untrained pairwise network, ready for inference; its weights come from `seed` alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Dust3R(config).eval()


def disturbed(module, by: float = 0.1):
    """The same module with noise on every weight: none is a default any more, norms and biases included."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return module


def random_images(sizes: Sequence[tuple[int, int]], batch: int = 1, seed: int = 0) -> list[torch.Tensor]:
    """A picture (batch, 3, height, width) of noise in [-1, 1] for each size."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(batch, 3, *size, generator=generator) * 2 - 1 for size in sizes]


def tiny_model(image_size: int = 32) -> Model:
    """An untrained model with a seed that puts some points in front of the cameras, so that there is a scene."""
    return Model(random_network(seed=1), replace(INFO, image_size=image_size), torch.device("cpu"), torch.float32)


@functools.cache
def official_weights() -> dict[str, torch.Tensor]:
    """Random weights for `SMALLEST_OFFICIAL` as a release has them: official names (without the aliases), 1x1
    convolutions with four dimensions. Shared by all callers: copy before changing."""
    own = random_network(fast3r_config(SMALLEST_OFFICIAL)).state_dict()
    return {
        name: (own[ours][..., None, None] if _is_projection(name) and own[ours].ndim == 2 else own[ours]).clone(
            memory_format=torch.contiguous_format
        )
        for ours, name in to_official(own, FAST3R_NAMES).items()
    }


@functools.cache
def official_pair_weights() -> dict[str, torch.Tensor]:
    """Random weights for `SMALLEST_CONSTRUCTOR` under official names. Shared: copy before changing."""
    own = random_pair_network(dust3r_config(SMALLEST_CONSTRUCTOR)).state_dict()
    named = {name: own[ours] for ours, name in to_official(own, DUST3R_NAMES).items()}
    return {**named, "mask_token": torch.zeros(1, 1, 32)}


def _is_projection(official: str) -> bool:
    return re.search(r"act_postprocess\.\d\.0\.", official) is not None


# ---------------------------------------------------------------- scenes whose truth is known
# From the true world to that of `oracle_scene`.
MOVE = Similarity(scale=2.5, rotation=Rotation.from_euler("xyz", [1, 2, 3]).as_matrix(), translation=np.arange(3.0))


def oracle_scene(truth: Truth, original_from_network: np.ndarray | None = None) -> Scene:
    """The truth as a scene, in another world frame and scale (`MOVE`).

    Args:
        original_from_network: (3, 3) affine map of pixels, if the network should have seen smaller pictures.
    """
    affine = np.eye(3) if original_from_network is None else original_from_network
    views = [_oracle_view(camera, depth, affine) for camera, depth in zip(truth.cameras, truth.depth, strict=True)]
    return Scene(views=views, provenance=Provenance(model="oracle", weights_sha256="", weights_licence="none"))


def _oracle_view(camera: Camera | None, depth: np.ndarray | None, affine: np.ndarray) -> SceneView:
    assert camera is not None
    assert depth is not None
    step = round(affine[0, 0])
    sampled = depth[step // 2 :: step, step // 2 :: step]
    pixels = pixel_grid(*sampled.shape) @ affine[:2, :2].T + affine[:2, 2]
    return SceneView.masked(
        name="",
        source=None,
        original_size=depth.shape,
        original_from_network=affine,
        image=np.zeros((*sampled.shape, 3), dtype=np.uint8),
        camera=replace(camera, world_from_camera=MOVE.apply_to_camera(camera.world_from_camera)),
        depth=sampled * MOVE.scale,
        points=MOVE.apply(camera.unproject(pixels, sampled)),
        confidence=np.ones(sampled.shape),
        valid=sampled > 0,
    )
