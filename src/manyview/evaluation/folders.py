"""Real scenes with ground truth, one folder each: pictures and a `meta.json` with cameras and depth.

`meta.json` holds `name`, `kind`, `units`, optionally `depth_scale`, and `frames` in order: each with `file`, `width`,
`height`, and where they are known `K` (3x3, pixels of the stored picture, integers at pixel centres), `cam2world` (4x4,
OpenCV axes) and `depth` (16-bit PNG, 0 = not known, times `depth_scale` is metres along z; or .npz with `depth`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from manyview.errors import InputError
from manyview.evaluation.held_out import Reconstructor, SceneErrors, Truth, compare_with_truth
from manyview.geometry import Camera

META = "meta.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One picture of a real scene.

    Attributes:
        path: of the picture.
        camera: in pixels of the picture and in the folder's own world; None if it is not known.
        depth_path: of the depth map; None if there is none.
        depth_scale: world units of one step of a depth map that is a PNG.
    """

    path: Path
    camera: Camera | None
    depth_path: Path | None = None
    depth_scale: float = 1.0

    def depth(self) -> np.ndarray | None:
        """(H, W) float64 z-depth, 0 where it is not known; None if there is no map.

        Raises:
            InputError: the file cannot be read.
        """
        if self.depth_path is None:
            return None
        try:
            values = _read_depth(self.depth_path)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"cannot read the depth map {self.depth_path}: {error}") from error
        scale = 1.0 if self.depth_path.suffix == ".npz" else self.depth_scale
        return np.where(np.isfinite(values) & (values > 0), values * scale, 0.0)


@dataclass(frozen=True, kw_only=True)
class RealScene:
    """A folder of pictures with what is known about them; `units` is None where there are no cameras."""

    name: str
    kind: str
    units: str | None
    frames: tuple[Frame, ...]

    def truth(self) -> Truth:
        """Cameras and depth of all frames; reads the depth maps."""
        return Truth(cameras=[frame.camera for frame in self.frames], depth=[frame.depth() for frame in self.frames])

    def spread(self, count: int) -> RealScene:
        """At most `count` frames, evenly spread from the first to the last."""
        if count < 1:
            raise InputError(f"expected at least one view, got {count}")
        if count >= len(self.frames):
            return self
        chosen = np.rint(np.linspace(0, len(self.frames) - 1, count)).astype(int)
        frames = tuple(self.frames[index] for index in chosen)
        return RealScene(name=self.name, kind=self.kind, units=self.units, frames=frames)


def read_folder(folder: str | Path) -> RealScene:
    """Read the `meta.json` of a folder.

    Raises:
        InputError: it is missing, damaged, or holds numbers that are not cameras.
    """
    folder = Path(folder)
    path = folder / META
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        frames = tuple(_frame(folder, entry, float(meta.get("depth_scale") or 1.0)) for entry in meta["frames"])
        scene = RealScene(name=meta["name"], kind=meta["kind"], units=meta["units"], frames=frames)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        hint = "Give a folder with pictures and a meta.json that describes them (manyview.evaluation.folders)."
        raise InputError(f"cannot read {path}: {error!r}", hint=hint) from error
    if not frames:
        raise InputError(f"{path} lists no frames, expected at least one")
    return scene


def evaluate_on_folder(model: Reconstructor, folder: str | Path, *, max_views: int = 8) -> SceneErrors:
    """Reconstruct at most `max_views` evenly spread pictures of a folder and compare with what is known of them.

    Raises:
        InputError: the folder cannot be read, one of its pictures cannot be used, or nothing is known about them.
    """
    real = read_folder(folder).spread(max_views)
    truth = real.truth()
    if all(camera is None for camera in truth.cameras) and all(depth is None for depth in truth.depth):
        raise InputError(f"{folder} holds neither cameras nor depth: there is nothing to compare with")
    scene = model.reconstruct([frame.path for frame in real.frames], strict=True)
    return compare_with_truth(scene, truth)


def _frame(folder: Path, entry: Mapping[str, Any], depth_scale: float) -> Frame:
    return Frame(
        path=folder / entry["file"],
        camera=_camera(entry),
        depth_path=folder / entry["depth"] if entry.get("depth") else None,
        depth_scale=depth_scale,
    )


def _camera(entry: Mapping[str, Any]) -> Camera | None:
    if entry.get("K") is None or entry.get("cam2world") is None:
        return None
    K, world_from_camera = np.array(entry["K"], dtype=np.float64), np.array(entry["cam2world"], dtype=np.float64)
    finite = np.isfinite(K).all() and np.isfinite(world_from_camera).all()
    if K.shape != (3, 3) or world_from_camera.shape != (4, 4) or not finite:
        raise ValueError(f"{entry['file']}: K of shape {K.shape} and cam2world of shape {world_from_camera.shape}")
    return Camera(K=K, world_from_camera=world_from_camera, width=int(entry["width"]), height=int(entry["height"]))


def _read_depth(path: Path) -> np.ndarray:
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return arrays["depth"].astype(np.float64)
    from PIL import Image

    with Image.open(path) as image:
        values = np.asarray(image)
    if values.ndim != 2 or values.dtype == np.uint8:
        raise ValueError(f"got {values.dtype} of shape {values.shape}, expected 16-bit grey")
    return values.astype(np.float64)
