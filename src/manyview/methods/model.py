"""`Model`: a network that is ready to reconstruct, and `load` and `reconstruct`, the public doors."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args, get_origin, get_type_hints

import numpy as np
import torch

import manyview
from manyview.alignment.problem import PairMaps
from manyview.errors import InputError
from manyview.images import Fit, Inputs, Progress, load_views
from manyview.images.sources import find_sources
from manyview.methods import dust3r, fast3r
from manyview.methods.devices import DtypeName, choose_device, choose_dtype
from manyview.methods.dust3r import Dust3ROptions
from manyview.methods.fast3r import Fast3ROptions
from manyview.methods.placing import Clock, Job, Known, Placed
from manyview.networks.checkpoints.find import DEFAULT_MODEL, find_network
from manyview.networks.checkpoints.model_file import ModelInfo
from manyview.networks.dust3r import Dust3R
from manyview.networks.families import Network
from manyview.networks.fast3r import Fast3R
from manyview.scene import Provenance, Scene, SceneView

Options: TypeAlias = Fast3ROptions | Dust3ROptions
DEFAULT_SEED = 0


@dataclass(frozen=True)
class Model:
    """A loaded network, what it is, and where it runs."""

    network: Network
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
        world_from_camera: Sequence[np.ndarray | None] | None = None,
        options: Options | None = None,
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
        job = Job(
            views=views,
            info=self.info,
            device=self.device,
            dtype=self.dtype,
            seed=seed,
            known=Known.checked(views, intrinsics, world_from_camera),
            clock=clock,
            progress=progress,
        )
        placed = self._place(job, options)
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
            "dtype": str(placed.dtype).removeprefix("torch."),
            "intrinsics": "given" if intrinsics is not None else "estimated",
            "known_cameras": sum(camera is not None for camera in job.known.world_from_camera or ()),
            **placed.settings,
        }
        return Scene(
            views=placed.views,
            provenance=Provenance(
                model=self.info.name,
                weights_sha256=self.info.weights_sha256,
                weights_licence=self.info.licence,
                settings=settings,
                versions=versions(),
                seconds=clock.seconds,
                changes=(*placed.changes, *(f"{view.name}: {change}" for view in views for change in view.changes)),
            ),
            skipped=[(skipped.name, skipped.reason) for skipped in views.skipped],
            warnings=[*views.warnings, *placed.warnings, *_masked(placed.views)],
            world=placed.world,
        )

    def _place(self, job: Job, options: Options | None) -> Placed:
        """By the method of the model's family."""
        if isinstance(self.network, Dust3R) and isinstance(options, Dust3ROptions | None):
            return dust3r.reconstruct_views(self.network, job, options or Dust3ROptions())
        if isinstance(self.network, Fast3R) and isinstance(options, Fast3ROptions | None):
            return fast3r.reconstruct_views(self.network, job, options or Fast3ROptions())
        raise InputError(
            f"{self.info.name} is of the family {self.info.family}, and the options are {type(options).__name__}",
            hint="Fast3ROptions belong to Fast3R models, Dust3ROptions to DUSt3R models.",
        )

    def predict_pairs(self, pictures: Sequence[np.ndarray], edges: np.ndarray) -> PairMaps:
        """What a DUSt3R model says of pairs of pictures.

        Args:
            pictures: N pictures (H, W, 3) uint8 RGB of the network's size: multiples of `patch_size`.
            edges: (E, 2), the pairs as they are run: the first picture's camera is the frame of both pointmaps.

        Raises:
            InputError: the model is not pairwise.
        """
        if not isinstance(self.network, Dust3R):
            raise InputError(
                f"{self.info.name} is of the family {self.info.family}; pairs need a DUSt3R model",
                hint="manyview-small-pairs is packaged.",
            )
        return dust3r.predict_pairs(self.network, pictures, edges, device=self.device, dtype=self.dtype)

    @property
    def patch_size(self) -> int:
        """Heights and widths of the network's pictures are multiples of it."""
        return self.network.config.patch_size

    @property
    def image_size(self) -> int:
        """Longer side of a picture in pixels, as the model wants it."""
        return self.info.image_size

    @property
    def least_confidence(self) -> float:
        """Points less sure than this are not to be trusted."""
        return self.info.least_confidence


def named_options(family: str, given: Mapping[str, str | int | None]) -> Options:
    """The options of a family from names and values, as the command line has them; None where one is not given.

    Raises:
        InputError: an option is of another family, or a value is not one of those it can have.
    """
    kind = {"fast3r": Fast3ROptions, "dust3r": Dust3ROptions}[family]
    hints = get_type_hints(kind)
    chosen = {name: value for name, value in given.items() if value is not None}
    for name, value in chosen.items():
        if name not in hints:
            raise InputError(
                f"--{name} does not concern models of the family {family}",
                hint=f"These have {', '.join(f'--{own}' for own in hints if own in given)}.",
            )
        allowed = get_args(hints[name]) if get_origin(hints[name]) is Literal else ()
        if allowed and value not in allowed:
            raise InputError(f"--{name} {value} is not known", hint=f"Choose one of {', '.join(allowed)}.")
    return kind(**chosen)  # pyright: ignore[reportArgumentType]


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
    world_from_camera: Sequence[np.ndarray | None] | None = None,
    options: Options | None = None,
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
        world_from_camera: known cameras, one rigid (4, 4) a view or None where it is not known; the result is then in
            their world. DUSt3R models only.
        options: how pointmaps become a scene: `Fast3ROptions` or `Dust3ROptions`, by the model's family.
        fps, max_frames: which frames of a video are used.
        max_pixels: raise the limit for huge pictures.
        strict: an unreadable picture is an error instead of being skipped and named in `scene.skipped`.
        dedup: drop pictures with equal content.
        progress: called as (done, total, what).

    Returns:
        A `Scene` in the first camera's frame (OpenCV axes), in scene units; with known cameras in their frame and
        units. Views whose camera was not found say so.

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
        world_from_camera=world_from_camera,
        options=options,
        fps=fps,
        max_frames=max_frames,
        max_pixels=max_pixels,
        strict=strict,
        dedup=dedup,
        progress=progress,
    )


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


def _masked(views: Sequence[SceneView]) -> Iterator[str]:
    for view in views:
        if view.masked_pixels:
            yield f"{view.name}: {view.masked_pixels} pixels were not finite and are masked"
