"""Everything of a scene in one NumPy archive."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from manyview.formats.describe import statement
from manyview.scene import ExportOptions, Scene

WRITES = ("scene.npz",)


def export(scene: Scene, folder: Path, options: ExportOptions) -> list[Path]:
    """Write `scene.npz`; `numpy.load` reads it without pickle.

    For N views: `K` (N, 3, 3) original pixels, `world_from_camera` (N, 4, 4), both 0 where `has_camera` (N,) is False;
    `original_size` (N, 2) as (height, width); `original_from_network` (N, 3, 3); `name` and `status` (N,) text; and for
    view i `depth_i`, `points_i`, `confidence_i`, `valid_i`, `image_i` with i of four digits or more, as in `SceneView`.
    `about` is JSON text with units and frame. No percentile is applied.
    """
    views = scene.views
    about = {**statement(scene), "pixels": "(x, y), integers at pixel centres", "metric": scene.metric}
    arrays: dict[str, Any] = {
        "about": np.array(json.dumps(about)),
        "name": np.array([view.name for view in views], dtype=str),
        "status": np.array([view.status for view in views], dtype=str),
        "has_camera": np.array([view.camera is not None for view in views], dtype=bool),
        "K": np.nan_to_num(scene.K),
        "world_from_camera": np.nan_to_num(scene.world_from_camera),
        "original_size": np.array([view.original_size for view in views], dtype=np.int64).reshape(-1, 2),
        "original_from_network": np.array([view.original_from_network for view in views]).reshape(-1, 3, 3),
    }
    for index, view in enumerate(views):
        for field in ("depth", "points", "confidence", "valid", "image"):
            arrays[f"{field}_{index:04d}"] = getattr(view, field)
    path = folder / "scene.npz"
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return [path]
