"""Patterns of printed and coloured things: text, posters, collages, books on shelves and spots."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from manyview.worlds.brushes import (
    TILE,
    Array,
    grid,
    noise,
    over,
    plain,
    ramp,
    rectangle,
    shades,
    speckled,
    stamp_ellipse,
    vivid,
)
from manyview.worlds.patterns_nature import bouquet, confetti, landscape


def write_line(random: Generator, picture: Array, top: int, left: int, width: int, size: int, ink: Array) -> None:
    """Marks like letters in words along a line, in place; all measures in texels, `size` is that of a capital."""
    column, word = left, 0
    while column < left + width - size // 2:
        if word == 0:
            word = int(random.integers(2, 10))
            column += max(2, size // 2)
            continue
        letter = max(1, round(size * random.uniform(0.35, 0.75)))
        _write_letter(random, picture, top, column, letter, size, ink)
        column += letter + max(1, size // 6)
        word -= 1


def _write_letter(random: Generator, picture: Array, top: int, left: int, width: int, size: int, ink: Array) -> None:
    """An upright stroke or two and a cross stroke; capitals and small letters."""
    height = size if random.random() < 0.3 else max(2, round(0.7 * size))
    stroke = max(1, size // 6)
    first = top + size - height
    rows = np.arange(first, top + size)[:, None] % TILE
    picture[rows, (left + np.arange(stroke))[None] % TILE] = ink
    if random.random() < 0.5:
        picture[rows, (left + width - 1 - np.arange(stroke))[None] % TILE] = ink
    for level in random.choice((0.0, 0.45, 0.95), 2):
        row = first + int(level * max(height - stroke, 0))
        picture[np.arange(row, row + stroke)[:, None] % TILE, np.arange(left, left + width)[None] % TILE] = ink


def write_block(random: Generator, picture: Array, box: tuple[int, int, int, int], size: int, ink: Array) -> None:
    """Paragraphs of text that fill a box (top, left, height, width) in texels, in place."""
    top, left, height, width = box
    line = top
    while line + size < top + height:
        last_of_paragraph = random.random() < 0.2
        write_line(
            random,
            picture,
            line,
            left,
            round(width * random.uniform(0.3, 0.8) if last_of_paragraph else width),
            size,
            ink,
        )
        line += round(size * (2.6 if last_of_paragraph else 1.6))


def text_page(random: Generator, size: int = 5, columns: int = 1) -> Array:
    """A page: a title, and paragraphs in columns; some have a picture."""
    picture = speckled(random, plain(shades(random, (0.72, 0.70, 0.65), 1, 0.08)[0]), 0.01)
    ink = shades(random, (0.04, 0.04, 0.045), 1, 0.3)[0]
    write_line(random, picture, 14, 14, TILE - 30, 3 * size, ink)
    width = (TILE - 28) // columns
    for number in range(columns):
        left = 14 + number * width
        top = 34 + 2 * size
        if columns > 1 and number % 2 == 0:
            photo = landscape(random)[::3, ::3][: TILE // 5, : width - 8]
            picture[top : top + photo.shape[0], left : left + photo.shape[1]] = photo
            top += photo.shape[0] + size
        write_block(random, picture, (top, left, TILE - 14 - top, width - 8), size, ink)
    return picture


def poster(random: Generator, photo: bool = True) -> Array:
    """A poster: a ground with a colour gradient, big shapes or a photograph, a title, and small print."""
    rows, columns = grid()
    ground, other, ink, accent = vivid(random, 4)
    picture = over(plain(ground), other, ramp(rows * random.uniform(0.3, 1) + columns * random.uniform(0, 0.6), 0, 1.2))
    for _ in range(int(random.integers(2, 6))):
        size = random.uniform(0.06, 0.28)
        stamp_ellipse(
            picture,
            random.random(2),
            (size, size * random.uniform(0.5, 1)),
            random.uniform(0, 3),
            vivid(random, 1)[0],
            0.2,
        )
    if photo:
        subject = (landscape, bouquet, confetti)[int(random.integers(3))](random)
        top, left = int(random.integers(20, 90)), int(random.integers(10, 40))
        height, width = int(random.integers(90, 140)), TILE - 2 * left
        picture[top : top + height, left : left + width] = subject[top : top + height, left : left + width]
    ink = ink * 0.2 if picture.mean() > 0.2 else 0.7 + 0.2 * ink
    title = int(random.integers(16, 34))
    write_line(random, picture, int(random.integers(4, 14)), 8, TILE - 20, title, ink)
    write_block(
        random,
        picture,
        (TILE - 64, 16, 52, TILE - 40),
        int(random.integers(4, 8)),
        accent * 0.3 if ink.mean() < 0.2 else ink,
    )
    return picture


def package(random: Generator) -> Array:
    """Printed cardboard as on boxes of goods: panels in two or three colours, a logo, lines of text, a bar code."""
    first, second, third = vivid(random, 3)
    light, dark = np.full(3, 0.75), np.full(3, 0.04)
    picture = plain(first)
    picture[rectangle(picture, random.uniform(0, 0.3), 0, random.uniform(0.15, 0.4), 1)] = second
    centre, size = random.uniform(0.3, 0.7, 2), random.uniform(0.1, 0.2)
    stamp_ellipse(picture, centre, (1.6 * size, size), 0, third, 0.3)
    write_line(
        random, picture, int(centre[0] * TILE) - 12, int((centre[1] - size) * TILE), int(2.4 * size * TILE), 26, light
    )
    write_block(random, picture, (180, 14, 60, 130), 5, light if first.mean() < 0.3 else dark)
    picture[rectangle(picture, 0.72, 0.66, 0.2, 0.26)] = light
    bars = np.repeat(random.random(30) < 0.5, 2)
    code = picture[188:226, 172:232]
    code[:, bars[: code.shape[1]]] = dark
    return speckled(random, picture, 0.01)


def notices(random: Generator, count: int = 26) -> Array:
    """A pin board: sheets of paper, cards and photographs over each other."""
    picture, view = speckled(random, plain((0.33, 0.21, 0.11)), 0.2, 0.2), landscape(random)
    for _ in range(count):
        height, width = random.uniform(0.1, 0.35), random.uniform(0.1, 0.3)
        top, left = random.random(2)
        rows, columns = rectangle(picture, top, left, height, width)
        picture[(rows + 2) % TILE, (columns + 2) % TILE] *= 0.5
        kind = random.random()
        if kind < 0.3:
            picture[rows, columns] = view[np.arange(len(rows))[:, None] * 2 % TILE, columns]
            continue
        paper = np.array([0.72, 0.71, 0.68]) if kind < 0.75 else vivid(random, 1)[0]
        picture[rows, columns] = paper
        box = (int(rows[0, 0]) + 4, int(columns[0, 0]) + 3, len(rows) - 8, columns.size - 6)
        write_block(random, picture, box, int(random.integers(3, 7)), paper * 0.12)
    return picture


def collage(random: Generator, count: int) -> Array:
    """Rectangles of random size and colour over each other, each with a gradient."""
    picture = plain((0.4, 0.4, 0.4))
    colours = vivid(random, count)
    for colour in colours:
        height, width = 0.03 + 1.1 * random.random(2) ** 2 / count**0.35
        top, left = random.random(2)
        rows, columns = rectangle(picture, top, left, min(height, 0.95), min(width, 0.95))
        shade = np.linspace(1, random.uniform(0.6, 1.4), rows.size)[:, None, None]
        picture[rows, columns] = np.clip(colour * shade, 0.02, 0.9)
    return speckled(random, picture, 0.03)


def books(random: Generator, shelves: int = 3) -> Array:
    """Shelves of books: spines of different heights, widths and colours with titles, some gaps and lying stacks."""
    picture = plain((0.035, 0.028, 0.022))
    height = TILE // shelves
    for shelf in range(shelves):
        bottom = (shelf + 1) * height - 6
        left = 0
        while left < TILE:
            width = min(int(random.integers(5, 19)), TILE - left)
            tall = int(height * random.uniform(0.6, 0.88))
            if random.random() < 0.9:
                _paint_spine(random, picture[bottom - tall : bottom, left : left + width])
            left += width
        board = speckled(random, plain((0.3, 0.2, 0.12)), 0.08)[: 6 if shelf < shelves - 1 else TILE - bottom]
        picture[bottom : bottom + len(board)] = board
        picture[bottom + len(board) - 2 : bottom + len(board)] *= 0.5
    return picture


def _paint_spine(random: Generator, spine: Array) -> None:
    """Round back, title along the spine, bands."""
    height, width = spine.shape[:2]
    cloth, ink = vivid(random, 2)
    ink = 0.6 + 0.2 * ink if cloth.mean() < 0.25 else ink * 0.2
    curve = 1 - 0.45 * np.abs(np.linspace(-1, 1, width)) ** 2
    spine[:] = cloth * curve[None, :, None]
    first, last = int(height * random.uniform(0.1, 0.3)), int(height * random.uniform(0.6, 0.9))
    letters = random.random(last - first) < 0.6
    middle, half = width // 2, max(1, width // 5)
    spine[first:last, middle - half : middle + half][letters] = ink
    if random.random() < 0.5:
        spine[int(0.06 * height) : int(0.06 * height) + 2] = ink
        spine[int(0.93 * height) : int(0.93 * height) + 2] = ink


def spots(random: Generator, count: int) -> Array:
    """Dots of similar size and few colours on a plain ground, as on cloth and cups."""
    colours = vivid(random, 4)
    picture = plain(0.5 + 0.5 * colours[0])
    for number in range(count):
        size = random.uniform(0.3, 1) * 0.4 / count**0.5
        stamp_ellipse(picture, random.random(2), (size, size), 0, colours[1 + number % 3])
    return picture * np.exp(0.03 * noise(random, 1.5))[..., None]
