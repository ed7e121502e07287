"""Where a camera with known intrinsics stands, from pixels and the world points they show."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from manyview.errors import InputError
from manyview.geometry.cameras import invert_rigid, transform_points
from manyview.geometry.depth import project_points

Solver = Literal["pycolmap", "poselib", "opencv"]
PoseStatus = Literal["found", "doubtful", "not_found"]

LEAST_MATCHES = 5
RELATIVE_LIMIT = 0.008  # of the picture's diagonal: the published limit for an inlier
OPENCV_LIMIT = 5.0  # pixels: the published limit with OpenCV
CHANCE = 0.01  # a camera whose agreement comes about by chance more often than this is doubtful
DISTORTION_COUNTS = (4, 5, 8, 12, 14)


@dataclass(frozen=True, kw_only=True, eq=False)
class AbsolutePose:
    """What was found out about a camera; never an identity in place of a failure.

    Attributes:
        world_from_camera: (4, 4) float64, rigid; None if `status` is "not_found".
        status: "doubtful" if as many matches could well agree with some camera by chance.
        reason: in words, unless it is found.
        inlier_mask: (P,) bool, over all matches that were given: finite, in front of the camera and within the limit.
        matches: how many were used.
        limit: pixels of the picture up to which a match agrees.
        median_error: pixels, over the inliers; nan without any.
        solver: that found it.
    """

    world_from_camera: np.ndarray | None
    status: PoseStatus
    reason: str
    inlier_mask: np.ndarray
    matches: int
    limit: float
    median_error: float
    solver: Solver

    @property
    def inliers(self) -> int:
        """How many matches agree with the camera."""
        return int(np.count_nonzero(self.inlier_mask))


@dataclass(frozen=True)
class _Search:
    """A search: pixels (P, 2) without distortion, points (P, 3), K, (height, width), and how to look."""

    pixels: np.ndarray
    points: np.ndarray
    K: np.ndarray
    size: tuple[int, int]
    limit: float
    iterations: int
    success: float
    seed: int


def solve_absolute_pose(
    pixels: np.ndarray,
    points: np.ndarray,
    K: np.ndarray,
    size: tuple[int, int],
    *,
    distortion: np.ndarray | None = None,
    solver: Solver = "pycolmap",
    reprojection_error: float | None = None,
    iterations: int = 10_000,
    success: float = 0.9999,
    max_matches: int = 100_000,
    seed: int = 0,
) -> AbsolutePose:
    """The camera that sees most world points at their pixels: RANSAC, then a fit to those that agree.

    Args:
        pixels: (P, 2) as (x, y), integers at pixel centres.
        points: (P, 3), world frame. Matches with non-finite numbers are left out.
        K: (3, 3), pixels of the picture.
        size: (height, width) of the picture.
        distortion: OpenCV's coefficients (k1, k2, p1, p2[, k3[, k4, k5, k6[, ...]]]); None for a pinhole.
        solver: "pycolmap"; "poselib", as in DUSt3R's published localisation (`pip install manyview[localise]`); or
            "opencv" (SQPnP).
        reprojection_error: pixels up to which a match agrees; None is 0.8 % of the diagonal, or with "opencv" 5.
        iterations, success: RANSAC tries at most so many samples, and stops when it is this sure (0..1).
        max_matches: of more, so many are drawn.
        seed: of this draw and of RANSAC; equal inputs give equal results.

    Raises:
        InputError: shapes do not fit, K or the coefficients make no sense, or the solver is not installed.
    """
    K = check_intrinsics(K, size)
    solve = require_solver(solver)
    pixels, points = _checked(pixels, points)
    limit = _limit(reprojection_error, size, solver)
    rows = _drawn(pixels, points, max_matches, seed)
    straight = undistort_pixels(pixels[rows], K, distortion)
    seen = np.isfinite(straight).all(axis=1)  # coefficients may bend the outermost pixels beyond any ray
    rows, straight = rows[seen], straight[seen]
    search = _Search(straight, points[rows], K, size, limit, iterations, success, seed)
    if len(rows) < LEAST_MATCHES:
        return _failed(f"{len(rows)} matches, and at least {LEAST_MATCHES} are needed", len(pixels), search, solver)
    camera_from_world = solve(search)
    if camera_from_world is None:
        return _failed(f"no camera agrees with enough of the {len(rows)} matches", len(pixels), search, solver)
    return _judged(camera_from_world, search, rows, len(pixels), solver)


def check_intrinsics(K: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """K as (3, 3) float64.

    Raises:
        InputError: another shape, no positive focal lengths, or a principal point outside a picture of (height, width).
    """
    K = np.asarray(K, dtype=np.float64)
    off_pattern = K[[0, 1, 2, 2, 2], [1, 0, 0, 1, 2]] if K.shape == (3, 3) else np.full(5, np.nan)
    if not np.isfinite(K).all() or not np.allclose(off_pattern, [0, 0, 0, 0, 1]):
        raise InputError(
            f"K is not a camera matrix without skew: {K.tolist()}",
            hint="Expected [[fx, 0, cx], [0, fy, cy], [0, 0, 1]].",
        )
    height, width = size
    if K[0, 0] <= 0 or K[1, 1] <= 0 or not (0 <= K[0, 2] <= width and 0 <= K[1, 2] <= height):
        raise InputError(
            f"K does not fit a picture of {width} x {height} pixels: focal lengths {K[0, 0]:g} and {K[1, 1]:g}, "
            f"principal point ({K[0, 2]:g}, {K[1, 2]:g})",
            hint="Give K in pixels of the upright original.",
        )
    return K


def undistort_pixels(pixels: np.ndarray, K: np.ndarray, distortion: np.ndarray | None) -> np.ndarray:
    """Where a pinhole camera with the same K would have seen (P, 2) pixels of a lens with OpenCV's coefficients.

    Raises:
        InputError: the number of coefficients is none of OpenCV's.
    """
    if distortion is None:
        return pixels
    coefficients = np.asarray(distortion, dtype=np.float64).reshape(-1)
    if len(coefficients) not in DISTORTION_COUNTS or not np.isfinite(coefficients).all():
        raise InputError(
            f"got distortion coefficients {coefficients.tolist()}",
            hint=f"Expected {', '.join(map(str, DISTORTION_COUNTS))} finite ones in OpenCV's order.",
        )
    if not len(pixels):
        return pixels
    import cv2

    # The inverse has no closed form: far more steps than the five that OpenCV makes unasked.
    enough = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 100, 1e-9)
    return np.asarray(cv2.undistortImagePoints(pixels[:, None], K, coefficients, None, enough)).reshape(-1, 2)


def could_be_chance(inliers: int, matches: int, limit: float, size: tuple[int, int], iterations: int) -> bool:
    """Whether so many of the matches would agree with some camera that was tried if all pixels were random.

    An a-contrario test (Moisan and Stival, IJCV 2004): three matches fix a camera; each of the others then agrees with
    the chance of hitting a disc of radius `limit` in the picture.
    """
    from scipy.stats import binom

    chance = min(1.0, math.pi * limit**2 / (size[0] * size[1]))
    return bool(iterations * binom.sf(inliers - 4, max(matches - 3, 0), chance) > CHANCE)


# ------------------------------------------------------------------ solvers: a search -> camera_from_world, or None
def _by_pycolmap(search: _Search) -> np.ndarray | None:
    import pycolmap

    options = pycolmap.AbsolutePoseEstimationOptions()
    options.ransac.max_error = search.limit
    options.ransac.confidence = search.success
    options.ransac.max_num_trials = search.iterations
    options.ransac.random_seed = search.seed
    height, width = search.size
    parameters = _pinhole(search.K)
    camera = pycolmap.Camera(model="PINHOLE", width=width, height=height, params=parameters)
    found = pycolmap.estimate_and_refine_absolute_pose(search.pixels, search.points, camera, options)
    return None if found is None else _square(found["cam_from_world"].matrix())


def _by_poselib(search: _Search) -> np.ndarray | None:
    import poselib

    height, width = search.size
    camera = {"model": "PINHOLE", "width": width, "height": height, "params": _pinhole(search.K)}
    options = {
        "max_reproj_error": search.limit,
        "max_iterations": search.iterations,
        "success_prob": search.success,
        "seed": search.seed,
    }
    pose, info = poselib.estimate_absolute_pose(search.pixels, search.points, camera, options)
    return None if info["num_inliers"] < LEAST_MATCHES else _square(pose.Rt)


def _by_opencv(search: _Search) -> np.ndarray | None:
    import cv2

    try:
        found, rotation, translation, rows = cv2.solvePnPRansac(
            search.points,
            search.pixels,
            search.K,
            None,
            iterationsCount=search.iterations,
            reprojectionError=search.limit,
            confidence=search.success,
            flags=cv2.SOLVEPNP_SQPNP,
        )
        if not found or rows is None or len(rows) < LEAST_MATCHES:
            return None
        rows = np.asarray(rows, dtype=np.int64).reshape(-1)
        start = rotation, translation
        rotation, translation = cv2.solvePnPRefineLM(search.points[rows], search.pixels[rows], search.K, None, *start)
    except cv2.error:  # points on one line or in one place
        return None
    return _square(np.hstack([cv2.Rodrigues(rotation)[0], translation.reshape(3, 1)]))


def require_solver(name: Solver) -> Callable[[_Search], np.ndarray | None]:
    """The function that solves a search.

    Raises:
        InputError: the solver is unknown or not installed.
    """
    solvers = {"pycolmap": _by_pycolmap, "poselib": _by_poselib, "opencv": _by_opencv}
    if name not in solvers:
        raise InputError(f"solver: expected one of {', '.join(solvers)}, got {name!r}")
    if name == "poselib":
        try:
            import poselib  # noqa: F401
        except ImportError as error:
            raise InputError(
                "the solver poselib is not installed",
                hint='Install it with pip install "manyview[localise]", or use the solver "pycolmap".',
            ) from error
    return solvers[name]


def _pinhole(K: np.ndarray) -> list[float]:
    return [K[0, 0], K[1, 1], K[0, 2], K[1, 2]]


def _square(matrix: np.ndarray) -> np.ndarray | None:
    """(3, 4) -> (4, 4); None if it is not finite."""
    return np.vstack([matrix, [0.0, 0.0, 0.0, 1.0]]) if np.isfinite(matrix).all() else None


# ------------------------------------------------------------------ before and after
def _checked(pixels: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pixels, points = np.asarray(pixels, dtype=np.float64), np.asarray(points, dtype=np.float64)
    if pixels.ndim != 2 or pixels.shape[1] != 2 or points.shape != (len(pixels), 3):
        raise InputError(f"got pixels of shape {pixels.shape} and points {points.shape}; expected (P, 2) and (P, 3)")
    return pixels, points


def _limit(given: float | None, size: tuple[int, int], solver: Solver) -> float:
    if given is None:
        return OPENCV_LIMIT if solver == "opencv" else RELATIVE_LIMIT * math.hypot(*size)
    if not (math.isfinite(given) and given > 0):
        raise InputError(f"reprojection_error: expected pixels above 0, got {given}")
    return given


def _drawn(pixels: np.ndarray, points: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Rows of finite matches, in order; at most so many, without replacement."""
    rows = np.flatnonzero(np.isfinite(pixels).all(axis=1) & np.isfinite(points).all(axis=1))
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _failed(reason: str, given: int, search: _Search, solver: Solver) -> AbsolutePose:
    return AbsolutePose(
        world_from_camera=None,
        status="not_found",
        reason=reason,
        inlier_mask=np.zeros(given, dtype=bool),
        matches=len(search.pixels),
        limit=search.limit,
        median_error=math.nan,
        solver=solver,
    )


