"""A scene of lenses with distortion, made one of pinhole cameras: photos are drawn anew, and depth moves along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from manyview.formats.lens import Lens, pinhole_within
from manyview.formats.posed_photos import PosedPhotos
from manyview.formats.undistort import undistort_photos
from manyview.geometry import Camera, pixel_grid, points_from_depth, transform_pixels
from manyview.refine.result import Refined
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

    Photos with distortion are drawn anew, without empty borders, into `folder/images`, and are the views' sources then.
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
        before = _camera(views[index])
        after = pinhole_within(lens, before)
        views[index] = _straight_view(views[index], lens, after, drawn.get(index))
    sparse = None if scene.sparse is None else _straight_points(scene.sparse, lenses, views)
    note = f"{len(lenses)} photos of lenses with distortion were drawn anew as pinhole cameras see them"
    provenance = replace(scene.provenance, changes=(*scene.provenance.changes, note))
    return replace(scene, views=tuple(views), sparse=sparse, provenance=provenance)


def _camera(view: SceneView) -> Camera:
    camera = view.group_camera if view.group else view.camera
    assert camera is not None  # registered views have one
    return camera


def _drawn_photos(scene: Scene, lenses: Mapping[int, Lens], folder: Path, *, overwrite: bool) -> dict[int, Path]:
    """The new photo of each view that comes from a photo and has a lens."""
    chosen = [index for index in sorted(lenses) if _is_photo(scene.views[index])]
    if not chosen:
        return {}
    views = [scene.views[index] for index in chosen]
    posed = PosedPhotos(
        names=tuple(view.name for view in views),
        paths=tuple(Path(view.source or "") for view in views),
        cameras=tuple(_camera(view) for view in views),
        lenses=tuple(lenses[index] for index in chosen),
    )
    return dict(zip(chosen, undistort_photos(posed, folder, overwrite=overwrite).paths, strict=True))


def _is_photo(view: SceneView) -> bool:
    return view.source is not None and view.timestamp is None and Path(view.source).is_file()


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
    if photo is not None:
        others |= {"source": str(photo), "upright_in_file": True}
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
        rows, camera = sparse.view == index, _camera(views[index])
        rays = lens.unproject(sparse.pixels[rows])
        rays = rays / np.where(rays[:, 2:] > 0, rays[:, 2:], np.nan)
        there = (rays @ camera.K.T)[:, :2]
        inside = (there >= -0.5).all(axis=1) & (there <= np.array([camera.width, camera.height]) - 0.5).all(axis=1)
        pixels[rows] = np.where(inside[:, None], there, np.nan)
    kept = np.isfinite(pixels).all(axis=1)
    return replace(
        sparse, view=sparse.view[kept], point=sparse.point[kept], pixels=pixels[kept], depth=sparse.depth[kept]
    )
