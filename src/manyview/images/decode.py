"""Photo files to upright 8-bit RGB pictures, in bounded memory and with a reason for each that cannot be read."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from PIL import Image, ImageFile

from manyview.errors import InputError
from manyview.images.colour import RgbConversion, rgb_conversion
from manyview.images.sniff import Content, sniff

EXACT_PIXELS = 89_478_485  # above this (Pillow warns there too) a picture is reduced while it is decoded
LARGE_PIXELS = 40_000_000  # above this pictures are decoded one at a time
_STRIP_PIXELS = 4_000_000
_JPEG_REDUCTIONS = (8, 4, 2)
_ORIENTATION_TAG = 0x0112
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PLUGINS = {
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "WEBP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "HEIF": ("pillow_heif", "HeifImageFile"),
}


class DecodeError(InputError):
    """One picture cannot be read. The message is "kind: detail"; reasons are counted by kind."""


@dataclass(frozen=True)
class DecodeLimits:
    """How much a picture may cost.

    Attributes:
        max_pixels: pictures with more are refused, from their header.
        spare_resolution: how many times finer than needed a picture of (height, width) is; those above `EXACT_PIXELS`
            are reduced by at most half of it while they are decoded.
        one_at_a_time: held while a large picture is decoded.
    """

    max_pixels: int
    spare_resolution: Callable[[tuple[int, int]], float]
    one_at_a_time: Lock = field(default_factory=Lock, repr=False, compare=False)

    def check(self, width: int, height: int) -> None:
        """Raise a DecodeError for a picture that is too large."""
        if width * height > self.max_pixels:
            raise DecodeError(
                f"too many pixels: {width} x {height} is {width * height / 1e6:.0f} megapixels and the limit is "
                f"{self.max_pixels / 1e6:.0f}; raise it with max_pixels if you trust the file"
            )

    def room_for(self, pixels: int) -> AbstractContextManager[object]:
        """Held while a picture is decoded, so that large ones do so one after the other."""
        return self.one_at_a_time if pixels > LARGE_PIXELS else nullcontext()


@dataclass(frozen=True)
class Decoded:
    """An upright RGB picture.

    Attributes:
        image: the picture; smaller than `original_size` if it was reduced, with the same extent.
        original_size: (height, width), upright.
        upright_in_file: False if an orientation flag was applied.
        digest: sha256 (hex) of size and pixels of `image`.
        changes: as in `View`.
    """

    image: Image.Image
    original_size: tuple[int, int]
    upright_in_file: bool
    digest: str
    changes: tuple[str, ...] = ()


def pillow_pixel_limit() -> int:
    """The number of pixels from which Pillow takes a picture for a decompression bomb."""
    return sys.maxsize if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS


def decode_photo(path: Path, limits: DecodeLimits) -> Decoded:
    """Read the (first) picture of a file.

    Raises:
        DecodeError: it is missing, empty, no image, corrupt, truncated or too large.
    """
    with _as_decode_errors():
        if not path.is_file():
            raise DecodeError("cannot be read: no such file" if not path.exists() else "cannot be read: not a file")
        image_format = _image_format(sniff(path))
        with path.open("rb") as stream:
            image = _open(stream, image_format)
            limits.check(image.width, image.height)
            with limits.room_for(image.width * image.height):
                return _decode(image, limits, may_draft=True)


def decode_image(image: Image.Image, limits: DecodeLimits) -> Decoded:
    """Load, orient and convert a Pillow picture that may not be loaded yet.

    Raises:
        DecodeError: it is corrupt, truncated or too large.
    """
    with _as_decode_errors():
        limits.check(image.width, image.height)
        # The same picture may have been passed twice, and loading one from two threads would break it.
        with limits.one_at_a_time:
            return _decode(image, limits, may_draft=False)


def picture_digest(image: Image.Image) -> str:
    """sha256 (hex) of the size and the RGB pixels, taken in strips so that no copy of the whole is made."""
    digest = hashlib.sha256(f"{image.width}x{image.height}:".encode())
    for strip in _strips(image, 1):
        digest.update(strip.tobytes())
    return digest.hexdigest()


def _decode(image: Image.Image, limits: DecodeLimits, *, may_draft: bool) -> Decoded:
    changes = _header_changes(image)
    # HEIF plug-ins turn the picture themselves, clear the flag and leave its old value here.
    orientation = image.info.get("original_orientation") or _orientation(image)
    width, height = image.size
    reduction = _reduction(width, height, limits.spare_resolution)
    drafted = _draft(image, reduction) if may_draft else 1  # it would change a picture that is the caller's
    with _bomb_limit_of(width * height):
        image.load()
    convert, more = rgb_conversion(image)
    if reduction > 1:
        rgb = _reduce_in_strips(image, (width, height), reduction, drafted, convert)
        more += (f"decoded at 1/{reduction} of its size to save memory",)
    else:
        rgb = convert(image)
    # Pillow turns TIFFs while it loads them and takes the flag away; what the flag says now is still to be done.
    remaining = _orientation(image)
    if remaining in _TO_UPRIGHT:
        rgb = rgb.transpose(_TO_UPRIGHT[remaining])
    turned = remaining in (5, 6, 7, 8)
    return Decoded(
        image=rgb,
        original_size=(width, height) if turned else (height, width),
        upright_in_file=orientation not in _TO_UPRIGHT,
        digest=picture_digest(rgb),
        changes=changes + more,
    )


def _image_format(content: Content) -> str:
    if content.kind == "empty":
        raise DecodeError("empty file")
    if content.kind == "video":
        raise DecodeError("a video among photos: pass it by itself")
    if content.kind == "other":
        raise DecodeError(f"not an image: {content.detail}")
    return content.detail


def _open(stream: BinaryIO, image_format: str) -> Image.Image:
    """Read the header with the one plug-in that fits, which leaves the size check to us and registers nothing."""
    module, name = _PLUGINS[image_format]
    try:
        plugin = importlib.import_module(module)
    except ImportError as error:
        raise DecodeError(f"no decoder: {image_format} needs a newer Pillow or pillow-heif") from error
    return getattr(plugin, name)(stream)


@contextmanager
def _as_decode_errors() -> Iterator[None]:
    """Decoders raise almost anything on damaged bytes; all of it means that this one picture cannot be read."""
    try:
        yield
    except InputError:
        raise
    except PermissionError as error:
        raise DecodeError(f"cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise DecodeError("out of memory: the picture does not fit") from error
    except Exception as error:
        raise DecodeError(f"corrupt or truncated: {str(error).strip() or type(error).__name__}") from error


_bomb_limit_lock = Lock()


@contextmanager
def _bomb_limit_of(pixels: int) -> Iterator[None]:
    """Some plug-ins ask Pillow's global limit again; lift it to just this size (already allowed) and put it back."""
    if Image.MAX_IMAGE_PIXELS is None or pixels <= Image.MAX_IMAGE_PIXELS:
        yield
        return
    with _bomb_limit_lock:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1-8."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # a damaged EXIF block is no reason to lose the picture; it is then shown as stored
        return 1


