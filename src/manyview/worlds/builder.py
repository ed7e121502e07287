"""Putting solids into a scene: places to stand, shapes by their offsets, paint by role, things that move."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from random import Random
from typing import Concatenate, ParamSpec

from manyview.worlds.description import (
    Kind,
    Motion,
    Relief,
    Shape,
    Solid,
    Tool,
    Vector,
    about_x,
    about_z,
    add,
    apply,
    multiply,
)
from manyview.worlds.materials import Material, Role, draw_material


@dataclass(frozen=True)
class Place:
    """A place on a floor or a table: where, and which way its front looks (radians about the vertical)."""

    x: float
    y: float
    z: float = 0.0
    yaw: float = 0.0

    def point(self, offset: Vector) -> Vector:
        """An offset in the place's own axes -> room frame."""
        return add((self.x, self.y, self.z), apply(about_z(self.yaw), offset))

    def there(self, offset: Vector, yaw: float = 0.0) -> Place:
        """Another place, given by its offset and turn from this one."""
        return Place(*self.point(offset), self.yaw + yaw)


class Builder:
    """Collects the solids of one scene; all chance comes from one `Random`."""

    def __init__(self, random: Random, texture: float = 1.0) -> None:
        self.random = random
        self.texture = texture
        self.solids: list[Solid] = []
        self.reliefs: list[Relief] = []
        self._motion: Motion | None = None
        self._things = 0
        self._unfinished = 0

    def paint(self, role: Role) -> Material:
        """A material for this kind of surface."""
        return draw_material(self.random, role, self.texture)

    def between(self, low: float, high: float) -> float:
        """A uniform number."""
        return self.random.uniform(low, high)

    def log_between(self, low: float, high: float) -> float:
        """A number of which each factor is equally likely."""
        return math.exp(self.random.uniform(math.log(low), math.log(high)))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.random.random() < probability

    @contextmanager
    def moving(self, motion: Motion | None) -> Iterator[None]:
        """Everything built inside moves like this."""
        before, self._motion = self._motion, motion
        yield
        self._motion = before

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Everything built inside, also by what has a `whole` of its own, is one thing."""
        if not self._unfinished:
            self._things += 1
        self._unfinished += 1
        yield
        self._unfinished -= 1

    def add(
        self,
        kind: Kind,
        place: Place,
        offset: Vector,
        half: Vector,
        material: Material,
        *,
        yaw: float = 0.0,
        tilt: float = 0.0,
        tools: tuple[Tool, ...] = (),
    ) -> None:
        """A solid whose centre has this offset from the place; see `shape`."""
        with self.whole():
            placed = shape(kind, place, offset, half, yaw, tilt)
            self.solids.append(Solid(placed, material, tools, self._motion, self._things))

    def box(self, place: Place, offset: Vector, half: Vector, material: Material, *, yaw: float = 0.0) -> None:
        """A plain box."""
        self.add("box", place, offset, half, material, yaw=yaw)


Arguments = ParamSpec("Arguments")


def one_thing(make: Callable[Concatenate[Builder, Arguments], None]) -> Callable[Concatenate[Builder, Arguments], None]:
    """For functions that build something whose parts would hang in the air without one another."""

    @wraps(make)
    def made(build: Builder, *args: Arguments.args, **options: Arguments.kwargs) -> None:
        with build.whole():
            make(build, *args, **options)

    return made


def shape(kind: Kind, place: Place, offset: Vector, half: Vector, yaw: float = 0.0, tilt: float = 0.0) -> Shape:
    """A shape at an offset from a place, tilted about its own x axis, then turned about the vertical with the place."""
    rotation = about_z(place.yaw + yaw)
    return Shape(kind, place.point(offset), half, multiply(rotation, about_x(tilt)) if tilt else rotation)
