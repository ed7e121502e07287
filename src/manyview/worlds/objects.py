"""Things that stand on tables and floors, built from carved shapes. Sizes are half sizes in metres."""

from __future__ import annotations

import math
from collections.abc import Callable

from manyview.worlds.builder import Builder, Place, one_thing, shape
from manyview.worlds.description import Tool

Thing = Callable[[Builder, Place, float], None]


def carton(build: Builder, place: Place, size: float) -> None:
    """A box of any proportions."""
    half = tuple(size * build.between(0.35, 1.0) for _ in range(3))
    build.box(place, (0, 0, half[2]), (half[0], half[1], half[2]), build.paint("object"))


def ball(build: Builder, place: Place, size: float) -> None:
    """A ball or an egg."""
    radius = 0.8 * size * build.between(0.5, 1.0)
    high = radius * build.between(0.7, 1.25)
    build.add("ball", place, (0, 0, high), (radius, radius, high), build.paint("object"))


def cup(build: Builder, place: Place, size: float) -> None:
    """A hollow cylinder: cup, pot, bin."""
    radius, high = 0.6 * size * build.between(0.5, 1.0), size * build.between(0.4, 1.1)
    wall, floor = 0.12 * radius, 0.15 * high
    hollow = shape("cylinder", place, (0, 0, 2 * high + floor), (radius - wall, radius - wall, 2 * high))
    build.add("cylinder", place, (0, 0, high), (radius, radius, high), build.paint("object"), tools=(Tool(hollow),))


def bowl(build: Builder, place: Place, size: float) -> None:
    """The lower part of a hollow ball, or a dome when it lies on its rim."""
    radius = 0.9 * size * build.between(0.6, 1.0)
    centre = (0.0, 0.0, radius) if build.chance(0.7) else (0.0, 0.0, 0.0)
    low = shape("box", place, (0, 0, centre[2] - 0.5 * radius), (2 * radius, 2 * radius, 0.55 * radius))
    inner = 0.88 * radius
    hollow = shape("ball", place, centre, (inner, inner, inner))
    tools = (Tool(low, cuts=False), Tool(hollow)) if centre[2] else ()
    build.add("ball", place, centre, (radius, radius, radius), build.paint("object"), tools=tools)


@one_thing
def bottle(build: Builder, place: Place, size: float) -> None:
    """A thick cylinder under a thin one."""
    radius, high = 0.3 * size * build.between(0.6, 1.0), size * build.between(0.5, 0.9)
    paint = build.paint("object")
    build.add("cylinder", place, (0, 0, high), (radius, radius, high), paint)
    build.add("ball", place, (0, 0, 2 * high), (radius, radius, 0.5 * radius), paint)
    build.add("cylinder", place, (0, 0, 2.35 * high), (0.35 * radius, 0.35 * radius, 0.4 * high), build.paint("object"))


def die(build: Builder, place: Place, size: float) -> None:
    """A cube with round corners: what a ball leaves of it."""
    half = 0.7 * size * build.between(0.5, 1.0)
    round_ = half * build.between(1.25, 1.5)
    round_off = shape("ball", place, (0, 0, half), (round_, round_, round_))
    build.add(
        "box", place, (0, 0, half), (half, half, half), build.paint("object"), tools=(Tool(round_off, cuts=False),)
    )


def arch(build: Builder, place: Place, size: float) -> None:
    """A block with a round hole through it."""
    wide, deep, high = size * build.between(0.6, 1.1), size * build.between(0.2, 0.6), size * build.between(0.6, 1.1)
    radius = 0.7 * min(wide, high)
    hole = shape(
        "cylinder", place, (0, 0, build.between(0.0, 1.0) * high), (radius, radius, 2 * deep), tilt=math.pi / 2
    )
    build.add("box", place, (0, 0, high), (wide, deep, high), build.paint("object"), tools=(Tool(hole),))


