"""What a scene shows: rooms, corridors, tables, single objects, courtyards, facades, streets, landscapes, clutter."""

from __future__ import annotations

import math
from random import Random

from manyview.worlds.builder import Builder, Place, shape
from manyview.worlds.description import FACES, Focus, Layout, Motion, Relief, Vector
from manyview.worlds.furniture import (
    FURNITURE,
    bare_table,
    bench,
    bush,
    cabinet,
    car,
    column,
    fountain,
    lamp,
    monument,
    plant,
    pole,
    relief_wall,
    rock,
    shelf,
    sofa,
    table,
    tree,
    wall_with_openings,
)
from manyview.worlds.materials import Material
from manyview.worlds.objects import anything, arch, crate, cup, figure
from manyview.worlds.relief import FACADES, LANDSCAPES
from manyview.worlds.settings import Composition, WorldSettings

CLOSED = (False,) * FACES
OPEN = (True, True, True, True, False, True)
Sketch = tuple[Vector, tuple[bool, ...], Focus]
"""Half sizes of the enclosure, its faces that are sky, and what to look at."""


def compose(random: Random, settings: WorldSettings) -> Layout:
    """Make up one scene."""
    build = Builder(random, settings.texture)
    composition = random.choice(settings.compositions)
    half, sky, focus = sketch(build, composition, settings)
    move_things(build, focus, half, settings)
    return Layout(
        composition=composition,
        half=half,
        sky=sky,
        faces=face_materials(build, composition, sky),
        solids=tuple(build.solids),
        reliefs=tuple(build.reliefs),
        focus=focus,
    )


def sketch(build: Builder, composition: Composition, settings: WorldSettings) -> Sketch:
    """Build the solids of a composition."""
    if composition in ("clutter", "pile"):
        return clutter(build, settings.solids, closed=composition == "clutter")
    makers = {
        "room": room,
        "corridor": corridor,
        "tabletop": tabletop,
        "object": single_object,
        "courtyard": courtyard,
        "facade": facade,
        "street": street,
        "terrain": terrain,
    }
    return makers[composition](build)


def face_materials(build: Builder, composition: Composition, sky: tuple[bool, ...]) -> tuple[Material, ...]:
    """Walls of one or two kinds, the floor and the ceiling."""
    outside = any(sky)
    wall = build.paint("facade" if outside else "wall")
    walls = [wall if build.chance(0.7) else build.paint("wall") for _ in range(4)]
    ground = "road" if composition == "street" else "ground"
    return *walls, build.paint(ground if outside else "floor"), build.paint("ceiling")


def move_things(build: Builder, focus: Focus, half: Vector, settings: WorldSettings) -> None:
    """Things that glide through the air and turn while the pictures are taken."""
    size = 0.12 * focus.distance[0]
    for _ in range(build.random.randint(*settings.moving)):
        place = around(build, focus.target, 0.5 * focus.distance[0], half, floor=max(0.0, focus.target[2] - 2 * size))
        velocity = (3 * size * build.between(-1, 1), 3 * size * build.between(-1, 1), size * build.between(0, 0.6))
        motion = Motion(velocity, build.between(-1.5, 1.5), (place.x, place.y, place.z))
        with build.moving(motion):
            anything(build, place, size * build.between(0.8, 1.6))


def around(build: Builder, target: Vector, reach: float, half: Vector, floor: float = 0.0) -> Place:
    """A random place on the floor near the target, inside the enclosure."""
    angle, away = build.between(-math.pi, math.pi), reach * math.sqrt(build.random.random())
    x = min(max(target[0] + away * math.cos(angle), -0.92 * half[0]), 0.92 * half[0])
    y = min(max(target[1] + away * math.sin(angle), -0.92 * half[1]), 0.92 * half[1])
    return Place(x, y, floor, build.between(-math.pi, math.pi))


def at_wall(build: Builder, half: Vector, away: float) -> Place:
    """A place whose back is to a random wall, `away` metres from it."""
    side, along = build.random.randrange(4), build.between(-0.75, 0.75)
    if side < 2:
        sign = 1 if side else -1
        return Place(sign * (half[0] - away), along * half[1], 0.0, -sign * math.pi / 2)
    sign = 1 if side == 3 else -1
    return Place(along * half[0], sign * (half[1] - away), 0.0, 0.0 if sign > 0 else math.pi)


