"""What a file holds, told from its first bytes and never from its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_HEAD_BYTES = 64
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}
_IMAGE_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"BM", "BMP"),
)
_VIDEO_SIGNATURES = (
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"FLV\x01",
    b"OggS",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF, WMV
    b"\x00\x00\x01\xba",  # MPEG programme stream
    b"\x00\x00\x01\xb3",
)
_QUICKTIME_ATOMS = {b"moov", b"mdat", b"wide", b"free", b"skip"}


@dataclass(frozen=True)
class Content:
    """Kind of a file's content; `detail` is the image format (Pillow's name, or "HEIF"), or what was found instead."""

    kind: Literal["image", "video", "empty", "other"]
    detail: str = ""


def sniff(path: Path) -> Content:
    """Tell an image from a video from anything else.

    Raises:
        OSError: the file cannot be opened.
    """
    with path.open("rb") as stream:
        return sniff_bytes(stream.read(_HEAD_BYTES))


def sniff_bytes(head: bytes) -> Content:
    """As `sniff`, from the first 64 bytes (or more) of a file."""
    if not head:
        return Content("empty")
    for signature, name in _IMAGE_SIGNATURES:
        if head.startswith(signature):
            return Content("image", name)
    if head[:4] == b"RIFF":
        return _riff(head[8:12])
    if head[4:8] == b"ftyp":
        return _iso_media(head)
    if head.startswith(_VIDEO_SIGNATURES) or head[4:8] in _QUICKTIME_ATOMS:
        return Content("video")
    if not head.strip(b"\x00"):
        return Content("other", "it starts with zeros")
    return Content("other", f"it starts with {head[:12]!r}")


def _riff(form: bytes) -> Content:
    if form == b"WEBP":
        return Content("image", "WEBP")
    return Content("video") if form == b"AVI " else Content("other", f"a RIFF file of type {form!r}")


def _iso_media(head: bytes) -> Content:
    """ISO base media: HEIF, AVIF and MP4 differ by their brands (ISO/IEC 14496-12, 4.3)."""
    box_end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[start : start + 4] for start in range(16, box_end, 4))}
    if brands & _AVIF_BRANDS:
        return Content("image", "AVIF")
    if brands & _HEIF_BRANDS and head[8:12] not in {b"isom", b"mp42", b"qt  "}:
        return Content("image", "HEIF")
    return Content("video")
