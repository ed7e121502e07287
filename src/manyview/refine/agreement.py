"""How well cameras explain verified matches: the one measure by which two sets of cameras are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from manyview.geometry import Camera
from manyview.refine.matching import VerifiedPair, connected

LIMIT_SHARE = 0.005  # of the picture's longer side: 3.2 pixels of 640; a match that is farther off is not explained
SCALES = (1, 2, 4, 8, 16)  # times the limit, at which `Agreement.score` looks
NEGLIGIBLE = 0.01  # pixels of error: less tells nothing
ROTATION_SHARE = 0.8  # of a pair's matches that a turn about one place explains: it tells nothing of depth
MOSTLY_TURNS = 0.9  # of the pairs, if photos show no parallax
FULL_WEIGHT = 100  # matches from which on all pairs count the same
CLEAR_SHARE, CLEAR_MATCHES = 0.5, 30  # a clear pair's turn explains no more than this share, and leaves so many matches
FOCAL_FACTORS = np.geomspace(0.7, 1.4, 9)  # of the focal length that is assumed there, which need not be exact


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How N cameras explain the verified matches between their photos.

    Attributes:
        matches: how many there are, all pairs together; also those of views without a camera.
        explained: share of them, 0..1, with an error below the limit, both cameras seeing the point in front.
        score: mean of that share over limits that double, up to 16 times the usual one, 0..1. Cameras that are about
            right everywhere can so be compared with some that are exact, or wrong, here and there.
        median_error: original pixels, over all matches of views with cameras; nan where there is none. See `errors`.
    """

    matches: int
    explained: float
    score: float
    median_error: float

    def is_worse_than(self, other: Agreement) -> bool:
        """Whether these cameras are clearly worse: they explain less, or as much with larger errors."""
        if abs(self.score - other.score) > 0.02:
            return self.score < other.score
        if not np.isfinite(self.median_error):
            return np.isfinite(other.median_error)
        return self.median_error > 1.1 * other.median_error + NEGLIGIBLE


def judge_cameras(
    cameras: Sequence[Camera | None], pairs: Sequence[VerifiedPair], frames: Sequence[int] | None = None
) -> Agreement:
    """How well cameras explain the pairs' matches.

    Args:
        cameras: one a view, in original pixels; None where there is none.
        pairs: of views.
        frames: for each view a number: cameras with different ones share no frame; None where all share one.
    """
    total = sum(len(pair) for pair in pairs)
    measured, explained = [np.zeros(0)], np.zeros(len(SCALES))
    for pair in pairs:
        first, second = cameras[pair.first], cameras[pair.second]
        if first is None or second is None or (frames is not None and frames[pair.first] != frames[pair.second]):
            continue
        error = errors(first, second, pair.first_pixels, pair.second_pixels)
        measured.append(error)
        limits = limit_of(first, second) * np.array(SCALES)
        explained += (error[:, None] < limits).sum(axis=0)
    every = np.concatenate(measured)
    return Agreement(
        matches=total,
        explained=float(explained[0]) / total if total else 0.0,
        score=float(explained.mean()) / total if total else 0.0,
        median_error=float(np.median(every)) if len(every) else float("nan"),
    )


def share_explained(first: Camera, second: Camera, pair: VerifiedPair, *, slack: float = 1.0) -> float:
    """Share of a pair's matches, 0..1, with errors below `slack` times the limit."""
    error = errors(first, second, pair.first_pixels, pair.second_pixels)
    return float((error < slack * limit_of(first, second)).mean())


def limit_of(first: Camera, second: Camera) -> float:
    """Pixels up to which a match of two photos is explained."""
    return LIMIT_SHARE * max(first.width, first.height, second.width, second.height)


def errors(first: Camera, second: Camera, first_pixels: np.ndarray, second_pixels: np.ndarray) -> np.ndarray:
    """(M,) pixels by which matches miss two cameras: how far both ends together must move to show one point.

    To first order (Sampson's distance; Hartley and Zisserman, "Multiple View Geometry", section 11.4.3). Where the
    rays would meet behind a camera, it is the distance from the point at infinity; infinite for pixels that are nan.

    Args:
        first, second: two cameras in one world.
        first_pixels, second_pixels: (M, 2) original pixels.
    """
    second_from_first = second.camera_from_world @ first.world_from_camera
    rotation, translation = second_from_first[:3, :3], second_from_first[:3, 3]
    from_first = _rays(first.K, first_pixels)
    from_second = _rays(second.K, second_pixels)
    at_infinity = _distance_at_infinity(from_first @ rotation.T, second.K, second_pixels)
    length = np.linalg.norm(translation)
    if not length > 0:
        return at_infinity
    essential = _cross_matrix(translation / length) @ rotation
    sampson = _sampson(first.K, second.K, essential, first_pixels, second_pixels)
    in_front = _meet_in_front(from_first @ rotation.T, from_second, translation)
    return np.where(in_front, sampson, np.fmax(at_infinity, sampson))  # nan pixels have no sampson


