"""What a camera wrote into a photo's EXIF block: focal length, time and its own name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import Image

from manyview.images.exif import EXIF_BLOCK, photo_header

_MAKE, _MODEL = 0x010F, 0x0110
_FOCAL, _FOCAL_35, _TAKEN, _SHUTTER = 0x920A, 0xA405, 0x9003, 0x829A


@dataclass(frozen=True, kw_only=True)
class PhotoTags:
    """Tags of one photo; None for each that is missing, damaged or not positive.

    Attributes:
        focal_mm: focal length of the lens.
        focal_35mm: focal length that has the same diagonal field of view on 35 mm film.
        shutter_seconds: exposure time.
        taken: local time by the camera's clock, as 2024-05-31T13:45:00.
        camera: maker and model.
    """

    focal_mm: float | None = None
    focal_35mm: float | None = None
    shutter_seconds: float | None = None
    taken: str | None = None
    camera: str | None = None


def read_tags(path: Path) -> PhotoTags:
    """The tags of a photo file; all None if it has none or they cannot be read, which is no reason to lose a photo."""
    try:
        with photo_header(path) as image:
            return image_tags(image)
    except Exception:
        return PhotoTags()


def image_tags(image: Image.Image) -> PhotoTags:
    """The tags of a Pillow picture.

    Raises:
        Exception: of any kind, from a damaged EXIF block.
    """
    exif = image.getexif()
    block = exif.get_ifd(EXIF_BLOCK)
    maker, model = _text(exif.get(_MAKE)), _text(exif.get(_MODEL))
    if maker and model and model.casefold().startswith(maker.casefold()):
        maker = ""
    return PhotoTags(
        focal_mm=_positive(block.get(_FOCAL)),
        focal_35mm=_positive(block.get(_FOCAL_35)),
        shutter_seconds=_positive(block.get(_SHUTTER)),
        taken=_time(_text(block.get(_TAKEN))),
        camera=f"{maker} {model}".strip() or None,
    )


def _positive(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _text(value: Any) -> str:
    """Cameras pad texts with zeros and blanks."""
    return str(value).split("\x00")[0].strip() if isinstance(value, str) else ""


def _time(text: str) -> str | None:
    try:
        return datetime.strptime(text[:19], "%Y:%m:%d %H:%M:%S").isoformat()
    except ValueError:
        return None
