"""A COLMAP model with pictures, as bundle adjusters and splat trainers read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from manyview.files import SHARED_FOLDER, write_json
from manyview.formats.describe import (
    HALF_PIXEL,
    chosen_points,
    doubtful,
    half_integer_intrinsics,
    left_out,
    statement,
)
from manyview.formats.pictures import PlacedPicture, place_pictures
from manyview.geometry.cameras import transform_pixels
from manyview.scene import ExportOptions, PointCloud, Scene, SceneView, SparsePoints

if TYPE_CHECKING:
    import pycolmap


WRITES = ("sparse", SHARED_FOLDER)


@dataclass(frozen=True)
class Observations:
    """Where O points of a cloud are seen in one view.

    Attributes:
        rows: (O,) int64, indices into the cloud.
        pixels: (O, 2) float64, in original pixels (integers at pixel centres).
    """

    rows: np.ndarray
    pixels: np.ndarray


def export(scene: Scene, folder: Path, options: ExportOptions) -> list[Path]:
    """Write `sparse/0/*.bin`, `sparse/0/manyview.json` (units, frame, what is left out) and `images/`.

    Cameras are PINHOLE and fit the files in `images/`. Every point has a track: where matches were found, points and
    tracks are those of `scene.sparse`; otherwise points are of the depth maps, and tracks where these agree: `observe`.
    """
    if scene.sparse is None:
        return write_dense_model(scene, folder, options)
    pictures = place_pictures(scene, folder, options)
    points, colours, seen = _matched(scene.sparse, [picture.index for picture in pictures], options)
    model = _reconstruction(pictures, points, colours, seen)
    return _write(scene, folder, options, pictures, model, "triangulated from matches, with these as tracks")


def write_dense_model(scene: Scene, folder: Path, options: ExportOptions) -> list[Path]:
    """As `export`, with the points of the depth maps in any case: for programs that start from many points."""
    pictures = place_pictures(scene, folder, options)
    indices = [picture.index for picture in pictures]
    cloud = chosen_points(scene, options, options.max_colmap_points, indices)
    seen = [observe(scene, index, cloud, options) for index in indices]
    model = _reconstruction(pictures, cloud.points.astype(np.float64), cloud.colours, seen)
    return _write(scene, folder, options, pictures, model, "of depth maps, with tracks where these agree")


def _write(
    scene: Scene,
    folder: Path,
    options: ExportOptions,
    pictures: list[PlacedPicture],
    model: pycolmap.Reconstruction,
    words: str,
) -> list[Path]:
    sparse = folder / "sparse" / "0"
    sparse.mkdir(parents=True, exist_ok=True)  # there already where the folder for splat trainers is written, too
    model.write_binary(str(sparse))
    about = {
        **statement(scene),
        "points": words,
        "pixels": "the centre of the top-left pixel is (0.5, 0.5)",
        "left_out": left_out(scene, options),
        "doubtful": doubtful(scene, options),
        "notes": {picture.path: picture.note for picture in pictures if picture.note},
    }
    write_json(sparse / "manyview.json", about)
    return [*sorted(sparse.iterdir()), *(folder / picture.path for picture in pictures)]


def _matched(
    sparse: SparsePoints, indices: list[int], options: ExportOptions
) -> tuple[np.ndarray, np.ndarray, list[Observations]]:
    """(P, 3) points that at least two of the views show, best known first; (P, 3) colours; observations of each view.

    Of more than `options.max_colmap_points` those that most views see are kept, and of equals the most exact ones.
    """
    seen_here = np.isin(sparse.view, indices)
    seen = np.unique(np.column_stack([sparse.point, sparse.view])[seen_here], axis=0)  # a view may see a point twice
    count = np.bincount(seen[:, 0], minlength=len(sparse))
    order = np.lexsort((sparse.errors, -count))
    kept = order[count[order] > 1][: options.max_colmap_points]
    row_of = np.full(len(sparse), -1, dtype=np.int64)
    row_of[kept] = np.arange(len(kept))
    observations = []
    for index in indices:
        pixels, _, points = sparse.of_view(index)
        rows = row_of[points]
        observations.append(Observations(rows[rows >= 0], pixels[rows >= 0]))
    return sparse.points[kept], sparse.colours[kept], observations


def observe(scene: Scene, index: int, cloud: PointCloud, options: ExportOptions) -> Observations:
    """Where the points of a cloud are seen in view `index`, which has a camera.

    Its own points are seen at the centre of the pixel they come from. Another view's point is seen where it projects
    to, if that is inside the picture, in front of the camera, and this view's own depth there (nearest pixel) agrees
    within the share `options.depth_tolerance`.
    """
    view = scene.views[index]
    own = np.flatnonzero(cloud.view == index)
    own_pixels = transform_pixels(view.original_from_network, cloud.pixel[own].astype(np.float64))
    others = np.flatnonzero(cloud.view != index)
    visible, pixels = _agreeing(view, cloud.points[others].astype(np.float64), options.depth_tolerance)
    return Observations(np.concatenate([own, others[visible]]), np.concatenate([own_pixels, pixels[visible]]))


def _agreeing(view: SceneView, points: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """(P,) bool, whether a world point lies on this view's depth map, and (P, 2) its original pixel (or nan)."""
    assert view.camera is not None
    pixels, depth = view.camera.project(points)
    in_network = transform_pixels(np.linalg.inv(view.original_from_network), pixels)
    height, width = view.size
    x, y = np.nan_to_num(np.rint(in_network), nan=-1, posinf=-1, neginf=-1).T
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    x, y = np.where(inside, x, 0).astype(int), np.where(inside, y, 0).astype(int)
    own_depth = view.depth[y, x].astype(np.float64)
    return inside & view.valid[y, x] & (np.abs(depth - own_depth) <= tolerance * own_depth), pixels


def _reconstruction(
    pictures: list[PlacedPicture], points: np.ndarray, colours: np.ndarray, seen: list[Observations]
) -> pycolmap.Reconstruction:
    import pycolmap

    model = pycolmap.Reconstruction()
    for number, (picture, observations) in enumerate(zip(pictures, seen, strict=True), start=1):
        camera = picture.camera
        model.add_camera_with_trivial_rig(
            pycolmap.Camera(
                camera_id=number,
                model="PINHOLE",
                width=camera.width,
                height=camera.height,
                params=half_integer_intrinsics(camera),
            )
        )
        keypoints = transform_pixels(picture.picture_from_original, observations.pixels) + HALF_PIXEL
        image = pycolmap.Image(
            name=picture.path.partition("/")[2], keypoints=keypoints, camera_id=number, image_id=number
        )
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(camera.camera_from_world[:3]))
    for row, track in enumerate(_tracks(len(points), seen)):
        model.add_point3D(points[row], track, colours[row])
    model.update_point_3d_errors()
    return model


def _tracks(count: int, seen: list[Observations]) -> list[pycolmap.Track]:
    """For each point the images (numbered from 1) and the places in their lists where it is seen."""
    import pycolmap

    elements: list[list[pycolmap.TrackElement]] = [[] for _ in range(count)]
    for number, observations in enumerate(seen, start=1):
        for place, row in enumerate(observations.rows.tolist()):
            elements[row].append(pycolmap.TrackElement(number, place))
    return [pycolmap.Track(track) for track in elements]
