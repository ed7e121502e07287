"""Furniture, trees, cars and pieces of buildings, built from boxes and round shapes. Half sizes in metres."""

from __future__ import annotations

import math

from manyview.worlds.builder import Builder, Place, one_thing, shape
from manyview.worlds.description import Relief, Tool
from manyview.worlds.materials import Material
from manyview.worlds.objects import anything


@one_thing
def table(build: Builder, place: Place) -> None:
    """A table with things on it."""
    wide, deep, high = build.between(0.4, 0.9), build.between(0.3, 0.6), build.between(0.3, 0.42)
    bare_table(build, place, (wide, deep, high))
    for _ in range(build.random.randint(0, 4)):
        spot = (build.between(-0.85, 0.85) * wide, build.between(-0.85, 0.85) * deep, 2 * high + 0.025)
        anything(build, place.there(spot, build.between(-math.pi, math.pi)), build.log_between(0.05, 0.18))


@one_thing
def bare_table(build: Builder, place: Place, half: tuple[float, float, float]) -> None:
    """A top on four legs; its upper side is 2.5 cm above the box of these half sizes."""
    wide, deep, high = half
    paint = build.paint("furniture")
    build.box(place, (0, 0, 2 * high), (wide, deep, 0.025), paint)
    legs(build, place, (wide - 0.05, deep - 0.05), high, paint)


def legs(build: Builder, place: Place, reach: tuple[float, float], high: float, paint: Material) -> None:
    """Four thin legs, square or round."""
    kind = "box" if build.chance(0.6) else "cylinder"
    thin = build.between(0.015, 0.04)
    for x in (-reach[0], reach[0]):
        for y in (-reach[1], reach[1]):
            build.add(kind, place, (x, y, high), (thin, thin, high), paint)


@one_thing
def chair(build: Builder, place: Place) -> None:
    """Seat, back and legs."""
    paint, half, seat = build.paint("furniture"), build.between(0.18, 0.26), build.between(0.2, 0.24)
    build.box(place, (0, 0, 2 * seat), (half, half, 0.03), paint)
    build.box(place, (0, half, 2 * seat + 0.25), (half, 0.025, 0.25), paint)
    legs(build, place, (half - 0.03, half - 0.03), seat, paint)


@one_thing
def shelf(build: Builder, place: Place) -> None:
    """Boards between two sides, with books and things on them."""
    wide, deep = build.between(0.35, 0.8), build.between(0.12, 0.2)
    boards, gap = build.random.randint(2, 5), build.between(0.25, 0.4)
    high = boards * gap / 2
    paint = build.paint("furniture")
    for side in (-wide, wide):
        build.box(place, (side, 0, high), (0.015, deep, high), paint)
    build.box(place, (0, deep, high), (wide, 0.01, high), paint)
    for board in range(boards + 1):
        build.box(place, (0, 0, board * gap), (wide, deep, 0.012), paint)
    for board in range(boards):
        spot = place.there((build.between(-0.6, 0.6) * wide, 0, board * gap + 0.012))
        if build.chance(0.5):
            row = build.between(0.3, 0.9) * wide
            build.box(spot, (0, 0, 0.12), (min(row, wide - 0.1), 0.6 * deep, 0.12), build.paint("poster"))
        else:
            anything(build, spot, build.between(0.08, 0.13))


@one_thing
def cabinet(build: Builder, place: Place) -> None:
    """A large box, sometimes with something on top."""
    half = (build.between(0.3, 0.8), build.between(0.2, 0.35), build.between(0.3, 1.0))
    paint = build.paint("furniture")
    build.box(place, (0, 0, half[2]), half, paint)
    for door in range(2):
        build.box(place, ((door - 0.5) * half[0], -half[1], half[2]), (0.46 * half[0], 0.015, 0.9 * half[2]), paint)
    if build.chance(0.6):
        anything(build, place.there((0, 0, 2 * half[2])), build.between(0.1, 0.2))


