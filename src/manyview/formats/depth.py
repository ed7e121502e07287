"""Depth maps: exact (32-bit TIFF), compact (16-bit PNG) and to look at (8-bit PNG).

TIFF and not OpenEXR, because OpenCV writes OpenEXR only in some builds and behind an environment variable, and no other
dependency writes it; 32-bit TIFF holds the same numbers and is read by Pillow, OpenCV, GDAL and the usual viewers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from manyview.files import unique_file_names, write_json
from manyview.formats.describe import statement
from manyview.images.colourmaps import coloured
from manyview.scene import ExportOptions, Scene, SceneView

FOLDER = "depth"
WRITES = (FOLDER,)
_LARGEST = 65535
_DESCRIPTION_TAG = 270  # ImageDescription


def export(scene: Scene, folder: Path, options: ExportOptions) -> list[Path]:
    """Write `depth/<name>.tif`, `depth/<name>.png`, `depth/preview/<name>.png` for each view, and `depth/depth.json`.

    Maps are of the network's size; `depth.json` holds the way to original pixels. 0 is where there is no depth.
    """
    maps = folder / FOLDER
    (maps / "preview").mkdir(parents=True)
    written, described = [], []
    for view, name in zip(scene.views, unique_file_names(view.name for view in scene.views), strict=True):
        paths = [maps / f"{name}.tif", maps / f"{name}.png", maps / "preview" / f"{name}.png"]
        scale = _scale(view)
        words = f"z-depth of {view.name!r}, units: {scene.units}, 0: none"
        _write_exact(paths[0], view, words)
        _write_compact(paths[1], view, scale, f"{words}, depth = value * {scale!r}")
        Image.fromarray(_preview(view)).save(paths[2])
        described.append(_describe(view, name, scale))
        written += paths
    about = {
        **statement(scene),
        "depth": "z-depth in the view's own camera, in the units above; 0 where there is none",
        "png": "depth = value * png_scale",
        "pixels": "(x, y), integers at pixel centres; original_from_network takes pixels of the maps to original ones",
        "views": described,
    }
    write_json(maps / "depth.json", about)
    return [*written, maps / "depth.json"]


def _describe(view: SceneView, name: str, scale: float) -> dict[str, Any]:
    camera = view.network_camera
    return {
        "name": view.name,
        "tif": f"{name}.tif",
        "png": f"{name}.png",
        "preview": f"preview/{name}.png",
        "png_scale": scale,
        "status": view.status,
        "original_size": list(view.original_size),
        "original_from_network": view.original_from_network.tolist(),
        "K_network": None if camera is None else camera.K.tolist(),
    }


def _write_exact(path: Path, view: SceneView, words: str) -> None:
    image = Image.fromarray(np.where(view.valid, view.depth, 0).astype(np.float32))
    text = words.encode("ascii", "backslashreplace").decode()
    image.save(path, format="TIFF", compression="tiff_adobe_deflate", tiffinfo={_DESCRIPTION_TAG: text})


def _write_compact(path: Path, view: SceneView, scale: float, words: str) -> None:
    # Values start at 1, since 0 says that there is no depth.
    values = np.clip(np.rint(view.depth / scale), 1, _LARGEST)
    text = PngInfo()
    text.add_itxt("Description", words.encode("utf-8", "backslashreplace").decode())
    Image.fromarray(np.where(view.valid, values, 0).astype(np.uint16)).save(path, pnginfo=text)


def _scale(view: SceneView) -> float:
    """Units a step of the 16-bit picture: the view's largest depth is its largest value."""
    return float(view.depth[view.valid].max(initial=0)) / _LARGEST or 1.0


def _preview(view: SceneView) -> np.ndarray:
    """(H, W, 3) uint8: near is bright, by inverse depth between its 2nd and 98th percentile; black where none."""
    if not view.valid.any():
        return np.zeros((*view.size, 3), dtype=np.uint8)
    inverse = 1 / np.where(view.valid, view.depth, 1).astype(np.float64)
    low, high = np.percentile(inverse[view.valid], (2, 98))
    shade = (inverse - low) / max(high - low, 1e-12 * high)
    return np.where(view.valid[..., None], coloured(shade, "turbo"), np.uint8(0))
