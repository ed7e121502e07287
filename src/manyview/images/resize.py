"""Where a picture lands at the network's size, and the exact way back.

The rules of `fit="crop"` are those of the official DUSt3R and Fast3R loaders, so that their checkpoints see the
pictures they were trained on. `fit="pad"` never cuts anything off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from manyview.errors import InputError

Fit = Literal["crop", "pad"]

SQUARE_SIZE = 224  # QUIRK: at this size, and only at this one, the official rule gives squares
_LANDSCAPE = 4 / 3
_Box = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True, kw_only=True)
class FitRules:
    """How pictures are brought to the network's size.

    Attributes:
        size: pixels of the long side (at 224 with fit "crop": of the square).
        fit: "crop" cuts at the centre to multiples of `patch_size`; "pad" repeats the border pixels up to them.
        patch_size: pixels; height and width become multiples of it.
        square_ok: with "crop", leave square pictures square instead of cutting them to 4:3.
        crop_to_landscape: first cut to 4:3 at the centre.
        rotate_clockwise_90: before anything else, turn the upright picture.
    """

    size: int = 512
    fit: Fit = "crop"
    patch_size: int = 16
    square_ok: bool = False
    crop_to_landscape: bool = False
    rotate_clockwise_90: bool = False

    def __post_init__(self) -> None:
        if self.fit not in ("crop", "pad"):
            raise InputError(f'fit: expected "crop" or "pad", got {self.fit!r}')
        if self.patch_size < 1:
            raise InputError(f"patch_size: expected at least 1, got {self.patch_size}")
        if self.size < self.patch_size:
            raise InputError(f"size: expected at least the patch size {self.patch_size}, got {self.size}")


@dataclass(frozen=True, kw_only=True)
class NetworkFrame:
    """The steps from an upright original to the network's picture: turn, cut, resize, cut again or pad.

    Attributes:
        original_size: (height, width) of the upright original.
        rotated: whether it is turned by 90 degrees clockwise.
        source_box: (left, top, right, bottom) that is kept of the turned original, pixels.
        resized_size: (height, width) that this box is resized to.
        network_box: (left, top, right, bottom) of the network's picture in resized pixels; what reaches beyond
            [0, width] x [0, height] is padding.
    """

    original_size: tuple[int, int]
    rotated: bool
    source_box: _Box
    resized_size: tuple[int, int]
    network_box: _Box

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the network's picture."""
        left, top, right, bottom = self.network_box
        return bottom - top, right - left

    @property
    def original_from_network(self) -> np.ndarray:
        """(3, 3) float64 affine from network pixels (x, y, 1) to original pixels, integers at pixel centres both."""
        box_left, box_top, box_right, box_bottom = self.source_box
        height, width = self.resized_size
        scale_x, scale_y = (box_right - box_left) / width, (box_bottom - box_top) / height
        left, top = self.network_box[:2]
        turned_from_network = np.array(
            [
                [scale_x, 0.0, (left + 0.5) * scale_x + box_left - 0.5],
                [0.0, scale_y, (top + 0.5) * scale_y + box_top - 0.5],
                [0.0, 0.0, 1.0],
            ]
        )
        if not self.rotated:
            return turned_from_network
        # A pixel (x, y) goes to (height - 1 - y, x) when a picture is turned clockwise.
        original_from_turned = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, self.original_size[0] - 1.0], [0.0, 0.0, 1.0]])
        return original_from_turned @ turned_from_network

    @property
    def valid(self) -> np.ndarray:
        """(H, W) bool, False on padding."""
        left, top = self.network_box[:2]
        height, width = self.size
        x, y = np.arange(width) + left, np.arange(height) + top
        inside_x = (x >= 0) & (x < self.resized_size[1])
        inside_y = (y >= 0) & (y < self.resized_size[0])
        return inside_y[:, None] & inside_x

    @property
    def kept(self) -> tuple[float, float]:
        """Fractions in (0, 1] of the original's height and width that the network sees."""
        left, top, right, bottom = self.source_box
        resized_height, resized_width = self.resized_size
        kept_height = (bottom - top) * min(self.size[0] / resized_height, 1.0)
        kept_width = (right - left) * min(self.size[1] / resized_width, 1.0)
        if self.rotated:
            kept_height, kept_width = kept_width, kept_height
        return kept_height / self.original_size[0], kept_width / self.original_size[1]


def network_frame(original_size: tuple[int, int], rules: FitRules) -> NetworkFrame:
    """Where an upright original of (height, width) lands.

    Raises:
        InputError: with fit "crop", a picture so elongated that nothing of it would be left.
    """
    height, width = original_size[::-1] if rules.rotate_clockwise_90 else original_size
    box = _landscape_box(height, width) if rules.crop_to_landscape else (0, 0, width, height)
    resized = _resized_size(box[3] - box[1], box[2] - box[0], rules)
    frame = NetworkFrame(
        original_size=original_size,
        rotated=rules.rotate_clockwise_90,
        source_box=box,
        resized_size=resized,
        network_box=_padded_box(*resized, rules.patch_size) if rules.fit == "pad" else _cropped_box(*resized, rules),
    )
    if 0 in frame.size:
        raise InputError(
            f'too elongated: {width} x {height} pixels leave nothing at size {rules.size} with fit "crop"; '
            'use fit "pad"'
        )
    return frame


