"""What cameras write into photos beside the picture (EXIF): read from the header, and carried over to new pictures."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from manyview.images.sniff import sniff

EXIF_BLOCK, GPS_BLOCK = 0x8769, 0x8825
_ORIENTATION = 0x0112
_ABOUT_THE_CAMERA = (0x010F, 0x0110, 0x0131, 0x0132)  # maker, model, software, time of the file
# Exposure, f-number, sensitivity, times with their zones and fractions, focal lengths, numbers and names of body and
# lens. Left out is what describes the pixels, and makers' own notes, which hold addresses within the old file.
_ABOUT_THE_PHOTO = (
    0x829A, 0x829D, 0x8827, 0x9003, 0x9004, 0x9010, 0x9011, 0x9012, 0x920A, 0x9290, 0x9291, 0x9292, 0xA405,
    0xA431, 0xA432, 0xA433, 0xA434, 0xA435,
)  # fmt: skip


@contextmanager
def photo_header(path: Path) -> Iterator[Image.Image]:
    """A photo of which only the header has been read.

    Raises:
        Exception: of any kind, where bytes are damaged.
    """
    with warnings.catch_warnings(), path.open("rb") as stream:
        warnings.simplefilter("ignore")  # of large pictures: their pixels are not read here
        if sniff(path).detail != "HEIF":
            yield Image.open(stream)
            return
        from pillow_heif import HeifImageFile

        yield HeifImageFile(stream)


def carried_exif(path: Path) -> bytes:
    """What a photo's EXIF block says of camera, time, exposure and position, for an upright picture that is made of it.

    Empty if there is none, or one that is damaged, which is no reason to lose a photo.
    """
    try:
        with photo_header(path) as image:
            exif = image.getexif()
            made = Image.Exif()
            made.update({tag: exif[tag] for tag in _ABOUT_THE_CAMERA if tag in exif})
            block = exif.get_ifd(EXIF_BLOCK)
            for number, tags in (
                (EXIF_BLOCK, {tag: block[tag] for tag in _ABOUT_THE_PHOTO if tag in block}),
                (GPS_BLOCK, dict(exif.get_ifd(GPS_BLOCK))),
            ):
                if tags:
                    made[number] = tags
            if not made:
                return b""
            made[_ORIENTATION] = 1
            return made.tobytes()
    except Exception:
        return b""
