"""From what a user calls a model to its network: packaged name, file, folder, or hub id."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from manyview.errors import WeightsError
from manyview.networks.checkpoints.fast3r import fast3r_from_official
from manyview.networks.checkpoints.model_file import ModelInfo, load_model_file, read_header, read_tensors, sha256
from manyview.networks.checkpoints.restricted import PICKLED_SUFFIXES
from manyview.networks.fast3r import Fast3R, Fast3RConfig

DEFAULT_MODEL = "manyview-small"
OFFICIAL_WEIGHTS, OFFICIAL_CONFIG = "model.safetensors", "config.json"
FAST3R_LICENCE = "FAIR Noncommercial Research License (no commercial use)"
# Official releases by hub id: what can be fetched.
OFFICIAL_MODELS = {
    "jedyang97/Fast3R_ViT_Large_512": ModelInfo(
        name="jedyang97/Fast3R_ViT_Large_512",
        family="fast3r",
        licence=FAST3R_LICENCE,
        source="https://huggingface.co/jedyang97/Fast3R_ViT_Large_512",
        image_size=512,
        square_ok=False,
        description="the official Fast3R: 648 M parameters, pictures of 512 pixels, 2.6 GB",
    )
}


def find_network(
    name: str | Path, *, revision: str | None = None, endpoint: str | None = None
) -> tuple[Fast3R, ModelInfo]:
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


def _load_file(path: Path) -> tuple[Fast3R, ModelInfo]:
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


def _load_official_folder(folder: Path, name: str) -> tuple[Fast3R, ModelInfo]:
    missing = [file for file in (OFFICIAL_CONFIG, OFFICIAL_WEIGHTS) if not (folder / file).is_file()]
    if missing:
        raise WeightsError(f"{folder} has no {' and no '.join(missing)}", hint="Expected the files of a release.")
    return _load_official(folder / OFFICIAL_WEIGHTS, folder / OFFICIAL_CONFIG, name)


def _load_official(weights: Path, config: Path, name: str) -> tuple[Fast3R, ModelInfo]:
    official = read_config(config)
    network = fast3r_from_official(official, read_tensors(weights))
    digest = sha256(weights)
    if name in OFFICIAL_MODELS:
        return network, replace(OFFICIAL_MODELS[name], weights_sha256=digest)
    released = network.config == Fast3RConfig()
    return network, ModelInfo(
        name=name,
        family="fast3r",
        licence=f"{FAST3R_LICENCE}, if these are the released weights" if released else "not stated",
        source=str(weights),
        image_size=int(official["encoder_args"].get("img_size", 512)),
        square_ok=False,
        weights_sha256=digest,
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
