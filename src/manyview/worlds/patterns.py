"""The bank of seamless patterns that materials are painted with.

A pattern is a picture of a piece of surface in linear colours, seen from the front. It repeats
without a seam, except that pages, pictures, shelves and rugs end where they end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manyview.worlds import patterns_made as made
from manyview.worlds import patterns_nature as nature
from manyview.worlds import patterns_print as printed
from manyview.worlds.brushes import TILE, Array

__all__ = [
    "PATTERNS",
    "TEXTURES",
    "TILE",
    "OwnColours",
    "Pattern",
    "pattern_colours",
    "pattern_pictures",
    "texture_bank",
]

EXTREME = 4.0
"""Deviations from the mean at which a pattern is cut off."""


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """How one pattern is made.

    Attributes:
        kind: what it shows; `looks.LOOKS` names the kinds that suit each role.
        make: paints it: (TILE, TILE, 3) linear colours, rows from top to bottom.
        metres: smallest and largest size of a tile in the world.
        coloured: True if its own colours matter; the others take on the paint's colour.
    """

    kind: str
    make: Callable[[np.random.Generator], Array]
    metres: tuple[float, float]
    coloured: bool = False


@dataclass(frozen=True)
class OwnColours:
    """Mean linear colour of a pattern, and the deviation of all its channels from that."""

    mean: tuple[float, float, float]
    deviation: float


def _kind(
    kind: str,
    metres: tuple[float, float],
    make: Callable[..., Array],
    *variants: dict[str, Any],
    coloured: bool = False,
) -> Iterator[Pattern]:
    for options in variants or ({},):
        yield Pattern(kind=kind, make=partial(make, **options), metres=metres, coloured=coloured)


_RED_BRICK = {"brick": np.array([0.30, 0.125, 0.082]), "mortar": np.array([0.42, 0.39, 0.34])}
_DARK_BRICK = {"brick": np.array([0.17, 0.085, 0.065]), "mortar": np.array([0.30, 0.28, 0.26]), "spread": 0.3}
_PAINTED_BRICK = {"brick": np.array([0.62, 0.60, 0.56]), "mortar": np.array([0.55, 0.53, 0.50]), "spread": 0.03}

PATTERNS: tuple[Pattern, ...] = (
    *_kind("wear", (3.0, 8.0), nature.wear, {"slope": 1.5}, {"slope": 2.0}),
    *_kind("noise", (0.5, 3.0), nature.fractal, {"slope": 1.5}, {"slope": 1.0}),
    *_kind("noise", (0.5, 3.0), nature.contours, {"levels": 3}, {"levels": 6}),
    *_kind("plaster", (1.0, 2.5), made.plaster, {"slope": 0.7}, {"slope": 1.2, "strength": 0.07}),
    *_kind("concrete", (1.5, 3.0), made.concrete),
    *_kind("dirt", (2.0, 4.0), nature.dirt),
    *_kind("brick", (1.05, 1.3), made.bricks, *({"rows": 16, "columns": 5, **c} for c in (_RED_BRICK,)), coloured=True),
    *_kind("brick", (0.8, 1.0), made.bricks, {"rows": 12, "columns": 4, **_DARK_BRICK}, coloured=True),
    *_kind("brick", (0.8, 1.0), made.bricks, {"rows": 12, "columns": 4, **_PAINTED_BRICK}),
    *_kind("stones", (1.2, 2.2), made.rubble, {"across": 6}, {"across": 10, "joint": 0.05}),
    *_kind("stones", (1.8, 3.0), made.ashlar),
    *_kind("cobbles", (1.0, 1.6), made.rubble, {"across": 11, "joint": 0.2}),
    *_kind("cobbles", (1.0, 1.5), made.setts),
    *_kind("tiles", (1.2, 2.4), made.tiles, {"across": 4, "spread": 0.05, "grout": 3}),
    *_kind("tiles", (0.8, 1.8), made.tiles, {"across": 8, "spread": 0.2, "grout": 3}),
    *_kind("tiles", (1.2, 2.4), made.tiles, {"across": 4, "spread": 0.06, "grout": 2, "checker": 0.75}),
    *_kind("tiles", (0.4, 1.0), made.tiles, {"across": 16, "spread": 0.35, "grout": 3}),
    *_kind("tiles", (0.8, 1.2), made.ornament, coloured=True),
    *_kind(
        "planks", (1.0, 1.6), made.planks, {"boards": 8}, {"boards": 12, "pieces": 3}, {"boards": 8, "upright": True}
    ),
    *_kind("planks", (1.4, 2.2), made.parquet),
    *_kind("wood", (0.5, 1.4), nature.wood, {"rings": 14}, {"rings": 26, "knots": 1}),
    *_kind("fabric", (0.12, 0.5), made.weave, {"threads": 64}, {"threads": 32, "twill": 1}),
    *_kind("fabric", (0.15, 0.4), made.knit),
    *_kind("stripes", (0.4, 1.6), made.stripes, {"count": 8}, {"count": 24}),
    *_kind("plaid", (0.2, 1.0), made.plaid, {"count": 10}),
    *_kind("plaid", (0.2, 1.0), made.plaid, {"count": 24}, coloured=True),
    *_kind("carpet", (0.6, 1.5), made.carpet),
    *_kind("rug", (1.5, 2.6), made.rug, coloured=True),
    *_kind("wallpaper", (0.8, 1.8), made.wallpaper, {"across": 3}, {"across": 4, "contrast": 0.15}),
    *_kind("marble", (0.6, 2.0), nature.marble, {"veins": 1.0}, {"veins": 0.35}),
    *_kind("text", (0.25, 0.9), printed.text_page, {"size": 6}, {"size": 4, "columns": 2}, coloured=True),
    *_kind("print", (0.7, 1.6), printed.poster, {}, {}, {"photo": False}, coloured=True),
    *_kind("print", (0.25, 0.8), printed.package, {}, {}, coloured=True),
    *_kind("print", (0.9, 1.6), printed.notices, coloured=True),
    *_kind("scene", (0.5, 1.4), nature.landscape, coloured=True),
    *_kind("scene", (0.5, 1.4), nature.bouquet, coloured=True),
    *_kind("leaves", (0.5, 1.5), nature.confetti, coloured=True),
    *_kind("foliage", (0.8, 2.0), nature.foliage, {"count": 2200, "smallest": 0.01, "largest": 0.06}, coloured=True),
    *_kind("foliage", (1.0, 2.5), nature.foliage, {"count": 1200, "smallest": 0.018, "largest": 0.1}, coloured=True),
    *_kind("litter", (0.8, 1.8), nature.litter, coloured=True),
    *_kind("grass", (0.8, 1.6), nature.grass, {"dry": 0.08}, {"dry": 0.4, "length": 0.06}, coloured=True),
    *_kind("gravel", (0.5, 1.2), nature.gravel),
    *_kind("earth", (0.8, 2.0), nature.earth, coloured=True),
    *_kind("rock", (1.0, 3.0), nature.rock, {}, {"layers": 2.0}),
    *_kind("bark", (0.4, 0.9), nature.bark),
    *_kind("spots", (0.3, 1.2), printed.spots, {"count": 90}, coloured=True),
    *_kind("collage", (0.5, 1.8), printed.collage, {"count": 40}, {"count": 120}, coloured=True),
    *_kind("books", (0.8, 1.1), printed.books, coloured=True),
    *_kind("windows", (8.0, 12.0), made.windows, {"floors": 3, "across": 4}),
    *_kind("windows", (8.0, 12.0), made.windows, {"floors": 3, "across": 3, "brick": True}, coloured=True),
    *_kind("asphalt", (0.8, 2.0), made.asphalt, {"cracks": 0.7}),
    *_kind("rust", (0.6, 2.0), nature.rust, coloured=True),
    *_kind("brushed", (0.4, 1.0), made.brushed),
)

TEXTURES = len(PATTERNS)
"""Patterns in the bank."""


@lru_cache(maxsize=1)
def pattern_pictures() -> Tensor:
    """(T, 3, TILE, TILE) float16 linear colours; rows from bottom to top, as height above the floor grows.

    Cached, and half precision so that it takes little room in every process: do not write into it.
    """
    pictures = [pattern.make(np.random.default_rng(number)) for number, pattern in enumerate(PATTERNS)]
    upright = np.stack(pictures).astype(np.float32)[:, ::-1].transpose(0, 3, 1, 2).clip(0.005, 0.95)
    return torch.from_numpy(np.ascontiguousarray(upright, dtype=np.float16))


@lru_cache(maxsize=1)
def pattern_colours() -> tuple[OwnColours, ...]:
    """Mean and deviation of each pattern, linear colours."""
    pictures = pattern_pictures().float()
    means = pictures.mean(dim=(-2, -1))
    deviations = (pictures - means[..., None, None]).square().mean(dim=(1, 2, 3)).sqrt()
    pairs = zip(means.tolist(), deviations.tolist(), strict=True)
    return tuple(OwnColours((mean[0], mean[1], mean[2]), deviation) for mean, deviation in pairs)


def texture_bank() -> Tensor:
    """(T, 3, TILE, TILE) float32: the pictures with zero mean in each channel and unit deviation over all of them."""
    pictures = pattern_pictures().float()
    pictures -= pictures.mean(dim=(-2, -1), keepdim=True)
    pictures /= pictures.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return pictures.clamp_(-EXTREME, EXTREME)
