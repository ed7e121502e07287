"""What a user says of scale and orientation, in words of the command line, and the changes of world it asks for."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from manyview.errors import InputError
from manyview.refine.gps import world_from_gps
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

Change: TypeAlias = Callable[[Scene], WorldChange]


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
        return not self.changes

    @property
    def changes(self) -> list[Change]:
        """From scenes to changes of their worlds, in order; each is for the scene that the one before has changed.

        Raises:
            InputError: two ways to a scale, or to what is up, are given, or a text is not as it should be.
        """
        scales = [*self._distances(), *self._baselines(), *self._heights(), *self._gps()]
        ups = [*self._ups(), *self._gps()]
        if len(scales) > 1 or len(ups) > 1:
            raise InputError(
                "there are two ways to the scale, or to what is up",
                hint="Give one of --distance, --baseline, --camera-height and --gps, and --up not with --gps.",
            )
        return [*scales, *self._ups()]

    def _distances(self) -> list[Change]:
        if self.distance is None:
            return []
        first, x1, y1, second, x2, y2, metres = _words(self.distance, 7, "--distance", "PHOTO X Y PHOTO X Y METRES")
        places = [_number(word, "--distance") for word in (x1, y1, x2, y2)]
        length = _number(metres, "--distance")

        def change(scene: Scene) -> WorldChange:
            ends = view_named(scene, first), view_named(scene, second)
            points = [ImagePoint(view=view, x=places[2 * end], y=places[2 * end + 1]) for end, view in enumerate(ends)]
            return scale_from_distance(scene, points[0], points[1], length)

        return [change]

    def _baselines(self) -> list[Change]:
        if self.baseline is None:
            return []
        first, second, metres = _words(self.baseline, 3, "--baseline", "PHOTO PHOTO METRES")
        length = _number(metres, "--baseline")
        return [lambda scene: scale_from_baseline(scene, view_named(scene, first), view_named(scene, second), length)]

    def _heights(self) -> list[Change]:
        height = self.camera_height
        return [] if height is None else [lambda scene: scale_from_camera_height(scene, height, seed=self.seed)]

    def _gps(self) -> list[Change]:
        return [lambda scene: world_from_gps(scene, seed=self.seed)] if self.gps else []

    def _ups(self) -> list[Change]:
        if self.up is None:
            return []
        if self.up == "ground":
            return [lambda scene: up_from_ground(scene, seed=self.seed)]
        if self.up == "cameras":
            return [up_from_cameras]
        vector = [_number(part, "--up") for part in self.up.split(",")]
        return [lambda scene: up_from_vector(scene, vector)]


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


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"{option}: {text!r} is no number") from error
