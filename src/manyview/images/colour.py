"""Any Pillow picture or array to 8-bit RGB, saying what was lost on the way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from manyview.errors import InputError

RgbConversion = Callable[[Image.Image], Image.Image]

_FLOAT_SLACK = 1e-3  # resampled pictures overshoot [0, 1] by about this much


def rgb_conversion(image: Image.Image) -> tuple[RgbConversion, tuple[str, ...]]:
    """How to make 8-bit RGB of `image`, as a function that may be applied to the whole or to strips of it.

    Transparency is composed over white; 16-bit values are divided by 257; floating point pictures in [0, 1]
    are multiplied by 255, in [0, 255] taken as they are, and otherwise stretched from their smallest to their largest
    value.

    Returns:
        The conversion, and what it changes in words.
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        return _identity, ()
    if image.mode == "F" or image.mode.startswith("I"):
        return _numeric_conversion(image)
    if image.has_transparency_data:
        return _over_white, ("transparency was put on white",) if _is_transparent(image) else ()
    if image.mode == "CMYK":
        return _convert, ("CMYK was converted to RGB without its colour profile",)
    return _convert, ()


def image_from_array(array: np.ndarray, name: str) -> tuple[Image.Image, tuple[str, ...]]:
    """An array as an RGB picture.

    Args:
        array: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, uint16, or floating point in [0, 1].
        name: what error messages call it.

    Raises:
        InputError: another shape or type, or values outside [0, 1].
    """
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        hint = (
            "Move the channels to the end: array.transpose(1, 2, 0)." if array.shape[:1] in ((1,), (3,), (4,)) else ""
        )
        raise InputError(f"{name}: expected an array (H, W), (H, W, 1|3|4), got shape {array.shape}", hint=hint)
    eight_bit, changes = _eight_bit(array, name)
    squeezed = eight_bit[..., 0] if eight_bit.shape[2] == 1 else eight_bit
    convert, more = rgb_conversion(image := Image.fromarray(np.ascontiguousarray(squeezed)))
    return convert(image), changes + more


def _eight_bit(array: np.ndarray, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    if array.dtype == np.uint8:
        return array, ()
    if array.dtype == np.uint16:
        return _from_sixteen_bit(array), ("16 bit reduced to 8",)
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"{name}: expected uint8, uint16 or floating point in [0, 1], got {array.dtype}")
    low, high = float(array.min()), float(array.max())
    if not (low >= -_FLOAT_SLACK and high <= 1 + _FLOAT_SLACK):  # also false for nan
        raise InputError(
            f"{name}: expected floating point values in [0, 1], got {low:.4g} to {high:.4g}",
            hint="Divide by the largest possible value, or pass uint8.",
        )
    return np.rint(np.clip(array.astype(np.float32, copy=False), 0, 1) * 255).astype(np.uint8), ()


def _from_sixteen_bit(values: np.ndarray) -> np.ndarray:
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _identity(image: Image.Image) -> Image.Image:
    return image


def _convert(image: Image.Image) -> Image.Image:
    return image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    white.alpha_composite(rgba)
    return white.convert("RGB")


def _is_transparent(image: Image.Image) -> bool:
    """False only for an alpha channel that is opaque everywhere."""
    return "A" not in image.getbands() or image.getchannel("A").getextrema()[0] != 255


def _numeric_conversion(image: Image.Image) -> tuple[RgbConversion, tuple[str, ...]]:
    """Modes I;16, I and F: one channel that is not 8 bit."""
    values = np.asarray(image)
    finite = np.isfinite(values) if image.mode == "F" else None
    if finite is not None and not finite.all():
        kept = values[finite] if finite.any() else np.zeros(1, np.float32)
        low, high = float(kept.min()), float(kept.max())
        changes: tuple[str, ...] = (f"{int((~finite).sum())} pixels that are not finite were set to black",)
    else:
        low, high = float(values.min()), float(values.max())
        changes = ()
    if image.mode != "F" and low >= 0 and high <= 65535:
        return lambda strip: _grey(_from_sixteen_bit(np.asarray(strip))), ("16 bit reduced to 8",)
    if low >= 0 and high <= 255:
        offset, gain = 0.0, 255.0 if high <= 1 else 1.0
    else:
        offset, gain = low, 255.0 / max(high - low, 1e-30)
        changes += (f"values from {low:.4g} to {high:.4g} were stretched to 8 bit",)
    return lambda strip: _grey(_scaled(np.asarray(strip), offset, gain)), changes


def _scaled(values: np.ndarray, offset: float, gain: float) -> np.ndarray:
    finite = np.where(np.isfinite(values), values, offset).astype(np.float64)
    return np.rint(np.clip((finite - offset) * gain, 0, 255)).astype(np.uint8)


def _grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values).convert("RGB")