@one_thing
def sofa(build: Builder, place: Place) -> None:
    """Seat, back, arms and cushions."""
    wide, paint = build.between(0.5, 1.1), build.paint("fabric")
    build.box(place, (0, 0, 0.22), (wide, 0.4, 0.22), paint)
    build.box(place, (0, 0.4, 0.42), (wide, 0.1, 0.42), paint)
    for side in (-wide, wide):
        build.box(place, (side, 0, 0.3), (0.1, 0.45, 0.3), paint)
    for _ in range(build.random.randint(0, 2)):
        spot = (build.between(-0.7, 0.7) * wide, 0.2, 0.6)
        build.add("ball", place, spot, (0.2, 0.09, 0.2), build.paint("fabric"), tilt=-0.3)


@one_thing
def lamp(build: Builder, place: Place) -> None:
    """A thin pole with a shade."""
    high = build.between(0.5, 0.8)
    build.add("cylinder", place, (0, 0, high), (0.015, 0.015, high), build.paint("metal"))
    build.add("cylinder", place, (0, 0, 0.02), (0.15, 0.15, 0.02), build.paint("metal"))
    radius = build.between(0.12, 0.25)
    build.add("cylinder", place, (0, 0, 2 * high), (radius, radius, 0.15), build.paint("fabric"))


@one_thing
def plant(build: Builder, place: Place) -> None:
    """Leaves on stems in a pot."""
    build.add("cylinder", place, (0, 0, 0.15), (0.15, 0.15, 0.15), build.paint("object"))
    for _ in range(build.random.randint(2, 4)):
        x, y, z = build.between(-0.1, 0.1), build.between(-0.1, 0.1), build.between(0.4, 0.9)
        half, paint = tuple3(build, 0.12, 0.3), build.paint("foliage")
        build.add("ball", place, (x, y, z), half, paint)
        build.add("cylinder", place, (x, y, z / 2), (0.01, 0.01, z / 2), paint)


def tuple3(build: Builder, low: float, high: float) -> tuple[float, float, float]:
    """Three half sizes."""
    return build.between(low, high), build.between(low, high), build.between(low, high)


FURNITURE = (table, table, chair, chair, shelf, cabinet, sofa, lamp, plant)


@one_thing
def tree(build: Builder, place: Place) -> None:
    """A trunk with a crown of ellipsoids."""
    high, radius = build.between(0.7, 1.8), build.between(0.06, 0.2)
    build.add(
        "cylinder", place, (0, 0, high), (radius, radius, high), build.paint("bark"), tilt=build.between(-0.1, 0.1)
    )
    paint = build.paint("foliage")
    for _ in range(build.random.randint(2, 5)):
        spot = (build.between(-0.6, 0.6), build.between(-0.6, 0.6), 2 * high + build.between(-0.4, 0.7))
        build.add("ball", place, spot, tuple3(build, 0.4, 0.9), paint)


def bush(build: Builder, place: Place) -> None:
    """Ellipsoids of leaves on the ground."""
    paint = build.paint("foliage")
    for _ in range(build.random.randint(1, 3)):
        build.add(
            "ball", place, (build.between(-0.3, 0.3), build.between(-0.3, 0.3), 0.15), tuple3(build, 0.25, 0.6), paint
        )


def rock(build: Builder, place: Place) -> None:
    """A tilted ball or block, partly in the ground, sometimes cut flat."""
    half = tuple3(build, 0.2, 0.9)
    kind = "ball" if build.chance(0.6) else "box"
    flat = shape("box", place, (0, 0, -0.2), (2, 2, 0.5 + 0.5 * half[2]), yaw=build.between(-3, 3), tilt=0.4)
    tools = (Tool(flat, cuts=False),) if build.chance(0.5) else ()
    turns = {"yaw": build.between(-3, 3), "tilt": build.between(-0.6, 0.6)}
    build.add(kind, place, (0, 0, 0.2 * half[2]), half, build.paint("rock"), tools=tools, **turns)


