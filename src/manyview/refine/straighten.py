"""A scene of lenses with distortion, made one of pinhole cameras: photos are drawn anew, and depth moves along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from manyview.errors import InputError
from manyview.formats.lens import Lens, pinhole_within
from manyview.formats.posed_photos import PosedPhotos
from manyview.formats.undistort import straight_pixels, undistort_photos
from manyview.geometry import Camera, pixel_grid, points_from_depth, transform_pixels
from manyview.refine.full_size import original_files
from manyview.refine.overlap import camera_in_group
from manyview.refine.result import Refined
from manyview.refine.world import ImagePoint
from manyview.scene import Scene, SceneView
from manyview.scene_points import SparsePoints


def lenses_of(refined: Refined) -> dict[int, Lens]:
    """The lens of each registered view whose photo is distorted, by index."""
    lenses = {}
    for model in refined.models:
        for image in sorted(model.reg_image_ids()):
            view = int(image) - 1
            if not np.any(refined.distortion.get(view, 0)):
                continue
            camera = model.camera(model.image(image).camera_id)
            lenses[view] = Lens(
                model=camera.model_name,
                params=tuple(float(number) for number in camera.params),
                stored_size=(camera.height, camera.width),
                original_from_stored=np.eye(3),
            )
    return lenses


def straighten(scene: Scene, lenses: Mapping[int, Lens], folder: str | Path, *, overwrite: bool = False) -> Scene:
    """The scene as pinhole cameras of the same size and place would have seen it.

    Photos with distortion, and frames of videos, are drawn anew, without empty borders, into `folder/images`, and are
    the views' sources then. Views without a photo keep the network's picture alone.
    The network's pictures, depth and confidence are carried to where they belong (nearest pixels for depth), and so are
    the observations of sparse points; those that fall outside are left out. z-depth stays what it is.

    Args:
        scene: cameras are those of the lenses without their distortion.
        lenses: of some views, by index.
        folder: where the photos go.
        overwrite: replace photos that an earlier call has drawn there.

    Raises:
        InputError: a lens cannot be undistorted, or a photo cannot be read.
        ExportError: files are in the way, or the disk refuses.
    """
    drawn = _drawn_photos(scene, lenses, Path(folder), overwrite=overwrite)
    views = list(scene.views)
    for index, lens in sorted(lenses.items()):
        before = _known_camera(views[index])
        after = pinhole_within(lens, before)
        views[index] = _straight_view(views[index], lens, after, drawn.get(index))
    sparse = None if scene.sparse is None else _straight_points(scene.sparse, lenses, views)
    note = f"{len(lenses)} photos of lenses with distortion were drawn anew as pinhole cameras see them"
    provenance = replace(scene.provenance, changes=(*scene.provenance.changes, note))
    return replace(scene, views=tuple(views), sparse=sparse, provenance=provenance)


def straight_point(scene: Scene, lenses: Mapping[int, Lens], point: ImagePoint) -> ImagePoint:
    """A place in a photo as it was taken, in the photo that was drawn anew; the same place if that was not done.

    Args:
        scene: from `straighten`.
        lenses: of the views whose photos were drawn anew.
        point: in pixels of the photo before that.

    Raises:
        InputError: the new photo does not show it.
    """
    lens = lenses.get(point.view)
    if lens is None:
        return point
    view = scene.views[point.view]
    x, y = straight_pixels(lens, _known_camera(view), np.array([[point.x, point.y]]))[0]
    if not np.isfinite([x, y]).all():
        raise InputError(
            f"({point.x:g}, {point.y:g}) is too near the border of {view.name}, which was cut off when the photo was "
            "drawn anew without distortion",
            hint="Choose a point nearer to the middle.",
        )
    return replace(point, x=float(x), y=float(y))


def _known_camera(view: SceneView) -> Camera:
    camera = camera_in_group(view)
    assert camera is not None  # registered views have one
    return camera


def _drawn_photos(scene: Scene, lenses: Mapping[int, Lens], folder: Path, *, overwrite: bool) -> dict[int, Path]:
    """The new photo of each view that comes from a photo or a video and has a lens."""
    with TemporaryDirectory(prefix="manyview-frames-") as scratch:
        paths = original_files(scene.views, sorted(lenses), Path(scratch))
        chosen = sorted(paths)
        if not chosen:
            return {}
        views = [scene.views[index] for index in chosen]
        posed = PosedPhotos(
            names=tuple(view.name for view in views),
            paths=tuple(paths[index] for index in chosen),
            cameras=tuple(_known_camera(view) for view in views),
            lenses=tuple(lenses[index] for index in chosen),
        )
        return dict(zip(chosen, undistort_photos(posed, folder, overwrite=overwrite).paths, strict=True))


def _straight_view(view: SceneView, lens: Lens, camera: Camera, photo: Path | None) -> SceneView:
    import cv2

    height, width = view.size
    in_original = transform_pixels(view.original_from_network, pixel_grid(height, width)).reshape(-1, 2)
    rays = np.column_stack([in_original, np.ones(len(in_original))]) @ np.linalg.inv(camera.K).T
    seen = transform_pixels(np.linalg.inv(view.original_from_network), lens.project(rays)).reshape(height, width, 2)
    places = np.nan_to_num(seen, nan=-1e6).astype(np.float32)
    image = cv2.remap(view.image, places[..., 0], places[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    x, y = np.rint(np.clip(places, -1e6, 1e6)).astype(np.int64).transpose(2, 0, 1)
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    row, column = np.where(inside, y, 0), np.where(inside, x, 0)
    depth = np.where(inside & view.valid[row, column], view.depth[row, column], 0)
    K = np.linalg.inv(view.original_from_network) @ camera.K
    taken = {"depth", "points", "confidence", "valid", "masked_pixels"}
    others = {f.name: getattr(view, f.name) for f in fields(view) if f.name not in taken}
    others |= {"image": image, "group_camera" if view.group else "camera": camera}
    # Without a new photo there is none: what the view came from shows the distortion.
    others |= {"source": None if photo is None else str(photo), "upright_in_file": True}
    straight = SceneView.masked(
        depth=depth,
        points=points_from_depth(depth.astype(np.float32), K, camera.world_from_camera),
        confidence=view.confidence[row, column],
        valid=depth > 0,
        **others,
    )
    return replace(straight, masked_pixels=view.masked_pixels)


def _straight_points(sparse: SparsePoints, lenses: Mapping[int, Lens], views: list[SceneView]) -> SparsePoints:
    """The same points, seen in the new pictures."""
    pixels = sparse.pixels.copy()
    for index, lens in lenses.items():
        rows = sparse.view == index
        pixels[rows] = straight_pixels(lens, _known_camera(views[index]), sparse.pixels[rows])
    kept = np.isfinite(pixels).all(axis=1)
    return replace(
        sparse, view=sparse.view[kept], point=sparse.point[kept], pixels=pixels[kept], depth=sparse.depth[kept]
    )
