"""How a `Scene` lies on disk: `scene.json` holds words and small numbers, `scene.safetensors` the arrays."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from manyview.errors import ExportError, InputError
from manyview.files import read_json, write_json
from manyview.geometry.cameras import Camera
from manyview.scene import FusedPoints, Provenance, Scene, SceneView, SparsePoints

FORMAT_VERSION = 1
SCENE_JSON = "scene.json"
SCENE_ARRAYS = "scene.safetensors"
TIMINGS = "timings.json"  # apart, so that equal inputs, seeds and versions give equal bytes in all other files
ARRAYS = ("depth", "points", "confidence", "valid", "image")
POINTS = {"sparse": SparsePoints, "fused": FusedPoints}  # each array of them is named after both: "sparse.points"
WORDS = ("name", "source", "status", "status_reason", "upright_in_file", "timestamp", "masked_pixels")


def write_scene(scene: Scene, folder: Path) -> list[Path]:
    """Write the scene into `folder` and return the paths; `scene.json` holds the digest of the arrays."""
    from safetensors.numpy import save_file

    verify(scene)
    arrays_path, json_path = folder / SCENE_ARRAYS, folder / SCENE_JSON
    # One entry of metadata only: safetensors writes several in an order that changes from run to run.
    note = json.dumps({"units": scene.units, "frame": scene.frame})
    arrays = {
        f"{index:06d}.{name}": np.ascontiguousarray(getattr(view, name))  # it would write the wrong bytes otherwise
        for index, view in enumerate(scene.views)
        for name in ARRAYS
    }
    arrays |= {name: np.ascontiguousarray(array) for name, array in _point_arrays(scene).items()}
    save_file(arrays, arrays_path, metadata={"manyview": note})
    write_json(json_path, _describe(scene, _digest(arrays_path)))
    write_json(folder / TIMINGS, {"seconds": scene.provenance.seconds})
    return [arrays_path, folder / TIMINGS, json_path]


def read_scene(folder: Path) -> Scene:
    """Read both files; raises InputError if one is missing, damaged or of a newer format."""
    described = read_json(folder / SCENE_JSON)
    hint = "Give the folder of a saved scene."
    if not isinstance(described, dict) or described.get("format") != "manyview scene":
        raise InputError(f"{folder / SCENE_JSON} does not describe a scene", hint=hint)
    if described.get("format_version") != FORMAT_VERSION:
        version = described.get("format_version")
        raise InputError(
            f"{folder / SCENE_JSON} has format version {version}, this manyview reads {FORMAT_VERSION}",
            hint="Update manyview, or reconstruct again.",
        )
    try:
        arrays = _read_arrays(folder, described["arrays"]["sha256"])
        seconds = read_json(folder / TIMINGS)["seconds"] if (folder / TIMINGS).is_file() else {}
        return _scene(described, arrays, seconds)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / SCENE_JSON} is incomplete: {error!r}", hint=hint) from error


def verify(scene: Scene) -> None:
    """Raise ExportError if a number is not finite or an array has the wrong shape: such a scene is not written."""
    problems = [f"{view.name}: {problem}" for view in scene.views for problem in _problems(view)]
    problems += [
        f"{name} is not finite" for name, array in _point_arrays(scene).items() if not np.isfinite(array).all()
    ]
    if problems:
        raise ExportError(
            f"the scene cannot be written: {'; '.join(problems[:5])}",
            hint="Make the views with SceneView.masked, which takes unusable pixels out.",
        )


def _problems(view: SceneView) -> list[str]:
    height, width = view.size
    shapes = {"depth": (), "points": (3,), "confidence": (), "valid": (), "image": (3,)}
    arrays = {name: getattr(view, name) for name in shapes} | {"original_from_network": view.original_from_network}
    for name, camera in (("camera", view.camera), ("group_camera", view.group_camera)):
        if camera is not None:
            arrays |= {f"{name}.K": camera.K, f"{name}.world_from_camera": camera.world_from_camera}
    found = [f"{name} is not finite" for name, array in arrays.items() if not np.isfinite(array).all()]
    for name, channels in shapes.items():
        if arrays[name].shape != (height, width, *channels):
            found.append(f"{name} has shape {arrays[name].shape}, expected {(height, width, *channels)}")
    return found


def _describe(scene: Scene, digest: str) -> dict[str, Any]:
    return {
        "format": "manyview scene",
        "format_version": FORMAT_VERSION,
        "units": scene.units,
        "frame": scene.frame,
        "pixels": "(x, y), integers at pixel centres; camera.K in original pixels, arrays in network pixels",
        "metric": scene.metric,
        "world": scene.world,
        "arrays": {"file": SCENE_ARRAYS, "sha256": digest},
        **{f"{kind}_points": None if (found := getattr(scene, kind)) is None else len(found) for kind in POINTS},
        "provenance": {key: value for key, value in asdict(scene.provenance).items() if key != "seconds"},
        "warnings": list(scene.warnings),
        "skipped": [{"name": name, "reason": reason} for name, reason in scene.skipped],
        "views": [_describe_view(view) for view in scene.views],
    }


def _describe_view(view: SceneView) -> dict[str, Any]:
    return {
        **{name: getattr(view, name) for name in WORDS},
        "original_size": list(view.original_size),
        "original_from_network": view.original_from_network.tolist(),
        "camera": _describe_camera(view.camera),
        "group": view.group,
        "group_camera": _describe_camera(view.group_camera),
    }


def _describe_camera(camera: Camera | None) -> dict[str, Any] | None:
    return camera and {
        "K": camera.K.tolist(),
        "world_from_camera": camera.world_from_camera.tolist(),
        "width": camera.width,
        "height": camera.height,
    }


def _read_arrays(folder: Path, digest: str) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / SCENE_ARRAYS
    try:
        if _digest(path) != digest:
            raise InputError(f"{path} is not the file that {SCENE_JSON} was written with", hint="Reconstruct again.")
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read {path}: {error}", hint="Give the folder of a saved scene.") from error


def _scene(described: dict[str, Any], arrays: dict[str, np.ndarray], seconds: dict[str, float]) -> Scene:
    provenance = dict(described["provenance"])
    provenance["changes"] = tuple(provenance["changes"])
    return Scene(
        views=tuple(_view(view, index, arrays) for index, view in enumerate(described["views"])),
        provenance=Provenance(**{**provenance, "seconds": seconds or provenance.get("seconds", {})}),
        skipped=tuple((entry["name"], entry["reason"]) for entry in described["skipped"]),
        warnings=tuple(described["warnings"]),
        metric=described["metric"],
        world=described.get("world", "first camera"),  # files of the first version do not say
        **{kind: _points(kind, arrays) for kind in POINTS if described.get(f"{kind}_points") is not None},
    )


def _point_arrays(scene: Scene) -> dict[str, np.ndarray]:
    """What the scene's points consist of, by the names that they have on disk."""
    there = [kind for kind in POINTS if getattr(scene, kind) is not None]
    return {f"{kind}.{f.name}": getattr(getattr(scene, kind), f.name) for kind in there for f in fields(POINTS[kind])}


def _points(kind: str, arrays: dict[str, np.ndarray]) -> Any:
    return POINTS[kind](**{f.name: arrays[f"{kind}.{f.name}"] for f in fields(POINTS[kind])})


def _view(described: dict[str, Any], index: int, arrays: dict[str, np.ndarray]) -> SceneView:
    height, width = described["original_size"]
    plain: dict[str, Any] = {name: described[name] for name in WORDS}
    plain |= {name: arrays[f"{index:06d}.{name}"] for name in ARRAYS}
    return SceneView(
        **plain,
        group=described.get("group", 0),
        original_size=(height, width),
        original_from_network=np.array(described["original_from_network"], dtype=np.float64),
        camera=_camera(described["camera"]),
        group_camera=_camera(described.get("group_camera")),  # files of the first version have none
    )


def _camera(described: dict[str, Any] | None) -> Camera | None:
    if described is None:
        return None
    K, world_from_camera = (np.array(described[name], dtype=np.float64) for name in ("K", "world_from_camera"))
    return Camera(K=K, world_from_camera=world_from_camera, width=described["width"], height=described["height"])


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