def _header_changes(image: Image.Image) -> tuple[str, ...]:
    """What only the header knows: it must be asked before the pixels are loaded."""
    changes = ()
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        changes += (f"first of {frames} pictures in the file",)
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else ()
    if image.mode in ("RGB", "RGBA", "LA") and any(";16" in str(tile[3]) for tile in tiles):
        changes += ("16 bit reduced to 8",)
    return changes


def _reduction(width: int, height: int, spare_resolution: Callable[[tuple[int, int]], float]) -> int:
    """The largest power of two that leaves a very large picture at twice the resolution needed."""
    if width * height <= EXACT_PIXELS:
        return 1
    spare, reduction = spare_resolution((height, width)), 1
    while reduction * 4 <= spare:
        reduction *= 2
    return reduction


def _draft(image: Image.Image, reduction: int) -> int:
    """Let the JPEG decoder do (a part of) the reduction; how much of it was done."""
    if reduction == 1 or image.format not in ("JPEG", "MPO"):
        return 1
    width, height = image.size
    image.draft(None, (-(-width // min(reduction, 8)), -(-height // min(reduction, 8))))
    done = [factor for factor in _JPEG_REDUCTIONS if image.size == (-(-width // factor), -(-height // factor))]
    return done[0] if done else 1


def _reduce_in_strips(
    image: Image.Image, original: tuple[int, int], reduction: int, drafted: int, convert: RgbConversion
) -> Image.Image:
    """Convert and shrink strip by strip, so that only the stored pixels are ever held at full size.

    Returns:
        A picture with exactly the extent of the original, so that one scale factor an axis takes one to the other.
    """
    factor = reduction // drafted
    reduced = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    top = 0
    for strip in _strips(image, factor):
        piece = convert(strip).reduce(factor)
        reduced.paste(piece, (0, top))
        top += piece.height
    width, height = original[0] / reduction, original[1] / reduction
    if reduced.size == (width, height):
        return reduced
    # The last row and column are only partly covered by the original: cut at the fraction of a pixel.
    size = (max(int(width), 1), max(int(height), 1))
    return reduced.resize(size, Image.Resampling.BICUBIC, box=(0, 0, width, height))


def _strips(image: Image.Image, multiple: int) -> Iterator[Image.Image]:
    """The picture from top to bottom in strips whose heights are multiples of `multiple`, but for the last."""
    rows = max(_STRIP_PIXELS // image.width // multiple, 1) * multiple
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))
