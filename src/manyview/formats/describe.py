"""What every exported file says about itself, and what all writers ask of a scene."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np

from manyview.errors import ExportError
from manyview.geometry.cameras import Camera
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
    missing = left_out(scene, options)
    if missing:
        logger.warning("%s leaves out %d views: %s", what, len(missing), "; ".join(missing))
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
    if not len(cloud):
        logger.warning("no point is valid and confident enough: the exported point cloud is empty")
    return cloud


def half_integer_intrinsics(camera: Camera) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy where the centre of the top-left pixel is (0.5, 0.5).

    Raises:
        ExportError: K has skew, which these formats cannot say.
    """
    K = camera.K
    if abs(K[0, 1]) > 1e-6 * abs(K[0, 0]) or np.any(K[[1, 2, 2], [0, 0, 1]] != 0):
        raise ExportError(f"K is {K.tolist()}: only cameras without skew can be exported")
    return float(K[0, 0]), float(K[1, 1]), float(K[0, 2]) + HALF_PIXEL, float(K[1, 2]) + HALF_PIXEL
