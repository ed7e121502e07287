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
from manyview.formats.posed_photos import PosedPhotos, PosedPoints, decode_limits
from manyview.geometry.cameras import Camera, pixel_grid
from manyview.images.decode import decode_photo
from manyview.images.exif import carried_exif

_STRIP_PIXELS = 1_000_000  # of these, rays are made at a time
_LOSSY_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".heic", ".heif", ".hif", ".avif")
_JPEG_QUALITY = 95


def undistort_photos(posed: PosedPhotos, folder: str | Path, *, overwrite: bool = False) -> PosedPhotos:
    """Draw the photos of lenses with distortion anew, as pinhole cameras of the same size see them.

    They go into `folder/images`, at their original size, upright, without empty borders, with what their EXIF says of
    time, place and camera; photos of pinhole cameras stay where they are. Observations of points move along.

    Raises:
        InputError: a lens cannot be undistorted, or a photo cannot be read.
        ExportError: files are in the way, or the disk refuses.
    """
    if not posed.is_distorted:
        return posed
    folder = Path(folder).absolute()
    paths, cameras = list(posed.paths), list(posed.cameras)
    names = unique_file_names(_drawn_name(name, path) for name, path in zip(posed.names, posed.paths, strict=True))
    with staged(folder, overwrite=overwrite) as staging:
        (staging / SHARED_FOLDER).mkdir()
        for index, lens in enumerate(posed.lenses):
            if lens is not None:
                cameras[index] = pinhole_within(lens, posed.cameras[index])
                drawn = _drawn(posed.paths[index], lens, cameras[index])
                _save(drawn, staging / SHARED_FOLDER / names[index], carried_exif(posed.paths[index]))
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


def _save(picture: np.ndarray, path: Path, exif: bytes) -> None:
    block = {"exif": exif} if exif else {}
    if path.suffix.lower() in (".jpg", ".jpeg"):
        Image.fromarray(picture).save(path, format="JPEG", quality=_JPEG_QUALITY, subsampling=0, **block)
    else:
        Image.fromarray(picture).save(path, format="PNG", **block)


def _straight_observations(posed: PosedPhotos, cameras: Sequence[Camera]) -> PosedPoints | None:
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
    pixels = straight_pixels(lens, camera, seen.pixels)
    inside = np.isfinite(pixels).all(axis=1)
    return Observations(seen.rows[inside], pixels[inside])


def straight_pixels(lens: Lens, camera: Camera, pixels: np.ndarray) -> np.ndarray:
    """Where the picture that is drawn anew shows what a photo shows.

    Args:
        lens: of the photo.
        camera: the pinhole camera of the new picture.
        pixels: (P, 2) of the upright photo, integers at pixel centres.

    Returns:
        (P, 2) float64 pixels of the new picture; nan for what it does not hold.
    """
    rays = lens.unproject(np.asarray(pixels, dtype=np.float64))
    there = (rays / np.where(rays[:, 2:] > 0, rays[:, 2:], np.nan) @ camera.K.T)[:, :2]
    inside = (there >= -0.5).all(axis=1) & (there <= np.array([camera.width, camera.height]) - 0.5).all(axis=1)
    return np.where(inside[:, None], there, np.nan)
