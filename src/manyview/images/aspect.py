"""Where a picture lands when its pixels have to be found again: cut to a trained aspect ratio, then resized exactly.

The rule of DUSt3R's published localisation. Other than `resize`, it never leaves a ratio that the network was not
trained on, and it cuts before it resizes, so that one affine map an axis leads back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from PIL import Image

from manyview.errors import InputError
from manyview.images.colour import image_from_array
from manyview.images.decode import DecodeLimits, decode_image, decode_photo, pillow_pixel_limit
from manyview.images.resize import SQUARE_SIZE
from manyview.images.sources import ImageInput, find_sources

TRAINED_RATIOS = (Fraction(4, 3), Fraction(32, 21), Fraction(16, 9), Fraction(2), Fraction(16, 5))
"""Width to height of the landscape pictures that pairwise networks are trained on, but for those of 224 pixels."""

Shape = tuple[int, int]
_HALF = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])  # corner coordinates from centre coordinates


@dataclass(frozen=True, kw_only=True)
class AspectFrame:
    """The way from an upright original to the network's picture: cut, then resize.

    Attributes:
        original_size: (height, width) of the upright original.
        cropped_size: (height, width) that is kept of it, at its centre.
        size: (height, width) of the network's picture.
    """

    original_size: Shape
    cropped_size: Shape
    size: Shape

    @property
    def is_identity(self) -> bool:
        """Whether the original is the network's picture already."""
        return self.original_size == self.cropped_size == self.size

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) that is kept, in corner coordinates: an odd margin is halved exactly."""
        height, width = self.cropped_size
        top, left = (self.original_size[0] - height) / 2, (self.original_size[1] - width) / 2
        return left, top, left + width, top + height

    @property
    def corner_original_from_network(self) -> np.ndarray:
        """(3, 3) float64 affine of (x, y, 1) in corner coordinates: the top-left pixel spans 0 to 1."""
        left, top = self.box[:2]
        scale_x, scale_y = self.cropped_size[1] / self.size[1], self.cropped_size[0] / self.size[0]
        return np.array([[scale_x, 0.0, left], [0.0, scale_y, top], [0.0, 0.0, 1.0]])

    @property
    def corner_network_from_original(self) -> np.ndarray:
        """(3, 3) float64, the inverse of `corner_original_from_network`."""
        left, top = self.box[:2]
        scale_x, scale_y = self.size[1] / self.cropped_size[1], self.size[0] / self.cropped_size[0]
        return np.array([[scale_x, 0.0, -scale_x * left], [0.0, scale_y, -scale_y * top], [0.0, 0.0, 1.0]])

    @property
    def original_from_network(self) -> np.ndarray:
        """(3, 3) float64 affine from network pixels (x, y, 1) to original pixels, integers at pixel centres both."""
        return np.linalg.inv(_HALF) @ self.corner_original_from_network @ _HALF

    @property
    def network_from_original(self) -> np.ndarray:
        """(3, 3) float64, the inverse of `original_from_network`."""
        return np.linalg.inv(_HALF) @ self.corner_network_from_original @ _HALF


@dataclass(frozen=True, kw_only=True)
class AspectPicture:
    """A picture at the network's size and the way back.

    Attributes:
        name: short, for people.
        pixels: (H, W, 3) uint8 RGB.
        frame: where it came from.
    """

    name: str
    pixels: np.ndarray
    frame: AspectFrame


def trained_shapes(image_size: int, patch_size: int = 16) -> tuple[Shape, ...]:
    """(height, width) of the landscape pictures that a pairwise network of this size is trained on.

    At 512 with patches of 16 the heights are 384, 336, 288, 256 and 160; at 224 pictures are square, as published.
    Other sizes get the whole patches nearest to the same ratios.
    """
    if image_size < patch_size or image_size % patch_size:
        raise InputError(f"image_size: expected a multiple of the patch size {patch_size}, got {image_size}")
    if image_size == SQUARE_SIZE:
        return ((image_size, image_size),)
    heights = [max(1, round(image_size / ratio / patch_size)) * patch_size for ratio in TRAINED_RATIOS]
    return tuple((height, image_size) for height in dict.fromkeys(heights))


def aspect_frame(original_size: Shape, shapes: Sequence[Shape]) -> AspectFrame:
    """Where an upright original of (height, width) lands: at the shape whose ratio is nearest to its own.

    Args:
        original_size: portraits get the shapes turned.
        shapes: (height, width) of landscape or square pictures, such as `trained_shapes`.

    Raises:
        InputError: there is no shape, or the original is so narrow that nothing of it would be left.
    """
    height, width = original_size
    if not shapes:
        raise InputError("no shapes to choose from were given")
    turned = [(short, long) if width >= height else (long, short) for short, long in shapes]
    if original_size in turned:
        return AspectFrame(original_size=original_size, cropped_size=original_size, size=original_size)
    size = min(turned, key=lambda shape: abs(shape[1] / shape[0] - width / height))
    # Whole numbers: a quotient of floats could fall short of an exact fit by one pixel.
    cropped = min(height, width * size[0] // size[1]), min(width, height * size[1] // size[0])
    if min(cropped) < 1:
        raise InputError(f"too elongated: {width} x {height} pixels leave nothing at the ratio {size[1]}:{size[0]}")
    return AspectFrame(original_size=original_size, cropped_size=cropped, size=size)


def render_aspect(frame: AspectFrame, image: Image.Image) -> np.ndarray:
    """The network's picture: bilinear, with the filter widened where it shrinks, so that nothing aliases.

    Pillow's filter rather than torch's, which computes the same: it takes the box in fractions of a pixel, so that
    the picture lies exactly where the affine maps say even if the margin is odd. (The published code cuts at a whole
    pixel there, half a pixel off its own maps.)

    Args:
        frame: from `aspect_frame`.
        image: the upright original, RGB; or the same at a smaller size, if it was reduced while it was decoded.

    Returns:
        (H, W, 3) uint8.
    """
    height, width = frame.original_size
    box = frame.box
    if image.size == (width, height):
        if frame.is_identity:
            return np.asarray(image).copy()
        if all(edge == int(edge) for edge in box):
            left, top, right, bottom = (int(edge) for edge in box)
            image = image.crop((left, top, right, bottom))  # the filter must not see beyond the box
            box = (0.0, 0.0, float(image.width), float(image.height))
    else:
        scale_x, scale_y = image.width / width, image.height / height
        box = (box[0] * scale_x, box[1] * scale_y, box[2] * scale_x, box[3] * scale_y)
    return np.asarray(image.resize((frame.size[1], frame.size[0]), Image.Resampling.BILINEAR, box=box)).copy()


def load_aspect_picture(
    picture: ImageInput, shapes: Sequence[Shape], *, max_pixels: int | None = None
) -> AspectPicture:
    """Read one photo and bring it to the nearest of the shapes.

    Args:
        picture: a path, an array or a Pillow picture.
        shapes: as in `aspect_frame`.
        max_pixels: as in `load_views`.

    Raises:
        InputError: it is no picture, or cannot be read.
    """
    sources = find_sources(picture)
    if len(sources.photos) != 1:
        raise InputError(f"expected one photo, got {picture!r}", hint="Give a path, an array or a Pillow picture.")
    source = sources.photos[0]
    limits = DecodeLimits(max_pixels or pillow_pixel_limit(), lambda size: _spare(size, shapes))
    try:
        if isinstance(source.content, np.ndarray):
            image = image_from_array(source.content, source.name)[0]
            limits.check(image.width, image.height)
            frame = aspect_frame((image.height, image.width), shapes)
        else:
            decode = decode_image if isinstance(source.content, Image.Image) else decode_photo
            decoded = decode(source.content, limits)  # type: ignore[arg-type]  (each takes what it was chosen for)
            image, frame = decoded.image, aspect_frame(decoded.original_size, shapes)
    except InputError as error:
        raise InputError(f"{source.name}: {error.args[0]}", hint=error.hint) from error
    return AspectPicture(name=source.name, pixels=render_aspect(frame, image), frame=frame)


def _spare(size: Shape, shapes: Sequence[Shape]) -> float:
    """How many original pixels fall on one of the network's along an axis, for `size` upright and turned."""
    frames = [aspect_frame(turned, shapes) for turned in (size, (size[1], size[0]))]
    return min(min(f.cropped_size[0] / f.size[0], f.cropped_size[1] / f.size[1]) for f in frames)
