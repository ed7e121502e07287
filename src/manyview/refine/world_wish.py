"""What a user says of scale and orientation, in words of the command line, and the changes of world it asks for."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from manyview.errors import InputError
from manyview.formats.lens import Lens
from manyview.refine.gps import positions_in_photos, world_from_gps
from manyview.refine.straighten import straight_point
from manyview.refine.world import (
    ImagePoint,
    WorldChange,
    scale_from_baseline,
    scale_from_camera_height,
    scale_from_distance,
    up_from_cameras,
    up_from_ground,
    up_from_vector,
)
from manyview.scene import Scene

Lenses: TypeAlias = Mapping[int, Lens]


@dataclass(frozen=True, kw_only=True, eq=False)
class Wish:
    """A change of world that is asked for.

    Attributes:
        option: that asks for it.
        change: finds it in a scene with these views, given the lenses of those whose photos were drawn anew since.
    """

    option: str
    change: Callable[[Scene, Lenses], WorldChange]


@dataclass(frozen=True, kw_only=True)
class WorldWish:
    """What is known of scale and orientation; None and False where nothing is.

    Attributes:
        distance: "PHOTO X Y PHOTO X Y METRES": two points in photos, original pixels. Names with spaces in quotes.
        baseline: "PHOTO PHOTO METRES": the distance between two cameras.
        camera_height: metres of the cameras above the ground.
        gps: positions in the photos' files: scale, up and north.
        up: "ground", "cameras", or "X,Y,Z" of the present world.
        seed: of random draws.
    """

    distance: str | None = None
    baseline: str | None = None
    camera_height: float | None = None
    gps: bool = False
    up: str | None = None
    seed: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known."""
        return not (self._ways_to_scale or self._ways_up)

    @property
    def _ways_to_scale(self) -> int:
        return sum((self.distance is not None, self.baseline is not None, self.camera_height is not None, self.gps))

    @property
    def _ways_up(self) -> int:
        return sum((self.up is not None, self.gps))

    def wishes(self, scene: Scene) -> list[Wish]:
        """The changes of world, in order; each is for the scene that the one before has changed.

        Whatever can be checked before the scene is worked on is checked, and positions are read, here.

        Args:
            scene: whose views and photos are named; its cameras and depth may be others later.

        Raises:
            InputError: two ways to a scale, or to what is up, are given; a text is not as it should be; there is no
                such photo, or no such place in it; or fewer than three photos say where they were taken.
        """
        if self._ways_to_scale > 1 or self._ways_up > 1:
            raise InputError(
                "there are two ways to the scale, or to what is up",
                hint="Give one of --distance, --baseline, --camera-height and --gps, and --up not with --gps.",
            )
        found = []
        if self.distance is not None:
            found.append(_by_distance(scene, self.distance))
        if self.baseline is not None:
            found.append(_by_baseline(scene, self.baseline))
        if self.camera_height is not None:
            found.append(_by_height(self.camera_height, self.seed))
        if self.gps:
            found.append(_by_gps(scene, self.seed))
        if self.up is not None:
            found.append(_upright(self.up, self.seed))
        return found


def fulfilled(scene: Scene, wishes: Sequence[Wish], lenses: Lenses, *, strict: bool) -> Scene:
    """The scene with its world changed as asked for.

    Args:
        scene: with its final cameras and depth.
        wishes: of `WorldWish.wishes`.
        lenses: of the views whose photos were drawn anew since, by index.
        strict: a change that cannot be found is an error; otherwise a warning of the scene, whose world then stays.

    Raises:
        InputError: see `strict`.
    """
    for wish in wishes:
        try:
            scene = wish.change(scene, lenses).apply_to(scene)
        except InputError as error:
            if strict:
                raise
            told = f"{wish.option} has had no effect: {error.args[0]}"
            scene = replace(scene, warnings=(*scene.warnings, told))
    return scene


