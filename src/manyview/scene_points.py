"""The points of a scene: of depth maps (`PointCloud`, `FusedPoints`) and of matches between photos (`SparsePoints`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from manyview.errors import InputError

if TYPE_CHECKING:
    from manyview.scene import SceneView


@dataclass(frozen=True, kw_only=True, eq=False)
class PointCloud:
    """P coloured points of a scene and where each was seen.

    Attributes:
        points: (P, 3) float32, world frame.
        colours: (P, 3) uint8 RGB.
        confidence: (P,) float32.
        view: (P,) int32, index of the view.
        pixel: (P, 2) int32, (x, y) in that view's network picture.
    """

    points: np.ndarray
    colours: np.ndarray
    confidence: np.ndarray
    view: np.ndarray
    pixel: np.ndarray

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True, kw_only=True, eq=False)
class FusedPoints(PointCloud):
    """Points that several views confirm, each there once, by view and then row by row.

    Attributes (beside those of `PointCloud`, whose `view` and `pixel` name one view that saw the point):
        view_counts: (P,) int32, how many views saw it, the first one counted.
    """

    view_counts: np.ndarray

    def rows(self, kept: np.ndarray | slice) -> FusedPoints:
        """Some of the points: by index or mask."""
        return FusedPoints(**{f.name: getattr(self, f.name)[kept] for f in fields(self)})

    def of_views(self, views: Sequence[int]) -> FusedPoints:
        """The points of some views, for a scene of these alone (indices)."""
        own = self.rows(np.isin(self.view, views))
        order = np.argsort(views)
        return replace(own, view=order[np.searchsorted(views, own.view, sorter=order)].astype(np.int32))


@dataclass(frozen=True, kw_only=True, eq=False)
class SparsePoints:
    """P points that were triangulated from matches, and where O observations see them.

    Attributes:
        points: (P, 3) float64, in the frame of their group (the world, for group 0).
        colours: (P, 3) uint8 RGB, mean over the observations.
        errors: (P,) float64, mean reprojection error, original pixels.
        group: (P,) int32, as `SceneView.group`.
        view: (O,) int32, index of the view; observations come view by view.
        point: (O,) int64, row of the point.
        pixels: (O, 2) float64, where the photo shows it: original pixels, integers at pixel centres.
        depth: (O,) float64, z-depth in the camera, in the group's units.
    """

    points: np.ndarray
    colours: np.ndarray
    errors: np.ndarray
    group: np.ndarray
    view: np.ndarray
    point: np.ndarray
    pixels: np.ndarray
    depth: np.ndarray

    def __len__(self) -> int:
        return len(self.points)

    def of_view(self, view: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What a view sees: (M, 2) original pixels, (M,) z-depth in its camera, (M,) rows of the points."""
        seen = self.view == view
        return self.pixels[seen], self.depth[seen], self.point[seen]

    def of_group(self, group: int, views: Sequence[int]) -> SparsePoints:
        """The points of one group, for a scene of these views alone (indices): they become its group 0.

        Observations in other views are left out.
        """
        kept = self.group == group
        number = {view: place for place, view in enumerate(views)}
        seen = kept[self.point] & np.isin(self.view, list(number))
        row = np.cumsum(kept) - 1
        return SparsePoints(
            points=self.points[kept],
            colours=self.colours[kept],
            errors=self.errors[kept],
            group=np.zeros(int(kept.sum()), dtype=np.int32),
            view=np.array([number[view] for view in self.view[seen].tolist()], dtype=np.int32),
            point=row[self.point[seen]],
            pixels=self.pixels[seen],
            depth=self.depth[seen],
        )


def gather_points(
    views: Sequence[SceneView],
    wanted: Sequence[int],
    *,
    fused: FusedPoints | None = None,
    percentile: float,
    min_confidence: float | None,
    max_points: int | None,
    seed: int,
) -> PointCloud:
    """The points of the `wanted` views (indices); see `Scene.point_cloud`."""
    if not 0 <= percentile <= 100 or (max_points is not None and max_points < 0):
        raise InputError(
            f"got percentile {percentile} and max_points {max_points}",
            hint="Give a percentile from 0 to 100, and a number of points or None.",
        )
    if fused is not None:
        return _fused_points(fused, wanted, percentile, min_confidence, max_points, seed)
    kept = [_confident(views[index].confidence, views[index].valid, percentile, min_confidence) for index in wanted]
    drawn = _draw([len(pixels) for pixels in kept], max_points, seed)
    parts = [
        _gather(views[index], index, pixels[rows]) for index, pixels, rows in zip(wanted, kept, drawn, strict=True)
    ]
    return _join(parts)


def _fused_points(
    fused: FusedPoints,
    wanted: Sequence[int],
    percentile: float,
    min_confidence: float | None,
    max_points: int | None,
    seed: int,
) -> FusedPoints:
    kept = [_confident(fused.confidence, fused.view == index, percentile, min_confidence) for index in wanted]
    drawn = _draw([len(rows) for rows in kept], max_points, seed)
    chosen = [rows[some] for rows, some in zip(kept, drawn, strict=True)]
    return fused.rows(np.concatenate([np.zeros(0, dtype=np.int64), *chosen]))


def _confident(
    confidence: np.ndarray, valid: np.ndarray, percentile: float, min_confidence: float | None
) -> np.ndarray:
    """Flat indices of what is valid and at least as sure as the percentile of what is."""
    if not valid.any():
        return np.zeros(0, dtype=np.int64)
    threshold = np.percentile(confidence[valid], percentile)
    if min_confidence is not None:
        threshold = max(threshold, min_confidence)
    return np.flatnonzero(valid & (confidence >= threshold))


def _draw(counts: list[int], most: int | None, seed: int) -> list[np.ndarray | slice]:
    """For each of several lists of the given lengths, the entries to keep so that `most` are kept in all."""
    total = sum(counts)
    if most is None or total <= most:
        return [slice(None)] * len(counts)
    chosen = np.sort(np.random.default_rng(seed).choice(total, most, replace=False, shuffle=False))
    ends = np.cumsum(counts)
    pieces = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
    return [piece - (end - count) for piece, end, count in zip(pieces, ends, counts, strict=True)]


def _gather(view: SceneView, index: int, pixels: np.ndarray) -> PointCloud:
    y, x = np.divmod(pixels, view.size[1])
    return PointCloud(
        points=view.points[y, x].astype(np.float32),
        colours=view.image[y, x],
        confidence=view.confidence[y, x].astype(np.float32),
        view=np.full(len(pixels), index, dtype=np.int32),
        pixel=np.stack([x, y], axis=-1).astype(np.int32),
    )


def _join(parts: list[PointCloud]) -> PointCloud:
    empty = PointCloud(
        points=np.zeros((0, 3), np.float32),
        colours=np.zeros((0, 3), np.uint8),
        confidence=np.zeros(0, np.float32),
        view=np.zeros(0, np.int32),
        pixel=np.zeros((0, 2), np.int32),
    )
    return PointCloud(
        **{f.name: np.concatenate([getattr(part, f.name) for part in [empty, *parts]]) for f in fields(PointCloud)}
    )
