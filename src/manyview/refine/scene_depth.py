"""Depth of a `Scene` brought to its exact cameras: refitted to sparse points, or found anew at the photos' size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from manyview.errors import InputError
from manyview.geometry import Camera, points_from_depth, transform_pixels
from manyview.images import Progress
from manyview.refine.densify import (
    DenseView,
    Densified,
    DensifyOptions,
    PosedPhoto,
    densify,
    depth_in_picture,
)
from manyview.refine.depth_fit import DepthFit, fit_depth
from manyview.refine.full_size import Photo, open_one_by_one
from manyview.scene import FusedPoints, Scene, SceneView, SparsePoints


# ------------------------------------------------------------------ fitted to sparse points
def refit_scene(scene: Scene, points: SparsePoints) -> tuple[Scene, Mapping[int, DepthFit]]:
    """The scene with every depth map fitted to the sparse points that its view sees.

    Views without a camera, or without depth, are left alone.

    Args:
        scene: its cameras are those with which the points were found.
        points: observations of views by their index in the scene.

    Returns:
        The scene, and what was done to each view that has a fit, by index.
    """
    views, fits = list(scene.views), {}
    for index, view in enumerate(scene.views):
        if (view.camera or view.group_camera) is not None and view.valid.any():
            pixels, depth, _ = points.of_view(index)
            views[index], fits[index] = refit_view(view, pixels, depth)
    return replace(scene, views=views, fused=None), fits


def refit_view(view: SceneView, pixels: np.ndarray, depth: np.ndarray) -> tuple[SceneView, DepthFit]:
    """The view with its depth fitted to points, and its own points placed by its camera.

    Args:
        view: its camera (for a view of another group: its `group_camera`) is the exact one.
        pixels: (P, 2) where points are in the photo: original pixels.
        depth: (P,) their z-depth in the camera.

    Raises:
        InputError: the view has no camera.
    """
    camera = _network_camera(view)
    in_network = transform_pixels(np.linalg.inv(view.original_from_network), np.asarray(pixels, dtype=np.float64))
    fit = fit_depth(_known_depth(view), in_network, depth, confidence=view.confidence)
    placed = points_from_depth(fit.depth, camera.K, camera.world_from_camera)
    changed = SceneView.masked(
        depth=fit.depth,
        points=placed,
        confidence=view.confidence,
        valid=view.valid & (fit.depth > 0),
        **_other_fields(view),
    )
    return replace(changed, masked_pixels=view.masked_pixels), fit


def _network_camera(view: SceneView) -> Camera:
    """In network pixels, in the frame that the view's points are in."""
    camera = replace(view, camera=view.camera or view.group_camera).network_camera
    if camera is None:
        raise InputError(f"{view.name} has no camera", hint="Leave out views whose camera was not found.")
    return camera


def _known_depth(view: SceneView) -> np.ndarray:
    """(H, W), 0 where it is not valid."""
    return np.where(view.valid, view.depth, 0)


def _other_fields(view: SceneView) -> dict[str, Any]:
    """All fields that `SceneView.masked` takes over as they are."""
    numbers = ("depth", "points", "confidence", "valid", "masked_pixels")
    return {own.name: getattr(view, own.name) for own in fields(view) if own.name not in numbers}


# ------------------------------------------------------------------ found anew
@dataclass(frozen=True, kw_only=True, eq=False)
class DenseScene:
    """A scene with dense depth.

    Attributes:
        scene: each view with a camera in the scene's world has the photo, depth and points of the working size; its
            confidence is 1 plus that of the search times the number of views that confirm the depth, and only confirmed
            pixels are valid. Views that nothing confirms, and those of other groups, are as they were, and have no part
            in the scene's `fused` points, which are what several views confirm.
        dense: what was found, one entry for each view in `indices`.
        indices: of those views in the scene.
    """

    scene: Scene
    dense: Densified
    indices: tuple[int, ...]