def explained_by_rotation(first: Camera, second: Camera, pair: VerifiedPair) -> float:
    """Largest share of a pair's matches, 0..1, that a turn about one place explains, for focal lengths near these."""
    best = 0.0
    for factor in FOCAL_FACTORS:
        scaled = np.diag([factor, factor, 1.0])
        K = _about_centre(first.K, scaled), _about_centre(second.K, scaled)
        from_first, from_second = _unit(_rays(K[0], pair.first_pixels)), _unit(_rays(K[1], pair.second_pixels))
        turned = from_first @ _robust_rotation(from_first, from_second).T
        error = _distance_at_infinity(turned, K[1], pair.second_pixels)
        best = max(best, float((error < limit_of(first, second)).mean()))
    return best


def has_no_parallax(cameras: Sequence[Camera | None], pairs: Sequence[VerifiedPair]) -> bool:
    """Whether photos show no more than a turn, so that nothing can be told of depth and place.

    Pairs count about equally, however many matches they have: near copies of a photo have thousands with each other,
    and a photo from elsewhere has some hundred with each of them. Where nearly all pairs are turns, photos may still be
    from several places: it takes one clear pair between two sets of photos that turns link.

    Args:
        cameras: one a view; only K counts. Pairs of views without one are not asked.
        pairs: of the views in question.
    """
    asked = [(pair, share) for pair in pairs if (share := _turned_share(cameras, pair)) is not None]
    turns = [pair for pair, share in asked if share > ROTATION_SHARE]
    if not turns or _weight(turns) <= MOSTLY_TURNS * _weight([pair for pair, _ in asked]):
        return False
    places = connected([(pair.first, pair.second) for pair in turns], len(cameras))
    place_of = {view: number for number, members in enumerate(places) for view in members}
    apart = [(pair, share) for pair, share in asked if place_of[pair.first] != place_of[pair.second]]
    return not any(share < CLEAR_SHARE and (1 - share) * len(pair) >= CLEAR_MATCHES for pair, share in apart)


def _turned_share(cameras: Sequence[Camera | None], pair: VerifiedPair) -> float | None:
    first, second = cameras[pair.first], cameras[pair.second]
    return None if first is None or second is None else explained_by_rotation(first, second, pair)


def _weight(pairs: Sequence[VerifiedPair]) -> int:
    """How much pairs count: those of a few matches less, as they may be wrong ones."""
    return sum(min(len(pair), FULL_WEIGHT) for pair in pairs)


def _about_centre(K: np.ndarray, scaled: np.ndarray) -> np.ndarray:
    changed = K @ scaled
    changed[:2, 2] = K[:2, 2]
    return changed


def _rays(K: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """(M, 2) -> (M, 3) with z = 1."""
    return np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(K).T


def _unit(rays: np.ndarray) -> np.ndarray:
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def _distance_at_infinity(turned: np.ndarray, K: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    in_front = turned[:, 2] > 1e-9  # and not nan
    projected = turned @ K.T
    shown = projected[:, :2] / np.where(in_front, turned[:, 2], 1.0)[:, None]
    distance = np.linalg.norm(shown - pixels, axis=1)
    return np.where(in_front & np.isfinite(distance), distance, np.inf)


def _sampson(
    first_K: np.ndarray, second_K: np.ndarray, essential: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    fundamental = np.linalg.inv(second_K).T @ essential @ np.linalg.inv(first_K)
    first, second = np.column_stack([first, np.ones(len(first))]), np.column_stack([second, np.ones(len(second))])
    line_in_second, line_in_first = first @ fundamental.T, second @ fundamental
    residual = np.abs(np.einsum("mi,mi->m", second, line_in_second))
    squares = (line_in_second[:, :2] ** 2).sum(axis=1) + (line_in_first[:, :2] ** 2).sum(axis=1)
    return residual / np.sqrt(np.maximum(squares, 1e-300))


def _meet_in_front(turned: np.ndarray, other: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """(M,) whether the points of rays a * turned + translation and b * other that are nearest have a, b > 0."""
    uu, vv = (turned**2).sum(axis=1), (other**2).sum(axis=1)
    uv = np.einsum("mi,mi->m", turned, other)
    ut, vt = turned @ translation, other @ translation
    # Both distances times the determinant uu vv - uv^2 >= 0: its size does not matter, only the signs do.
    return (uv * vt - vv * ut > 0) & (uu * vt - uv * ut > 0)


def _robust_rotation(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(3, 3) rotation from unit rays to unit rays, by least squares re-weighted towards least distances."""
    weights = np.ones(len(source))
    rotation = np.eye(3)
    for _ in range(8):
        left, _, right = np.linalg.svd((target * weights[:, None]).T @ source)
        rotation = left @ np.diag([1, 1, np.linalg.det(left) * np.linalg.det(right)]) @ right
        distance = np.linalg.norm(source @ rotation.T - target, axis=1)
        weights = 1 / np.maximum(distance, 1e-4)
    return rotation


def _cross_matrix(vector: np.ndarray) -> np.ndarray:
    x, y, z = vector
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