@one_thing
def pole(build: Builder, place: Place) -> None:
    """A street lamp or a sign post."""
    high, thin = build.between(1.0, 2.2), build.between(0.03, 0.07)
    build.add("cylinder", place, (0, 0, high), (thin, thin, high), build.paint("metal"))
    if build.chance(0.6):
        half = (build.between(0.15, 0.4), 0.02, build.between(0.15, 0.4))
        build.box(place, (0, -thin, 2 * high - half[2]), half, build.paint("poster"))


@one_thing
def bench(build: Builder, place: Place) -> None:
    """Planks on two blocks."""
    paint = build.paint("furniture")
    for row in range(4):
        build.box(place, (0, -0.2 + 0.12 * row, 0.45), (0.8, 0.05, 0.02), paint)
    for side in (-0.6, 0.6):
        build.box(place, (side, 0, 0.21), (0.06, 0.22, 0.21), build.paint("rock"))


@one_thing
def car(build: Builder, place: Place) -> None:
    """Two boxes on four wheels."""
    paint, glass = build.paint("metal"), build.paint("metal")
    build.box(place, (0, 0, 0.6), (2.0, 0.85, 0.32), paint)
    build.box(place, (build.between(-0.5, 0.1), 0, 1.15), (build.between(0.8, 1.3), 0.75, 0.28), glass)
    tyre = build.paint("road")
    for x in (-1.25, 1.25):
        for y in (-0.8, 0.8):
            build.add("cylinder", place, (x, y, 0.32), (0.32, 0.32, 0.12), tyre, tilt=math.pi / 2)


@one_thing
def column(build: Builder, place: Place, high: float) -> None:
    """A round or square shaft with base and capital."""
    thin, paint = build.between(0.1, 0.25), build.paint("facade")
    build.add("cylinder" if build.chance(0.7) else "box", place, (0, 0, high), (thin, thin, high), paint)
    for level in (0.1, 2 * high - 0.1):
        build.box(place, (0, 0, level), (1.4 * thin, 1.4 * thin, 0.1), paint)


@one_thing
def fountain(build: Builder, place: Place) -> None:
    """A round basin with bowls on a column."""
    radius, paint = build.between(0.8, 1.6), build.paint("rock")
    hollow = shape("cylinder", place, (0, 0, 1.2), (0.85 * radius, 0.85 * radius, 1.0))
    build.add("cylinder", place, (0, 0, 0.3), (radius, radius, 0.3), paint, tools=(Tool(hollow),))
    build.add("cylinder", place, (0, 0, 0.7), (0.15, 0.15, 0.7), paint)
    build.add("ball", place, (0, 0, 1.45), (0.35 * radius, 0.35 * radius, 0.2), paint)
    build.add("ball", place, (0, 0, 1.8), tuple3(build, 0.12, 0.3), paint)


@one_thing
def monument(build: Builder, place: Place) -> None:
    """A stack of blocks with scrolls on both sides, a niche with a figure, and often a basin in front."""
    paint = build.paint(build.random.choice(("rock", "facade")))
    wide, deep, top = build.between(0.5, 1.2), build.between(0.15, 0.4), 0.0
    for level in range(build.random.randint(3, 5)):
        half = (wide * build.between(0.75, 1.0), deep * build.between(0.8, 1.1), build.between(0.15, 0.45))
        niche = shape("cylinder", place, (0, -half[1], top + half[2]), (0.7 * half[2], 0.7 * half[2], 0.6 * half[1]),
                      tilt=math.pi / 2)  # fmt: skip
        tools = (Tool(niche),) if level == 1 else ()
        build.add("box", place, (0, 0, top + half[2]), half, paint, tools=tools)
        build.box(place, (0, 0, top + 2 * half[2]), (1.1 * half[0], 1.15 * half[1], 0.04), paint)
        scrolls(build, place, (half[0], -0.6 * half[1], top + half[2]), 0.8 * half[2], paint)
        if level == 1:
            gold = build.paint("metal")
            build.add("ball", place, (0, -half[1], top + 1.3 * half[2]), (0.12, 0.12, 0.2), gold)
            build.add("cylinder", place, (0, -half[1], top + 0.6 * half[2]), (0.05, 0.05, 0.25), gold, tilt=0.3)
        wide, top = wide * build.between(0.6, 0.95), top + 2 * half[2]
    if build.chance(0.6):
        basin(build, place.there((0, -deep - 0.5, 0)), build.between(0.7, 1.3), paint)


