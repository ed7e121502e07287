"""The focal length of a point map in its own camera's frame, and depth with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from manyview.errors import InputError
from manyview.geometry.cameras import intrinsics
from manyview.geometry.depth import depth_from_points, points_from_depth
from manyview.geometry.sampling import confident_pixels, spread_sample

FocalMethod = Literal["weiszfeld", "median"]

DEFAULT_FIELD_OF_VIEW = 60.0
# Residuals below this many pixels count as equally small, so that no weight becomes infinite.
SMALLEST_RESIDUAL = 1e-8
# Relative change of the focal length below which further steps alter nothing that matters.
CONVERGED = 1e-12


@dataclass(frozen=True, kw_only=True)
class DepthMap:
    """Depth of one picture and the camera that took it, from a point map alone.

    Attributes:
        depth: (H, W) float64 z-depth in the unit of the map; 0 where it has no point in front of the camera.
        K: (3, 3) float64, pixels of the map.
    """

    depth: np.ndarray
    K: np.ndarray

    @property
    def points(self) -> np.ndarray:
        """(H, W, 3) float64 in the camera's frame, on the rays of K; nan without depth."""
        return points_from_depth(self.depth, self.K)


def depth_and_focal(
    points: np.ndarray, confidence: np.ndarray | None = None, *, principal_point: tuple[float, float] | None = None
) -> DepthMap:
    """What a point map in its own camera's frame says of depth and camera.

    With the first map of a pairwise network that was shown one photo twice, this is depth from a single photo (DUSt3R,
    section 4.3 of the paper).

    Args:
        points, confidence, principal_point: as in `estimate_focal`.

    Raises:
        InputError: the shape is not (H, W, 3), or the points contradict every focal length.
    """
    focal = estimate_focal(points, confidence, principal_point=principal_point)
    if focal <= 0:
        raise InputError("the points contradict every focal length", hint="They must be in the camera's own frame.")
    height, width = np.shape(points)[:2]
    centre = (width / 2, height / 2) if principal_point is None else principal_point
    return DepthMap(depth=depth_from_points(points), K=intrinsics(focal, centre))


def default_focal(height: int, width: int) -> float:
    """Focal length in pixels of a camera that sees 60 degrees along the longer side: a mere guess."""
    return max(height, width) / (2 * math.tan(math.radians(DEFAULT_FIELD_OF_VIEW / 2)))


def estimate_focal(
    points: np.ndarray,
    confidence: np.ndarray | None = None,
    *,
    method: FocalMethod = "weiszfeld",
    principal_point: tuple[float, float] | None = None,
    confidence_quantile: float = 0.10,
    iterations: int = 100,
    max_points: int | None = None,
    limits: tuple[float, float] | None = None,
) -> float:
    """The focal length f for which f * (X/Z, Y/Z) is nearest to the pixels.

    "weiszfeld" minimises the sum of |p - f r| (distances, not squares, so that outliers count little) by re-weighted
    least squares, as DUSt3R (section 3.3 of the paper; 10 iterations, no confidence) and Fast3R do. "median" takes the
    middle one of the focal lengths that each coordinate of each pixel asks for: coarser and faster. Pixels are square.

    Args:
        points: (H, W, 3) in the frame of the camera that took the picture.
        confidence: (H, W); pixels below its quantile `confidence_quantile` (0..1) are left out.
        principal_point: (x, y) pixels. None is (W / 2, H / 2), which the published models use and which lies half a
            pixel off the picture's centre ((W - 1) / 2, (H - 1) / 2) in coordinates with integers at pixel centres.
        iterations: most re-weighted steps; it stops earlier once nothing changes.
        max_points: use about this many well-spread pixels instead of all: several times faster, nearly the same result.
        limits: (least, largest) result as multiples of `default_focal`; DUSt3R's are none.

    Returns:
        Pixels, not negative: 0 where the points contradict every positive focal length. `default_focal` where no point
        has a usable direction (all at depth zero, or non-finite), as in the published procedure.
    """
    points = np.asarray(points)
    if points.ndim != 3 or points.shape[-1] != 3:
        raise InputError(f"Got points of shape {points.shape}, expected (H, W, 3).", hint="Give one view at a time.")
    height, width = points.shape[:2]
    kept = np.ones((height, width), dtype=bool)
    if confidence is not None:
        kept = confident_pixels(confidence, confidence_quantile)
    if method not in ("weiszfeld", "median"):
        raise InputError(f'method: expected "weiszfeld" or "median", got {method!r}')
    directions = _directions(points)
    if method == "weiszfeld":
        kept &= np.any(directions != 0, axis=-1)
    rows = np.flatnonzero(kept) if max_points is None else spread_sample(kept, max_points)
    centre_x, centre_y = (width / 2, height / 2) if principal_point is None else principal_point
    pixels = np.stack([rows % width - centre_x, rows // width - centre_y], axis=-1)
    default = default_focal(height, width)
    if not rows.size:
        focal = default
    elif method == "weiszfeld":
        focal = _weiszfeld(directions.reshape(-1, 2)[rows], pixels, iterations)
    else:
        focal = _median(points.reshape(-1, 3)[rows], pixels, default)
    least, largest = (0.0, math.inf) if limits is None else limits
    return float(np.clip(focal, max(0.0, least * default), largest * default))


def _directions(points: np.ndarray) -> np.ndarray:
    """(H, W, 3) -> (H, W, 2) float64 X/Z, Y/Z; each one 0 where it is not finite."""
    points = points.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        directions = points[..., :2] / points[..., 2:]
    directions[~np.isfinite(directions)] = 0.0
    return directions


def _weiszfeld(directions: np.ndarray, pixels: np.ndarray, iterations: int) -> float:
    """Directions and centred pixels, both (P, 2) -> focal length."""
    x, y = np.ascontiguousarray(directions.T)
    u, v = np.ascontiguousarray(pixels.T)
    alike = x * u + y * v
    square = x * x + y * y
    pixel_square = u * u + v * v
    focal = alike.sum() / square.sum()
    for _ in range(iterations):
        # |p - f r|^2, expanded: three terms that do not change from step to step.
        residual = np.sqrt(np.maximum(pixel_square + focal * (focal * square - 2 * alike), 0.0))
        weights = 1.0 / np.maximum(residual, SMALLEST_RESIDUAL)
        previous, focal = focal, (weights @ alike) / (weights @ square)
        if abs(focal - previous) <= CONVERGED * abs(focal):
            break
    return float(focal)


def _median(points: np.ndarray, pixels: np.ndarray, default: float) -> float:
    """Points (P, 3) and centred pixels (P, 2) -> focal length; the default where no vote is a number."""
    points = points.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        votes = (pixels * points[:, 2:] / points[:, :2]).ravel()
    votes = votes[~np.isnan(votes)]  # infinite votes count as very long and very short ones
    if not votes.size:
        return default
    middle = (votes.size - 1) // 2  # of an even number the lower one, as published
    median = float(np.partition(votes, middle)[middle])
    return median if math.isfinite(median) else default