@one_thing
def books(build: Builder, place: Place, size: float) -> None:
    """A stack of thin boxes, not quite in line."""
    top = 0.0
    for _ in range(build.random.randint(1, 4)):
        thick = 0.12 * size * build.between(0.5, 1.5)
        half = (0.6 * size * build.between(0.8, 1.0), 0.85 * size * build.between(0.8, 1.0), thick)
        build.box(place, (0, 0, top + thick), half, build.paint("poster"), yaw=build.between(-0.4, 0.4))
        top += 2 * thick


def tipped(build: Builder, place: Place, size: float) -> None:
    """A rod or a block leaning at an angle."""
    kind = "box" if build.chance(0.5) else "cylinder"
    thin = size * build.between(0.08, 0.3)
    long = size * build.between(0.6, 1.2)
    tilt = build.between(0.2, math.pi / 2)
    reach = thin * abs(math.sin(tilt)) + long * abs(math.cos(tilt))
    build.add(kind, place, (0, 0, reach), (thin, thin, long), build.paint("object"), tilt=tilt)


@one_thing
def sign(build: Builder, place: Place, size: float) -> None:
    """A picture or a screen on a foot."""
    wide, high = size * build.between(0.6, 1.1), size * build.between(0.4, 0.9)
    lift = size * build.between(0.05, 0.4)
    build.box(place, (0, 0, 2 * lift + high), (wide, 0.04 * size, high), build.paint("poster"))
    build.box(place, (0, 0.05 * size, lift), (0.12 * size, 0.08 * size, lift), build.paint("object"))


def crate(build: Builder, place: Place, size: float) -> None:
    """A box that is open in front or on top, with things in it."""
    half = (2.0 * size * build.between(0.7, 1.2), 1.2 * size * build.between(0.7, 1.2), size * build.between(0.6, 1.2))
    wall = 0.05 * size
    opening = (0.0, -0.2 * half[1], half[2]) if build.chance(0.6) else (0.0, 0.0, 1.3 * half[2])
    inner = (half[0] - wall, 1.2 * half[1] - wall, half[2] - wall)
    if opening[1] == 0.0:
        inner = (half[0] - wall, half[1] - wall, 1.3 * half[2] - wall)
    hollow = shape("box", place, opening, inner)
    build.add("box", place, (0, 0, half[2]), half, build.paint("object"), tools=(Tool(hollow),))
    for _ in range(build.random.randint(2, 6)):
        spot = (0.8 * build.between(-1, 1) * half[0], 0.7 * build.between(-1, 1) * half[1], wall)
        build.random.choice(IN_BOXES)(build, place.there(spot, build.between(-1, 1)), 0.7 * half[2])


def figure(build: Builder, place: Place, size: float) -> None:
    """Some balls, boxes and cylinders grown into one another."""
    high = 0.0
    for _ in range(build.random.randint(3, 6)):
        kind = build.random.choice(("box", "ball", "cylinder"))
        half = tuple(size * build.log_between(0.15, 0.6) for _ in range(3))
        half = (half[0], half[0], half[2]) if kind == "cylinder" else (half[0], half[1], half[2])
        aside = (0.4 * size * build.between(-1, 1), 0.4 * size * build.between(-1, 1), high + 0.8 * half[2])
        tilt = build.between(0, math.pi / 2) if build.chance(0.3) else 0.0
        build.add(kind, place, aside, half, build.paint("object"), yaw=build.between(-3, 3), tilt=tilt)
        high += half[2] * build.between(0.3, 1.5)


IN_BOXES: tuple[Thing, ...] = (carton, ball, cup, bottle, bottle, books, tipped, sign)
SMALL_THINGS: tuple[Thing, ...] = (carton, carton, ball, cup, cup, bowl, bottle, die, arch, books, books, tipped, sign)


def anything(build: Builder, place: Place, size: float) -> None:
    """One of the small things."""
    build.random.choice(SMALL_THINGS)(build, place, size)
