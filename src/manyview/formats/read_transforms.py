"""Photos with cameras from `transforms.json`, as nerfstudio, instant-ngp and the NeRF scenes use it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manyview.errors import InputError
from manyview.files import read_json
from manyview.formats.nerfstudio import OPENCV_FROM_OPENGL
from manyview.formats.posed_photos import PlacedPhoto, PosedPhotos, PosedPoints, place_photo, posed_photos
from manyview.geometry.similarity import Similarity
from manyview.images.sources import IMAGE_EXTENSIONS

if TYPE_CHECKING:
    import pycolmap

FILE = "transforms.json"
_FISHEYE = ("OPENCV_FISHEYE",)
_PERSPECTIVE = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV")
_RIGID = 1e-2  # files hold rotations to about 1e-5; a matrix that is this far off means something else


def read_transforms(
    path: str | Path,
    photos: str | Path | None = None,
    *,
    undo_applied_transform: bool = False,
    metric: bool | None = None,
) -> PosedPhotos:
    """Read `transforms.json` and its photos.

    Intrinsics (`fl_x`, `fl_y` or `camera_angle_x`, `camera_angle_y`; `cx`, `cy`, `w`, `h`; `k1` to `k4`, `p1`, `p2`;
    `camera_model` or `is_fisheye`) are the frame's where it has such a key, and else the whole file's. Pixel centres
    are at half integers, and `transform_matrix` is world from camera with OpenGL camera axes. Keys that only concern
    how a trainer turns and scales its own copy of the world (`orientation_override`, `aabb_scale`, `scale`, `offset`)
    do not change what the cameras are, and are not used.

    Args:
        path: of the file, or its folder.
        photos: the folder that `file_path` starts from; by default that of the file. Names without an ending get
            that of the photo that is there.
        undo_applied_transform: give cameras and points in the world that they had before `applied_transform` and
            `applied_scale`, such as that of a COLMAP model; by default the file's world.
        metric: whether lengths are metres. The format does not say; None takes what manyview has written into it,
            and otherwise that they are not.

    Returns:
        The frames in the file's order; those that cannot be used are in `skipped`. Points are those of `ply_file_path`.

    Raises:
        InputError: the file cannot be read or does not describe cameras, or none of its photos can be used.
    """
    path = Path(path) / FILE if Path(path).is_dir() else Path(path)
    described = read_json(path)
    if not isinstance(described, dict) or not isinstance(described.get("frames"), list) or not described["frames"]:
        raise InputError(f"{path} describes no cameras", hint='Expected a transforms.json with "frames".')
    world = _before_transform(described, path) if undo_applied_transform else Similarity.identity()
    root = path.parent if photos is None else Path(photos)
    placed: list[PlacedPhoto] = []
    skipped: list[tuple[str, str]] = []
    for number, frame in enumerate(described["frames"]):
        name = _name(frame, number, path)
        try:
            placed.append(_placed(name, root, {**described, **frame}, world))
        except InputError as error:
            skipped.append((name, str(error.args[0])))
    if not placed:
        name, reason = skipped[0]
        raise InputError(
            f"none of the {len(skipped)} photos of {path} can be used; {name}: {reason}",
            hint=f"Looked for them in {root}; give their folder with photos=...",
        )
    metric = described.get("units") == "metres" if metric is None else metric
    return posed_photos(placed, _points(described, path, world), metric=metric, source=str(path), skipped=skipped)


def _name(frame: Any, number: int, path: Path) -> str:
    if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
        raise InputError(f"frame {number} of {path} names no photo", hint='Expected "file_path".')
    return frame["file_path"]


def _placed(name: str, root: Path, values: Mapping[str, Any], world: Similarity) -> PlacedPhoto:
    photo = _photo(root / name)
    world_from_camera = _world_from_camera(values.get("transform_matrix"))
    return place_photo(name, photo, _camera(values, photo), world.apply_to_camera(world_from_camera))


def _photo(path: Path) -> Path:
    """The path, or where its name has no ending, that of the photo with one."""
    if path.is_file():
        return path
    endings = [ending for ending in sorted(IMAGE_EXTENSIONS) if path.with_name(path.name + ending).is_file()]
    return path.with_name(path.name + endings[0]) if endings else path


# ------------------------------------------------------------------ cameras
def _world_from_camera(matrix: Any) -> np.ndarray:
    """(4, 4) exactly rigid, OpenCV camera axes, from one with OpenGL camera axes and few digits."""
    found = _matrix(matrix, "transform_matrix")
    left, singular, right = np.linalg.svd(found[:3, :3])
    if np.abs(singular - 1).max() > _RIGID or np.linalg.det(found[:3, :3]) < 0:
        raise InputError(f"transform_matrix {found.tolist()} is not a rigid motion")
    found[:3, :3] = left @ right
    return found @ OPENCV_FROM_OPENGL


def _matrix(given: Any, name: str) -> np.ndarray:
    """(4, 4) float64 from four or three rows."""
    try:
        found = np.array(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is {given!r}, expected a matrix") from error
    if found.shape not in ((3, 4), (4, 4)) or not np.isfinite(found).all():
        raise InputError(f"{name} is {given!r}, expected a matrix of 4 x 4 finite numbers")
    return np.vstack([found[:3], [0.0, 0.0, 0.0, 1.0]])


def _camera(values: Mapping[str, Any], photo: Path) -> pycolmap.Camera:
    import pycolmap

    width, height = _size(values, photo)
    fx, fy = _focal_lengths(values, width, height)
    cx, cy = _number(values, "cx", width / 2), _number(values, "cy", height / 2)
    model, coefficients = _distortion(values)
    return pycolmap.Camera(model=model, width=width, height=height, params=[fx, fy, cx, cy, *coefficients])


def _size(values: Mapping[str, Any], photo: Path) -> tuple[int, int]:
    """(width, height); of the stored photo where the file does not say."""
    if "w" in values and "h" in values:
        return round(_number(values, "w")), round(_number(values, "h"))
    from PIL import Image

    try:
        with Image.open(photo) as image:
            return image.size
    except OSError as error:
        raise InputError(f"no such file or no photo: {error}") from error


def _focal_lengths(values: Mapping[str, Any], width: int, height: int) -> tuple[float, float]:
    """fx and fy in pixels; square pixels where only one is said."""
    found = [
        _focal_length(values, "fl_x", "camera_angle_x", width),
        _focal_length(values, "fl_y", "camera_angle_y", height),
    ]
    given = [focal for focal in found if focal is not None]
    if not given or not all(0 < focal < math.inf for focal in given):
        raise InputError("it has no focal length above 0: neither fl_x nor camera_angle_x")
    fx, fy = (given[0] if focal is None else focal for focal in found)
    return fx, fy


def _focal_length(values: Mapping[str, Any], key: str, angle_key: str, extent: int) -> float | None:
    if values.get(key) is not None:
        return _number(values, key)
    if values.get(angle_key) is None:
        return None
    tangent = math.tan(_number(values, angle_key) / 2)
    return extent / (2 * tangent) if tangent > 0 else -1.0


def _distortion(values: Mapping[str, Any]) -> tuple[str, list[float]]:
    """COLMAP's camera model and its coefficients."""
    model = values.get("camera_model")
    if model is not None and model not in (*_FISHEYE, *_PERSPECTIVE):
        raise InputError(f"its camera_model is {model!r}, expected one of {', '.join((*_PERSPECTIVE, *_FISHEYE))}")
    k1, k2, k3, k4, p1, p2 = (_number(values, key, 0.0) for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    if model in _FISHEYE or (model is None and values.get("is_fisheye")):
        return "OPENCV_FISHEYE", [k1, k2, k3, k4]
    if k4:
        raise InputError(f"its k4 is {k4:g}: programs do not agree what that means for a lens that is not a fisheye")
    if k3:
        return "FULL_OPENCV", [k1, k2, p1, p2, k3, 0.0, 0.0, 0.0]
    return "OPENCV", [k1, k2, p1, p2]


def _number(values: Mapping[str, Any], key: str, default: float | None = None) -> float:
    value = values.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"its {key} is {value!r}, expected a number")
    return float(value)


