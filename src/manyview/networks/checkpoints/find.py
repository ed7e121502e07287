"""From what a user calls a model to its network: packaged name, file, folder, or hub id."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from torch import Tensor

from manyview.errors import WeightsError
from manyview.networks.checkpoints.dust3r import dust3r_from_official, parse_constructor
from manyview.networks.checkpoints.fast3r import fast3r_from_official
from manyview.networks.checkpoints.model_file import ModelInfo, load_model_file, read_header, read_tensors, sha256
from manyview.networks.checkpoints.restricted import PICKLED_SUFFIXES
from manyview.networks.dust3r import Dust3R, Dust3RConfig
from manyview.networks.families import Network
from manyview.networks.fast3r import Fast3RConfig

DEFAULT_MODEL = "manyview-small"
OFFICIAL_WEIGHTS, OFFICIAL_CONFIG = "model.safetensors", "config.json"
FAST3R_LICENCE = "FAIR Noncommercial Research License (no commercial use)"
DUST3R_LICENCE = "CC BY-NC-SA 4.0 (no commercial use), and the terms of its training data"


def _dust3r(name: str, size: int, words: str) -> ModelInfo:
    return ModelInfo(
        name=f"naver/DUSt3R_ViTLarge_BaseDecoder_{name}",
        family="dust3r",
        licence=DUST3R_LICENCE,
        source=f"https://huggingface.co/naver/DUSt3R_ViTLarge_BaseDecoder_{name}",
        image_size=size,
        square_ok=False,
        description=f"the official DUSt3R, pairs: {words}",
    )


_OFFICIAL = (
    ModelInfo(
        name="jedyang97/Fast3R_ViT_Large_512",
        family="fast3r",
        licence=FAST3R_LICENCE,
        source="https://huggingface.co/jedyang97/Fast3R_ViT_Large_512",
        image_size=512,
        square_ok=False,
        description="the official Fast3R: 648 M parameters, pictures of 512 pixels, 2.6 GB",
    ),
    _dust3r("512_dpt", 512, "571 M parameters, pictures of 512 pixels, 2.3 GB"),
    _dust3r("512_linear", 512, "532 M parameters, pictures of 512 pixels, 2.1 GB"),
    _dust3r("224_linear", 224, "532 M parameters, squares of 224 pixels, 2.1 GB"),
)
# Official releases by hub id: what can be fetched.
OFFICIAL_MODELS = {info.name: info for info in _OFFICIAL}


def find_network(
    name: str | Path, *, revision: str | None = None, endpoint: str | None = None
) -> tuple[Network, ModelInfo]:
    """Load a network in float32 on the CPU.

    Args:
        name: a packaged model ("manyview-small"), a model file, a folder with config.json and model.safetensors as an
            official release has them, or a hub id ("owner/name"), which is downloaded once.
        revision: of a hub id: branch, tag or commit.
        endpoint: of a hub other than the default one.

    Raises:
        WeightsError: nothing is known by that name, the download failed, or the weights do not fit.
    """
    path = Path(name)
    if str(name) in packaged_models():
        return _load_file(packaged_models()[str(name)])
    if path.is_dir():
        return _load_official_folder(path, str(name))
    if path.is_file():
        return _load_file(path)
    if isinstance(name, str) and _looks_like_hub_id(name):
        return _load_official_folder(download(name, revision=revision, endpoint=endpoint), name)
    raise WeightsError(
        f"no model {str(name)!r}: neither a packaged model, nor a file or folder here, nor a hub id (owner/name)",
        hint=f"Packaged: {', '.join(packaged_models())}. `manyview models` lists all.",
    )


def packaged_models() -> dict[str, Path]:
    """{name: file} of the models that come with the package."""
    folder = resources.files("manyview.networks.checkpoints") / "packaged"
    return {Path(str(f)).stem: Path(str(f)) for f in folder.iterdir() if str(f).endswith(".safetensors")}


def list_models() -> list[ModelInfo]:
    """What is packaged and what can be fetched."""
    headers = [read_header(path) for path in packaged_models().values()]
    return [ModelInfo(**header["info"]) for header in headers if header] + list(OFFICIAL_MODELS.values())


def download(repository: str, *, revision: str | None = None, endpoint: str | None = None) -> Path:
    """Fetch a release from the hub, or find it in the local cache; returns its folder."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        files = [
            hf_hub_download(repository, file, revision=revision, endpoint=endpoint)
            for file in (OFFICIAL_CONFIG, OFFICIAL_WEIGHTS)
        ]
    except RepositoryNotFoundError as error:
        raise WeightsError(f"the hub has no public model {repository!r}", hint="Check the spelling.") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise WeightsError(
            f"could not download {repository!r} ({type(error).__name__}) and it is not in the local cache",
            hint=(
                f"With a network: `hf download {repository}`. On another machine: copy its {OFFICIAL_CONFIG} and "
                f"{OFFICIAL_WEIGHTS} into a folder and give that folder as the model. "
                f"The packaged model {DEFAULT_MODEL!r} works offline."
            ),
        ) from error
    return Path(files[0]).parent


