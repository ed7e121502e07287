"""What patterns are painted with: seamless noise, cells, stamps and shades, as arrays of (TILE, TILE) texels.

A tile's edges meet: everything wraps round. Rows go down, columns to the right, and colours are linear reflectances.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

TILE = 256
"""Texels along each side of a pattern."""

Array = NDArray[np.float64]


def grid() -> tuple[Array, Array]:
    """Row and column (TILE, TILE) of each texel's centre, in tiles."""
    steps = (np.arange(TILE) + 0.5) / TILE
    return np.repeat(steps[:, None], TILE, 1), np.repeat(steps[None], TILE, 0)


def noise(random: Generator, slope: float, lowest: float = 2, stretch: tuple[float, float] = (1, 1)) -> Array:
    """(TILE, TILE): Gaussian noise whose amplitude falls with frequency^-slope; zero mean, unit deviation.

    Args:
        random: source of random numbers.
        slope: 0 is white; natural pictures have about 1; large ones are smooth.
        lowest: frequency (cycles a tile) below which the amplitude stays constant.
        stretch: factor on the size of features along rows and columns.
    """
    frequency = np.fft.fftfreq(TILE) * TILE
    radius = np.hypot(frequency[:, None] * stretch[0], frequency[None] * stretch[1])
    amplitude = np.maximum(radius, lowest) ** -slope
    amplitude[0, 0] = 0
    field = np.fft.ifft2(np.fft.fft2(random.standard_normal((TILE, TILE))) * amplitude).real
    return field / field.std()


def warped(picture: NDArray, down: Array, across: Array) -> NDArray:
    """The picture with each texel fetched from some texels further down and across (nearest neighbour)."""
    steps = np.arange(TILE)
    rows = np.rint(steps[:, None] + down).astype(int) % TILE
    columns = np.rint(steps[None] + across).astype(int) % TILE
    return picture[rows, columns]


def cells(
    random: Generator, across: int, jitter: float = 0.8, down: int | None = None
) -> tuple[NDArray[np.int64], Array]:
    """Cells around points on a jittered lattice: number (TILE, TILE) of each texel's cell, and distance to its border.

    The distance is in cells, 0 at the border and about 0.5 in the middle (Worley, 1996: second less first distance).
    """
    down = down or across
    offset = 0.5 + jitter * (random.random((down, across, 2)) - 0.5)
    rows, columns = grid()
    rows, columns = rows * down, columns * across
    distances, numbers = [], []
    for row_step in (-1, 0, 1):
        for column_step in (-1, 0, 1):
            row, column = np.floor(rows) + row_step, np.floor(columns) + column_step
            cell = (row % down).astype(int), (column % across).astype(int)
            distances.append(np.hypot(row + offset[cell][..., 0] - rows, column + offset[cell][..., 1] - columns))
            numbers.append(cell[0] * across + cell[1])
    order = np.stack(distances)
    nearest = order.argmin(0)
    closest = np.partition(order, 1, axis=0)
    return np.choose(nearest, numbers), closest[1] - closest[0]


def shades(random: Generator, colour: Sequence[float] | Array, count: int, spread: float, hue: float = 0.04) -> Array:
    """(count, 3): variations of a colour in brightness (relative deviation `spread`) and in hue.

    Hues vary from warm to cool, as the hues of one material do, and hardly between green and purple.
    """
    brightness = np.exp(spread * random.standard_normal((count, 1)))
    warmth = random.standard_normal((count, 1)) * np.array([0.9, 0.0, -1.1])
    return np.asarray(colour) * brightness * np.exp(hue * (warmth + 0.2 * random.standard_normal((count, 3))))


