"""What a refinement may do, and what is known beforehand."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from manyview.errors import InputError

CameraModel = Literal["SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "OPENCV"]
Intrinsics = Literal["auto", "shared", "per_view"]
Loss = Literal["none", "soft_l1", "huber", "cauchy"]
KnownUse = Literal["prior", "constant"]

RIGID_TOLERANCE = 1e-4  # of the entries of R^T R: rotations that were written with few digits pass


@dataclass(frozen=True, kw_only=True)
class RefineOptions:
    """How photos are matched, and what bundle adjustment may change.

    Attributes:
        camera_model: COLMAP's name. The pinhole models lose nothing in a `Scene`; what "SIMPLE_RADIAL" and "OPENCV"
            find of distortion is in the result beside the scene.
        intrinsics: "shared": photos of one size come from one camera, unless they are known to have different ones;
            "per_view": each has its own; "auto": shared, unless the matches say that they are not.
        refine_intrinsics: False keeps the focal lengths that are known, or the network's.
        refine_principal_point: it needs many photos that turn; without, it stays where the network has it.
        known_cameras: what cameras that are given are: positions to stay near ("prior") or exact ("constant").
        prior_sigma: standard deviation of given positions, as a share of their extent.
        loss: of bundle adjustment, so that matches on moving things count little; `loss_scale` in pixels.
        max_image_size: pixels of the longer side in which features are looked for.
        max_features: most of them in a photo.
        upsample_below: photos whose longer side is shorter than this are doubled before; at 640 x 427 that finds four
            times as many features in four times the time.
        all_pairs_up_to: with more views than this, only pairs that share something in the network's eyes are matched.
        pairs_per_view: how many of those for each view.
        min_matches: verified matches that a pair needs to count as linked.
        threads: of features and matching; None for all cores. Results do not depend on it.
        mapping_threads: of mapping and bundle adjustment. With 1, equal seeds give equal results to the last bit; with
            more, which pays for hundreds of views, sums are taken in varying order, and results differ by rounding.
        seed: of every random draw.
    """

    camera_model: CameraModel = "SIMPLE_PINHOLE"
    intrinsics: Intrinsics = "auto"
    refine_intrinsics: bool = True
    refine_principal_point: bool = False
    known_cameras: KnownUse = "prior"
    prior_sigma: float = 0.02
    loss: Loss = "soft_l1"
    loss_scale: float = 1.0
    max_image_size: int = 1600
    max_features: int = 4096
    upsample_below: int = 1000
    all_pairs_up_to: int = 20
    pairs_per_view: int = 10
    min_matches: int = 15
    threads: int | None = None
    mapping_threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kinds in (
            ("camera_model", CameraModel),
            ("intrinsics", Intrinsics),
            ("loss", Loss),
            ("known_cameras", KnownUse),
        ):
            if getattr(self, name) not in get_args(kinds):
                raise InputError(
                    f"{name} is {getattr(self, name)!r}", hint=f"Choose from {', '.join(get_args(kinds))}."
                )
        for name in ("prior_sigma", "loss_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}", hint="Give a number above 0.")
        for name, least in (
            ("max_image_size", 64),
            ("max_features", 100),
            ("upsample_below", 0),
            ("all_pairs_up_to", 2),
            ("pairs_per_view", 1),
            ("min_matches", 8),
            ("mapping_threads", 1),
            ("seed", 0),
        ):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}", hint=f"Give at least {least}.")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads is {self.threads}", hint="Give at least 1, or None for all cores.")

    @property
    def has_distortion(self) -> bool:
        """Whether the camera model bends rays."""
        return self.camera_model in ("SIMPLE_RADIAL", "OPENCV")

    @property
    def thread_count(self) -> int:
        """How many threads look for features and matches."""
        return self.threads or os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenCameras:
    """What is known about the cameras of N views, beside what the network says.

    Attributes:
        K: N intrinsic matrices (3, 3) in pixels of the upright originals, None where unknown; None if none is known.
        world_from_camera: N rigid (4, 4) in one world, None where unknown; None if none is known.
    """

    K: Sequence[np.ndarray | None] | None = None
    world_from_camera: Sequence[np.ndarray | None] | None = None

    def checked(self, views: int) -> GivenCameras:
        """The same as float64 arrays.

        Raises:
            InputError: numbers of views differ, or something is no camera.
        """
        return GivenCameras(
            K=_checked(self.K, views, "intrinsic matrices", checked_intrinsics),
            world_from_camera=_checked(self.world_from_camera, views, "cameras", _as_rigid),
        )

    def K_of(self, view: int) -> np.ndarray | None:
        """The given intrinsics of a view."""
        return None if self.K is None else self.K[view]

    def camera_of(self, view: int) -> np.ndarray | None:
        """The given world_from_camera of a view."""
        return None if self.world_from_camera is None else self.world_from_camera[view]


def _checked(given, views: int, what: str, convert) -> list[np.ndarray | None] | None:
    if given is None:
        return None
    if len(given) != views:
        raise InputError(f"got {len(given)} {what} for {views} views", hint="Give None for views that are not known.")
    return [None if matrix is None else convert(matrix) for matrix in given]


def checked_intrinsics(given: np.ndarray) -> np.ndarray:
    """(3, 3) float64.

    Raises:
        InputError: it is no intrinsic matrix, or has skew.
    """
    K = np.asarray(given, dtype=np.float64)
    if K.shape != (3, 3) or not np.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0:
        raise InputError(f"{K.tolist()} is no intrinsic matrix", hint="Expected [[fx, 0, cx], [0, fy, cy], [0, 0, 1]].")
    if not np.allclose(K[[0, 1, 2, 2, 2], [1, 0, 0, 1, 2]], [0, 0, 0, 0, 1]):
        raise InputError(f"{K.tolist()} has skew", hint="Expected [[fx, 0, cx], [0, fy, cy], [0, 0, 1]].")
    return K


def _as_rigid(given: np.ndarray) -> np.ndarray:
    matrix = np.asarray(given, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise InputError(f"got a camera of shape {matrix.shape}, or not finite", hint="Give (4, 4) world_from_camera.")
    rotation = matrix[:3, :3]
    is_rotation = np.abs(rotation.T @ rotation - np.eye(3)).max() < RIGID_TOLERANCE and np.linalg.det(rotation) > 0
    if not is_rotation or not np.allclose(matrix[3], [0, 0, 0, 1]):
        raise InputError("a given camera is not rigid", hint="Give world_from_camera: a rotation and a translation.")
    left, _, right = np.linalg.svd(rotation)
    exact = matrix.copy()
    exact[:3, :3], exact[3] = left @ right, [0, 0, 0, 1]
    return exact
