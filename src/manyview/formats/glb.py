"""Points and camera frusta as binary glTF, for any 3D viewer."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manyview.formats.describe import chosen_points, doubtful, left_out, statement, views_with_camera
from manyview.geometry.cameras import Camera, transform_points
from manyview.scene import ExportOptions, Scene

if TYPE_CHECKING:
    from trimesh.path import Path3D

WRITES = ("scene.glb",)
GLTF_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])  # glTF: x right, y up, z backward
GLTF_AXES = "glTF axes: x right, y up, z backward"

_FRUSTUM_SHARE = 0.1  # length of a drawn frustum, as a share of the scene's median depth
_FRUSTUM_LINES = ([1, 2, 3, 4, 1], [0, 1], [0, 2], [0, 3], [0, 4])  # vertex 0 is the apex
_GOLDEN_RATIO = 0.618034  # steps of it around the colour circle keep neighbours apart


def export(scene: Scene, folder: Path, options: ExportOptions) -> list[Path]:
    """Write `scene.glb`: nodes "points" and "camera <index> <name>", y up; colours are sRGB as in the photos."""
    import trimesh
    from trimesh.exchange.gltf import export_glb

    drawing = trimesh.Scene()
    cloud = chosen_points(scene, options, options.max_points)
    if len(cloud):
        points = transform_points(GLTF_FROM_OPENCV, cloud.points.astype(np.float64))
        drawing.add_geometry(trimesh.PointCloud(points, colors=cloud.colours), node_name="points", geom_name="points")
    length = _frustum_length(scene)
    for index, view, camera in views_with_camera(scene, "scene.glb", options):
        name = _portable(f"camera {index} {view.name}")
        drawing.add_geometry(_frustum(camera, length, _view_colour(index)), node_name=name, geom_name=name)

    def describe(tree: dict[str, Any]) -> None:
        # glTF lengths are metres by definition; "units" says whether these are.
        about = {"left_out": left_out(scene, options), "doubtful": doubtful(scene, options)}
        about = {what: [_portable(line) for line in lines] for what, lines in about.items()}
        tree["asset"]["extras"] = {**statement(scene), "frame": f"{scene.origin}, {GLTF_AXES}", **about}

    path = folder / "scene.glb"
    path.write_bytes(export_glb(drawing, tree_postprocessor=describe))
    return [path]


def _portable(text: str) -> str:
    """Without what UTF-8 cannot say: parts of a file name that are not UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _frustum(camera: Camera, length: float, colour: np.ndarray) -> Path3D:
    """Lines from the camera's centre to the corners of its picture and around them, in glTF axes."""
    from trimesh.path import Path3D
    from trimesh.path.entities import Line

    lines = [Line(points, color=colour) for points in _FRUSTUM_LINES]
    return Path3D(entities=lines, vertices=transform_points(GLTF_FROM_OPENCV, camera.frustum(length)), process=False)


def _frustum_length(scene: Scene) -> float:
    medians = [np.median(view.depth[view.valid]) for view in scene.views if view.valid.any()]
    return _FRUSTUM_SHARE * float(np.median(medians)) if medians else _FRUSTUM_SHARE


def _view_colour(index: int) -> np.ndarray:
    """(4,) uint8 RGBA, saturated and different for neighbouring views."""
    rgb = colorsys.hsv_to_rgb(index * _GOLDEN_RATIO % 1.0, 0.85, 0.95)
    return np.array([*(round(255 * channel) for channel in rgb), 255], dtype=np.uint8)
