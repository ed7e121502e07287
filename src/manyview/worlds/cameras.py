"""Cameras of a procedural scene: on a path, looking at a common place.

Frames: the room's frame has x and y on the floor and z up; cameras are OpenCV's (x right, y down, z forward). Pixel
coordinates are (x, y) with integers at pixel centres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from manyview.worlds.description import Focus, Layout, Shape, Vector, add, apply, scaled, subtract, transposed
from manyview.worlds.settings import CameraPath, WorldSettings


@dataclass(frozen=True)
class Viewpoint:
    """A camera: where it is, what is in the middle of its picture, its roll (radians) and its intrinsics (pixels)."""

    position: Vector
    aim: Vector
    roll: float
    focal: float
    centre: tuple[float, float]


def sample_viewpoints(
    random: Random, layout: Layout, views: int, size: tuple[int, int], settings: WorldSettings
) -> list[Viewpoint]:
    """The cameras of a scene, on one of the settings' paths; `size` is (height, width) of the pictures."""
    focus = layout.focus
    path = random.choice(settings.paths)
    angle = random.uniform(-math.pi, math.pi)
    if focus.facing is not None:
        angle = focus.facing + random.uniform(-0.5, 0.5)
    around = Surroundings(angle, random.uniform(*focus.distance), random.uniform(*focus.height))
    walks = [sample_step(random, path, focus, around, settings.spread, view, views) for view in range(views)]
    focal = size[1] / 2 / math.tan(math.radians(random.uniform(*settings.field_of_view)) / 2)
    zoom = 0.25 * settings.spread if path == "photographs" and random.random() < 0.5 else 0.0
    viewpoints = []
    for view, (position, aim) in enumerate(walks):
        position = kept_inside(position, layout)
        if view and random.random() < settings.turned_away:
            aim = subtract(scaled(position, 2.0), aim)
        roll = math.radians(random.uniform(-settings.roll, settings.roll))
        jitter = 1 + random.uniform(-settings.focal_jitter, settings.focal_jitter)
        jitter *= math.exp(random.uniform(-zoom, zoom))
        viewpoints.append(
            Viewpoint(position, aim_aside(position, aim), roll, focal * jitter, principal_point(random, size, settings))
        )
    return viewpoints


@dataclass(frozen=True)
class Surroundings:
    """Where the cameras of a scene are, seen from its target: direction (radians), metres away, metres above floor."""

    angle: float
    distance: float
    height: float

    def place(self, target: Vector, turn: float, nearer: float, rise: float) -> Vector:
        """A position: turned about the target (radians), at `nearer` times the distance, `rise` metres higher."""
        reach, angle = self.distance * nearer, self.angle + turn
        return target[0] + reach * math.cos(angle), target[1] + reach * math.sin(angle), self.height + rise


def sample_step(
    random: Random, path: CameraPath, focus: Focus, around: Surroundings, spread: float, view: int, views: int
) -> tuple[Vector, Vector]:
    """Position and aim of one view of a path. With a `spread` of 0 all views of a scene have the same ones."""
    jitter = lambda size: random.uniform(-size, size) * spread  # noqa: E731
    time = view / max(views - 1, 1)
    rise, look = jitter(0.08) * around.distance, 0.1
    if path in ("orbit", "walk"):
        turn, nearer = jitter(0.55), 1 + jitter(0.25)
    elif path == "photographs":
        turn, nearer, look = jitter(0.9), 1 + jitter(0.4), 0.2
    elif path == "forward":
        turn, nearer, look = jitter(0.06), 1 - spread * 0.45 * time, 0.06
    elif path == "handheld":
        turn, nearer = spread * (0.7 * (time - 0.5)) + jitter(0.08), 1 + jitter(0.12)
    else:
        turn, nearer = jitter(0.1), 1 + jitter(0.1)
    position = around.place(focus.target, turn, max(nearer, 0.3), rise)
    aside = (0.0, 0.0, 0.0)
    if path == "walk":  # The aim comes along.
        aside = scaled(subtract(position, around.place(focus.target, 0.0, 1.0, 0.0)), 0.6)
    elif path == "panorama":
        sweep = 0.7 * around.distance * (jitter(0.5) + spread * (time - 0.5))
        aside = (-math.sin(around.angle) * sweep, math.cos(around.angle) * sweep, 0.0)
    wobble = scaled((jitter(1), jitter(1), jitter(1)), look * around.distance)
    return position, add(add(focus.target, aside), wobble)


def kept_inside(position: Vector, layout: Layout) -> Vector:
    """Moved into the bounds in which cameras may stand, above the floor and reliefs and below the ceiling."""
    width, depth = layout.focus.bounds
    x = min(max(position[0], -width), width)
    y = min(max(position[1], -depth), depth)
    z = max(position[2], 0.5 * layout.focus.height[0], 0.05)
    for relief in layout.reliefs:
        if not clear_of(relief.shape, (x, y, z), CLEARANCE):
            z = top_of(relief.shape) + CLEARANCE
    return x, y, min(z, 2 * layout.half[2] - CLEARANCE)


CLEARANCE = 0.1
"""Metres that cameras keep from reliefs and ceilings."""


def top_of(shape: Shape) -> float:
    """Height of the highest point of the box around a shape."""
    return shape.centre[2] + sum(abs(part) * half for part, half in zip(shape.rotation[2], shape.half, strict=True))


def aim_aside(position: Vector, aim: Vector) -> Vector:
    """The aim, or one beside it where the camera would look straight up or down."""
    across = math.hypot(aim[0] - position[0], aim[1] - position[1])
    return aim if across > 0.05 * abs(aim[2] - position[2]) else add(aim, (0.2 + abs(aim[2] - position[2]) * 0.1, 0, 0))


def principal_point(random: Random, size: tuple[int, int], settings: WorldSettings) -> tuple[float, float]:
    """(x, y) pixels: the middle of the picture, or beside it as after a crop."""
    height, width = size
    across = random.uniform(-settings.off_centre, settings.off_centre) * width
    down = random.uniform(-settings.off_centre, settings.off_centre) * height
    return (width - 1) / 2 + across, (height - 1) / 2 + down


def clear_of(shape: Shape, position: Vector, gap: float) -> bool:
    """Whether a camera keeps this distance from the box around a shape."""
    local = apply(transposed(shape.rotation), subtract(position, shape.centre))
    return max(abs(component) - half for component, half in zip(local, shape.half, strict=True)) > gap