def posters(build: Builder, half: Vector, most: int) -> None:
    """Pictures, boards and windows on the walls."""
    for _ in range(build.random.randint(0, most)):
        place = at_wall(build, half, 0.0)
        size = (build.between(0.2, 0.8), build.between(0.01, 0.05), build.between(0.2, 0.6))
        level = build.between(0.9, 1.2) * half[2]
        build.box(place, (0, 0, level), size, build.paint("poster"))
        if build.chance(0.4):
            build.box(place, (0, 0, level), (size[0] + 0.05, 0.6 * size[1], size[2] + 0.05), build.paint("furniture"))


def inside(half: Vector, gap: float) -> tuple[float, float]:
    """Where cameras may stand: this far from the walls."""
    return max(half[0] - gap, 0.0), max(half[1] - gap, 0.0)


def room(build: Builder) -> Sketch:
    """Furniture along the walls and in the middle."""
    half = (build.between(1.6, 3.8), build.between(1.6, 3.8), build.between(1.15, 1.6))
    for _ in range(build.random.randint(1, 4)):
        build.random.choice((shelf, cabinet, sofa, table, plant, lamp))(build, at_wall(build, half, 0.4))
    target = (build.between(-0.5, 0.5) * half[0], build.between(-0.5, 0.5) * half[1], build.between(0.4, 1.1))
    for _ in range(build.random.randint(1, 4)):
        build.random.choice(FURNITURE)(build, around(build, target, 1.6, half))
    for _ in range(build.random.randint(0, 3)):
        anything(build, around(build, target, 2.0, half), build.between(0.1, 0.35))
    posters(build, half, 4)
    return half, CLOSED, Focus(target, (1.4, 3.4), (0.9, 1.8), None, inside(half, 0.25), 0.2)


def corridor(build: Builder) -> Sketch:
    """Long and narrow, with door frames, pillars and things along the walls."""
    half = (build.between(3.5, 7.0), build.between(0.9, 1.6), build.between(1.15, 1.5))
    for _ in range(build.random.randint(3, 7)):
        side = build.random.choice((-1, 1))
        place = Place(build.between(-0.95, 0.95) * half[0], side * half[1], 0.0, 0.0 if side > 0 else math.pi)
        if build.chance(0.5):
            build.box(place, (0, 0, 1.0), (0.45, 0.03, 1.0), build.paint("furniture"))
            build.box(place, (0, 0, 1.05), (0.52, 0.02, 1.05), build.paint("furniture"))
        elif build.chance(0.5):
            build.box(place, (0, 0, half[2]), (0.15, build.between(0.08, 0.25), half[2]), build.paint("wall"))
        else:
            cabinet(build, place.there((0, -0.35, 0)))
    posters(build, half, 5)
    target = (build.between(-0.4, 0.4) * half[0], build.between(-0.2, 0.2), build.between(0.7, 1.2))
    facing = 0.0 if build.chance(0.5) else math.pi
    return half, CLOSED, Focus(target, (1.5, 4.0), (1.1, 1.7), facing, inside(half, 0.2), 0.2)


def tabletop(build: Builder) -> Sketch:
    """A table full of small things, seen from near."""
    half = (build.between(1.5, 3.0), build.between(1.5, 3.0), build.between(1.15, 1.6))
    high = build.between(0.32, 0.42)
    size = (build.between(0.4, 1.0), build.between(0.4, 0.8))
    place = Place(0.0, 0.0, 0.0, build.between(-math.pi, math.pi))
    bare_table(build, place, (*size, high - 0.0125))
    if build.chance(0.3):
        crate(build, place.there((0, 0, 2 * high), build.between(-3, 3)), build.between(0.1, 0.25))
    for _ in range(build.random.randint(4, 14)):
        spot = (0.75 * build.between(-1, 1) * size[0], 0.75 * build.between(-1, 1) * size[1], 2 * high)
        anything(build, place.there(spot, build.between(-3, 3)), build.log_between(0.04, 0.16))
    if build.chance(0.6):
        build.random.choice((shelf, cabinet, sofa))(build, at_wall(build, half, 0.4))
    posters(build, half, 3)
    target = (build.between(-0.3, 0.3) * size[0], build.between(-0.3, 0.3) * size[1], 2 * high + 0.05)
    height = (2 * high + 0.2, 2 * high + 0.8)
    return half, CLOSED, Focus(target, (0.5, 1.3), height, None, inside(half, 0.2), 0.08)


