"""What surfaces of the everyday world look like: palettes of colours, and which patterns suit which role.

Colours are linear reflectances. Most things that people photograph are nearly grey or brown; the few strongly coloured
ones are objects and prints.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal

Colour = tuple[float, float, float]

Role = Literal[
    "wall",
    "floor",
    "ceiling",
    "furniture",
    "object",
    "poster",
    "ground",
    "facade",
    "rock",
    "foliage",
    "bark",
    "metal",
    "road",
    "fabric",
]
"""What a surface is part of."""

PALETTES: Mapping[str, tuple[Colour, Colour]] = {
    "white": ((0.55, 0.54, 0.51), (0.86, 0.85, 0.82)),
    "cream": ((0.52, 0.44, 0.31), (0.78, 0.72, 0.58)),
    "light grey": ((0.28, 0.28, 0.27), (0.52, 0.52, 0.51)),
    "grey": ((0.09, 0.09, 0.09), (0.30, 0.30, 0.29)),
    "dark": ((0.025, 0.024, 0.023), (0.09, 0.085, 0.08)),
    "brown": ((0.05, 0.03, 0.018), (0.30, 0.19, 0.11)),
    "pale wood": ((0.28, 0.18, 0.095), (0.58, 0.43, 0.27)),
    "sand": ((0.26, 0.20, 0.13), (0.52, 0.43, 0.31)),
    "brick red": ((0.17, 0.065, 0.042), (0.40, 0.18, 0.115)),
    "terracotta": ((0.28, 0.115, 0.06), (0.50, 0.25, 0.15)),
    "green": ((0.03, 0.05, 0.02), (0.16, 0.21, 0.09)),
    "pale green": ((0.35, 0.42, 0.33), (0.60, 0.66, 0.55)),
    "pale blue": ((0.30, 0.37, 0.45), (0.55, 0.62, 0.68)),
    "pale red": ((0.46, 0.30, 0.27), (0.70, 0.54, 0.49)),
    "steel": ((0.15, 0.16, 0.175), (0.46, 0.47, 0.49)),
    "navy": ((0.015, 0.025, 0.06), (0.07, 0.10, 0.18)),
}
"""Darkest and brightest colour of each palette; "strong" and "any" are made up by `draw_colour`."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What surfaces of one role are made of.

    Attributes:
        plain: probability of a plainly painted surface, which shows little but faint large-scale variation.
        kinds: kinds of patterns (`patterns.Pattern.kind`) and how common they are.
        palettes: names of palettes and how common they are; patterns that have colours of their own only lean to it.
        glossy: probability of a highlight.
    """

    plain: float
    kinds: Mapping[str, float]
    palettes: Mapping[str, float]
    glossy: float = 0.1


_WALL_COLOURS = {
    "white": 5,
    "cream": 3,
    "light grey": 2,
    "pale green": 0.7,
    "pale blue": 0.8,
    "pale red": 0.6,
    "grey": 0.6,
    "brown": 0.3,
    "strong": 0.25,
}
_STONE_COLOURS = {"light grey": 3, "grey": 3, "sand": 2, "brown": 1, "cream": 1}
_OBJECT_COLOURS = {
    "strong": 3,
    "white": 2,
    "grey": 1.5,
    "brown": 1.5,
    "dark": 1.2,
    "cream": 1,
    "pale wood": 1,
    "navy": 0.5,
    "green": 0.5,
    "terracotta": 0.7,
    "steel": 0.7,
}

LOOKS: Mapping[Role, Look] = {
    "wall": Look(
        plain=0.27,
        kinds={
            "plaster": 4,
            "concrete": 1,
            "brick": 1.2,
            "stones": 0.6,
            "tiles": 0.8,
            "stripes": 0.8,
            "wallpaper": 1.2,
            "planks": 0.6,
            "books": 0.7,
            "dirt": 0.5,
        },
        palettes=_WALL_COLOURS,
        glossy=0.05,
    ),
    "floor": Look(
        plain=0.08,
        kinds={"planks": 3, "tiles": 2, "carpet": 1.5, "rug": 1, "concrete": 1, "marble": 0.6, "stones": 0.5},
        palettes={"pale wood": 3, "brown": 3, "light grey": 2, "grey": 1.5, "sand": 1, "terracotta": 0.7, "cream": 0.7},
        glossy=0.3,
    ),
    "ceiling": Look(
        plain=0.45,
        kinds={"plaster": 3, "concrete": 1, "planks": 1, "tiles": 0.7},
        palettes={"white": 6, "cream": 2, "light grey": 1, "pale wood": 0.5},
        glossy=0.02,
    ),
    "furniture": Look(
        plain=0.2,
        kinds={"wood": 4, "planks": 1, "fabric": 1.5, "books": 1, "plaid": 0.4, "dirt": 0.4, "marble": 0.3},
        palettes={"pale wood": 4, "brown": 4, "white": 2, "dark": 1, "grey": 1, "cream": 1, "strong": 0.5},
        glossy=0.35,
    ),
    "object": Look(
        plain=0.2,
        kinds={
            "wood": 1,
            "print": 3,
            "text": 1,
            "collage": 1.5,
            "spots": 0.8,
            "stripes": 0.8,
            "plaid": 0.6,
            "fabric": 1,
            "marble": 0.6,
            "rust": 0.5,
            "leaves": 0.5,
            "noise": 1.5,
            "books": 0.5,
            "tiles": 0.3,
        },
        palettes=_OBJECT_COLOURS,
        glossy=0.4,
    ),
    "poster": Look(
        plain=0,
        kinds={"print": 5, "text": 2, "collage": 1, "scene": 2.5, "plaid": 0.2},
        palettes={"white": 6, "cream": 2, "strong": 1},
        glossy=0.1,
    ),
    "ground": Look(
        plain=0.03,
        kinds={"grass": 4, "gravel": 2, "earth": 2, "litter": 1, "stones": 1, "asphalt": 1, "rock": 0.7},
        palettes={"green": 2, "sand": 2, "brown": 2, "grey": 2},
        glossy=0,
    ),
    "facade": Look(
        plain=0.1,
        kinds={"windows": 3, "brick": 2.5, "plaster": 1.5, "stones": 1, "concrete": 1, "planks": 0.4},
        palettes={"cream": 3, "white": 2, "light grey": 2, "sand": 2, "pale red": 1, "brick red": 1.5, "terracotta": 1},
        glossy=0.03,
    ),
    "rock": Look(plain=0.02, kinds={"rock": 4, "marble": 0.5, "earth": 0.5, "gravel": 0.5}, palettes=_STONE_COLOURS),
    "foliage": Look(
        plain=0.02,
        kinds={"foliage": 5, "grass": 0.7, "litter": 0.4},
        palettes={"green": 1},
        glossy=0.1,
    ),
    "bark": Look(plain=0, kinds={"bark": 5, "wood": 0.5}, palettes={"brown": 3, "grey": 1}, glossy=0),
    "metal": Look(
        plain=0.35,
        kinds={"rust": 1.5, "brushed": 2.5, "dirt": 1},
        palettes={"steel": 5, "dark": 1, "white": 1, "strong": 1, "brown": 0.3},
        glossy=0.85,
    ),
    "road": Look(
        plain=0,
        kinds={"asphalt": 5, "cobbles": 1, "concrete": 1, "gravel": 0.5},
        palettes={"grey": 4, "dark": 2, "light grey": 1},
        glossy=0.03,
    ),
    "fabric": Look(
        plain=0.12,
        kinds={"fabric": 3, "plaid": 1.2, "stripes": 1, "spots": 0.7, "rug": 1, "carpet": 1},
        palettes={**_OBJECT_COLOURS, "strong": 2},
        glossy=0,
    ),
}


def draw_colour(random: Random, palettes: Mapping[str, float]) -> Colour:
    """A linear colour from one of the palettes."""
    (name,) = random.choices(list(palettes), list(palettes.values()))
    if name == "strong":
        return _strong(random)
    if name == "any":
        return (random.uniform(0.02, 0.9), random.uniform(0.02, 0.9), random.uniform(0.02, 0.9))
    low, high = PALETTES[name]
    along = random.random()
    red, green, blue = ((a + along * (b - a)) * random.uniform(0.94, 1.06) for a, b in zip(low, high, strict=True))
    return (red, green, blue)


def _strong(random: Random) -> Colour:
    """Paint, plastic or ink of any hue: saturated, though less than the pure colours of a screen."""
    encoded = colorsys.hsv_to_rgb(random.random(), random.uniform(0.45, 0.9), random.uniform(0.3, 0.9))
    red, green, blue = (max(channel, 0.1) ** 2.2 for channel in encoded)
    return (red, green, blue)
