"""Our own model files: one safetensors file that also says what it is.

The header holds configuration, name, licence and input rules as JSON: the file alone is enough to build the network.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from manyview.errors import WeightsError
from manyview.networks.checkpoints.names import complain
from manyview.networks.families import CONFIGS, Network, NetworkConfig, empty_network, family_of, fill

HEADER_KEY = "manyview"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What a model is and how pictures have to be prepared for it.

    Attributes:
        name: as the user gave it, or the packaged name.
        family: "fast3r" or "dust3r".
        licence: of the weights.
        source: where the weights come from.
        image_size: longer side of a picture in pixels.
        square_ok: square pictures stay square (the official rule cuts them to 4:3).
        least_confidence: a view none of whose global points is surer than this is not to be trusted.
        least_link: of a pairwise model: pairs whose `alignment.links.link_quality` is lower show different places.
        cameras: how cameras are best found from its maps: "pnp" or "similarity" (`methods.fast3r.Fast3ROptions`).
        weights_sha256: hex digest of the weights file; empty until it is loaded from one.
        description: one line for `manyview models`.
    """

    name: str
    family: str
    licence: str
    source: str
    image_size: int
    square_ok: bool
    least_confidence: float = 1.5
    least_link: float = 1.1
    cameras: Literal["pnp", "similarity"] = "pnp"
    weights_sha256: str = ""
    description: str = ""


def save_model(network: Network, path: Path, info: ModelInfo, *, dtype: torch.dtype = torch.float32) -> None:
    """Write a network with its configuration to one file.

    Raises:
        WeightsError: `info` names another family than the network's.
    """
    if info.family != family_of(network.config):
        raise WeightsError(f"a {type(network).__name__} cannot be saved as a model of the family {info.family!r}")
    tensors = {name: tensor.to(dtype).contiguous() for name, tensor in network.state_dict().items()}
    facts = {key: value for key, value in asdict(info).items() if key != "weights_sha256"}
    header = {"format_version": FORMAT_VERSION, "info": facts, "config": _config_to_json(network.config)}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(tensors, temporary, metadata={HEADER_KEY: json.dumps(header)})
    temporary.replace(path)


def read_header(path: Path) -> dict[str, Any] | None:
    """What a model file says about itself; None if it is a safetensors file of someone else.

    Raises:
        WeightsError: not a safetensors file, or a version that is not known here.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(HEADER_KEY)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file: {error}") from error
    if header is None:
        return None
    content = json.loads(header)
    if content["format_version"] > FORMAT_VERSION:
        raise WeightsError(
            f"{path} has format version {content['format_version']}; this program reads up to {FORMAT_VERSION}",
            hint="Update manyview.",
        )
    return content


def load_model_file(path: Path, header: Mapping[str, Any]) -> tuple[Network, ModelInfo]:
    """The network of one of our files, in float32."""
    info = ModelInfo(**{**header["info"], "weights_sha256": sha256(path)})
    network = empty_network(_config_from_json(info.family, header["config"]))
    tensors = {name: tensor.float() for name, tensor in read_tensors(path).items()}
    expected = network.state_dict()
    misshapen = [
        f"{name}: got {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
        for name, tensor in tensors.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    complain([n for n in expected if n not in tensors], [n for n in tensors if n not in expected], misshapen)
    return fill(network, tensors), info


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, mapped from disk."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file: {error}") from error


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _config_to_json(config: NetworkConfig) -> dict[str, Any]:
    """JSON has no infinity: it is written as text, as in the official configuration."""
    low, high = config.confidence_range
    return {**asdict(config), "confidence_range": [low, "inf" if high == float("inf") else high]}


def _config_from_json(family: str, content: Mapping[str, Any]) -> NetworkConfig:
    if family not in CONFIGS:
        raise WeightsError(f"the model file is of the family {family!r}; known: {', '.join(CONFIGS)}")
    low, high = (float(limit) for limit in content["confidence_range"])
    try:
        return CONFIGS[family](
            **{**content, "confidence_range": (low, high), "head_widths": tuple(content["head_widths"])}
        )
    except TypeError as error:
        raise WeightsError(f"the model file has a configuration that is not known here: {error}") from error
