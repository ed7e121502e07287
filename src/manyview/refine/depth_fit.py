"""Depth maps fitted to sparse exact points: a scale, a scale and a shift, or a smooth field, as far as the points tell.

A network's depth is right up to a scale at best and bends at worst, while points triangulated from exact cameras are
few and exact. Which correction is worth its freedom is not decided beforehand: every candidate is fitted to most parts
of the picture and judged in the parts that were kept from it. The depth as it was given is the first candidate, so a
map that no correction brings nearer to points that it has not seen stays what it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from manyview.errors import InputError
from manyview.refine.robust import SMALLEST_SPREAD, robust_log_solve, robust_solve, spread

FitKind = Literal["unchanged", "scale", "scale_shift", "inverse_scale_shift", "field"]

FEWEST_FOR_SCALE = 3
FEWEST_FOR_SHIFT = 12
FEWEST_FOR_FIELD = 40
POINTS_PER_KNOT = 3
FIELD_INTERVALS = (1, 3, 6, 12)  # along the longer side of the picture
FIELD_STIFFNESS = (0.0003, 0.01)
MOST_JUDGED = 1500  # points on which candidates are compared; the one that wins is fitted to all
FOLDS = 5
FOLD_CELLS = 7  # along the longer side of what the points cover; whole cells are kept back, so that a candidate is
# judged where it has no points
WORTHWHILE = 0.97  # a candidate with more freedom must lower the held-out residual to this share of the simpler one's
BEYOND_THE_POINTS = 0.05  # of log-scale: how far a field may leave the range that it has at the points
SAME_SURFACE = 1.05  # neighbouring pixels within this factor of depth belong to one surface
GROSS = 0.05  # of log-depth: a spread of residuals above which it no longer matters how large they are
OUTLIER = 4.0  # robust standard deviations beyond which a point counts as wrong


@dataclass(frozen=True, kw_only=True, eq=False)
class DepthFit:
    """A depth map fitted to points, and how that was done.

    Attributes:
        depth: (H, W) float32 z-depth in the points' unit; 0 where the given depth was not finite or not above zero.
        kind: the correction in use.
        words: what was done and why, for people.
        scale, shift: depth * scale + shift for "scale_shift", 1 / (scale / depth + shift) for "inverse_scale_shift";
            the shift is 0 for the other kinds, and the scale of a "field" is its median.
        points: how many points lie on the depth map.
        inliers: how many of them the fit agrees with.
        residual_before: median of |depth - point's depth| / point's depth with the depth as it was given; nan without
            points.
        residual_scaled: the same after the best scale alone.
        residual_after: the same after the fit.
        held_out: median residual in parts of the picture that were kept from the fit; None where there were too few
            points for any fit.
        compared: for each candidate, simplest first, its name and its mean held-out residual (of log-depth, large ones
            cut off). The first is the depth as it was given.
    """

    depth: np.ndarray
    kind: FitKind
    words: str
    scale: float
    shift: float
    points: int
    inliers: int
    residual_before: float
    residual_scaled: float
    residual_after: float
    held_out: float | None
    compared: tuple[tuple[str, float], ...]


def fit_depth(
    depth: np.ndarray, pixels: np.ndarray, point_depth: np.ndarray, *, confidence: np.ndarray | None = None
) -> DepthFit:
    """Fit a depth map to points whose depth is known.

    All kinds minimise a robust sum of relative residuals (Tukey's biweight, re-weighted least squares), so points that
    are wrong or lie behind an edge of the depth map count little. A "field" multiplies the depth by a smooth function
    of the place in the picture (cubic P-splines: Eilers and Marx 1996) and by a power of the depth itself.

    Args:
        depth: (H, W) z-depth in any unit; not finite or not above zero where it is not known.
        pixels: (P, 2) (x, y) in the pixels of `depth`, integers at pixel centres; points outside are left out.
        point_depth: (P,) z-depth of the points in the same camera; those not finite or not above zero are left out.
        confidence: (H, W), at least 0: how far to trust each pixel; only ratios matter.

    Raises:
        InputError: shapes disagree.
    """
    depth = np.asarray(depth, dtype=np.float64)
    pixels, point_depth = np.asarray(pixels, dtype=np.float64), np.asarray(point_depth, dtype=np.float64)
    _expect_shapes(depth, pixels, point_depth, confidence)
    samples = _samples(depth, pixels, point_depth, confidence)
    known = np.isfinite(depth) & (depth > 0)
    if len(samples) < FEWEST_FOR_SCALE:
        return _unchanged(depth, known, samples)
    candidates = _candidates(samples, depth.shape)
    chosen, compared, held_out = _choose(candidates, samples, depth[known])
    return _fitted(depth, known, samples, chosen, compared, held_out)


def _expect_shapes(
    depth: np.ndarray, pixels: np.ndarray, point_depth: np.ndarray, confidence: np.ndarray | None
) -> None:
    fits = depth.ndim == 2 and pixels.shape == (len(point_depth), 2) and point_depth.ndim == 1
    if not fits or (confidence is not None and np.shape(confidence) != depth.shape):
        raise InputError(
            f"Got a depth map of shape {depth.shape}, pixels of shape {pixels.shape}, point depths of shape "
            f"{point_depth.shape} and confidence of shape {None if confidence is None else np.shape(confidence)}.",
            hint="Expected (H, W), (P, 2), (P,) and (H, W).",
        )


# ------------------------------------------------------------------ depth at the points
@dataclass(frozen=True, eq=False)
class _Samples:
    """P points on a depth map.

    Attributes:
        place: (P, 2) (x, y) as shares of the longer side of the picture.
        mapped: (P,) logarithm of the map's depth there.
        true: (P,) logarithm of the point's depth.
        weight: (P,) above 0.
    """

    place: np.ndarray
    mapped: np.ndarray
    true: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.true)

    def subset(self, rows: np.ndarray) -> _Samples:
        return _Samples(self.place[rows], self.mapped[rows], self.true[rows], self.weight[rows])


def _samples(depth: np.ndarray, pixels: np.ndarray, point_depth: np.ndarray, confidence: np.ndarray | None) -> _Samples:
    mapped = sample_depth(depth, pixels)
    kept = np.isfinite(mapped) & np.isfinite(point_depth) & (point_depth > 0)
    weight = np.ones(int(kept.sum()))
    if confidence is not None:
        column, row = np.rint(pixels[kept]).astype(np.int64).T
        trust = np.nan_to_num(np.asarray(confidence, dtype=np.float64)[row, column], nan=0.0, posinf=0.0)
        # Bounded, because the confidence of networks spans orders of magnitude that errors do not.
        typical = max(float(np.median(trust)), 1e-12) if len(trust) else 1.0
        weight = np.clip(trust, 0, None) / (np.clip(trust, 0, None) + typical) + 1e-3
    place = pixels[kept] / max(depth.shape)
    return _Samples(place, np.log(mapped[kept]), np.log(point_depth[kept]), weight)


def sample_depth(depth: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Depth (H, W) at pixels (P, 2), given as (x, y) -> (P,); nan outside and where the nearest pixel has none.

    Between pixels of one surface inverse depth is interpolated, which is exact on planes; across an edge the nearest
    pixel's depth is taken.
    """
    height, width = depth.shape
    x, y = np.where(np.isfinite(pixels), pixels, -1e9).T
    nearest_x, nearest_y = np.floor(x + 0.5).astype(np.int64), np.floor(y + 0.5).astype(np.int64)
    inside = (nearest_x >= 0) & (nearest_x < width) & (nearest_y >= 0) & (nearest_y < height)
    nearest = depth[nearest_y.clip(0, height - 1), nearest_x.clip(0, width - 1)]
    known = inside & np.isfinite(nearest) & (nearest > 0)
    left, top = np.floor(x).clip(0, max(width - 2, 0)).astype(np.int64), np.floor(y).clip(0, max(height - 2, 0))
    top = top.astype(np.int64)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    corners = np.stack([depth[top, left], depth[top, right], depth[bottom, left], depth[bottom, right]])
    across, down = (x - left).clip(0, 1), (y - top).clip(0, 1)
    shares = np.stack([(1 - across) * (1 - down), across * (1 - down), (1 - across) * down, across * down])
    smooth = np.isfinite(corners).all(0) & (corners.min(0) > 0) & (corners.max(0) < SAME_SURFACE * corners.min(0))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = 1 / (shares / np.where(smooth, corners, 1.0)).sum(0)
    return np.where(known, np.where(smooth, between, nearest), np.nan)


# ------------------------------------------------------------------ candidates
# From log-depth (P,) and places (P, 2) to corrected log-depth (P,); nan where the correction gives no positive depth.
_Correction = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class _Candidate:
    """A family of corrections, and how to fit one of them to samples."""

    name: str
    kind: FitKind
    freedom: int
    fit: Callable[[_Samples], _Correction]


def _candidates(samples: _Samples, shape: tuple[int, ...]) -> list[_Candidate]:
    """What as many points can support, from least to most freedom."""
    found = [_Candidate("unchanged", "unchanged", 0, _keep), _Candidate("scale", "scale", 1, _fit_scale)]
    if len(samples) >= FEWEST_FOR_SHIFT:
        found.append(_Candidate("scale and shift", "scale_shift", 2, _fit_shift(inverse=False)))
        found.append(_Candidate("scale and shift of inverse depth", "inverse_scale_shift", 2, _fit_shift(inverse=True)))
    if len(samples) >= FEWEST_FOR_FIELD:
        for intervals in FIELD_INTERVALS:
            basis = _SplineBasis.of(shape, intervals)
            if basis.knots * POINTS_PER_KNOT > len(samples):
                break
            for stiffness in sorted(FIELD_STIFFNESS, reverse=True):
                name = f"field of {basis.rows} x {basis.columns} knots, stiffness {stiffness:g}"
                found.append(_Candidate(name, "field", basis.knots, _fit_field(basis, stiffness)))
    return found


def _keep(samples: _Samples) -> _Correction:
    return lambda mapped, place: mapped


def _fit_scale(samples: _Samples) -> _Correction:
    ones = np.ones((len(samples), 1))
    logarithm = float(robust_solve(ones, samples.true - samples.mapped, samples.weight)[0])
    return lambda mapped, place: mapped + logarithm


def _fit_shift(*, inverse: bool) -> Callable[[_Samples], _Correction]:
    """Scale and shift of depth or of inverse depth, by residuals of its logarithm."""
    sign = -1.0 if inverse else 1.0

    def fit(samples: _Samples) -> _Correction:
        middle = float(np.median(samples.mapped))
        start = _fit_scale(samples)(np.array([middle]), np.zeros((1, 2)))[0]
        basis = np.stack([np.exp(sign * (samples.mapped - middle)), np.ones(len(samples))], axis=-1)
        first = np.array([np.exp(sign * start), 0.0])
        scale, shift = robust_log_solve(basis, sign * samples.true, samples.weight, first)

        def correct(mapped: np.ndarray, place: np.ndarray) -> np.ndarray:
            value = scale * np.exp(sign * (mapped - middle)) + shift
            with np.errstate(divide="ignore", invalid="ignore"):
                return sign * np.where((value > 0) & (scale > 0), np.log(value), np.nan)

        return correct

    return fit


@dataclass(frozen=True)
class _SplineBasis:
    """Uniform cubic B-splines over a picture: `rows` x `columns` knots, `intervals` a unit of its longer side."""

    rows: int
    columns: int
    intervals: int

    @classmethod
    def of(cls, shape: tuple[int, ...], intervals: int) -> _SplineBasis:
        rows, columns = (int(np.ceil(intervals * side / max(shape))) + 3 for side in shape)
        return cls(rows, columns, intervals)

    @property
    def knots(self) -> int:
        return self.rows * self.columns

    def weights(self, place: np.ndarray) -> np.ndarray:
        """Places (P, 2) -> (P, rows * columns)."""
        across = _cubic_weights(place[:, 0] * self.intervals, self.columns)
        down = _cubic_weights(place[:, 1] * self.intervals, self.rows)
        return (down[:, :, None] * across[:, None, :]).reshape(len(place), -1)

    def roughness(self) -> np.ndarray:
        """(K, K): the sum of squared second differences along both axes and of mixed ones, as a quadratic form."""
        second_x, second_y = np.diff(np.eye(self.columns), 2, axis=0), np.diff(np.eye(self.rows), 2, axis=0)
        first_x, first_y = np.diff(np.eye(self.columns), axis=0), np.diff(np.eye(self.rows), axis=0)
        parts = [np.kron(np.eye(self.rows), second_x), np.kron(second_y, np.eye(self.columns))]
        parts.append(np.sqrt(2) * np.kron(first_y, first_x))
        return sum((part.T @ part for part in parts), np.zeros((self.knots, self.knots))) / self.knots


def _cubic_weights(position: np.ndarray, count: int) -> np.ndarray:
    """Positions (P,) in intervals -> (P, count): the weights of the cubic B-splines that reach there."""
    start = np.floor(position).clip(0, count - 4).astype(np.int64)
    t = position - start
    pieces = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    weights = np.zeros((len(position), count))
    for offset, piece in enumerate(pieces):
        weights[np.arange(len(position)), start + offset] = piece / 6
    return weights


def _fit_field(basis: _SplineBasis, stiffness: float) -> Callable[[_Samples], _Correction]:
    def fit(samples: _Samples) -> _Correction:
        low, middle, high = np.percentile(samples.mapped, (1, 50, 99))

        def rows(mapped: np.ndarray, place: np.ndarray) -> np.ndarray:
            # Beyond the depths of the points their power law is not known: it stays what it is at the nearest of them.
            return np.column_stack([basis.weights(place), np.clip(mapped, low, high) - middle])

        penalty = np.zeros((basis.knots + 1,) * 2)
        penalty[:-1, :-1] = stiffness * basis.roughness()
        penalty[-1, -1] = 1e-3 * stiffness
        ratio = samples.true - samples.mapped
        own = rows(samples.mapped, samples.place)
        solution = robust_solve(own, ratio, samples.weight, penalty=penalty)
        fields = own @ solution
        least, most = fields.min() - BEYOND_THE_POINTS, fields.max() + BEYOND_THE_POINTS

        def correct(mapped: np.ndarray, place: np.ndarray) -> np.ndarray:
            return mapped + np.clip(rows(mapped, place) @ solution, least, most)

        return correct

    return fit


# ------------------------------------------------------------------ which one
def _choose(
    candidates: list[_Candidate], samples: _Samples, depth: np.ndarray
) -> tuple[_Candidate, tuple[tuple[str, float], ...], float]:
    """The simplest candidate that none with more freedom beats clearly in the parts that were held out.

    Args:
        depth: (K,) all known depths of the map; a correction that turns any of them negative is out.
    """
    judged = samples.subset(np.linspace(0, len(samples) - 1, min(len(samples), MOST_JUDGED)).astype(np.int64))
    folds = _folds(judged.place)
    residuals = [_held_out(candidate, judged, folds) for candidate in candidates]
    spreads = [spread(r[np.isfinite(r)]) for r in residuals if np.isfinite(r).any()]
    # The depth as it was given may be in another unit, so the scale is what others are held against; but what is as far
    # off as points that are wrong must not decide.
    cut_off = 3 * min(spreads[1], max(min(spreads), GROSS))
    cut = [np.where(np.isfinite(r), np.abs(r).clip(SMALLEST_SPREAD, cut_off), cut_off) for r in residuals]
    best = 0
    for number in range(1, len(candidates)):
        if _is_clearly_better(cut[number], cut[best], folds, judged.weight) and _stays_positive(
            candidates[number], samples, depth
        ):
            best = number
    means = [float(np.average(value, weights=judged.weight)) for value in cut]
    compared = tuple((candidate.name, mean) for candidate, mean in zip(candidates, means, strict=True))
    return candidates[best], compared, float(np.nanmedian(np.abs(np.expm1(residuals[best]))))


def _folds(place: np.ndarray) -> np.ndarray:
    """(P,) the same number for all points of a cell; neighbouring cells have different ones.

    Few points, or points of which most would come into one fold, are dealt out one by one.
    """
    start, extent = place.min(axis=0), max(float(np.ptp(place, axis=0).max()), 1e-12)
    column, row = np.floor((place - start) / extent * FOLD_CELLS).astype(np.int64).T
    folds = (column + 2 * row) % FOLDS
    if len(place) < FEWEST_FOR_SHIFT:
        return np.arange(len(place))
    return np.arange(len(place)) % FOLDS if np.bincount(folds).max() > len(place) / 2 else folds


def _held_out(candidate: _Candidate, samples: _Samples, folds: np.ndarray) -> np.ndarray:
    """(P,) residuals of log-depth of fits that have not seen the point's fold."""
    residuals = np.full(len(samples), np.nan)
    for fold in np.unique(folds):
        out = folds == fold
        if (~out).sum() >= 2 * candidate.freedom:
            correct = candidate.fit(samples.subset(~out))
            residuals[out] = correct(samples.mapped[out], samples.place[out]) - samples.true[out]
    return residuals


def _is_clearly_better(new: np.ndarray, old: np.ndarray, folds: np.ndarray, weight: np.ndarray) -> bool:
    """By a worthwhile share, and by more than the standard error of the difference between the folds."""
    means = [
        [np.average(residuals[folds == fold], weights=weight[folds == fold]) for fold in np.unique(folds)]
        for residuals in (new, old)
    ]
    gains = np.array(means[1]) - np.array(means[0])
    error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.inf
    return bool(
        np.average(new, weights=weight) <= WORTHWHILE * np.average(old, weights=weight) and gains.mean() > error
    )


def _stays_positive(candidate: _Candidate, samples: _Samples, depth: np.ndarray) -> bool:
    if candidate.kind == "field":
        return True
    ends = np.log(np.array([depth.min(), depth.max()]))
    corrected = candidate.fit(samples)(ends, np.zeros((2, 2)))
    return bool(np.isfinite(corrected).all() and corrected[0] <= corrected[1])


# ------------------------------------------------------------------ the result
def _unchanged(depth: np.ndarray, known: np.ndarray, samples: _Samples) -> DepthFit:
    before = _median_residual(samples.mapped, samples.true)
    return DepthFit(
        depth=np.where(known, depth, 0).astype(np.float32),
        kind="unchanged",
        words=f"unchanged: {len(samples)} points on the depth map, {FEWEST_FOR_SCALE} are needed for a scale",
        scale=1.0,
        shift=0.0,
        points=len(samples),
        inliers=0,
        residual_before=before,
        residual_scaled=before,
        residual_after=before,
        held_out=None,
        compared=(),
    )


def _fitted(
    depth: np.ndarray,
    known: np.ndarray,
    samples: _Samples,
    chosen: _Candidate,
    compared: tuple[tuple[str, float], ...],
    held_out: float,
) -> DepthFit:
    correct = chosen.fit(samples)
    at_points = correct(samples.mapped, samples.place)
    row, column = np.nonzero(known)
    place = np.stack([column, row], axis=-1) / max(depth.shape)
    fitted = np.zeros(depth.shape)
    fitted[known] = np.exp(correct(np.log(depth[known]), place))
    residuals = at_points - samples.true
    scaled = _fit_scale(samples)(samples.mapped, samples.place)
    scale, shift = _scale_and_shift(chosen.kind, correct, samples)
    return DepthFit(
        depth=fitted.astype(np.float32),
        kind=chosen.kind,
        words=_words(chosen, len(samples)),
        scale=scale,
        shift=shift,
        points=len(samples),
        inliers=int((np.abs(residuals) < OUTLIER * spread(residuals)).sum()),
        residual_before=_median_residual(samples.mapped, samples.true),
        residual_scaled=_median_residual(scaled, samples.true),
        residual_after=_median_residual(at_points, samples.true),
        held_out=held_out,
        compared=compared,
    )


def _scale_and_shift(kind: FitKind, correct: _Correction, samples: _Samples) -> tuple[float, float]:
    """As `DepthFit` has them, read off the correction at two depths."""
    if kind == "field":
        return float(np.exp(np.median(correct(samples.mapped, samples.place) - samples.mapped))), 0.0
    ends = np.array([samples.mapped.min(), samples.mapped.max()])
    if kind in ("unchanged", "scale"):
        return float(np.exp(correct(ends[:1], np.zeros((1, 2)))[0] - ends[0])), 0.0
    sign = -1.0 if kind == "inverse_scale_shift" else 1.0
    before, after = np.exp(sign * ends), np.exp(sign * correct(ends, np.zeros((2, 2))))
    scale = float((after[1] - after[0]) / (before[1] - before[0]))
    return scale, float(after[0] - scale * before[0])


def _words(chosen: _Candidate, points: int) -> str:
    if chosen.kind == "unchanged":
        return f"unchanged: no correction agrees better with those of {points} points that it was not fitted to"
    if points < FEWEST_FOR_SHIFT:
        return f"scale only: {points} points on the depth map, {FEWEST_FOR_SHIFT} are needed for more"
    return f"{chosen.name}, from {points} points"


def _median_residual(mapped: np.ndarray, true: np.ndarray) -> float:
    """Of log-depths: median of |depth - true| / true."""
    return float(np.median(np.abs(np.expm1(mapped - true)))) if len(true) else float("nan")
