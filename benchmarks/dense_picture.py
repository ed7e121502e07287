"""The dense cloud of some photos, seen from places where no photo was taken: docs/images/dense.jpg.

    python benchmarks/dense_picture.py PHOTOS --out docs/images/dense.jpg

Photos are reconstructed by the packaged model, refined and searched densely, as `manyview reconstruct --densify` does.
The picture has one of the photos at its top left, and beside it the fused points: from there, and turned around their
middle. Nothing is filled or smoothed: what is white has no point.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import manyview
from manyview.geometry import Camera
from manyview.refine.densify import DensifyOptions
from manyview.refine.options import RefineOptions
from manyview.refine.refine import refine_scene
from manyview.scene import PointCloud

TURNS = ((0, 0), (35, 0), (-35, 0), (0, -25), (25, -35))  # degrees: to the side, and upwards
GAP = 8  # pixels
POINT = 2  # pixels wide


def main() -> None:
    options = parse()
    scene = manyview.reconstruct(options.photos, model=options.model)
    found = refine_scene(scene, RefineOptions(), densify=DensifyOptions())
    print(found.words)
    cloud = found.scene.point_cloud(percentile=0)
    print(f"{len(cloud):,} points")
    view = found.scene.views[len(found.scene.views) // 2]
    assert view.camera is not None and view.source is not None
    middle = np.median(cloud.points, axis=0)
    tiles = [np.asarray(Image.open(view.source).convert("RGB"))]
    tiles += [drawn(cloud, turned(view.camera, middle, sideways, up)) for sideways, up in TURNS]
    Image.fromarray(side_by_side(tiles, columns=3)).save(options.out, quality=85)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", default="manyview-small", help="as manyview.load takes it")
    parser.add_argument("--out", type=Path, default=Path("dense.jpg"))
    return parser.parse_args()


def turned(camera: Camera, middle: np.ndarray, sideways: float, up: float) -> Camera:
    """The camera moved around a point (3,), by degrees around its own y and x axes."""
    across, along = np.radians([sideways, up])
    around_y = np.array([[np.cos(across), 0, np.sin(across)], [0, 1, 0], [-np.sin(across), 0, np.cos(across)]])
    around_x = np.array([[1, 0, 0], [0, np.cos(along), -np.sin(along)], [0, np.sin(along), np.cos(along)]])
    pivot = (camera.camera_from_world @ np.append(middle, 1))[:3]
    turn = np.eye(4)
    turn[:3, :3] = around_y @ around_x
    turn[:3, 3] = pivot - turn[:3, :3] @ pivot
    return Camera(
        K=camera.K, world_from_camera=camera.world_from_camera @ turn, width=camera.width, height=camera.height
    )


def drawn(cloud: PointCloud, camera: Camera) -> np.ndarray:
    """(H, W, 3) uint8: the points, near ones over far ones."""
    canvas = np.full((camera.height, camera.width, 3), 255, np.uint8)
    pixels, depth = camera.project(cloud.points.astype(np.float64))
    front = np.flatnonzero(depth > 0)
    order = front[np.argsort(-depth[front])]
    corner = np.rint(pixels[order]).astype(int)
    for shift in np.ndindex(POINT, POINT):
        x, y = (corner + shift).T
        inside = (x >= 0) & (x < camera.width) & (y >= 0) & (y < camera.height)
        canvas[y[inside], x[inside]] = cloud.colours[order[inside]]
    return canvas


def side_by_side(tiles: list[np.ndarray], columns: int) -> np.ndarray:
    height, width = tiles[0].shape[:2]
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // columns * (height + GAP), number % columns * (width + GAP)
        sheet[top : top + height, left : left + width] = tile
    return sheet


if __name__ == "__main__":
    main()