def _load_file(path: Path) -> tuple[Network, ModelInfo]:
    if path.suffix in PICKLED_SUFFIXES:
        raise WeightsError(
            f"{path} is a pickled checkpoint, which can run code when it is opened",
            hint=f"Convert it once with the restricted reader: manyview convert {path} -o model.safetensors",
        )
    header = read_header(path)
    if header is not None:
        return load_model_file(path, header)
    if (path.parent / OFFICIAL_CONFIG).is_file():
        return _load_official(path, path.parent / OFFICIAL_CONFIG, str(path))
    raise WeightsError(
        f"{path} does not say what network it is for, and there is no {OFFICIAL_CONFIG} beside it",
        hint=f"Put the release's {OFFICIAL_CONFIG} into the same folder.",
    )


def _load_official_folder(folder: Path, name: str) -> tuple[Network, ModelInfo]:
    missing = [file for file in (OFFICIAL_CONFIG, OFFICIAL_WEIGHTS) if not (folder / file).is_file()]
    if missing:
        raise WeightsError(f"{folder} has no {' and no '.join(missing)}", hint="Expected the files of a release.")
    return _load_official(folder / OFFICIAL_WEIGHTS, folder / OFFICIAL_CONFIG, name)


def _load_official(weights: Path, config: Path, name: str) -> tuple[Network, ModelInfo]:
    official = read_config(config)
    network = network_from_official(official, read_tensors(weights), str(config))
    digest = sha256(weights)
    if name in OFFICIAL_MODELS:
        return network, replace(OFFICIAL_MODELS[name], weights_sha256=digest)
    return network, replace(official_info(network, official, name), source=str(weights), weights_sha256=digest)


def network_from_official(config: Mapping[str, Any] | str, weights: Mapping[str, Tensor], where: str) -> Network:
    """The network of an official configuration, of whichever family it is.

    Args:
        config: the dict of a config.json, or the text of a constructor call.
        weights: {official name: tensor}.
        where: the configuration comes from, for the message.

    Raises:
        WeightsError: the configuration is of no family that is known here, or the weights do not fit.
    """
    if isinstance(config, str) or "enc_embed_dim" in config:
        return dust3r_from_official(config, weights)
    if "encoder_args" in config:
        return fast3r_from_official(config, weights)
    raise WeightsError(
        f"{where} is the configuration of neither a Fast3R nor a DUSt3R release; it has {', '.join(config)}",
        hint="Expected encoder_args, decoder_args and head_args, or enc_embed_dim, dec_embed_dim, head_type, ...",
    )


def official_info(network: Network, config: Mapping[str, Any] | str, name: str) -> ModelInfo:
    """What is known of weights in official form that carry no name: those of the released sizes may be the released."""
    keywords = parse_constructor(config) if isinstance(config, str) else config
    if isinstance(network, Dust3R):
        family, licence, size = "dust3r", DUST3R_LICENCE, keywords.get("img_size", 512)
        released = network.config in (Dust3RConfig(), Dust3RConfig(head="linear"))
    else:
        family, licence, size = "fast3r", FAST3R_LICENCE, keywords["encoder_args"].get("img_size", 512)
        released = network.config == Fast3RConfig()
    return ModelInfo(
        name=name,
        family=family,
        licence=f"{licence}, if these are the released weights" if released else "not stated",
        source=name,
        image_size=int(max(size) if isinstance(size, Sequence) else size),
        square_ok=False,
    )


def read_config(path: Path) -> dict[str, Any]:
    """An official config.json; infinity may be written bare (`Infinity`) or in quotes."""
    try:
        content = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise WeightsError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}; expected an object")
    return content


def _looks_like_hub_id(name: str) -> bool:
    owner, slash, repository = name.partition("/")
    is_path = name.startswith((".", "~")) or name.endswith((".safetensors", *PICKLED_SUFFIXES))
    return bool(owner and slash and repository) and "/" not in repository and not is_path
