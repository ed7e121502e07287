"""Patterns of built and woven things: brick, stone and tiled walls, boards, plaster, cloth, facades and roads."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from manyview.worlds.brushes import (
    TILE,
    Array,
    cells,
    grid,
    noise,
    over,
    plain,
    ramp,
    rectangle,
    relief,
    shades,
    speckled,
    warped,
)
from manyview.worlds.patterns_nature import wood_grain


def plaster(random: Generator, slope: float = 0.9, strength: float = 0.035) -> Array:
    """A plastered wall: low relief in raking light, and faint stains."""
    bumps = relief(noise(random, slope, 6), strength)
    return plain((0.6, 0.6, 0.6)) * (bumps * np.exp(0.02 * noise(random, 1.9, 1)))[..., None]


def concrete(random: Generator) -> Array:
    """Cast concrete: blotches, pores and the joints of four boards of formwork."""
    rows, _ = grid()
    pores = ramp(noise(random, 0.5, 20), 2.0, 2.6)
    joints = 1 - ramp(np.abs((rows * 4) % 1 - 0.5), 0.0, 0.02)
    boards = 1 + 0.05 * random.standard_normal(4)[(rows * 4 + 0.5).astype(int) % 4]
    picture = plain((0.36, 0.36, 0.35)) * (boards * np.exp(0.11 * noise(random, 1.4)))[..., None]
    return over(speckled(random, picture, 0.03), (0.12, 0.12, 0.12), np.clip(0.7 * pores + 0.35 * joints, 0, 1))


def courses(rows: int, columns: int, shift: float = 0.5) -> tuple[NDArray[np.int64], Array, Array]:
    """A wall of equal blocks: number of each texel's block, distance to its border along rows and columns (blocks)."""
    down, across = grid()
    row = down * rows
    column = across * columns + shift * (np.floor(row) % 2)
    number = np.floor(row).astype(int) * columns + np.floor(column).astype(int) % columns
    return number, 0.5 - np.abs(row % 1 - 0.5), 0.5 - np.abs(column % 1 - 0.5)


def bricks(random: Generator, rows: int, columns: int, brick: Array, mortar: Array, spread: float = 0.22) -> Array:
    """Bricks in running bond: each of its own shade, with worn edges and sandy mortar."""
    number, row_gap, column_gap = courses(rows, columns)
    worn = 0.12 * noise(random, 1.1, 6)
    face = ramp(np.minimum(row_gap / 0.11, column_gap / 0.11 * rows / columns) + worn, 0.35, 0.75)
    stones = (
        shades(random, brick, rows * columns, spread, 0.06)[number] * np.exp(0.13 * noise(random, 0.9, 4))[..., None]
    )
    joints = speckled(random, plain(mortar), 0.1)
    picture = over(joints, stones, face)
    return picture * relief(2.5 * face + 0.4 * noise(random, 0.8, 10), 0.12)[..., None]


def rubble(random: Generator, across: int, joint: float = 0.1, colour: Array | tuple = (0.31, 0.285, 0.25)) -> Array:
    """Irregular stones in mortar, bulging a little."""
    number, border = cells(random, across, 0.85)
    twist = 3 * noise(random, 2.0), 3 * noise(random, 2.0)
    border, number = warped(border, *twist), warped(number, *twist)
    face = ramp(border, 0.3 * joint, 1.4 * joint)
    stones = (
        shades(random, colour, across * across, 0.28, 0.08)[number] * np.exp(0.14 * noise(random, 1.0, 3))[..., None]
    )
    bulge = TILE / across * 0.35 * np.minimum(border, 0.45) ** 0.5
    return over(speckled(random, plain((0.3, 0.28, 0.25)), 0.1), stones, face) * relief(bulge, 0.3)[..., None]


def ashlar(random: Generator, rows: int = 6) -> Array:
    """Cut stones of different lengths in rows, with thin joints."""
    picture = plain((0.25, 0.235, 0.21))
    height = 1 / rows
    for row in range(rows):
        ends = np.sort(random.random(3)) * 0.6 + np.array([0, 0.17, 0.34])
        for left, right in zip(ends, [*ends[1:], ends[0] + 1], strict=True):
            where = rectangle(picture, row * height + 0.008, left, height - 0.012, right - left - 0.012)
            picture[where] = shades(random, (0.42, 0.39, 0.34), 1, 0.14, 0.04)[0]
    return speckled(random, picture * np.exp(0.1 * noise(random, 1.2, 2))[..., None], 0.05)