def single_object(build: Builder) -> Sketch:
    """One thing on a ground, photographed from around."""
    half = (build.between(5, 12), build.between(5, 12), build.between(2, 4))
    size = build.log_between(0.15, 0.8)
    place = Place(0.0, 0.0, 0.0, build.between(-3, 3))
    build.random.choice((figure, figure, figure, crate, crate, arch, cup, anything))(build, place, size)
    for _ in range(build.random.randint(0, 4)):
        anything(build, around(build, (0, 0, 0), 6 * size, half), 0.4 * size)
    focus = Focus(
        (0, 0, 0.7 * size), (2.2 * size, 4.5 * size), (0.6 * size, 2.5 * size), None, inside(half, 0.3), 0.1 * size
    )
    sky = OPEN if build.chance(0.6) else CLOSED
    return half, sky, focus


def courtyard(build: Builder) -> Sketch:
    """An open place between walls, with columns, arches, a fountain, trees."""
    half = (build.between(4, 8), build.between(4, 8), build.between(2, 4))
    for side in range(4):
        if build.chance(0.6):
            yaw = side * math.pi / 2
            out = half[1] if side % 2 == 0 else half[0]
            along = half[0] if side % 2 == 0 else half[1]
            # The front of a wall looks along its own -y.
            wall = Place(-math.sin(yaw) * (out - 0.3), math.cos(yaw) * (out - 0.3), 0.0, yaw)
            high = build.between(1.2, half[2])
            columns, rows = build.random.randint(2, 5), build.random.randint(1, 2)
            wall_with_openings(build, wall, (along, 0.3, high), columns, rows, build.paint("facade"))
    centre = Place(build.between(-1, 1), build.between(-1, 1))
    build.random.choice((fountain, monument, monument, tree, lambda b, p: figure(b, p, 0.8)))(build, centre)
    for _ in range(build.random.randint(1, 6)):
        place = around(build, (centre.x, centre.y, 0), 3.5, half)
        build.random.choice((bench, bush, tree, pole, rock, lambda b, p: column(b, p, b.between(0.8, 1.6))))(
            build, place
        )
    target = (centre.x, centre.y, build.between(0.5, 1.3))
    return half, OPEN, Focus(target, (2.5, 6.0), (1.2, 1.9), None, inside(half, 1.0), 0.3)


def facade(build: Builder) -> Sketch:
    """The front of a building, seen from the place before it."""
    half = (build.between(7, 12), build.between(7, 12), build.between(4, 7))
    wide, high = build.between(2.5, 6), build.between(1.5, 3.5)
    place = Place(0.0, 2.0)
    if build.chance(0.45):
        relief_wall(
            build, place, (wide, build.between(0.1, 0.4), high), build.random.choice(FACADES), build.between(1, 4)
        )
        build.box(place, (0, 0.5, high), (wide, 0.3, high), build.paint("facade"))
    else:
        columns, rows = build.random.randint(2, 5), build.random.randint(1, 3)
        wall_with_openings(build, place, (wide, 0.4, high), columns, rows, build.paint("facade"))
    front = place.there((0, -0.6, 0))
    shown = build.between(-0.4, 0.4) * wide if build.chance(0.4) else None
    if shown is not None:
        monument(build, front.there((shown, 0, 0)))
    if build.chance(0.5):
        side = build.random.choice((-1, 1))
        beside = place.there((side * (wide + 0.4), -2.5, 0), side * -math.pi / 2)
        wall_with_openings(build, beside, (2.5, 0.4, high), 2, build.random.randint(1, 3), build.paint("facade"))
    for _ in range(build.random.randint(0, 4)):
        column(build, front.there((build.between(-1, 1) * wide, build.between(-0.4, 0.2), 0)), build.between(0.8, high))
    for _ in range(build.random.randint(0, 4)):
        spot = front.there((build.between(-1, 1) * wide, build.between(-1.5, -0.2), 0), build.between(-3, 3))
        build.random.choice((bush, bench, pole, rock, fountain))(build, spot)
    bounds = (half[0] - 1, half[1] - 1)
    if shown is not None:
        target = (shown, 1.0, build.between(0.6, 1.5))
        return half, OPEN, Focus(target, (2.0, 5.0), (1.2, 1.9), -math.pi / 2, bounds, 0.25)
    target = (build.between(-0.5, 0.5) * wide, 1.5, build.between(0.4, 0.9) * high)
    return half, OPEN, Focus(target, (3.0, 7.0), (1.3, 1.9), -math.pi / 2, bounds, 0.3)


