"""`Model`: a network that is ready to reconstruct, and `load` and `reconstruct`, the public doors."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

import manyview
from manyview.images import Fit, Inputs, Progress, Views, load_views, to_network_tensor
from manyview.images.sources import find_sources
from manyview.methods.devices import (
    DtypeName,
    Rung,
    choose_device,
    choose_dtype,
    climb_down,
    in_precision,
    network_progress,
)
from manyview.methods.fast3r import Fast3ROptions, Maps, place_views
from manyview.networks.checkpoints.find import DEFAULT_MODEL, find_network
from manyview.networks.checkpoints.model_file import ModelInfo
from manyview.networks.fast3r import Fast3R
from manyview.networks.pointmaps import Pointmaps
from manyview.scene import Provenance, Scene

DEFAULT_SEED = 0


@dataclass(frozen=True)
class Model:
    """A loaded network, what it is, and where it runs."""

    network: Fast3R
    info: ModelInfo
    device: torch.device
    dtype: torch.dtype

    def reconstruct(
        self,
        inputs: Inputs,
        *,
        seed: int = DEFAULT_SEED,
        image_size: int | None = None,
        fit: Fit = "crop",
        intrinsics: np.ndarray | None = None,
        options: Fast3ROptions = Fast3ROptions(),  # noqa: B008 (frozen dataclass)
        fps: float | None = None,
        max_frames: int | None = None,
        max_pixels: int | None = None,
        strict: bool = False,
        dedup: bool = False,
        progress: Progress | None = None,
    ) -> Scene:
        """Photos or a video -> cameras, depth and points. See `manyview.reconstruct` for the arguments."""
        clock = Clock()
        size = self.info.image_size if image_size is None else image_size
        options = replace(options, cameras=self.info.cameras) if options.cameras == "auto" else options
        with clock.measure("load_images"):
            views = load_views(
                inputs,
                size=size,
                fit=fit,
                patch_size=self.network.config.patch_size,
                square_ok=self.info.square_ok,
                fps=fps,
                max_frames=max_frames,
                max_pixels=max_pixels,
                strict=strict,
                dedup=dedup,
                progress=progress,
            )
        with clock.measure("network"):
            pointmaps, rung, changes = self.run(views, seed=seed, progress=progress)
        with clock.measure("geometry"):
            maps = [_maps(pointmaps, index, view.valid) for index, view in enumerate(views)]
            placed = place_views(
                views,
                maps,
                options,
                known_K=intrinsics,
                least_confidence=self.info.least_confidence,
                progress=progress,
            )
        settings = {
            "seed": seed,
            "image_size": size,
            "fit": fit,
            "fps": fps,
            "max_frames": max_frames,
            "max_pixels": max_pixels,
            "strict": strict,
            "dedup": dedup,
            "device": str(self.device),
            "dtype": str(rung.dtype).removeprefix("torch."),
            "intrinsics": "given" if intrinsics is not None else "estimated",
            **asdict(options),
        }
        return Scene(
            views=placed,
            provenance=Provenance(
                model=self.info.name,
                weights_sha256=self.info.weights_sha256,
                weights_licence=self.info.licence,
                settings=settings,
                versions=versions(),
                seconds=clock.seconds,
                changes=(*changes, *(f"{view.name}: {change}" for view in views for change in view.changes)),
            ),
            skipped=[(skipped.name, skipped.reason) for skipped in views.skipped],
            warnings=[*views.warnings, *_warnings(placed)],
        )

    def run(
        self, views: Views, *, seed: int = DEFAULT_SEED, progress: Progress | None = None
    ) -> tuple[Pointmaps, Rung, tuple[str, ...]]:
        """The network alone: its pointmaps (B = 1, on the host, float32).

        Also returns how it was run, and what was changed to fit into memory, in words.
        """
        sizes = [view.size for view in views]

        def attempt(rung: Rung) -> Pointmaps:
            images = [image.to(self.device) for image in to_network_tensor(views)]
            with (
                torch.inference_mode(),
                in_precision(self.network, rung.dtype) as network,
                network_progress(network, sizes, rung.economy, progress),
            ):
                return network(images, seed=seed, economy=rung.economy)

        return climb_down(attempt, self.dtype)


def load(
    name: str | Path = DEFAULT_MODEL,
    *,
    device: str = "auto",
    dtype: DtypeName | None = None,
    revision: str | None = None,
) -> Model:
    """Load a model.

    Args:
        name: a packaged model ("manyview-small"), a model file or an official release's folder, or a hub id
            ("jedyang97/Fast3R_ViT_Large_512"), which is downloaded once.
        device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1", ...
        dtype: "float32" (default on a CPU), "bfloat16" (default on CUDA) or "float16".
        revision: of a hub id: branch, tag or commit.

    Raises:
        WeightsError: nothing is known by that name, or the weights do not fit.
        DeviceError: the device is not there.
    """
    chosen = choose_device(device)
    network, info = find_network(name, revision=revision)
    dtype_ = choose_dtype(dtype, chosen)
    return Model(network.to(device=chosen, dtype=dtype_), info, chosen, dtype_)


def reconstruct(
    inputs: Inputs,
    model: str | Path | Model = DEFAULT_MODEL,
    *,
    device: str = "auto",
    dtype: DtypeName | None = None,
    seed: int = DEFAULT_SEED,
    image_size: int | None = None,
    fit: Fit = "crop",
    intrinsics: np.ndarray | None = None,
    options: Fast3ROptions = Fast3ROptions(),  # noqa: B008 (frozen dataclass)
    fps: float | None = None,
    max_frames: int | None = None,
    max_pixels: int | None = None,
    strict: bool = False,
    dedup: bool = False,
    progress: Progress | None = None,
) -> Scene:
    """Photos or a video -> cameras, depth and dense coloured points.

    Args:
        inputs: a folder, a video, a photo, a list of paths, of arrays (H, W, 3) or of Pillow pictures.
        model: what `manyview.load` takes, or a loaded model.
        device, dtype: as in `manyview.load`; ignored if `model` is loaded already.
        seed: of the view indices; equal inputs and seeds give equal results.
        image_size: longer side in pixels at which the network works; the model's own by default.
        fit: "crop" as the official release does (may cut edges), or "pad", which keeps the whole content.
        intrinsics: known K in pixels of the upright originals, (3, 3) for all views or (N, 3, 3).
        options: how pointmaps become a scene.
        fps, max_frames: which frames of a video are used.
        max_pixels: raise the limit for huge pictures.
        strict: an unreadable picture is an error instead of being skipped and named in `scene.skipped`.
        dedup: drop pictures with equal content.
        progress: called as (done, total, what).

    Returns:
        A `Scene` in the first camera's frame (OpenCV axes), in scene units. Views whose camera was not found say so.

    Raises:
        InputError, NoValidImagesError, WeightsError, DeviceError.
    """
    find_sources(inputs)  # what is missing is said before gigabytes are loaded
    if isinstance(model, Model):
        loaded = model
    else:
        _tell(progress, 0, "loading the model")
        loaded = load(model, device=device, dtype=dtype)
        _tell(progress, 1, "loading the model")
    return loaded.reconstruct(
        inputs,
        seed=seed,
        image_size=image_size,
        fit=fit,
        intrinsics=intrinsics,
        options=options,
        fps=fps,
        max_frames=max_frames,
        max_pixels=max_pixels,
        strict=strict,
        dedup=dedup,
        progress=progress,
    )


@dataclass
class Clock:
    """Seconds of each part of the work."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


def _tell(progress: Progress | None, done: int, what: str) -> None:
    if progress is not None:
        progress(done, 1, what)


def versions() -> dict[str, str]:
    """What a result depends on."""
    return {
        "manyview": manyview.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _maps(pointmaps: Pointmaps, view: int, valid: np.ndarray) -> Maps:
    assert pointmaps.local_points is not None
    assert pointmaps.local_confidence is not None
    arrays = (pointmaps.points, pointmaps.confidence, pointmaps.local_points, pointmaps.local_confidence)
    return Maps(*(per_view[view][0].numpy() for per_view in arrays), valid=valid)


def _warnings(views) -> Iterator[str]:
    if views and views[0].camera is None:
        yield "the first view's camera was not found: the world is the network's own estimate of that camera's frame"
    for view in views:
        if view.masked_pixels:
            yield f"{view.name}: {view.masked_pixels} pixels were not finite and are masked"