# ------------------------------------------------------------------ the world
def _before_transform(described: Mapping[str, Any], path: Path) -> Similarity:
    """The map from the file's world to that before `applied_transform`, and after it `applied_scale`, were applied."""
    if described.get("applied_transform") is None:
        raise InputError(f"{path} has no applied_transform to undo", hint="Leave undo_applied_transform out.")
    matrix = _matrix(described["applied_transform"], "applied_transform")
    scale = float(np.cbrt(np.linalg.det(matrix[:3, :3])))
    if not scale > 0 or not np.allclose(
        matrix[:3, :3] @ matrix[:3, :3].T, scale**2 * np.eye(3), atol=_RIGID * scale**2
    ):
        raise InputError(f"applied_transform {matrix.tolist()} is not a similarity")
    applied = Similarity(scale=scale, rotation=matrix[:3, :3] / scale, translation=matrix[:3, 3])
    after = Similarity(scale=_number(described, "applied_scale", 1.0), rotation=np.eye(3), translation=np.zeros(3))
    if not after.scale > 0:
        raise InputError(f"applied_scale is {after.scale:g}, expected a number above 0")
    return after.compose(applied).inverse()


def _points(described: Mapping[str, Any], path: Path, world: Similarity) -> PosedPoints | None:
    name = described.get("ply_file_path")
    if name is None:
        return None
    import trimesh

    try:
        cloud: Any = trimesh.load(path.parent / name, file_type="ply", process=False)
        vertices = np.asarray(cloud.vertices, dtype=np.float64).reshape(-1, 3)
    except (OSError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise InputError(
            f"cannot read the points of {path}: {error}", hint=f"Remove ply_file_path, or mend {name}."
        ) from error
    return PosedPoints(points=world.apply(vertices), colours=_colours(cloud, len(vertices)))


def _colours(cloud: Any, count: int) -> np.ndarray:
    """(P, 3) uint8; black where the file has none."""
    colours = getattr(cloud, "colors", None)
    if colours is None or np.shape(colours)[:1] != (count,):
        return np.zeros((count, 3), dtype=np.uint8)
    return np.asarray(colours)[:, :3].astype(np.uint8)
