"""A picture, its depth and its camera at another size: cut about a point and resized by one factor.

The window is that of the public DUSt3R and Fast3R loaders. They resize to whole pixels and treat the fraction that is
lost as if it had been cut off evenly; here it is cut off, so that their intrinsics are exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

_CLEARANCE = 1 / 5  # of the picture, from the principal point to the border
_ROUNDING = 1e-8  # added to the scale so that the resized picture covers the target


@dataclass(frozen=True)
class Crop:
    """The part of a picture that becomes the new one.

    Attributes:
        scale: new pixels an old pixel, the same along x and y.
        left, top: where the new picture's corner lies, in old pixels from the old corner (corners, not centres).
        size: (height, width) of the new picture.
    """

    scale: float
    left: float
    top: float
    size: tuple[int, int]

    def intrinsics(self, K: np.ndarray) -> np.ndarray:
        """(3, 3) K of the old picture -> of the new one; integers are pixel centres in both."""
        new = np.asarray(K, dtype=np.float64).copy()
        new[:2] *= self.scale
        new[0, 2] = (K[0, 2] + 0.5 - self.left) * self.scale - 0.5
        new[1, 2] = (K[1, 2] + 0.5 - self.top) * self.scale - 0.5
        return new

    def picture(self, image: Image.Image) -> Image.Image:
        """Resampled with Lanczos where it shrinks and bicubically where it grows."""
        height, width = self.size
        right, bottom = self.left + width / self.scale, self.top + height / self.scale
        box = (self.left, self.top, min(right, image.width), min(bottom, image.height))
        filter_ = Image.Resampling.LANCZOS if self.scale < 1 else Image.Resampling.BICUBIC
        return image.resize((width, height), filter_, box=box)

    def nearest(self, values: np.ndarray) -> np.ndarray:
        """(H, W) of the old picture -> (height, width): the old pixel in which each new centre lies."""
        height, width = self.size
        rows = np.floor(self.top + (np.arange(height) + 0.5) / self.scale).astype(np.int64)
        columns = np.floor(self.left + (np.arange(width) + 0.5) / self.scale).astype(np.int64)
        rows, columns = rows.clip(0, values.shape[0] - 1), columns.clip(0, values.shape[1] - 1)
        return values[rows[:, None], columns]


def crop_to_cover(
    source: tuple[int, int], centre: tuple[float, float], target: tuple[int, int], extra: int = 0
) -> Crop:
    """The largest crop of the target's shape that is symmetric about `centre`.

    Args:
        source: (height, width) of the picture.
        centre: (x, y), pixels; rounded, as published.
        target: (height, width) of the new picture.
        extra: the picture is resized to cover a target with so many pixels more on both sides, then cut to the target.
    """
    centre_x, centre_y = int(np.rint(centre[0])), int(np.rint(centre[1]))
    half = (min(centre_y, source[0] - centre_y), min(centre_x, source[1] - centre_x))
    window = (2 * half[0], 2 * half[1])
    scale = max((target[axis] + extra) / window[axis] for axis in (0, 1)) + _ROUNDING
    top, left = (_margin(window[axis] * scale, target[axis]) / scale for axis in (0, 1))
    return Crop(scale=scale, left=centre_x - half[1] + left, top=centre_y - half[0] + top, size=target)


def principal_point_is_central(K: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether it is further than a fifth of the picture, of (height, width), from each border."""
    height, width = size
    across = min(K[0, 2], width - K[0, 2]) > width * _CLEARANCE
    return bool(across and min(K[1, 2], height - K[1, 2]) > height * _CLEARANCE)


def _margin(resized: float, target: int) -> float:
    """New pixels cut off before the target: half the fraction above whole pixels, then whole ones."""
    whole = math.floor(resized)
    return (resized - whole) / 2 + float(np.rint((whole - target) / 2))
