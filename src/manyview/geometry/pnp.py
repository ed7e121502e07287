"""Where a camera stands, from its pixels' points in the world: perspective-n-point with RANSAC."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from manyview.errors import InputError
from manyview.geometry.cameras import intrinsics, invert_rigid, transform_points
from manyview.geometry.depth import project_points
from manyview.geometry.sampling import finite_points, spread_sample

MIN_POINTS = 4
# Second-largest spread of the points, relative to their size and distance: below it they are a line or a single place.
DEGENERATE_SPREAD = 1e-6
# After the first refinement, points with more than this many times the median error no longer take part.
OUTLIER_FACTOR = 3.0


@dataclass(frozen=True, kw_only=True)
class PnpResult:
    """A camera found by `solve_pnp`, and how well it explains the points it was found from.

    Attributes:
        K: (3, 3) float64, pixels, as given or as found.
        world_from_camera: (4, 4) float64, rigid.
        points: how many points were used.
        inliers: how many of them are in front of the camera and nearer to their pixel than the limit.
        median_error: pixels, over all points used; inf if most of them are behind the camera.
    """

    K: np.ndarray
    world_from_camera: np.ndarray
    points: int
    inliers: int
    median_error: float

    @property
    def inlier_ratio(self) -> float:
        """Share of the points used, 0..1."""
        return self.inliers / self.points


@dataclass(frozen=True)
class _Ransac:
    """Limits of one search."""

    iterations: int
    reprojection_error: float
    confidence: float


@dataclass(frozen=True)
class _Fit:
    """camera_from_world as OpenCV writes it, and the rows it was fitted to."""

    rotation_vector: np.ndarray
    translation: np.ndarray
    rows: np.ndarray

    @property
    def camera_from_world(self) -> np.ndarray:
        import cv2

        matrix = np.eye(4)
        matrix[:3, :3] = cv2.Rodrigues(self.rotation_vector)[0]
        matrix[:3, 3] = self.translation.reshape(3)
        return matrix


def solve_pnp(
    points: np.ndarray,
    K: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    iterations: int = 100,
    reprojection_error: float = 5.0,
    confidence: float = 0.99,
    max_points: int | None = None,
    point_confidence: np.ndarray | None = None,
    seed: int = 0,
    refine: bool = True,
) -> PnpResult | None:
    """The camera that sees each point of a map at its own pixel.

    OpenCV's RANSAC with the SQPnP solver (Terzakis and Lourakis, ECCV 2020), without distortion. With `refine=False`
    and `max_points=None` it is the procedure of DUSt3R and Fast3R. The same input gives the same result: OpenCV seeds
    its search itself, and `seed` governs the choice of the points.

    Args:
        points: (H, W, 3), world frame. Non-finite ones are left out.
        K: (3, 3), pixels of this (H, W) picture.
        mask: (H, W) bool, pixels that may be used; None allows all.
        iterations, confidence: of RANSAC, which stops early once it is this sure (0..1).
        reprojection_error: pixels; the limit for an inlier.
        max_points: search among about this many well-spread points (2000 is plenty) instead of all.
        point_confidence: (H, W); with `max_points`, prefer the most confident pixels.
        seed: of the choice among the pixels, with `max_points` and without `point_confidence`.
        refine: minimise the squared reprojection error over the inliers by Levenberg-Marquardt.

    Returns:
        None where no camera can be found: fewer than four usable points, all on one line or in one place, K without a
        positive focal length, or no agreement among the points. Few inliers are for the caller to judge.
    """
    if not _is_usable(K):
        return None
    world, pixels = _correspondences(points, mask, max_points, point_confidence, seed)
    limits = _Ransac(iterations, reprojection_error, confidence)
    K = np.array(K, dtype=np.float64)
    fit = _search(world, pixels, K, limits)
    if fit is not None and refine:
        fit = _refine(fit, world, pixels, K, limits)
    return None if fit is None else _judge(fit, world, pixels, K, limits)


def solve_pnp_unknown_focal(
    points: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    principal_point: tuple[float, float] | None = None,
    candidates: int = 100,
    iterations: int = 100,
    reprojection_error: float = 5.0,
    confidence: float = 0.99,
    max_points: int | None = None,
    point_confidence: np.ndarray | None = None,
    seed: int = 0,
    refine: bool = True,
) -> PnpResult | None:
    """The camera and its focal length, by trying focal lengths between half and three times the longer side.

    With `refine=False` the candidate with the most inliers wins, the first one on ties, as in DUSt3R and Fast3R
    ("individual"). That is inaccurate, since the limit for an inlier is generous: with `refine=True` the smallest
    truncated reprojection error decides, and the focal length is then improved between its neighbours. Where a map in
    the camera's own frame exists, `estimate_focal` on it followed by `solve_pnp` is faster and better than either.

    Args:
        principal_point: (x, y) pixels; None is (W / 2, H / 2), as in the published procedure (see `estimate_focal`).
        candidates: how many focal lengths to try, in geometric progression.

    The other arguments and the result are those of `solve_pnp`; the focal length is in the result's K.
    """
    height, width = np.shape(points)[:2]
    centre = (width / 2, height / 2) if principal_point is None else principal_point
    world, pixels = _correspondences(points, mask, max_points, point_confidence, seed)
    limits = _Ransac(iterations, reprojection_error, confidence)
    longer = max(height, width)
    focals = np.geomspace(longer / 2, 3 * longer, candidates)
    fits = [_search(world, pixels, intrinsics(focal, centre), limits) for focal in focals]
    found = [(focal, fit) for focal, fit in zip(focals, fits, strict=True) if fit is not None]
    if not found:
        return None
    if refine:
        best, fit = min(found, key=lambda pair: _cost(pair[1], world, pixels, intrinsics(pair[0], centre), limits))
        best, fit = _refine_focal(best, fit, focals[1] / focals[0], world, pixels, centre, limits)
    else:
        best, fit = max(found, key=lambda pair: len(pair[1].rows))
    return _judge(fit, world, pixels, intrinsics(best, centre), limits)


def _is_usable(K: np.ndarray) -> bool:
    K = np.asarray(K, dtype=np.float64)
    if K.shape != (3, 3):
        raise InputError(f"Got K of shape {K.shape}, expected (3, 3).", hint="Give one view at a time.")
    return bool(np.all(np.isfinite(K)) and K[0, 0] > 0 and K[1, 1] > 0)


def _correspondences(
    points: np.ndarray, mask: np.ndarray | None, max_points: int | None, confidence: np.ndarray | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """World points (P, 3) and pixels (P, 2), float64 and contiguous."""
    points = np.asarray(points)
    if points.ndim != 3 or points.shape[-1] != 3:
        raise InputError(f"Got points of shape {points.shape}, expected (H, W, 3).", hint="Give one view at a time.")
    usable = finite_points(points)
    if mask is not None:
        usable &= np.asarray(mask, dtype=bool)
    rows = np.flatnonzero(usable)
    if max_points is not None:
        rows = spread_sample(usable, max_points, confidence=confidence, seed=seed)
    width = points.shape[1]
    pixels = np.stack([rows % width, rows // width], axis=-1).astype(np.float64)
    return points.reshape(-1, 3)[rows].astype(np.float64), pixels


def _search(world: np.ndarray, pixels: np.ndarray, K: np.ndarray, limits: _Ransac) -> _Fit | None:
    """RANSAC; None if it fails or agrees only on points that do not determine a camera."""
    import cv2

    if len(world) < MIN_POINTS:
        return None
    try:
        found, rotation_vector, translation, rows = cv2.solvePnPRansac(
            world,
            pixels,
            K,
            None,
            iterationsCount=limits.iterations,
            reprojectionError=limits.reprojection_error,
            confidence=limits.confidence,
            flags=cv2.SOLVEPNP_SQPNP,
        )
    except cv2.error:
        return None
    if not found or rows is None or not np.all(np.isfinite([*rotation_vector.flat, *translation.flat])):
        return None
    rows = np.asarray(rows, dtype=np.int64).reshape(-1)
    if len(rows) < MIN_POINTS or _is_degenerate(world[rows]):
        return None
    return _Fit(rotation_vector, translation, rows)


def _is_degenerate(world: np.ndarray) -> bool:
    mean = world.mean(axis=0)
    centred = world - mean
    spread = np.sqrt(np.maximum(np.linalg.eigvalsh(centred.T @ centred / len(world)), 0.0))
    return bool(spread[1] <= DEGENERATE_SPREAD * (spread[2] + np.linalg.norm(mean)))


def _refine(fit: _Fit, world: np.ndarray, pixels: np.ndarray, K: np.ndarray, limits: _Ransac) -> _Fit:
    """Levenberg-Marquardt on the inliers, then again without those that now stand out."""
    fit = _descend(fit, world, pixels, K)
    errors = _errors(fit, world, pixels, K)[fit.rows]
    limit = min(limits.reprojection_error, OUTLIER_FACTOR * float(np.median(errors)))
    rows = fit.rows[errors <= limit]
    if len(rows) < MIN_POINTS or _is_degenerate(world[rows]):
        return fit
    return _descend(_Fit(fit.rotation_vector, fit.translation, rows), world, pixels, K)


def _descend(fit: _Fit, world: np.ndarray, pixels: np.ndarray, K: np.ndarray) -> _Fit:
    import cv2

    start = fit.rotation_vector.copy(), fit.translation.copy()
    rotation_vector, translation = cv2.solvePnPRefineLM(world[fit.rows], pixels[fit.rows], K, None, *start)
    if not np.all(np.isfinite([*rotation_vector.flat, *translation.flat])):
        return fit
    return _Fit(rotation_vector, translation, fit.rows)


def _refine_focal(
    focal: float,
    fit: _Fit,
    ratio: float,
    world: np.ndarray,
    pixels: np.ndarray,
    centre: tuple[float, float],
    limits: _Ransac,
) -> tuple[float, _Fit]:
    """The best focal length within one candidate's distance (a ratio) on either side, and the camera for it."""
    from scipy.optimize import minimize_scalar

    def refined(log_focal: float) -> _Fit:
        return _descend(fit, world, pixels, intrinsics(np.exp(log_focal), centre))

    def cost(log_focal: float) -> float:
        return _cost(refined(log_focal), world, pixels, intrinsics(np.exp(log_focal), centre), limits)

    reach = 2 * np.log(ratio)
    bounds = (np.log(focal) - reach, np.log(focal) + reach)
    best = minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return float(np.exp(best.x)), refined(best.x)


def _errors(fit: _Fit, world: np.ndarray, pixels: np.ndarray, K: np.ndarray) -> np.ndarray:
    """(P,) distances in pixels; inf behind the camera."""
    projected, depth = project_points(transform_points(fit.camera_from_world, world), K)
    distance = np.hypot(projected[:, 0] - pixels[:, 0], projected[:, 1] - pixels[:, 1])
    return np.where(depth > 0, distance, np.inf)


def _cost(fit: _Fit, world: np.ndarray, pixels: np.ndarray, K: np.ndarray, limits: _Ransac) -> float:
    """Mean squared error where no point counts more than one at the limit."""
    return float(np.mean(np.minimum(_errors(fit, world, pixels, K), limits.reprojection_error) ** 2))


def _judge(fit: _Fit, world: np.ndarray, pixels: np.ndarray, K: np.ndarray, limits: _Ransac) -> PnpResult | None:
    errors = _errors(fit, world, pixels, K)
    inliers = int(np.count_nonzero(errors < limits.reprojection_error))
    if inliers < MIN_POINTS:
        return None
    return PnpResult(
        K=K,
        world_from_camera=invert_rigid(fit.camera_from_world),
        points=len(world),
        inliers=inliers,
        median_error=float(np.median(errors)),
    )
