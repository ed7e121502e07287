"""How good a model is on procedural worlds it has never seen, where the truth is exact; trivial models beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from manyview.errors import InputError
from manyview.evaluation.depth import DepthReport, evaluate_depth, median_relative_point_error
from manyview.evaluation.poses import PoseReport, accuracy_below, evaluate_poses, mean_average_accuracy
from manyview.geometry import Camera, intrinsics, picture_centre, pixel_grid, transform_pixels
from manyview.images import Inputs, Progress, View, load_views
from manyview.methods.model import Model
from manyview.scene import Provenance, Scene, SceneView
from manyview.worlds import WorldSettings, render_worlds

MEAN_DEPTH_SIZE = (48, 64)
TRIVIAL_FOCAL = 1.0  # of the picture's longer side: 53 degrees, a usual photo


class Reconstructor(Protocol):
    """What is evaluated: pictures in, a scene out, one view for each picture. `Model` is one."""

    def reconstruct(self, inputs: Inputs, *, strict: bool = ...) -> Scene: ...


# ------------------------------------------------------------------ one scene
@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """What is known about N views, one entry a view, in pixels of the upright original pictures.

    Attributes:
        cameras: in one world frame; None where a camera is not known.
        depth: (H, W) z-depth of the original's size in world units, 0 or not finite where it is not known; None where
            a view has none at all.
    """

    cameras: Sequence[Camera | None]
    depth: Sequence[np.ndarray | None]


@dataclass(frozen=True, kw_only=True)
class SceneErrors:
    """How far a scene is from the truth.

    Attributes:
        views, cameras_found: how many there are, and how many of their cameras the model found.
        poses: None where fewer than two true cameras are known.
        depth: all views under one scale, which makes the medians equal; None where no true depth is known.
        depth_error: median of |predicted - true| / true; inf where true depth is known and no pixel has a prediction.
        point_error: `median_relative_point_error`; None where depth or the first camera is not known.
        focal_error: median over the views of |predicted - true| / true; None where there is nothing to compare.
        coverage: share (0..1) of the pixels of known depth that have a prediction; None where no depth is known.
    """

    views: int
    cameras_found: int
    poses: PoseReport | None
    depth: DepthReport | None
    depth_error: float | None
    point_error: float | None
    focal_error: float | None
    coverage: float | None


def compare_with_truth(scene: Scene, truth: Truth) -> SceneErrors:
    """Compare cameras, depth and points. Depth is compared at the network's pixels (nearest original pixel).

    Args:
        scene: N views, in any world frame and scale.
        truth: of the same N views.

    Raises:
        InputError: the numbers of views differ, or true depth is not of the original picture's size.
    """
    if not len(scene.views) == len(truth.cameras) == len(truth.depth):
        raise InputError(
            f"Got {len(scene.views)} views, {len(truth.cameras)} true cameras and {len(truth.depth)} true depths.",
            hint="Give one entry (or None) for each view of the scene; strict=True keeps pictures from being skipped.",
        )
    true_depth = [_at_network_pixels(view, depth) for view, depth in zip(scene.views, truth.depth, strict=True)]
    depth, coverage = _depth_errors(scene, true_depth)
    return SceneErrors(
        views=len(scene.views),
        cameras_found=sum(view.camera is not None for view in scene.views),
        poses=_pose_errors(scene, truth),
        depth=depth,
        depth_error=depth.median_relative_error if depth else (None if coverage is None else math.inf),
        point_error=_point_error(scene, truth, true_depth),
        focal_error=_focal_error(scene, truth),
        coverage=coverage,
    )


def _at_network_pixels(view: SceneView, depth: np.ndarray | None) -> np.ndarray:
    """Depth of the original's size -> (H, W) float64 of the network's; 0 where it is not known or outside."""
    if depth is None:
        return np.zeros(view.size)
    if depth.shape != tuple(view.original_size):
        raise InputError(f"{view.name}: got true depth of shape {depth.shape} for a picture of {view.original_size}.")
    column, row = np.floor(_original_pixels(view) + 0.5).astype(np.int64).transpose(2, 0, 1)
    height, width = depth.shape
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    picked = depth[row.clip(0, height - 1), column.clip(0, width - 1)].astype(np.float64)
    return np.where(inside & np.isfinite(picked) & (picked > 0), picked, 0.0)


def _original_pixels(view: View | SceneView) -> np.ndarray:
    """(H, W, 2): where each network pixel lies in the original."""
    return transform_pixels(view.original_from_network, pixel_grid(*view.size))


def _pose_errors(scene: Scene, truth: Truth) -> PoseReport | None:
    known = [(view.camera, true) for view, true in zip(scene.views, truth.cameras, strict=True) if true is not None]
    if len(known) < 2:
        return None
    predicted = [None if camera is None else camera.world_from_camera for camera, _ in known]
    return evaluate_poses(predicted, [true.world_from_camera for _, true in known])


def _depth_errors(scene: Scene, true_depth: Sequence[np.ndarray]) -> tuple[DepthReport | None, float | None]:
    """Report and coverage, as `SceneErrors` has them."""
    predicted = np.concatenate([np.where(view.valid, view.depth, np.nan).ravel() for view in scene.views])
    true_values = np.concatenate([depth.ravel() for depth in true_depth])
    known = true_values > 0
    covered = known & np.isfinite(predicted)
    if not covered.any():
        return None, 0.0 if known.any() else None
    report = evaluate_depth(predicted[None], true_values[None], known[None], alignment="median")
    return report, float(covered.sum() / known.sum())


def _point_error(scene: Scene, truth: Truth, true_depth: Sequence[np.ndarray]) -> float | None:
    """inf where the points do not determine how to lay them over the true ones."""
    first = truth.cameras[0]
    if first is None or not any((depth > 0).any() for depth in true_depth):
        return None
    points, true_points, masks = [], [], []
    for view, camera, depth in zip(scene.views, truth.cameras, true_depth, strict=True):
        if camera is not None:
            points.append(view.points)
            true_points.append(camera.unproject(_original_pixels(view), depth))
            masks.append(view.valid & (depth > 0))
    try:
        return median_relative_point_error(points, true_points, masks, origin=first.centre)
    except InputError:
        return math.inf


def _focal_error(scene: Scene, truth: Truth) -> float | None:
    errors = [
        abs(view.camera.K[0, 0] / true.K[0, 0] - 1)
        for view, true in zip(scene.views, truth.cameras, strict=True)
        if view.camera is not None and true is not None
    ]
    return float(np.median(errors)) if errors else None


# ------------------------------------------------------------------ many worlds
@dataclass(frozen=True, kw_only=True)
class WorldReport:
    """Accuracy over S worlds of N views each.

    Attributes:
        views, scenes: N and S.
        depth_error, point_error: medians over the scenes of each scene's median relative error (`SceneErrors`).
        rra15, rta15, maa30: shares (0..1) over the pairs of views of all scenes; a camera not found counts as wrong.
        rotation_error: median over these pairs, degrees.
        focal_error: median over the scenes; None where no camera was found.
        cameras_found: share of the views (0..1).
        coverage: mean share of the pixels that have a prediction.
    """

    views: int
    scenes: int
    depth_error: float
    point_error: float
    rra15: float
    rta15: float
    maa30: float
    rotation_error: float
    focal_error: float | None
    cameras_found: float
    coverage: float


def evaluate_on_worlds(
    model: Reconstructor,
    *,
    views: int,
    scenes: int,
    first_seed: int,
    size: tuple[int, int] | None = None,
    settings: WorldSettings = WorldSettings(),  # noqa: B008 (frozen)
    progress: Progress | None = None,
) -> WorldReport:
    """Photograph worlds, reconstruct each from its pictures alone, and compare with the exact truth.

    Args:
        model: runs as it does for a user: `model.reconstruct(pictures)`.
        views: of each world, at least 2.
        scenes: how many worlds; their seeds are `first_seed`, `first_seed` + 1, ...
        size: (height, width) of the pictures; `native_size` of the model by default.
        settings: what worlds look like.
        progress: called after each world.

    Raises:
        InputError: too few views or scenes, or no size is given for something that is not a `Model`.
    """
    if views < 2 or scenes < 1:
        raise InputError(f"expected views >= 2 and scenes >= 1, got {views=} and {scenes=}")
    if size is None:
        if not isinstance(model, Model):
            raise InputError("no size of the pictures was given", hint="Pass size=(height, width).")
        size = native_size(model)
    errors = []
    for scene in range(scenes):
        pictures, truth = photograph_world(first_seed + scene, views, size, settings)
        errors.append(compare_with_truth(model.reconstruct(pictures, strict=True), truth))
        if progress is not None:
            progress(scene + 1, scenes, f"worlds of {views} views")
    return pool(errors)


def pool(errors: Sequence[SceneErrors]) -> WorldReport:
    """One report for scenes of equally many views whose truth is fully known."""
    poses = [scene.poses for scene in errors if scene.poses is not None]
    rotation = np.concatenate([report.rotation_errors for report in poses])
    translation = np.concatenate([report.translation_errors for report in poses])
    focal = [scene.focal_error for scene in errors if scene.focal_error is not None]
    return WorldReport(
        views=errors[0].views,
        scenes=len(errors),
        depth_error=float(np.median([scene.depth_error for scene in errors if scene.depth_error is not None])),
        point_error=float(np.median([scene.point_error for scene in errors if scene.point_error is not None])),
        rra15=accuracy_below(rotation, 15),
        rta15=accuracy_below(translation, 15),
        maa30=mean_average_accuracy(rotation, translation, 30),
        rotation_error=float(np.median(rotation)),
        focal_error=float(np.median(focal)) if focal else None,
        cameras_found=sum(scene.cameras_found for scene in errors) / sum(scene.views for scene in errors),
        coverage=float(np.mean([scene.coverage for scene in errors if scene.coverage is not None])),
    )


def native_size(model: Model) -> tuple[int, int]:
    """(height, width), 4:3, of pictures that the model takes without resizing or cropping."""
    patch = model.network.config.patch_size
    return max(patch, model.info.image_size * 3 // 4 // patch * patch), model.info.image_size


def photograph_world(
    seed: int,
    views: int,
    size: tuple[int, int],
    settings: WorldSettings = WorldSettings(),  # noqa: B008 (frozen)
) -> tuple[list[np.ndarray], Truth]:
    """Pictures (H, W, 3) uint8 of one procedural world, as a camera would store them, and their truth."""
    batch = render_worlds([seed], views, size, settings)
    pictures = np.rint(255 * batch.images[0].permute(0, 2, 3, 1).numpy()).astype(np.uint8)
    height, width = size
    cameras = [
        Camera(K=K, world_from_camera=world_from_camera, width=width, height=height)
        for K, world_from_camera in zip(
            batch.K[0].double().numpy(), batch.world_from_camera[0].double().numpy(), strict=True
        )
    ]
    return list(pictures), Truth(cameras=cameras, depth=list(batch.depth[0].numpy()))


# ------------------------------------------------------------------ what a model has to beat
@dataclass(frozen=True, kw_only=True)
class TrivialModel:
    """Sees nothing: one depth map for every view, and all cameras in one place, looking the same way.

    Attributes:
        name: what it is called in reports.
        depth: (h, w) of any size, stretched to each view; its scale does not matter.
        image_size, patch_size, square_ok: how pictures are resized, so that it is compared at a real model's pixels.
    """

    name: str
    depth: np.ndarray = field(repr=False)
    image_size: int
    patch_size: int
    square_ok: bool = True

    def reconstruct(self, inputs: Inputs, *, strict: bool = True) -> Scene:
        """A scene with the same guess for every picture. Arguments as in `manyview.reconstruct`."""
        views = load_views(
            inputs, size=self.image_size, patch_size=self.patch_size, square_ok=self.square_ok, strict=strict
        )
        return Scene(
            views=[self._view(view) for view in views],
            provenance=Provenance(model=self.name, weights_sha256="", weights_licence="none"),
            skipped=[(skipped.name, skipped.reason) for skipped in views.skipped],
            warnings=views.warnings,
        )

    def _view(self, view: View) -> SceneView:
        height, width = view.original_size
        K = intrinsics(TRIVIAL_FOCAL * max(height, width), picture_centre(height, width))
        camera = Camera(K=K, world_from_camera=np.eye(4), width=width, height=height)
        depth = stretch(self.depth, view.size)
        return SceneView.masked(
            name=view.name,
            source=view.source,
            original_size=view.original_size,
            original_from_network=view.original_from_network,
            image=view.pixels,
            camera=camera,
            depth=depth,
            points=camera.unproject(_original_pixels(view), depth),
            confidence=np.ones(view.size),
            valid=view.valid,
        )


def trivial_models(model: Model, *, seed: int, worlds: int = 64) -> Iterator[TrivialModel]:
    """A constant depth and the mean depth map of `worlds` worlds (`mean_depth`), at the pixels of `model`."""
    for name, depth in (("constant depth", np.ones((1, 1))), ("mean depth map", mean_depth(seed, worlds))):
        yield TrivialModel(
            name=name,
            depth=depth,
            image_size=model.info.image_size,
            patch_size=model.network.config.patch_size,
            square_ok=model.info.square_ok,
        )


def mean_depth(
    first_seed: int,
    worlds: int = 64,
    settings: WorldSettings = WorldSettings(),  # noqa: B008 (frozen)
) -> np.ndarray:
    """(48, 64): mean over one view each of `worlds` worlds of depth / the view's median depth.

    Each pixel's mean is over the views in which it is not sky; 1 where it is sky in all of them.
    """
    batch = render_worlds(range(first_seed, first_seed + worlds), 1, MEAN_DEPTH_SIZE, settings)
    valid = batch.valid[:, 0].numpy()
    depth = batch.depth[:, 0].numpy().astype(np.float64)
    median = np.array([np.median(d[v]) if v.any() else 1.0 for d, v in zip(depth, valid, strict=True)])
    count = valid.sum(axis=0)
    total = np.where(valid, depth / median[:, None, None], 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), 1.0)


def stretch(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) -> `size` by linear interpolation."""
    import cv2

    return cv2.resize(np.asarray(grid, dtype=np.float64), size[::-1], interpolation=cv2.INTER_LINEAR)
