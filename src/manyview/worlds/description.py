"""What a scene is made of, in plain Python: solids, reliefs, lamps and cameras, before anything becomes a tensor.

The room's frame has x and y on the floor and z up, in metres; the enclosure stands on z = 0, centred on x = y = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from manyview.worlds.materials import Material
    from manyview.worlds.settings import Composition

Vector = tuple[float, float, float]
Rotation = tuple[Vector, Vector, Vector]
Kind = Literal["box", "ball", "cylinder"]
KINDS: tuple[Kind, ...] = ("box", "ball", "cylinder")
FACES = 6
"""Walls, floor and ceiling of the enclosure: -x, +x, -y, +y, -z (floor), +z (ceiling or sky)."""


@dataclass(frozen=True)
class Shape:
    """A unit shape (cube [-1, 1]^3, unit ball, or cylinder x^2 + y^2 <= 1, |z| <= 1), stretched, turned and placed.

    Attributes:
        half: half sizes along the shape's own axes.
        rotation: room_from_local, rows.
    """

    kind: Kind
    centre: Vector
    half: Vector
    rotation: Rotation


@dataclass(frozen=True)
class Tool:
    """A shape that changes a solid: what lies inside it is taken away (`cuts`), or only that is kept."""

    shape: Shape
    cuts: bool = True


@dataclass(frozen=True)
class Motion:
    """How a solid moves from the first view's moment to the last one's, at constant speed.

    Attributes:
        velocity: metres over the whole time.
        spin: radians about the vertical through `pivot` over the whole time.
    """

    velocity: Vector
    spin: float
    pivot: Vector

    def place(self, shape: Shape, time: float) -> Shape:
        """The shape at a time between 0 and 1."""
        turned = about_z(self.spin * time)
        arm = apply(turned, subtract(shape.centre, self.pivot))
        centre = add(self.pivot, add(arm, scaled(self.velocity, time)))
        return Shape(shape.kind, centre, shape.half, multiply(turned, shape.rotation))


@dataclass(frozen=True)
class Solid:
    """A painted shape, perhaps carved, perhaps moving. Tools that cut must not overlap, and at most one keeps.

    Attributes:
        thing: number of what it is a part of; a thing is left out as a whole.
    """

    shape: Shape
    material: Material
    tools: tuple[Tool, ...] = ()
    motion: Motion | None = None
    thing: int = 0


@dataclass(frozen=True)
class Relief:
    """A box whose top (its local +z face) is a landscape: heights from the bank of `relief.height_bank`.

    Attributes:
        pattern: index of the height map.
        repeats: how often it repeats along local x and y of the box.
    """

    shape: Shape
    material: Material
    pattern: int
    repeats: tuple[float, float]


@dataclass(frozen=True)
class Lighting:
    """Two lamps (the first is the main one) and a sky; linear colours.

    Attributes:
        positions: of the lamps, room frame; the sun is a lamp far away.
        colours: of the lamps.
        shadows: whether the main lamp casts them.
        occlusion: how much darker the ambient light is in corners, 0..1.
        clouds: contrast of the clouds.
    """

    positions: tuple[Vector, Vector]
    colours: tuple[Vector, Vector]
    ambient: Vector
    horizon: Vector
    zenith: Vector
    shadows: bool
    occlusion: float
    clouds: float


@dataclass(frozen=True)
class Focus:
    """What the photographer of a composition looks at.

    Attributes:
        target: the place in the middle of most pictures.
        distance, height: ranges from which the cameras' distance from the target and height above the floor come.
        facing: direction (radians, from the target) in which the cameras stand; None for any.
        bounds: half sizes (x, y) of the place in which cameras may stand.
        gap: metres that cameras keep from surfaces.
    """

    target: Vector
    distance: tuple[float, float]
    height: tuple[float, float]
    facing: float | None
    bounds: tuple[float, float]
    gap: float


@dataclass(frozen=True)
class Layout:
    """What stands where.

    Attributes:
        half: half sizes of the enclosure.
        sky: which of its faces are sky.
        faces: materials of its faces.
    """

    composition: Composition
    half: Vector
    sky: tuple[bool, ...]
    faces: tuple[Material, ...]
    solids: tuple[Solid, ...]
    reliefs: tuple[Relief, ...]
    focus: Focus


def about_z(angle: float) -> Rotation:
    """Rotation by an angle (radians) about the vertical."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return (cosine, -sine, 0.0), (sine, cosine, 0.0), (0.0, 0.0, 1.0)


def about_x(angle: float) -> Rotation:
    """Rotation by an angle (radians) about the x axis."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return (1.0, 0.0, 0.0), (0.0, cosine, -sine), (0.0, sine, cosine)


def apply(rotation: Rotation, vector: Vector) -> Vector:
    """rotation @ vector."""
    (a, b, c), (x, y, z) = rotation, vector
    return (
        a[0] * x + a[1] * y + a[2] * z,
        b[0] * x + b[1] * y + b[2] * z,
        c[0] * x + c[1] * y + c[2] * z,
    )


def transposed(rotation: Rotation) -> Rotation:
    """The inverse rotation."""
    a, b, c = rotation
    return (a[0], b[0], c[0]), (a[1], b[1], c[1]), (a[2], b[2], c[2])


def multiply(first: Rotation, second: Rotation) -> Rotation:
    """first @ second."""
    columns = transposed(second)
    return transposed((apply(first, columns[0]), apply(first, columns[1]), apply(first, columns[2])))


def add(first: Vector, second: Vector) -> Vector:
    """first + second."""
    return first[0] + second[0], first[1] + second[1], first[2] + second[2]


def subtract(first: Vector, second: Vector) -> Vector:
    """first - second."""
    return first[0] - second[0], first[1] - second[1], first[2] - second[2]


def scaled(vector: Vector, factor: float) -> Vector:
    """factor * vector."""
    return vector[0] * factor, vector[1] * factor, vector[2] * factor
