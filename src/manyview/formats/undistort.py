"""Photos of lenses with distortion, drawn anew as pinhole cameras see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from manyview.files import SHARED_FOLDER, staged, unique_file_names
from manyview.formats.colmap import Observations
from manyview.formats.lens import Lens, pinhole_within
from manyview.formats.posed_photos import PosedPhotos, SparsePoints, decode_limits
from manyview.geometry.cameras import Camera, pixel_grid
from manyview.images.decode import decode_photo

_STRIP_PIXELS = 1_000_000  # of these, rays are made at a time
_LOSSY_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".heic", ".heif", ".hif", ".avif")
_JPEG_QUALITY = 95


def undistort_photos(posed: PosedPhotos, folder: str | Path, *, overwrite: bool = False) -> PosedPhotos:
    """Draw the photos of lenses with distortion anew, as pinhole cameras of the same size see them.

    They go into `folder/images`, at their original size, upright, without empty borders; photos of pinhole cameras
    stay where they are. Observations of points move along.

    Raises:
        InputError: a lens cannot be undistorted, or a photo cannot be read.
        ExportError: files are in the way, or the disk refuses.
    """
    if not posed.is_distorted:
        return posed
    folder = Path(folder)
    paths, cameras = list(posed.paths), list(posed.cameras)
    names = unique_file_names(_drawn_name(name, path) for name, path in zip(posed.names, posed.paths, strict=True))
    with staged(folder, overwrite=overwrite) as staging:
        (staging / SHARED_FOLDER).mkdir()
        for index, lens in enumerate(posed.lenses):
            if lens is not None:
                cameras[index] = pinhole_within(lens, posed.cameras[index])
                _save(_drawn(posed.paths[index], lens, cameras[index]), staging / SHARED_FOLDER / names[index])
                paths[index] = folder / SHARED_FOLDER / names[index]
    straight = tuple(None for _ in posed.lenses)
    moved = replace(posed, paths=tuple(paths), cameras=tuple(cameras), lenses=straight)
    return replace(moved, points=_straight_observations(posed, cameras))


def _drawn_name(name: str, path: Path) -> str:
    lossy = path.suffix.lower() in _LOSSY_SUFFIXES
    suffixes = (".jpg", ".jpeg") if lossy else (".png",)
    return name if name.lower().endswith(suffixes) else name + suffixes[0]


def _drawn(path: Path, lens: Lens, pinhole: Camera) -> np.ndarray:
    """(H, W, 3) uint8: what the pinhole camera sees, from the photo behind the lens; bicubic, strip by strip."""
    import cv2

    photo = np.asarray(decode_photo(path, decode_limits()).image)
    drawn = np.empty((pinhole.height, pinhole.width, 3), dtype=np.uint8)
    rows = max(_STRIP_PIXELS // pinhole.width, 1)
    for top in range(0, pinhole.height, rows):
        grid = pixel_grid(min(rows, pinhole.height - top), pinhole.width) + np.array([0.0, top])
        places = lens.project(_rays(grid.reshape(-1, 2), pinhole)).reshape(grid.shape).astype(np.float32)
        x, y = places[..., 0], places[..., 1]
        drawn[top : top + rows] = cv2.remap(photo, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return drawn


def _rays(pixels: np.ndarray, camera: Camera) -> np.ndarray:
    return np.concatenate([pixels, np.ones_like(pixels[:, :1])], axis=-1) @ np.linalg.inv(camera.K).T


def _save(picture: np.ndarray, path: Path) -> None:
    if path.suffix.lower() in (".jpg", ".jpeg"):
        Image.fromarray(picture).save(path, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)
    else:
        Image.fromarray(picture).save(path, format="PNG")


def _straight_observations(posed: PosedPhotos, cameras: Sequence[Camera]) -> SparsePoints | None:
    points = posed.points
    if points is None or points.observations is None:
        return points
    moved = [
        seen if lens is None else _straight(seen, lens, camera)
        for seen, lens, camera in zip(points.observations, posed.lenses, cameras, strict=True)
    ]
    return replace(points, observations=tuple(moved))


def _straight(seen: Observations, lens: Lens, camera: Camera) -> Observations:
    """The same observations in the undistorted picture; those that it does not hold are left out."""
    rays = lens.unproject(seen.pixels)
    ahead = rays[:, 2] > 0
    pixels = (rays[ahead] / rays[ahead, 2:]) @ camera.K.T
    x, y = pixels[:, 0], pixels[:, 1]
    inside = (x >= -0.5) & (y >= -0.5) & (x <= camera.width - 0.5) & (y <= camera.height - 0.5)
    return Observations(seen.rows[ahead][inside], pixels[inside, :2])
