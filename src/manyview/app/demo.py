"""The demonstration: photograph a world that the model has never seen, reconstruct it, and compare with the truth."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from manyview.app.picture import save_picture
from manyview.errors import InputError
from manyview.evaluation.held_out import SceneErrors, compare_with_truth, native_size, photograph_world
from manyview.files import refuse_results, staged, write_json
from manyview.images import Progress
from manyview.methods.model import Model, load
from manyview.networks.checkpoints.find import DEFAULT_MODEL
from manyview.scene import ExportOptions, Scene
from manyview.training.data import FIRST_HELD_OUT_SEED
from manyview.worlds import WorldSettings

DEMO_SEED = FIRST_HELD_OUT_SEED + 1_000_001  # a furnished room; chosen by its photos, not by its result
DEMO_FORMATS = ("ply", "glb", "colmap")
EXPORT_OPTIONS = ExportOptions(include_low_confidence=True)  # there should be something to look at in any case
PHOTO_SCALE = 3  # photos are this many times as large as what the network sees
PHOTO_SETTINGS = WorldSettings(samples=4)

PHOTOS, PICTURE, ERRORS = "photos", "picture.png", "errors.json"


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demonstration made and how good it is.

    Attributes:
        folder: everything is in here.
        seed: of the world.
        photos: the pictures of the world, as a camera would have stored them.
        scene: what was reconstructed from these files.
        errors: the scene against the exact truth.
        picture: the PNG to look at.
        files: all files that were written.
        seconds: wall time of it all, loading the model included.
    """

    folder: Path
    seed: int
    photos: tuple[Path, ...]
    scene: Scene
    errors: SceneErrors
    picture: Path
    files: tuple[Path, ...]
    seconds: float

    @property
    def figures(self) -> dict[str, float | None]:
        """The errors by name: angles in degrees, shares and relative errors as 0..1, None where there is no figure."""
        return demo_figures(self.errors)


def run_demo(
    out: str | Path,
    *,
    model: str | Path | Model = DEFAULT_MODEL,
    seed: int | None = None,
    views: int = 4,
    formats: Sequence[str] = DEMO_FORMATS,
    overwrite: bool = True,
    progress: Progress | None = None,
) -> DemoResult:
    """Photograph a held-out world, reconstruct it from the photos alone, compare, and write everything into a folder.

    Writes `photos/*.png`, `scene.json` and `scene.safetensors`, the exports (views of low confidence included),
    `picture.png` (`app.picture`) and `errors.json`.

    Args:
        out: folder; is made if it is not there.
        model: what `manyview.load` takes, or a loaded model.
        seed: of the world, from `FIRST_HELD_OUT_SEED` on, since smaller ones may have been trained on; `DEMO_SEED` by
            default.
        views: number of photos, 2 to 64.
        formats: of the exports.
        overwrite: replace what an earlier run wrote there.
        progress: called as (done, total, what).

    Raises:
        InputError: the seed is not held out, or the number of views is out of range.
        ExportError: results are there and `overwrite` is False, or files that are not ours, or the disk refuses.
        WeightsError, DeviceError: the model cannot be loaded.
    """
    start = time.perf_counter()
    out, seed = Path(out), DEMO_SEED if seed is None else seed
    _check(seed, views)
    refuse_results(out, overwrite=overwrite)
    loaded = model if isinstance(model, Model) else load(model)
    _report(progress, "rendering a world")
    pictures, truth = photograph_world(seed, views, _photo_size(loaded), PHOTO_SETTINGS)
    photos = _write_photos(pictures, out, overwrite=overwrite)
    scene = loaded.reconstruct(photos, strict=True, progress=progress)
    errors = compare_with_truth(scene, truth)
    _report(progress, "writing files")
    exported = scene.export(out, formats, options=EXPORT_OPTIONS, overwrite=overwrite)
    files = [*photos, *scene.save(out, overwrite=overwrite), *exported]
    with staged(out, overwrite=overwrite) as staging:
        save_picture(scene, staging / PICTURE, truth=truth, photos=pictures)
        write_json(staging / ERRORS, {"seed": seed, "views": views, **demo_figures(errors)})
    return DemoResult(
        folder=out,
        seed=seed,
        photos=tuple(photos),
        scene=scene,
        errors=errors,
        picture=out / PICTURE,
        files=(*files, out / PICTURE, out / ERRORS),
        seconds=round(time.perf_counter() - start, 2),
    )


def demo_figures(errors: SceneErrors) -> dict[str, float | None]:
    """See `DemoResult.figures`."""
    poses = errors.poses
    figures = {
        "cameras_found": errors.cameras_found / errors.views,
        "median_rotation_error": poses.median_rotation_error if poses else None,
        "median_translation_direction_error": poses.median_translation_error if poses else None,
        "rra15": poses.rra[15] if poses else None,
        "rta15": poses.rta[15] if poses else None,
        "maa30": poses.maa30 if poses else None,
        "median_relative_depth_error": errors.depth_error,
        "median_relative_point_error": errors.point_error,
        "relative_focal_error": errors.focal_error,
    }
    return {name: value if value is not None and np.isfinite(value) else None for name, value in figures.items()}


def _check(seed: int, views: int) -> None:
    if not FIRST_HELD_OUT_SEED <= seed < 1 << 63:
        raise InputError(
            f"got the seed {seed}; worlds that no model was trained on have seeds from {FIRST_HELD_OUT_SEED} on",
            hint=f"Leave the seed out, or give {FIRST_HELD_OUT_SEED} + 0, 1, 2, ...",
        )
    if not 2 <= views <= 64:
        raise InputError(f"expected 2 to 64 views, got {views}")


def _photo_size(model: Model) -> tuple[int, int]:
    height, width = native_size(model)
    return PHOTO_SCALE * height, PHOTO_SCALE * width


def _write_photos(pictures: Sequence[np.ndarray], out: Path, *, overwrite: bool) -> list[Path]:
    names = [f"{PHOTOS}/{index:02d}.png" for index in range(1, len(pictures) + 1)]
    with staged(out, overwrite=overwrite) as staging:
        (staging / PHOTOS).mkdir()
        for name, picture in zip(names, pictures, strict=True):
            Image.fromarray(picture).save(staging / name)
    return [out / name for name in names]


def _report(progress: Progress | None, what: str) -> None:
    if progress is not None:
        progress(0, None, what)