def street(build: Builder) -> Sketch:
    """Houses on both sides, cars, poles and trees."""
    half = (build.between(12, 22), build.between(5, 9), build.between(5, 9))
    for side in (-1, 1):
        x = -half[0]
        while x < half[0]:
            wide, high = build.between(1.5, 4.0), build.between(1.5, 4.5)
            place = Place(x + wide, side * (half[1] - 0.5), 0.0, 0.0 if side > 0 else math.pi)
            rows = 2 if high > 2.2 else 1
            wall_with_openings(build, place, (wide, 0.8, high), build.random.randint(1, 2), rows, build.paint("facade"))
            x += 2 * wide + (build.between(0.5, 3) if build.chance(0.3) else 0.0)
    for _ in range(build.random.randint(2, 7)):
        side = build.random.choice((-1, 1))
        spot = Place(
            build.between(-0.8, 0.8) * half[0], side * build.between(0.35, 0.7) * half[1], 0, build.between(-0.1, 0.1)
        )
        build.random.choice((car, car, pole, pole, tree, bench))(build, spot)
    target = (build.between(-0.4, 0.4) * half[0], build.between(-0.3, 0.3) * half[1], build.between(0.9, 1.8))
    facing = build.random.choice((0.0, math.pi, math.pi / 2, -math.pi / 2))
    return half, OPEN, Focus(target, (2.5, 7.0), (1.4, 2.0), facing, inside(half, 1.5), 0.4)


def terrain(build: Builder) -> Sketch:
    """Hilly ground with rocks, trees and bushes."""
    side, rise = build.between(8, 16), build.between(0.15, 0.7)
    half = (side, side, build.between(5, 8))
    ground = shape("box", Place(0, 0), (0, 0, rise), (side, side, rise))
    repeats = build.between(1, 3)
    build.reliefs.append(Relief(ground, build.paint("ground"), build.random.choice(LANDSCAPES), (repeats, repeats)))
    target = (build.between(-2, 2), build.between(-2, 2), rise + build.between(0.2, 0.8))
    for _ in range(build.random.randint(2, 9)):
        place = around(build, target, 5, half, floor=rise)
        build.random.choice((rock, rock, tree, bush, lambda b, p: figure(b, p, 0.7)))(build, place)
    height = (2 * rise + 0.9, 2 * rise + 2.5)
    return half, OPEN, Focus(target, (2.5, 6.0), height, None, inside(half, 1.0), 0.3)


def clutter(build: Builder, solids: tuple[int, int], *, closed: bool) -> Sketch:
    """Solids of any size and kind around a place, in a room or under the sky: nothing that is ever built."""
    if closed:
        half = (build.between(1.7, 3.8), build.between(1.7, 3.8), build.between(1.2, 1.7))
    else:
        half = (build.between(6, 13), build.between(6, 13), build.between(1.5, 4))
    target = (build.between(-0.4, 0.4) * half[0], build.between(-0.4, 0.4) * half[1], build.between(0.3, 1.1))
    larger = 1.0 if closed else 1.5
    for _ in range(build.random.randint(*solids)):
        kind = build.random.choice(("box", "box", "ball", "cylinder"))
        first = build.log_between(0.12, 0.55)
        second = build.log_between(0.12, 0.55) if kind == "box" else first
        sizes = (larger * first, larger * second, larger * build.log_between(0.12, 0.7))
        place = around(build, target, 2.2 * larger, half)
        tilt = build.between(0.2, math.pi / 2) if build.chance(0.2) else 0.0
        reach = sizes[2] * abs(math.cos(tilt)) + sizes[1] * abs(math.sin(tilt))
        floor = build.between(0, 1.2) if build.chance(0.25) else 0.0
        build.add(kind, place, (0, 0, floor + reach), sizes, build.paint("object"), tilt=tilt)
    if closed:
        posters(build, half, 4)
    distance = (1.6, 3.6) if closed else (2.5, 5.5)
    return half, CLOSED if closed else OPEN, Focus(target, distance, (1.0, 1.8), None, inside(half, 0.3), 0.25)
