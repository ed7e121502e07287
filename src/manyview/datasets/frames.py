"""One picture with its depth and camera, in our conventions, from the files of a data set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from manyview.errors import InputError
from manyview.images.decode import DecodeError, DecodeLimits, decode_photo, pillow_pixel_limit

HALF_PIXEL = 0.5  # between pixel centres at integers and at half-integers
_RIGID = 1e-2  # files hold rotations to about 1e-4; a matrix that is this far off means something else


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """A picture as it is stored, with its geometry.

    Attributes:
        path: of the picture, for messages.
        image: RGB.
        depth: (H, W) float32 z-depth in the units of the data set; 0 where there is none.
        K: (3, 3) float64, pixels of `image`, integers at pixel centres.
        world_from_camera: (4, 4) float64, rigid, OpenCV axes.
    """

    path: Path
    image: Image.Image
    depth: np.ndarray
    K: np.ndarray
    world_from_camera: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.image.height, self.image.width


def make_frame(
    path: Path, image: Image.Image, depth: np.ndarray, K: np.ndarray, world_from_camera: np.ndarray
) -> Frame:
    """A frame of checked parts; depth that is not finite or not above 0 becomes 0.

    Raises:
        InputError: the depth has another size than the picture, or the camera is none.
    """
    if depth.shape != (image.height, image.width):
        raise InputError(
            f"{path}: the depth map has {depth.shape[1]} x {depth.shape[0]} pixels and the picture "
            f"{image.width} x {image.height}, expected the same"
        )
    depth = np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)
    K, world_from_camera = check_camera(path, K, world_from_camera)
    return Frame(path=path, image=image, depth=depth, K=K, world_from_camera=world_from_camera)


def check_camera(path: Path, K: np.ndarray, world_from_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64, if they are a pinhole camera without skew and a rigid motion; else an InputError with `path`."""
    K, world_from_camera = np.array(K, dtype=np.float64), np.array(world_from_camera, dtype=np.float64)
    if K.shape != (3, 3) or not np.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0:
        raise InputError(f"{path}: expected finite intrinsics (3, 3) with focal lengths above 0, got {K.tolist()}")
    if world_from_camera.shape != (4, 4) or not np.isfinite(world_from_camera).all():
        raise InputError(f"{path}: expected a finite camera pose (4, 4), got {world_from_camera.tolist()}")
    rotation = world_from_camera[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > _RIGID or np.linalg.det(rotation) < 0:
        raise InputError(f"{path}: expected a rigid camera pose, got {world_from_camera.tolist()}")
    return K, world_from_camera


def read_picture(path: Path) -> Image.Image:
    """RGB, as it is stored.

    Raises:
        InputError: it is missing or damaged, or has an orientation flag: camera and depth fit the stored pixels only.
    """
    limits = DecodeLimits(max_pixels=pillow_pixel_limit(), spare_resolution=lambda _: 1.0)
    try:
        decoded = decode_photo(path, limits)
    except DecodeError as error:
        raise InputError(f"{path}: {error}") from error
    if not decoded.upright_in_file:
        raise InputError(f"{path} has an orientation flag", hint="Store the picture upright, or remove the flag.")
    return decoded.image


def read_grey(path: Path, dtype: type[np.generic]) -> np.ndarray:
    """(H, W) of a PNG with one channel of 8 (np.uint8) or 16 bits (np.uint16)."""
    with reading(path), Image.open(path) as image:
        values = np.asarray(image)
        if image.mode in ("I", "I;16B"):  # what older Pillows make of 16-bit PNGs
            values = values.astype(np.uint16)
        if values.ndim != 2 or values.dtype != dtype:
            raise ValueError(f"got {values.dtype} of shape {values.shape}, expected one channel of {dtype.__name__}")
    return values


def read_arrays(path: Path, *names: str) -> list[np.ndarray]:
    """Arrays of an .npz, by name. Pickled ones are refused, since to load them would run what they hold."""
    with reading(path), np.load(path, allow_pickle=False) as arrays:
        missing = [name for name in names if name not in arrays]
        if missing:
            raise ValueError(f"no array {', '.join(missing)}, it has {', '.join(arrays.files) or 'none'}")
        try:
            return [arrays[name] for name in names]
        except ValueError as error:
            hint = "If it holds pickled objects, write them anew as numbers or text: array.astype(str)."
            raise InputError(f"cannot read {path}: {error}", hint=hint) from error


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    with reading(path):
        return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever fails in the block is an InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing") from error
    except Exception as error:  # decoders raise almost anything on damaged bytes
        raise InputError(f"cannot read {path}: {str(error).strip() or type(error).__name__}") from error
