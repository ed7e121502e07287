"""`transforms.json` with pictures and initial points, as nerfstudio and other radiance field trainers read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from manyview.files import SHARED_FOLDER, write_json
from manyview.formats.describe import (
    chosen_points,
    comment_lines,
    doubtful,
    half_integer_intrinsics,
    left_out,
    statement,
)
from manyview.formats.pictures import PlacedPicture, place_pictures
from manyview.formats.ply import write_points
from manyview.scene import ExportOptions, Scene

POINTS = "sparse_pc.ply"
WRITES = ("transforms.json", POINTS, SHARED_FOLDER)
OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])  # camera axes: x right, y up, z backward


def export(scene: Scene, folder: Path, options: ExportOptions) -> list[Path]:
    """Write `transforms.json`, `sparse_pc.ply` (initial points) and `images/`.

    Each frame has intrinsics of its own that fit its file. `transform_matrix` is world from camera with OpenGL camera
    axes; the world keeps the scene's axes, for the cameras and the points alike.
    """
    pictures = place_pictures(scene, folder, options)
    write_points(folder / POINTS, chosen_points(scene, options, options.max_points), comment_lines(scene))
    transforms = {
        **statement(scene),
        "camera_axes": "OpenGL: x right, y up, z backward",
        "pixels": "the centre of the top-left pixel is (0.5, 0.5)",
        "left_out": left_out(scene, options),
        "doubtful": doubtful(scene, options),
        "notes": {picture.path: picture.note for picture in pictures if picture.note},
        "camera_model": "OPENCV",
        "ply_file_path": POINTS,
        "frames": [_frame(picture) for picture in pictures],
    }
    write_json(folder / "transforms.json", transforms)
    return [folder / "transforms.json", folder / POINTS, *(folder / picture.path for picture in pictures)]


def _frame(picture: PlacedPicture) -> dict[str, Any]:
    fl_x, fl_y, cx, cy = half_integer_intrinsics(picture.camera)
    return {
        "file_path": picture.path,
        "w": picture.camera.width,
        "h": picture.camera.height,
        "fl_x": fl_x,
        "fl_y": fl_y,
        "cx": cx,
        "cy": cy,
        **dict.fromkeys(("k1", "k2", "p1", "p2"), 0.0),
        "transform_matrix": (picture.camera.world_from_camera @ OPENCV_FROM_OPENGL).tolist(),
    }