def _judged(
    camera_from_world: np.ndarray, search: _Search, rows: np.ndarray, given: int, solver: Solver
) -> AbsolutePose:
    projected, depth = project_points(transform_points(camera_from_world, search.points), search.K)
    errors = np.where(depth > 0, np.hypot(*(projected - search.pixels).T), np.inf)
    agrees = errors < search.limit
    inliers = int(agrees.sum())
    if inliers < LEAST_MATCHES:
        return _failed(f"only {inliers} of {len(rows)} matches agree with any camera", given, search, solver)
    if _is_line(search.points[agrees]):
        return _failed(f"the {inliers} matches that agree lie on one line", given, search, solver)
    doubtful = could_be_chance(inliers, len(rows), search.limit, search.size, search.iterations)
    mask = np.zeros(given, dtype=bool)
    mask[rows[agrees]] = True
    return AbsolutePose(
        world_from_camera=invert_rigid(camera_from_world),
        status="doubtful" if doubtful else "found",
        reason=f"{inliers} of {len(rows)} matches agree, which could be chance" if doubtful else "",
        inlier_mask=mask,
        matches=len(rows),
        limit=search.limit,
        median_error=float(np.median(errors[agrees])),
        solver=solver,
    )


def _is_line(points: np.ndarray) -> bool:
    """Points on a line, or in one place, leave a rotation open."""
    spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    size = np.linalg.norm(points, axis=1).max()
    return bool(spread[1] <= 1e-6 * max(spread[0], size))
