"""Coloured points as a binary PLY file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from manyview.formats.describe import chosen_points, comment_lines
from manyview.scene import ExportOptions, PointCloud, Scene

WRITES = ("points.ply",)
_VERTEX = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1"), ("confidence", "<f4")]
)
_PLY_TYPES = {"<f4": "float", "|u1": "uchar"}


def export(scene: Scene, folder: Path, options: ExportOptions) -> list[Path]:
    """Write `points.ply`: position (world frame), colour and confidence of at most `options.max_points` points."""
    path = folder / "points.ply"
    write_points(path, chosen_points(scene, options, options.max_points), comment_lines(scene))
    return [path]


def write_points(path: Path, cloud: PointCloud, comments: list[str]) -> None:
    """Write a point cloud as binary little-endian PLY with `comments` (single ASCII lines) in its header."""
    vertices = np.empty(len(cloud), dtype=_VERTEX)
    for axis, name in enumerate("xyz"):
        vertices[name] = cloud.points[:, axis]
    for channel, name in enumerate(("red", "green", "blue")):
        vertices[name] = cloud.colours[:, channel]
    vertices["confidence"] = cloud.confidence
    header = [
        "ply",
        "format binary_little_endian 1.0",
        *(f"comment {line}" for line in comments),
        f"element vertex {len(cloud)}",
        *(f"property {_PLY_TYPES[_VERTEX[name].str]} {name}" for name in _VERTEX.names or ()),
        "end_header",
    ]
    with path.open("wb") as file:
        file.write(("\n".join(header) + "\n").encode("ascii"))
        file.write(vertices.tobytes())
