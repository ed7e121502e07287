"""The sparse points of refined views: where they are, and who sees them where and how deep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from manyview.geometry import Similarity
from manyview.refine.features import Features
from manyview.scene_points import SparsePoints

if TYPE_CHECKING:
    import pycolmap


def sparse_points(
    models: Sequence[tuple[pycolmap.Reconstruction, Similarity, int]], features: Sequence[Features]
) -> SparsePoints:
    """The points of several models together.

    Args:
        models: each with the map from its frame to that of its group, and the group.
        features: of all views, for colours and exact pixels; view i is a model's image i + 1.
    """
    parts, count = [_no_points()], 0
    for model, placed, group in models:
        part = _points_of(model, placed, group, features, first=count)
        count += len(part)
        parts.append(part)
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])}
    order = np.argsort(joined["view"], kind="stable")
    for name in ("view", "point", "pixels", "depth"):
        joined[name] = joined[name][order]
    return SparsePoints(**joined)


def _points_of(
    model: pycolmap.Reconstruction, placed: Similarity, group: int, features: Sequence[Features], *, first: int
) -> SparsePoints:
    ids = sorted(model.point3D_ids())
    points = np.array([model.point3D(i).xyz for i in ids], dtype=np.float64).reshape(-1, 3)
    elements = [
        (e.image_id - 1, e.point2D_idx, row) for row, i in enumerate(ids) for e in model.point3D(i).track.elements
    ]
    view, feature, point = np.array(elements, dtype=np.int64).reshape(-1, 3).T
    pixels, depth = np.zeros((len(view), 2)), np.zeros(len(view))
    colours = np.zeros((len(ids), 3))
    for index in np.unique(view):
        rows = view == index
        camera_from_world = model.image(int(index) + 1).cam_from_world().matrix()
        pixels[rows] = features[index].pixels[feature[rows]]
        depth[rows] = points[point[rows]] @ camera_from_world[2, :3] + camera_from_world[2, 3]
        np.add.at(colours, point[rows], features[index].colours[feature[rows]])
    seen = np.bincount(point, minlength=len(ids))[:, None]
    return SparsePoints(
        points=placed.apply(points),
        colours=np.rint(colours / np.maximum(seen, 1)).astype(np.uint8),
        errors=np.array([model.point3D(i).error for i in ids], dtype=np.float64),
        group=np.full(len(ids), group, dtype=np.int32),
        view=view.astype(np.int32),
        point=point + first,
        pixels=pixels,
        depth=depth * placed.scale,
    )


def observation_errors(model: pycolmap.Reconstruction, view: int) -> np.ndarray:
    """(M,) reprojection errors of a registered view's observations, original pixels, distortion included."""
    image = model.image(view + 1)
    lens = model.camera(image.camera_id)
    seen = image.get_observation_points2D()
    if not seen:
        return np.zeros(0)
    pixels = np.array([point.xy for point in seen], dtype=np.float64)
    points = np.array([model.point3D(point.point3D_id).xyz for point in seen], dtype=np.float64)
    motion = image.cam_from_world().matrix()
    shown = np.asarray(lens.img_from_cam(np.ascontiguousarray(points @ motion[:, :3].T + motion[:, 3])))
    return np.linalg.norm(shown - pixels, axis=1)


def _no_points() -> SparsePoints:
    return SparsePoints(
        points=np.zeros((0, 3)),
        colours=np.zeros((0, 3), np.uint8),
        errors=np.zeros(0),
        group=np.zeros(0, np.int32),
        view=np.zeros(0, np.int32),
        point=np.zeros(0, np.int64),
        pixels=np.zeros((0, 2)),
        depth=np.zeros(0),
    )
