"""What every family of models is given, and what it gives back, on the way from pictures to a `Scene`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from manyview.alignment.problem import KnownCameras
from manyview.errors import InputError
from manyview.geometry import Camera, invert_rigid, transform_points
from manyview.images import Progress, Views
from manyview.networks.checkpoints.model_file import ModelInfo
from manyview.scene import SceneView, World

Settings = Mapping[str, "str | int | float | bool | None"]
WORST_ASPECT = 1.2  # ratio of the two focal lengths beyond which an intrinsic matrix is taken for a mistake


@dataclass
class Clock:
    """Seconds of each part of the work."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the user knows of the cameras of N views.

    Attributes:
        K: N intrinsic matrices (3, 3), pixels of the upright originals; None if they are not known.
        world_from_camera: N rigid (4, 4), None where a camera is not known; None if none is.
    """

    K: Sequence[np.ndarray] | None = None
    world_from_camera: Sequence[np.ndarray | None] | None = None

    @classmethod
    def checked(
        cls, views: Views, K: np.ndarray | None, world_from_camera: Sequence[np.ndarray | None] | None = None
    ) -> Known:
        """From what the user gives.

        Raises:
            InputError: shapes or numbers do not fit the pictures.
        """
        return cls(
            K=None if K is None else _intrinsics(_numbers(K, "intrinsics"), views),
            world_from_camera=None if world_from_camera is None else _cameras(world_from_camera, len(views)),
        )

    def camera_of(self, view: int) -> np.ndarray | None:
        """world_from_camera of a view, if it is known."""
        return None if self.world_from_camera is None else self.world_from_camera[view]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be done with the pictures of one scene.

    Attributes:
        views: the pictures.
        info: of the model.
        device, dtype: where and how precisely its network runs.
        seed: equal seeds give equal results.
        known: of the cameras.
        clock: to measure the parts of the work with.
        progress: called as (done, total, what).
    """

    views: Views
    info: ModelInfo
    device: torch.device
    dtype: torch.dtype
    seed: int
    known: Known
    clock: Clock
    progress: Progress | None


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Views with cameras, depth and points.

    Attributes:
        views: in the order of the pictures.
        dtype: in which the network ran.
        changes: what was done otherwise than asked for, in words.
        warnings: what the user should know of the result.
        settings: what was chosen on the way.
        world: what the frame of the views of group 0 is.
    """

    views: list[SceneView]
    dtype: torch.dtype
    changes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    settings: Settings = field(default_factory=dict)
    world: World = "first camera"


def _intrinsics(K: np.ndarray, views: Views) -> list[np.ndarray]:
    count = len(views)
    if K.shape not in ((3, 3), (count, 3, 3)):
        raise InputError(
            f"got intrinsics of shape {K.shape} for {count} views; expected (3, 3) or ({count}, 3, 3)",
            hint="Give them in pixels of the upright originals; skipped pictures have none.",
        )
    matrices = list(np.broadcast_to(K, (count, 3, 3)))
    for view, matrix in zip(views, matrices, strict=True):
        _check_fits(matrix, view.original_size, view.name)
    return matrices


def _check_fits(K: np.ndarray, size: tuple[int, int], name: str) -> None:
    """A principal point outside the picture, or unequal focal lengths, mean the numbers are of other pixels."""
    height, width = size
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    hint = f"Give them in pixels of the upright original, here {width} x {height}."
    if not (np.isfinite(K).all() and fx > 0 and fy > 0):
        raise InputError(f"{name}: the intrinsics have focal lengths {fx:g} and {fy:g}; expected pixels above 0")
    if not (0 <= cx <= width and 0 <= cy <= height):
        raise InputError(f"{name}: the principal point ({cx:g}, {cy:g}) is outside the picture", hint=hint)
    if not 1 / WORST_ASPECT < fx / fy < WORST_ASPECT:
        raise InputError(f"{name}: the focal lengths {fx:g} and {fy:g} differ too much", hint=hint)
    if not 1 / 20 < fx / max(height, width) < 20:
        raise InputError(f"{name}: a focal length of {fx:g} pixels does not fit a picture of this size", hint=hint)
    if not np.allclose(K[[0, 1, 2, 2, 2], [1, 0, 0, 1, 2]], [0, 0, 0, 0, 1]):
        raise InputError(
            f"{name}: {K.tolist()} is not a camera matrix without skew",
            hint="Expected [[fx, 0, cx], [0, fy, cy], [0, 0, 1]].",
        )


def _cameras(given: Sequence[np.ndarray | None], count: int) -> list[np.ndarray | None]:
    if len(given) != count:
        raise InputError(
            f"got {len(given)} known cameras for {count} views", hint="Give None for views whose camera is not known."
        )
    cameras = [None if camera is None else _numbers(camera, "a known camera") for camera in given]
    KnownCameras(world_from_camera=cameras).check(count)
    return cameras


def _numbers(given: object, what: str) -> np.ndarray:
    try:
        return np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} cannot be read as numbers: {error}", hint="Give an array.") from error


# ------------------------------------------------------------------ the world
def first_cameras_are_worlds(views: list[SceneView], groups: Sequence[Sequence[int]]) -> list[SceneView]:
    """In each group, move everything so that its first view's camera is the identity.

    A group is left as it is if that camera was not found.
    """
    moved = list(views)
    for members in groups:
        first = camera_in_group(views[members[0]])
        if first is None:
            continue
        motion = invert_rigid(first.world_from_camera)
        for view in members:
            moved[view] = _moved(views[view], motion, is_first=view == members[0])
    return moved


def camera_in_group(view: SceneView) -> Camera | None:
    """The camera in the frame that the view's points are in."""
    return view.group_camera if view.group else view.camera


def _moved(view: SceneView, motion: np.ndarray, *, is_first: bool) -> SceneView:
    points = np.where(view.valid[..., None], transform_points(motion, view.points), 0).astype(np.float32)
    camera = camera_in_group(view)
    if camera is not None:
        matrix = np.eye(4) if is_first else motion @ camera.world_from_camera  # exactly the identity, not nearly
        camera = replace(camera, world_from_camera=matrix)
    if view.group:
        return replace(view, points=points, group_camera=camera)
    return replace(view, points=points, camera=camera)
