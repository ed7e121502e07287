"""Similarities (scale, rotation, translation): fit to corresponding points, local-to-global alignment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from manyview.errors import InputError
from manyview.geometry.sampling import confident_pixels, finite_points, spread_sample

MIN_POINTS = 3
# Below this share of the largest singular value the second one is rounding: the points lie on a line or in one place.
DEGENERATE_RATIO = 1e-12


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """The map y = scale * rotation @ x + translation from a source to a target frame.

    Attributes:
        scale: positive, target units per source unit.
        rotation: (3, 3) float64, determinant +1.
        translation: (3,) float64, target units.
    """

    scale: float
    rotation: np.ndarray
    translation: np.ndarray

    @classmethod
    def identity(cls) -> Similarity:
        """The map that changes nothing."""
        return cls(scale=1.0, rotation=np.eye(3), translation=np.zeros(3))

    @property
    def matrix(self) -> np.ndarray:
        """(4, 4) float64, target_from_source; its upper-left block carries the scale, so it is not rigid."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.scale * self.rotation
        matrix[:3, 3] = self.translation
        return matrix

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) in the source frame -> (..., 3) float64 in the target frame."""
        points = np.asarray(points, dtype=np.float64)
        return points @ (self.scale * self.rotation).T + self.translation

    def apply_to_camera(self, world_from_camera: np.ndarray) -> np.ndarray:
        """Cameras (..., 4, 4) placed in the source frame -> the same cameras in the target frame, still rigid."""
        moved = np.array(world_from_camera, dtype=np.float64)
        moved[..., :3, :3] = self.rotation @ moved[..., :3, :3]
        moved[..., :3, 3] = self.apply(moved[..., :3, 3])
        return moved

    def inverse(self) -> Similarity:
        """The map from the target back to the source frame."""
        scale = 1.0 / self.scale
        return Similarity(
            scale=scale, rotation=self.rotation.T, translation=-scale * (self.rotation.T @ self.translation)
        )

    def compose(self, first: Similarity) -> Similarity:
        """The map that applies `first` and then this one: `a.compose(b).apply(x) == a.apply(b.apply(x))`."""
        return Similarity(
            scale=self.scale * first.scale,
            rotation=self.rotation @ first.rotation,
            translation=self.apply(first.translation),
        )


def fit_similarity(
    source: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None, with_scale: bool = True
) -> Similarity:
    """The similarity that takes `source` to `target` with the least weighted sum of squared distances.

    Closed form with a guard against reflections: Umeyama, "Least-squares estimation of transformation parameters
    between two point patterns", PAMI 1991, equations 34-43. Rows with non-finite numbers or without weight are ignored.

    Args:
        source, target: (P, 3) corresponding points, each in its own frame and units.
        weights: (P,) not negative; None gives all points the same weight.
        with_scale: False keeps the scale at 1 (a rigid motion).

    Raises:
        InputError: the shapes disagree, or the points do not determine a rotation (fewer than three, or on one line).
    """
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if source.ndim != 2 or source.shape[1] != 3 or source.shape != target.shape:
        raise InputError(
            f"Got corresponding points of shapes {source.shape} and {target.shape}, expected two of (P, 3).",
            hint="Give both sets flattened, in the same order.",
        )
    fitted = _fit(source, target, _clean_weights(source, target, weights), with_scale)
    if fitted is None:
        raise InputError(
            f"{len(source)} corresponding points do not determine a similarity: fewer than {MIN_POINTS} are usable, "
            "or they lie on one line.",
            hint="Use more points, or points that are spread over a surface.",
        )
    return fitted


def align_local_to_global(
    local_points: np.ndarray,
    global_points: np.ndarray,
    global_confidence: np.ndarray,
    *,
    percentile: float = 0.0,
    valid: np.ndarray | None = None,
    max_points: int | None = None,
) -> Similarity | None:
    """The similarity that takes a view's own-frame points onto its points in the shared frame (Fast3R, section 3).

    It is fitted, unweighted, to the pixels whose global confidence reaches the given percentile. Where fewer than three
    remain, confidence is disregarded and all valid pixels are used.

    Args:
        local_points: (H, W, 3), the view's own frame.
        global_points: (H, W, 3), the shared frame.
        global_confidence: (H, W).
        percentile: 0..100; Fast3R's demo and evaluation use 85, its default is 0 (every pixel).
        valid: (H, W) bool, pixels that may be used; None allows all.
        max_points: fit to about this many well-spread pixels instead of all, for speed.

    Returns:
        world_from_local, or None where even the valid pixels do not determine it; the caller flags such a view.
    """
    usable = finite_points(local_points) & finite_points(global_points)
    if valid is not None:
        usable &= np.asarray(valid, dtype=bool)
    confident = usable & confident_pixels(global_confidence, percentile / 100)
    chosen = confident if np.count_nonzero(confident) >= MIN_POINTS else usable
    rows = _rows(chosen, max_points)
    source = np.asarray(local_points).reshape(-1, 3)[rows].astype(np.float64)
    target = np.asarray(global_points).reshape(-1, 3)[rows].astype(np.float64)
    return _fit(source, target, None, with_scale=True)


def _rows(mask: np.ndarray, max_points: int | None) -> np.ndarray:
    return np.flatnonzero(mask) if max_points is None else spread_sample(mask, max_points)


def _clean_weights(source: np.ndarray, target: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    finite = finite_points(source) & finite_points(target)
    if weights is None:
        return finite.astype(np.float64)
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != finite.shape or np.any(weights < 0):
        raise InputError(
            f"Got weights of shape {weights.shape} with minimum {np.nanmin(weights, initial=np.inf)}, "
            f"expected {finite.shape} and none below zero.",
            hint="Give one weight a point.",
        )
    return np.where(finite & np.isfinite(weights), weights, 0.0)


def _fit(source: np.ndarray, target: np.ndarray, weights: np.ndarray | None, with_scale: bool) -> Similarity | None:
    if weights is not None:
        kept = weights > 0
        source, target, weights = source[kept], target[kept], weights[kept]
    if len(source) < MIN_POINTS:
        return None
    shares = np.full(len(source), 1.0 / len(source)) if weights is None else weights / weights.sum()
    source_mean, target_mean = shares @ source, shares @ target
    source, target = source - source_mean, target - target_mean
    covariance = (target * shares[:, None]).T @ source
    left, singular, right_t = np.linalg.svd(covariance)
    if not singular[1] > DEGENERATE_RATIO * singular[0]:
        return None
    # A reflection fits mirrored or nearly planar points better than any rotation: turn the weakest axis round.
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left) * np.linalg.det(right_t))])
    rotation = (left * signs) @ right_t
    variance = float(shares @ np.einsum("pi,pi->p", source, source))
    scale = float(singular @ signs) / variance if with_scale else 1.0
    return Similarity(scale=scale, rotation=rotation, translation=target_mean - scale * rotation @ source_mean)