def scrolls(build: Builder, place: Place, offset: tuple[float, float, float], size: float, paint: Material) -> None:
    """The same round ornament on the left and on the right."""
    kind = build.random.choice(("ball", "cylinder", "box"))
    half = (size * build.between(0.4, 0.9), size * build.between(0.4, 0.9), size * build.between(0.3, 0.8))
    half = (half[0], half[0], half[2]) if kind == "cylinder" else half
    for side in (-1, 1):
        build.add(kind, place, (side * offset[0], offset[1], offset[2]), half, paint, tilt=math.pi / 2)


def basin(build: Builder, place: Place, wide: float, paint: Material) -> None:
    """An empty trough on a step."""
    deep, high = 0.5 * wide * build.between(0.6, 1.0), build.between(0.2, 0.4)
    hollow = shape("box", place, (0, 0, 1.2 + 0.3 * high), (0.88 * wide, 0.8 * deep, 1.2))
    build.add("box", place, (0, 0, high), (wide, deep, high), paint, tools=(Tool(hollow),))
    build.box(place, (0, 0, 0.05), (1.08 * wide, 1.1 * deep, 0.05), paint)


@one_thing
def wall_with_openings(
    build: Builder, place: Place, half: tuple[float, float, float], columns: int, rows: int, paint: Material
) -> None:
    """A wall (its front looks along the place's -y) with a grid of windows cut in, and frames around some of them."""
    wide, deep, high = half
    cell = (wide / columns, high / rows)
    window = (build.between(0.35, 0.65) * cell[0], build.between(0.4, 0.7) * cell[1])
    depth = build.between(0.08, 0.3)
    round_top = build.chance(0.25)
    tools = []
    for column_ in range(columns):
        for row in range(rows):
            offset = ((2 * column_ + 1 - columns) * cell[0], -deep, (2 * row + 1) * cell[1])
            if round_top and row == 0:
                radius = min(window)
                tools.append(Tool(shape("cylinder", place, offset, (radius, radius, depth), tilt=math.pi / 2)))
            else:
                tools.append(Tool(shape("box", place, offset, (window[0], depth, window[1]))))
    build.add("box", place, (0, 0, high), half, paint, tools=tuple(tools))
    if build.chance(0.6):
        sills(build, place, half, cell, window, columns, rows)
    if build.chance(0.5):
        build.box(place, (0, -deep, 2 * high - 0.1), (wide, 0.15, 0.1), build.paint("facade"))


def sills(
    build: Builder,
    place: Place,
    half: tuple[float, float, float],
    cell: tuple[float, float],
    window: tuple[float, float],
    columns: int,
    rows: int,
) -> None:
    """A ledge below each row of windows, or below each window of small grids."""
    paint = build.paint("facade")
    for row in range(rows):
        level = (2 * row + 1) * cell[1] - window[1]
        if columns * rows > 6:
            build.box(place, (0, -half[1], level), (half[0], 0.06, 0.05), paint)
            continue
        for column_ in range(columns):
            across = (2 * column_ + 1 - columns) * cell[0]
            build.box(place, (across, -half[1], level), (1.1 * window[0], 0.1, 0.05), paint)


def relief_wall(build: Builder, place: Place, half: tuple[float, float, float], pattern: int, repeats: float) -> None:
    """A wall whose front (the place's -y) stands out in relief; `half` is (wide, deep, high)."""
    wide, deep, high = half
    upright = shape("box", place, (0, 0, high), (wide, high, deep), tilt=math.pi / 2)
    build.reliefs.append(Relief(upright, build.paint("facade"), pattern, (repeats, repeats * high / wide)))