DYES = np.array(
    [
        *[[0.75, 0.74, 0.71], [0.55, 0.50, 0.40], [0.30, 0.30, 0.29], [0.10, 0.10, 0.10], [0.03, 0.03, 0.035]],
        *[[0.42, 0.05, 0.04], [0.25, 0.03, 0.04], [0.55, 0.16, 0.03], [0.62, 0.40, 0.05], [0.20, 0.11, 0.06]],
        *[[0.05, 0.16, 0.05], [0.15, 0.28, 0.12], [0.03, 0.07, 0.24], [0.06, 0.18, 0.42], [0.25, 0.40, 0.50]],
        *[[0.02, 0.03, 0.07], [0.06, 0.24, 0.25], [0.16, 0.05, 0.18], [0.55, 0.33, 0.30], [0.42, 0.29, 0.16]],
    ]
)
"""Linear colours of common inks, cloths and plastics."""


def vivid(random: Generator, count: int) -> Array:
    """(count, 3): colours of prints and goods, from greys to strong ones."""
    chosen = DYES[random.integers(0, len(DYES), count)]
    return np.clip(np.concatenate([shades(random, dye, 1, 0.25, 0.1) for dye in chosen]), 0.02, 0.88)


def over(below: Array, above: Sequence[float] | Array, cover: Array) -> Array:
    """`above` painted over `below` where the (TILE, TILE) cover is 1, mixed in between."""
    return below + (np.asarray(above) - below) * cover[..., None]


def ramp(value: Array, start: float, end: float) -> Array:
    """0 up to `start`, 1 from `end` on, a smooth step in between."""
    along = np.clip((value - start) / (end - start), 0, 1)
    return along * along * (3 - 2 * along)


def relief(height: Array, strength: float) -> Array:
    """Factor (TILE, TILE) on the brightness of a bumpy surface (height in texels) lit from above and the left."""
    down = np.roll(height, -1, 0) - np.roll(height, 1, 0)
    across = np.roll(height, -1, 1) - np.roll(height, 1, 1)
    return np.clip(1 + strength * (0.8 * down + 0.5 * across), 0.35, 1.8)


def plain(colour: Sequence[float] | Array) -> Array:
    """(TILE, TILE, 3) of one colour."""
    return np.broadcast_to(np.asarray(colour, dtype=np.float64), (TILE, TILE, 3)).copy()


def speckled(random: Generator, picture: Array, strength: float, slope: float = 0.3) -> Array:
    """The picture with fine grain of a relative deviation."""
    return picture * np.clip(1 + strength * noise(random, slope), 0.1, 3)[..., None]


def rectangle(picture: Array, top: float, left: float, height: float, width: float) -> tuple[NDArray, NDArray]:
    """Index of the texels of a rectangle (measures in tiles, at least one texel), which may cross the edges."""
    rows = np.arange(round(top * TILE), round(top * TILE) + max(1, round(height * TILE))) % len(picture)
    columns = np.arange(round(left * TILE), round(left * TILE) + max(1, round(width * TILE))) % len(picture)
    return rows[:, None], columns[None]


def stamp_ellipse(
    picture: Array,
    centre: Sequence[float] | Array,
    axes: tuple[float, float],
    angle: float,
    colour: Array,
    bulge: float = 0.0,
) -> None:
    """Paint an ellipse into the picture, in place.

    Args:
        picture: (TILE, TILE, 3).
        centre: (row, column), tiles.
        axes: half length and half width, tiles.
        angle: of the length to the rows' direction, radians.
        colour: (3,).
        bulge: how much brighter the upper left is than the lower right, as on a pebble or a bent leaf.
    """
    reach = int(max(axes) * TILE) + 2
    row, column = int(centre[0] * TILE), int(centre[1] * TILE)
    steps = np.arange(-reach, reach + 1)
    index = ((row + steps) % TILE)[:, None], ((column + steps) % TILE)[None]
    cosine, sine = np.cos(angle), np.sin(angle)
    down, across = steps[:, None] / TILE, steps[None] / TILE
    along, aside = (cosine * across + sine * down) / axes[0], (cosine * down - sine * across) / axes[1]
    distance = np.sqrt(along * along + aside * aside)
    cover = np.clip((1 - distance) * min(axes) * TILE + 0.5, 0, 1)[..., None]
    shading = 1 - bulge * (down + across) / max(axes)
    below = picture[index]
    picture[index] = below + (colour * shading[..., None] - below) * cover