def spare_resolution(size: tuple[int, int], rules: FitRules) -> float:
    """How many original pixels fall on one of the network's along an axis, for `size` upright and turned."""
    spare = np.inf
    for original_size in (size, (size[1], size[0])):
        frame = network_frame(original_size, rules)
        left, top, right, bottom = frame.source_box
        height, width = frame.resized_size
        spare = min(spare, (right - left) / width, (bottom - top) / height)
    return float(spare)


def render(frame: NetworkFrame, image: Image.Image) -> np.ndarray:
    """The network's picture.

    Args:
        frame: from `network_frame`.
        image: the upright original, RGB; or the same at a smaller size, if it was reduced while it was decoded.

    Returns:
        (H, W, 3) uint8; padding repeats the border pixels.
    """
    if frame.rotated:
        image = image.transpose(Image.Transpose.ROTATE_270)
    resized = np.asarray(_resize(frame, image))
    left, top, right, bottom = frame.network_box
    height, width = frame.resized_size
    inside = resized[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    padding = ((max(-top, 0), max(bottom - height, 0)), (max(-left, 0), max(right - width, 0)), (0, 0))
    return np.ascontiguousarray(np.pad(inside, padding, mode="edge"))


def _resize(frame: NetworkFrame, image: Image.Image) -> Image.Image:
    """Cut to the source box and resize; Lanczos where the original is shrunk, bicubic otherwise."""
    turned_height, turned_width = frame.original_size[::-1] if frame.rotated else frame.original_size
    height, width = frame.resized_size
    left, top, right, bottom = frame.source_box
    shrinks = max(right - left, bottom - top) > max(frame.resized_size)
    scale_x, scale_y = image.width / turned_width, image.height / turned_height
    box = (left * scale_x, top * scale_y, right * scale_x, bottom * scale_y)
    if image.size == (turned_width, turned_height) and frame.source_box != (0, 0, turned_width, turned_height):
        # Cut before the resize, as the official loader does: its filter must not see beyond the box.
        image = image.crop(frame.source_box)
        box = (0, 0, *image.size)
    filter_ = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
    return image.resize((width, height), filter_, box=box)


def _landscape_box(height: int, width: int) -> _Box:
    """The largest 4:3 box at the centre."""
    if width / height > _LANDSCAPE:
        kept_height, kept_width = height, int(height * _LANDSCAPE)
    else:
        kept_height, kept_width = int(width / _LANDSCAPE), width
    kept_height, kept_width = max(kept_height, 1), max(kept_width, 1)
    left, top = (width - kept_width) // 2, (height - kept_height) // 2
    return left, top, left + kept_width, top + kept_height


def _resized_size(height: int, width: int, rules: FitRules) -> tuple[int, int]:
    """(height, width) after the uniform resize; small pictures are enlarged, too."""
    long_side, target = max(height, width), rules.size
    if rules.fit == "crop" and rules.size == SQUARE_SIZE:
        target = round(SQUARE_SIZE * max(width / height, height / width))
    return max(round(height * target / long_side), 1), max(round(width * target / long_side), 1)


def _cropped_box(height: int, width: int, rules: FitRules) -> _Box:
    """The box about (width // 2, height // 2) that the official loaders cut out."""
    centre_x, centre_y = width // 2, height // 2
    if rules.size == SQUARE_SIZE:
        side = 2 * min(centre_x, centre_y) // rules.patch_size * rules.patch_size
        return _box_about(centre_x, centre_y, side, side)
    kept_width = 2 * centre_x // rules.patch_size * rules.patch_size
    kept_height = 2 * centre_y // rules.patch_size * rules.patch_size
    if kept_width == kept_height and not rules.square_ok:
        # QUIRK: the official models were trained on landscape pictures, and their loader cuts squares to 4:3. Where
        # 3/4 of the side is not a multiple of the patch size (never at 512), the height is rounded down to one.
        patches_high = max(3 * kept_width // 4 // rules.patch_size, min(kept_height, 1))
        kept_height = patches_high * rules.patch_size
    return _box_about(centre_x, centre_y, kept_height, kept_width)


def _box_about(centre_x: int, centre_y: int, height: int, width: int) -> _Box:
    left, top = centre_x - width // 2, centre_y - height // 2
    return left, top, left + width, top + height


def _padded_box(height: int, width: int, patch_size: int) -> _Box:
    """The smallest box of whole patches, with the picture at its centre so that the optical centre stays there."""
    padded_height = -(-height // patch_size) * patch_size
    padded_width = -(-width // patch_size) * patch_size
    left, top = -((padded_width - width) // 2), -((padded_height - height) // 2)
    return left, top, left + padded_width, top + padded_height