def densify_scene(
    scene: Scene,
    options: DensifyOptions = DensifyOptions(),  # noqa: B008 (frozen)
    *,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> DenseScene:
    """Find depth at the size of the photos, around that of the scene.

    Photos and frames of videos are read from where the views came from. Where there is none, as for arrays, the
    network's picture serves, and a warning says so.

    Args:
        scene: its cameras are exact. Depth should be near enough for the search of `options`; `refit_scene` sees to it.
        device: where to search.

    Raises:
        InputError: no view has a camera.
    """
    indices = tuple(i for i, view in enumerate(scene.views) if view.camera is not None and view.group == 0)
    if not indices:
        raise InputError("no view has a camera", hint="Dense depth needs at least two views with known cameras.")
    opened = _posed_photos([scene.views[index] for index in indices], options.long_side)
    dense = densify([working.photo for working in opened], options, device=device, progress=progress)
    views = list(scene.views)
    for index, found, working in zip(indices, dense.views, opened, strict=True):
        if not found.words:
            views[index] = _dense_view(scene.views[index], found, working)
    notes = [working.note for working in opened if working.note]
    warnings = [*scene.warnings, *notes, *dense.warnings]
    fused = _fused(dense.cloud, indices, views)
    found = replace(scene, views=views, warnings=warnings, fused=fused)
    return DenseScene(scene=found, dense=dense, indices=indices)


def _fused(cloud: FusedPoints, indices: Sequence[int], views: Sequence[SceneView]) -> FusedPoints | None:
    """The cloud with the scene's numbers of views, and the confidence that these have where they saw the points.

    None where nothing was confirmed: the scene has the points of its depth maps then.
    """
    if not len(cloud):
        return None
    of_scene = replace(cloud, view=np.asarray(indices, dtype=np.int32)[cloud.view])
    confidence = np.zeros(len(cloud), dtype=np.float32)
    for index in indices:
        own = of_scene.view == index
        x, y = cloud.pixel[own].T
        confidence[own] = views[index].confidence[y, x]
    return replace(of_scene, confidence=confidence)


@dataclass(frozen=True, eq=False)
class _Working:
    """A view at the working size; (3, 3) affine to original pixels, and what was used instead of its photo, if any."""

    photo: PosedPhoto
    original_from_photo: np.ndarray
    note: str


def _posed_photos(views: Sequence[SceneView], long_side: int) -> list[_Working]:
    with closing(open_one_by_one(views, long_side)) as opened:
        posed = {index: _posed_photo(views[index], photo()) for index, photo in opened}
    return [posed[index] for index in range(len(views))]


def _posed_photo(view: SceneView, photo: Photo) -> _Working:
    height, width = photo.pixels.shape[:2]
    assert view.camera is not None
    back = np.linalg.inv(photo.original_from_photo)
    camera = Camera(K=back @ view.camera.K, world_from_camera=view.camera.world_from_camera, width=width, height=height)
    depth = depth_in_picture(_known_depth(view), back @ view.original_from_network, (height, width))
    note = f"{view.name}: dense depth at the size of the network's picture" if photo.note else ""
    posed = PosedPhoto(name=view.name, image=np.array(photo.pixels), camera=camera, depth=depth)
    return _Working(posed, photo.original_from_photo, note)


def _dense_view(view: SceneView, found: DenseView, working: _Working) -> SceneView:
    """The view at the working size, with what other views confirm."""
    camera = found.camera
    # The network's picture, where it stands in for a photo, may have been larger than the working size.
    photo_from_found = working.photo.camera.K @ np.linalg.inv(camera.K)
    changed = SceneView.masked(
        depth=found.depth,
        points=points_from_depth(found.depth, camera.K, camera.world_from_camera),
        confidence=1 + found.confidence * found.views,
        valid=found.confirmed,
        **{
            **_other_fields(view),
            "image": found.image,
            "original_from_network": working.original_from_photo @ photo_from_found,
        },
    )
    return replace(changed, masked_pixels=view.masked_pixels)
