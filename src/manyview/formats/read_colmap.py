"""Photos with cameras from a COLMAP model, of any camera model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from manyview.errors import InputError
from manyview.files import read_json
from manyview.formats.colmap import Observations
from manyview.formats.describe import HALF_PIXEL
from manyview.formats.posed_photos import PlacedPhoto, PosedPhotos, PosedPoints, place_photo, posed_photos
from manyview.geometry.cameras import invert_rigid, transform_pixels
from manyview.images.sources import natural_key

if TYPE_CHECKING:
    import pycolmap

_PLACES = (Path(), Path("sparse", "0"), Path("sparse"))


def read_colmap(folder: str | Path, photos: str | Path | None = None, *, metric: bool | None = None) -> PosedPhotos:
    """Read a COLMAP model and its photos.

    Args:
        folder: of `cameras`, `images` and `points3D` (.bin or .txt), or the project's, where they lie in `sparse/0` or
            `sparse`. Of several models the first is read.
        photos: the folder that the model's picture names start from; by default `images` in the project's folder.
        metric: whether lengths are metres. COLMAP does not say; None takes what manyview has written beside the
            model, and otherwise that they are not.

    Returns:
        The registered photos in natural order of their names; those that cannot be used are in `skipped`.

    Raises:
        InputError: there is no model that can be read, or none of its photos can be used.
    """
    model_folder = find_model(Path(folder))
    if model_folder is None:
        raise InputError(
            f"{folder} has no COLMAP model",
            hint="Expected cameras, images and points3D as .bin or .txt, or sparse/0 with them.",
        )
    photos = _photo_folder(Path(folder), model_folder) if photos is None else Path(photos)
    model = _read(model_folder)
    registered = sorted((model.images[number] for number in model.reg_image_ids()), key=lambda i: natural_key(i.name))
    placed: list[PlacedPhoto] = []
    images: list[pycolmap.Image] = []
    skipped: list[tuple[str, str]] = []
    for image in registered:
        try:
            placed.append(
                place_photo(image.name, photos / image.name, model.cameras[image.camera_id], _world_from_camera(image))
            )
            images.append(image)
        except InputError as error:
            skipped.append((image.name, str(error.args[0])))
    if not placed:
        raise _nothing(model_folder, photos, skipped)
    metric = _says_metres(model_folder) if metric is None else metric
    points = _points(model, images, placed)
    return posed_photos(placed, points, metric=metric, source=str(model_folder), skipped=skipped)


def find_model(folder: Path) -> Path | None:
    """Where a COLMAP model lies in its own or its project's folder; None if there is none."""
    for place in _PLACES:
        if any((folder / place / f"cameras{suffix}").is_file() for suffix in (".bin", ".txt")):
            return folder / place
    return None


def _photo_folder(folder: Path, model_folder: Path) -> Path:
    """`images` in the given folder or one of the two above the model."""
    parents = model_folder.absolute().parents
    candidates = [parent / "images" for parent in (folder, model_folder, *parents[:2])]
    found = next((candidate for candidate in candidates if candidate.is_dir()), None)
    if found is None:
        raise InputError(
            f"there is no folder of photos beside the COLMAP model {model_folder}", hint="Name it: photos=..."
        )
    return found


def _read(folder: Path) -> pycolmap.Reconstruction:
    import pycolmap

    try:
        return pycolmap.Reconstruction(str(folder))
    except (ValueError, RuntimeError, OSError, IndexError, KeyError) as error:
        reason = str(error).strip().splitlines()
        raise InputError(
            f"{folder} holds no COLMAP model that can be read: {reason[-1] if reason else type(error).__name__}",
            hint="Expected cameras, images and points3D, all as .bin or all as .txt.",
        ) from error


def _world_from_camera(image: pycolmap.Image) -> np.ndarray:
    return invert_rigid(np.vstack([image.cam_from_world().matrix(), [0, 0, 0, 1]]))


def _points(
    model: pycolmap.Reconstruction, images: list[pycolmap.Image], photos: list[PlacedPhoto]
) -> PosedPoints | None:
    if not model.points3D:
        return None
    numbers = sorted(model.points3D)
    rows = {number: row for row, number in enumerate(numbers)}
    return PosedPoints(
        points=np.array([model.points3D[number].xyz for number in numbers], dtype=np.float64),
        colours=np.array([model.points3D[number].color for number in numbers], dtype=np.uint8),
        observations=tuple(_observations(*each, rows) for each in zip(images, photos, strict=True)),
    )


def _observations(image: pycolmap.Image, photo: PlacedPhoto, rows: dict[int, int]) -> Observations:
    seen = image.get_observation_points2D()
    pixels = np.array([point.xy for point in seen], dtype=np.float64).reshape(-1, 2) - HALF_PIXEL
    found = np.array([rows[point.point3D_id] for point in seen], dtype=np.int64)
    return Observations(found, transform_pixels(photo.original_from_given, pixels))


def _says_metres(folder: Path) -> bool:
    path = folder / "manyview.json"
    about = read_json(path) if path.is_file() else {}
    return isinstance(about, dict) and about.get("units") == "metres"


def _nothing(model: Path, photos: Path, skipped: list[tuple[str, str]]) -> InputError:
    if not skipped:
        return InputError(f"the COLMAP model {model} has no photo with a camera")
    name, reason = skipped[0]
    return InputError(
        f"none of the {len(skipped)} photos of the COLMAP model {model} can be used; {name}: {reason}",
        hint=f"Looked for them in {photos}; give their folder with photos=...",
    )