# ------------------------------------------------------------------ one function for each way
def _by_distance(scene: Scene, text: str) -> Wish:
    option = "--distance"
    first, x1, y1, second, x2, y2, metres = _words(text, 7, option, "PHOTO X Y PHOTO X Y METRES")
    length = _metres(metres, option)
    ends = [_image_point(scene, first, x1, y1), _image_point(scene, second, x2, y2)]
    if ends[0] == ends[1]:
        raise InputError(f"{option} {text!r} names one point twice", hint="Give two points.")

    def change(scene: Scene, lenses: Lenses) -> WorldChange:
        first, second = (straight_point(scene, lenses, end) for end in ends)
        return scale_from_distance(scene, first, second, length)

    return Wish(option=option, change=change)


def _image_point(scene: Scene, name: str, x: str, y: str) -> ImagePoint:
    point = ImagePoint(view=view_named(scene, name), x=_number(x, "--distance"), y=_number(y, "--distance"))
    height, width = scene.views[point.view].original_size
    if not (-0.5 <= point.x <= width - 0.5 and -0.5 <= point.y <= height - 0.5):
        raise InputError(
            f"--distance: ({x}, {y}) is outside {name}, which has {width} x {height} pixels",
            hint="Give pixels of the upright original.",
        )
    return point


def _by_baseline(scene: Scene, text: str) -> Wish:
    option = "--baseline"
    *names, metres = _words(text, 3, option, "PHOTO PHOTO METRES")
    length = _metres(metres, option)
    first, second = (view_named(scene, name) for name in names)
    if first == second:
        raise InputError(f"{option} {text!r} names one photo twice", hint="Give two photos.")
    return Wish(option=option, change=lambda scene, lenses: scale_from_baseline(scene, first, second, length))


def _by_height(height: float, seed: int) -> Wish:
    option = "--camera-height"
    height = _metres(height, option)
    return Wish(option=option, change=lambda scene, lenses: scale_from_camera_height(scene, height, seed=seed))


def _by_gps(scene: Scene, seed: int) -> Wish:
    positions = positions_in_photos(scene)
    return Wish(option="--gps", change=lambda scene, lenses: world_from_gps(scene, positions, seed=seed))


def _upright(text: str, seed: int) -> Wish:
    option = f"--up {text}"
    if text == "ground":
        return Wish(option=option, change=lambda scene, lenses: up_from_ground(scene, seed=seed))
    if text == "cameras":
        return Wish(option=option, change=lambda scene, lenses: up_from_cameras(scene))
    try:
        up = [float(part) for part in text.split(",")]
    except ValueError:
        up = []
    if len(up) != 3 or not all(map(math.isfinite, up)) or not any(up):
        raise InputError(f"got {text} as the direction up", hint="Give ground, cameras, or X,Y,Z, not all 0.")
    return Wish(option=option, change=lambda scene, lenses: up_from_vector(scene, up))


# ------------------------------------------------------------------ words
def view_named(scene: Scene, name: str) -> int:
    """Index of the view of that name; names without their ending will do where they are unique.

    Raises:
        InputError: there is none, or more than one.
    """
    names = [view.name for view in scene.views]
    found = [index for index, known in enumerate(names) if known == name]
    found = found or [index for index, known in enumerate(names) if known.rpartition(".")[0] == name]
    if len(found) != 1:
        few = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise InputError(f"{len(found)} photos of the scene are named {name}", hint=f"There are: {few}")
    return found[0]


def _words(text: str, count: int, option: str, expected: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"{option} {text!r}: {error}", hint=f'Give "{expected}".') from error
    if len(words) != count:
        raise InputError(f"{option} {text!r} has {len(words)} words, expected {count}", hint=f'Give "{expected}".')
    return words


def _metres(given: str | float, option: str) -> float:
    metres = _number(given, option)
    if not 0 < metres < math.inf:
        raise InputError(f"{option}: got {given} metres", hint="Give a number above 0.")
    return metres


def _number(given: str | float, option: str) -> float:
    try:
        return float(given)
    except ValueError as error:
        raise InputError(f"{option}: {given!r} is no number") from error
