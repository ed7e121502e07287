"""`Views`: the decoded pictures of one scene, each with the exact way back to its original pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, kw_only=True)
class View:
    """One picture as the network sees it.

    Attributes:
        name: short, unique within its `Views` (file name, `video#000120`, `array#3`).
        source: path of the photo or video, or None for arrays.
        pixels: (H, W, 3) uint8 RGB, upright, resized and cropped (or padded) for the network.
        original_size: (height, width) of the upright original, after its EXIF or video rotation.
        original_from_network: (3, 3) float64 affine that takes network pixels (x, y, 1) to original pixels; both
            have integers at pixel centres. It scales and shifts, and turns where the picture was turned on request.
        valid: (H, W) bool, False where the pixel is padding.
        upright_in_file: False if an EXIF or video rotation was applied, so that the stored picture is turned.
        timestamp: seconds from the start of the video, or None.
        digest: sha256 (hex) of the decoded original pixels; equal for duplicates.
        changes: what was done that a user should know ("12 % of the width was cropped away", "16 bit reduced to 8").
    """

    name: str
    source: str | None
    pixels: np.ndarray
    original_size: tuple[int, int]
    original_from_network: np.ndarray
    valid: np.ndarray
    upright_in_file: bool = True
    timestamp: float | None = None
    digest: str = ""
    changes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the picture as the network sees it."""
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass(frozen=True)
class Skipped:
    """An input that was left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Views:
    """N pictures of one scene, in order; behaves as a sequence of `View`."""

    items: tuple[View, ...]
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> View:
        return self.items[index]

    def __iter__(self) -> Iterator[View]:
        return iter(self.items)