def tiles(random: Generator, across: int, spread: float, grout: float, checker: float = 0.0) -> Array:
    """Square tiles with grout; `spread` varies their shades, `checker` darkens every second one."""
    number, row_gap, column_gap = courses(across, across, 0)
    face = ramp(np.minimum(row_gap, column_gap) * TILE / across, grout * 0.5, grout * 0.5 + 1)
    odd = (number // across + number % across) % 2
    glaze = shades(random, (0.5, 0.5, 0.5), across * across, spread, 0.25 * spread)[number]
    glaze = glaze * (1 - checker * odd)[..., None] * np.exp(0.05 * noise(random, 1.4))[..., None]
    return over(speckled(random, plain((0.34, 0.33, 0.31)), 0.08), glaze, face)


def ornament(random: Generator, across: int = 4) -> Array:
    """Cement tiles: a motif of two colours with the symmetry of a square, the same on all."""
    rows, columns = grid()
    row, column = np.abs((rows * across) % 1 - 0.5), np.abs((columns * across) % 1 - 0.5)
    high, low = np.maximum(row, column), np.minimum(row, column)
    waves = random.uniform(6, 22, (3, 2))
    motif = np.sum([np.cos(a * high + b * low + c) for c, (a, b) in enumerate(waves)], axis=0)
    colours = shades(random, (0.35, 0.35, 0.36), 3, 0.6, 0.15)
    picture = over(plain(colours[0]), colours[1], ramp(motif, 0.2, 0.3))
    picture = over(picture, colours[2], ramp(motif, -0.9, -1.0))
    joint = 1 - ramp(0.5 - high, 0.005, 0.02)
    return over(picture, (0.3, 0.29, 0.27), joint) * np.exp(0.1 * noise(random, 1.3))[..., None]


def planks(random: Generator, boards: int, pieces: int = 2, upright: bool = False) -> Array:
    """Boards side by side, each cut from another place of the wood, with dark gaps and staggered ends."""
    rows, columns = grid()
    board = np.floor(rows * boards).astype(int)
    along = columns + random.random(boards)[board]
    piece = board * pieces + np.floor(along * pieces).astype(int) % pieces
    grain = wood_grain(random, boards * 5, 0.8)
    steps = random.integers(0, TILE, boards * pieces)
    grain = grain[np.arange(TILE)[:, None], (np.arange(TILE)[None] + steps[piece]) % TILE]
    tone = shades(random, (0.36, 0.25, 0.155), boards * pieces, 0.17, 0.05)[piece]
    gap = np.minimum(
        0.5 - np.abs((rows * boards) % 1 - 0.5), (0.5 - np.abs((along * pieces) % 1 - 0.5)) * boards / pieces
    )
    picture = tone * np.stack([grain**power for power in (0.85, 1.05, 1.3)], axis=-1)
    picture = over(picture, (0.05, 0.035, 0.025), 0.85 * (1 - ramp(gap, 0.01, 0.045)))
    return picture.transpose(1, 0, 2) if upright else picture


def parquet(random: Generator, blocks: int = 6, strips: int = 4) -> Array:
    """Squares of parallel strips of wood, turned by a right angle from one to the next."""
    rows, columns = grid()
    turned = (np.floor(rows * blocks) + np.floor(columns * blocks)) % 2 == 1
    across = np.where(turned, columns, rows) * blocks * strips
    ends = np.where(turned, rows, columns) * blocks
    number = np.floor(across).astype(int) * blocks + np.floor(ends).astype(int) + turned * blocks * blocks * strips
    flat = noise(random, 0.8, 3, (0.3, 6))
    grain = np.exp(0.13 * np.where(turned, flat.T, flat))
    tone = shades(random, (0.33, 0.215, 0.125), number.max() + 1, 0.16, 0.05)[number] * grain[..., None]
    gap = np.minimum(0.5 - np.abs(across % 1 - 0.5), strips * (0.5 - np.abs(ends % 1 - 0.5)))
    return over(tone, (0.06, 0.04, 0.03), 0.7 * (1 - ramp(gap, 0.02, 0.12)))


def weave(random: Generator, threads: int = 64, twill: int = 2) -> Array:
    """Cloth: threads over and under each other, of uneven thickness."""
    rows, columns = grid()
    row, column = rows * threads, columns * threads
    warp_above = (np.floor(row) + np.floor(column)) % (2 * twill) < twill
    thread = np.where(warp_above, np.sin(np.pi * (column % 1)), np.sin(np.pi * (row % 1)))
    uneven = 0.5 * noise(random, 0.7, 6, (0.15, 8)) + 0.5 * noise(random, 0.7, 6, (8, 0.15))
    tone = 0.35 * np.exp(0.35 * (thread - 0.6) + 0.08 * uneven + np.where(warp_above, 0.06, -0.06))
    return tone[..., None] * np.array([1.0, 1.0, 1.0]) * np.exp(0.04 * noise(random, 1.7, 1))[..., None]


def knit(random: Generator, across: int = 20) -> Array:
    """Knitted wool: columns of V-shaped loops."""
    rows, columns = grid()
    column = np.abs((columns * across) % 1 - 0.5) * 2
    loop = (rows * across * 1.5 + 0.8 * column) % 1
    tone = np.sin(np.pi * loop) * (0.35 + 0.65 * np.sin(np.pi * np.clip(column, 0, 1)))
    return plain((0.4, 0.4, 0.4)) * np.exp(0.7 * (tone - 0.5) + 0.1 * noise(random, 0.6, 10))[..., None]


def bands(random: Generator, count: int, spread: float) -> Array:
    """(TILE, 3): stripes of different widths in few colours."""
    colours = shades(random, (0.4, 0.4, 0.4), 4, spread, 0.18).clip(0.02, 0.85)
    ends = np.sort(random.random(count))
    return colours[random.integers(0, 4, count)[np.digitize((np.arange(TILE) + 0.5) / TILE, ends) % count]]


def stripes(random: Generator, count: int) -> Array:
    """Upright stripes of wallpaper or cloth."""
    picture = np.broadcast_to(bands(random, count, 0.35)[None], (TILE, TILE, 3))
    return speckled(random, picture * np.exp(0.02 * noise(random, 1.5))[..., None], 0.02)


def plaid(random: Generator, count: int) -> Array:
    """Tartan: the same stripes both ways, woven into each other."""
    stripe = bands(random, count, 0.6)
    rows, columns = np.indices((TILE, TILE))
    above = ((rows + columns) // 2 % 2)[..., None]
    mixed = 0.5 * (stripe[:, None] + stripe[None])
    return speckled(random, mixed + 0.18 * (above - 0.5) * (stripe[:, None] - stripe[None]), 0.04)


def carpet(random: Generator) -> Array:
    """Short pile: fine grain and patches brushed in different directions."""
    pile = 0.16 * noise(random, 0.1) + 0.08 * noise(random, 1.0, 8) + 0.07 * noise(random, 1.9, 2)
    return plain((0.3, 0.3, 0.3)) * np.exp(pile)[..., None] * np.exp(0.03 * np.stack([noise(random, 0.3)] * 3, axis=-1))


def rug(random: Generator) -> Array:
    """An oriental rug: symmetrical figures in reds, blues and creams inside a border."""
    rows, columns = grid()
    row, column = np.abs(rows - 0.5), np.abs(columns - 0.5)
    index = (row * 2 * TILE * 0.49).astype(int), (column * 2 * TILE * 0.49).astype(int)
    figures = np.digitize(noise(random, 1.3, 4)[index], [-0.9, -0.1, 0.5, 1.2])
    dyes = np.array(
        [[0.20, 0.035, 0.03], [0.03, 0.045, 0.10], [0.45, 0.36, 0.24], [0.28, 0.08, 0.05], [0.12, 0.07, 0.04]]
    )
    dyes = dyes * shades(random, (1, 1, 1), 5, 0.2, 0.1)
    edge = np.maximum(row, column)
    picture = dyes[figures]
    for start, end, dye in ((0.36, 0.375, 2), (0.455, 0.465, 1), (0.465, 0.5, 0)):
        picture[(edge >= start) & (edge < end)] = dyes[dye]
    ring = (edge >= 0.375) & (edge < 0.455)
    picture[ring] = dyes[(figures[ring] + 1) % 5] * 0.9
    return speckled(random, picture, 0.13, 0.1)


def wallpaper(random: Generator, across: int = 3, contrast: float = 0.3) -> Array:
    """A mirrored plant-like figure in one tone, repeated with an offset of half a figure."""
    rows, columns = grid()
    column = columns * across
    row = rows * across * 0.75 + 0.5 * (np.floor(column) % 2) if across % 2 == 0 else rows * across
    mirrored = np.abs(column % 1 - 0.5) * 2
    source = noise(random, 1.5, 3)
    size = TILE // across
    figure = source[((row % 1) * size).astype(int) % TILE, (mirrored * size * 0.5).astype(int)]
    envelope = np.sin(np.pi * (row % 1)) * (1 - mirrored**2)
    cover = ramp(figure + 1.4 * envelope, 0.9, 1.1)
    paper = shades(random, (0.5, 0.5, 0.5), 2, contrast, 0.08)
    return speckled(random, over(plain(paper[0]), paper[1], cover), 0.02)


def windows(random: Generator, floors: int, across: int, brick: bool = False) -> Array:
    """A facade: rows of windows with frames, cross-bars, sills and curtains, and a ledge between the floors."""
    wall = bricks(random, 48, 24, np.array([0.3, 0.14, 0.1]), np.array([0.4, 0.38, 0.34])) if brick else plaster(random)
    wall = wall * np.exp(0.06 * noise(random, 1.6, 1))[..., None]
    frame = shades(random, (0.6, 0.58, 0.54), 1, 0.3)[0]
    height, width = 1 / floors, 1 / across
    for floor in range(floors):
        wall[rectangle(wall, floor * height, 0, 0.03 * height, 1)] *= 0.75
        for number in range(across):
            _paint_window(
                random, wall, (floor + 0.22) * height, (number + 0.27) * width, 0.58 * height, 0.46 * width, frame
            )
    return wall


def _paint_window(
    random: Generator, wall: Array, top: float, left: float, height: float, width: float, frame: Array
) -> None:
    texel = 1 / TILE
    wall[rectangle(wall, top - 2 * texel, left - 2 * texel, height + 4 * texel, width + 4 * texel)] = frame
    wall[rectangle(wall, top + height + 2 * texel, left - 3 * texel, 2 * texel, width + 6 * texel)] *= 0.6
    glass = shades(random, (0.06, 0.075, 0.09), 1, 0.5, 0.05)[0]
    wall[rectangle(wall, top, left, height, width)] = glass
    wall[rectangle(wall, top, left, height * random.uniform(0.2, 0.6), width)] = glass * random.uniform(1, 3)
    if random.random() < 0.4:
        wall[rectangle(wall, top, left, height * random.uniform(0.2, 1), width)] = shades(
            random, (0.4, 0.37, 0.32), 1, 0.3
        )[0]
    wall[rectangle(wall, top, left + width / 2 - texel / 2, height, texel)] = frame
    wall[rectangle(wall, top + 0.35 * height, left, texel, width)] = frame


def asphalt(random: Generator, cracks: float = 0.0) -> Array:
    """Grit in bitumen, patched and sometimes cracked."""
    _, border = cells(random, 3, 1.0)
    grit = np.exp(0.22 * noise(random, 0.15) + 0.08 * noise(random, 1.6, 2))
    road = plain((0.13, 0.13, 0.128)) * grit[..., None]
    torn = 1 - ramp(warped(border, 9 * noise(random, 1.5), 9 * noise(random, 1.5)), 0.0, 0.07)
    return over(road, (0.03, 0.03, 0.03), cracks * torn)


def setts(random: Generator, rows: int = 12) -> Array:
    """Paving of small cut stones with sunken joints."""
    number, row_gap, column_gap = courses(rows, rows)
    gap = np.minimum(row_gap, column_gap) + 0.02 * noise(random, 1.2, 4)
    stones = (
        shades(random, (0.27, 0.26, 0.25), rows * rows, 0.2, 0.05)[number]
        * np.exp(0.14 * noise(random, 0.8))[..., None]
    )
    return (
        over(plain((0.08, 0.075, 0.065)), stones, ramp(gap, 0.03, 0.13))
        * relief(8 * np.minimum(gap, 0.3), 0.15)[..., None]
    )


def brushed(random: Generator) -> Array:
    """Metal ground in one direction: fine long scratches."""
    scratches = noise(random, 0.4, 4, (0.1, 14))
    return plain((0.4, 0.4, 0.4)) * np.exp(0.10 * scratches + 0.06 * noise(random, 1.7, 1))[..., None]
