"""What every exported file says about itself, and what all writers ask of a scene."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np

from manyview.errors import ExportError
from manyview.geometry.cameras import Camera, transform_pixels
from manyview.scene import ExportOptions, PointCloud, Scene, SceneView

logger = logging.getLogger(__name__)

HALF_PIXEL = 0.5  # COLMAP and nerfstudio put pixel centres at half integers (docs/conventions.md)


def statement(scene: Scene) -> dict[str, str]:
    """Units, frame and origin of a scene, in words."""
    return {
        "generator": "manyview",
        "units": scene.units,
        "frame": scene.frame,
        "model": scene.provenance.model,
        "weights_licence": scene.provenance.weights_licence,
    }


def comment_lines(scene: Scene) -> list[str]:
    """`statement` as lines of plain ASCII, for headers that allow no more."""
    return plain_ascii(f"{key}: {value}" for key, value in statement(scene).items())


def plain_ascii(lines: Iterable[str]) -> list[str]:
    """Each on one line of its own, in ASCII."""
    return [" ".join(line.split()).encode("ascii", "backslashreplace").decode() for line in lines]


def views_with_camera(scene: Scene, what: str, options: ExportOptions) -> list[tuple[int, SceneView, Camera]]:
    """Index, view and camera of each view that is exported; the others are logged, as not part of `what`."""
    missing = [view.name for view in scene.views if not _is_exported(view, options)]
    if missing:
        names = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        logger.warning("%s leaves out what has no sure camera (%d): %s", what, len(missing), names)
    chosen = exported_views(scene, options)
    if not chosen:
        logger.warning("%s has no camera: that of no view is sure enough", what)
    return chosen


def exported_views(scene: Scene, options: ExportOptions) -> list[tuple[int, SceneView, Camera]]:
    """As `views_with_camera`, without a word."""
    return [
        (index, view, view.camera)
        for index, view in enumerate(scene.views)
        if view.camera is not None and _is_exported(view, options)
    ]


def left_out(scene: Scene, options: ExportOptions) -> list[str]:
    """Names and reasons of the views that are not exported: without a camera, or with a doubtful one."""
    return [_with_reason(view) for view in scene.views if not _is_exported(view, options)]


def doubtful(scene: Scene, options: ExportOptions) -> list[str]:
    """Names and reasons of the views that are exported although their camera is doubtful."""
    return [_with_reason(view) for view in scene.views if _is_exported(view, options) and view.status != "used"]


def _is_exported(view: SceneView, options: ExportOptions) -> bool:
    return view.camera is not None and (view.status == "used" or options.include_low_confidence)


def _with_reason(view: SceneView) -> str:
    return f"{view.name}: {view.status}, {view.status_reason}".rstrip(", ")


def chosen_points(
    scene: Scene, options: ExportOptions, max_points: int | None, views: list[int] | None = None
) -> PointCloud:
    """The points that `options` lets through."""
    cloud = scene.point_cloud(
        percentile=options.percentile,
        min_confidence=options.min_confidence,
        include_low_confidence=options.include_low_confidence,
        max_points=max_points,
        seed=options.seed,
        views=views,
    )
    if not len(cloud) and scene.sparse is not None:  # known cameras and their points, without depth
        return _sparse_cloud(scene, options, max_points, range(len(scene.views)) if views is None else views)
    if not len(cloud):
        logger.warning("no point is valid and confident enough: the exported point cloud is empty")
    return cloud


def _sparse_cloud(scene: Scene, options: ExportOptions, max_points: int | None, views: Iterable[int]) -> PointCloud:
    """The triangulated points that exported views see, each with the first of these, as a cloud without confidence."""
    sparse = scene.sparse
    assert sparse is not None
    wanted = [index for index in views if _is_exported(scene.views[index], options)]
    seen = np.flatnonzero(np.isin(sparse.view, wanted) & (sparse.group[sparse.point] == 0))
    rows, first = np.unique(sparse.point[seen], return_index=True)
    if max_points is not None and len(rows) > max_points:
        kept = np.sort(np.random.default_rng(options.seed).choice(len(rows), max_points, replace=False))
        rows, first = rows[kept], first[kept]
    view, pixels = sparse.view[seen[first]], sparse.pixels[seen[first]]
    shown = np.zeros((len(rows), 2), dtype=np.int32)
    for index in wanted:
        own = view == index
        network_from_original = np.linalg.inv(scene.views[index].original_from_network)
        shown[own] = np.rint(transform_pixels(network_from_original, pixels[own])).astype(np.int32)
    return PointCloud(
        points=sparse.points[rows].astype(np.float32),
        colours=sparse.colours[rows],
        confidence=np.ones(len(rows), dtype=np.float32),
        view=view,
        pixel=shown,
    )


def half_integer_intrinsics(camera: Camera) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy where the centre of the top-left pixel is (0.5, 0.5).

    Raises:
        ExportError: K has skew, which these formats cannot say.
    """
    K = camera.K
    if abs(K[0, 1]) > 1e-6 * abs(K[0, 0]) or np.any(K[[1, 2, 2], [0, 0, 1]] != 0):
        raise ExportError(f"K is {K.tolist()}: only cameras without skew can be exported")
    return float(K[0, 0]), float(K[1, 1]), float(K[0, 2]) + HALF_PIXEL, float(K[1, 2]) + HALF_PIXEL
