"""Fast3R: views -> `Scene`. What is run in which order; the arithmetic is in `networks` and `geometry`.

network -> global and local pointmaps
  focal length     one for all views of a size (or one a view, or given)
  a view at a time local map onto global map (similarity), camera by PnP-RANSAC or by that similarity, depth, status
  world            = the first camera
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch

from manyview.errors import InputError
from manyview.geometry import (
    Camera,
    PnpResult,
    align_local_to_global,
    estimate_focal,
    intrinsics,
    picture_centre,
    pixel_grid,
    solve_pnp,
    transform_points,
)
from manyview.images import Progress, View, Views, to_network_tensor
from manyview.methods.devices import Rung, climb_down, in_precision, network_progress
from manyview.methods.placing import Job, Placed, first_cameras_are_worlds
from manyview.networks.fast3r import Fast3R
from manyview.networks.pointmaps import Pointmaps
from manyview.scene import SceneView, ViewStatus

PNP_POINTS, FOCAL_POINTS = 2000, 4000  # well-spread samples: several times faster than all pixels, as good
PNP_LIMIT = 5.0  # pixels of reprojection error, as published, for pictures of 224 pixels and more
SMALLEST_PNP_LIMIT = 2.0  # smaller pictures get a limit in proportion, but not below this
SIMILARITY_PERCENTILE = 50.0  # of the confidence, for cameras "similarity"
FIRST_CAMERA_LOST = (
    "the first view's camera was not found: the world is the network's own estimate of that camera's frame"
)
LEAST_INLIERS = 0.25  # of the points that a camera should explain


@dataclass(frozen=True, kw_only=True)
class Fast3ROptions:
    """How pointmaps become a scene.

    Attributes:
        focal: "shared": one focal length for all views of one original size, from the first view's global map, as
            published (other sizes: the median over their local maps); "per_view": one a view, for mixed cameras.
        points: "local": each view's local map, moved onto its global map (sharper; the official default), or "global".
        alignment_percentile: of the confidence; only pixels above it are used to move local onto global maps.
        cameras: "pnp": from the global map, by PnP with RANSAC, as published; "similarity": the motion that moves the
            local onto the global map, better for small models, whose maps err smoothly; "auto": as the model wants it.
    """

    focal: Literal["shared", "per_view"] = "shared"
    points: Literal["local", "global"] = "local"
    alignment_percentile: float = 85.0
    cameras: Literal["auto", "pnp", "similarity"] = "auto"


@dataclass(frozen=True)
class Maps:
    """What the network says of one view: points (H, W, 3) and confidence (H, W), global and local; valid (H, W)."""

    points: np.ndarray
    confidence: np.ndarray
    local_points: np.ndarray
    local_confidence: np.ndarray
    valid: np.ndarray


def reconstruct_views(network: Fast3R, job: Job, options: Fast3ROptions) -> Placed:
    """The whole way from pictures to placed views.

    Raises:
        InputError: cameras are given; this family cannot take them into account.
        DeviceError: memory does not suffice.
    """
    options = replace(options, cameras=job.info.cameras) if options.cameras == "auto" else options
    if job.known.world_from_camera is not None:
        raise InputError("Fast3R cannot make use of known cameras", hint="Use a DUSt3R model, or leave them out.")
    with job.clock.measure("network"):
        pointmaps, rung, changes = run(network, job)
    with job.clock.measure("geometry"):
        maps = [_maps(pointmaps, index, view.valid) for index, view in enumerate(job.views)]
        placed = place_views(
            job.views,
            maps,
            options,
            known_K=job.known.K,
            least_confidence=job.info.least_confidence,
            progress=job.progress,
        )
    return Placed(
        views=placed,
        dtype=rung.dtype,
        changes=changes,
        warnings=(FIRST_CAMERA_LOST,) if placed[0].camera is None else (),
        settings=asdict(options),
    )


def run(network: Fast3R, job: Job) -> tuple[Pointmaps, Rung, tuple[str, ...]]:
    """The network alone: its pointmaps (B = 1, on the host, float32).

    Also returns how it was run, and what was changed to fit into memory, in words.
    """
    sizes = [view.size for view in job.views]

    def attempt(rung: Rung) -> Pointmaps:
        images = [image.to(job.device) for image in to_network_tensor(job.views)]
        with (
            torch.inference_mode(),
            in_precision(network, rung.dtype) as chosen,
            network_progress(chosen, sizes, rung.economy, job.progress),
        ):
            return chosen(images, seed=job.seed, economy=rung.economy)

    return climb_down(attempt, job.dtype)


def _maps(pointmaps: Pointmaps, view: int, valid: np.ndarray) -> Maps:
    assert pointmaps.local_points is not None
    assert pointmaps.local_confidence is not None
    arrays = (pointmaps.points, pointmaps.confidence, pointmaps.local_points, pointmaps.local_confidence)
    return Maps(*(per_view[view][0].numpy() for per_view in arrays), valid=valid)


def place_views(
    views: Views,
    maps: Sequence[Maps],
    options: Fast3ROptions = Fast3ROptions(),
    *,
    known_K: Sequence[np.ndarray] | None = None,
    least_confidence: float = 1.5,
    progress: Progress | None = None,
) -> list[SceneView]:
    """Cameras, depth and points in the first camera's frame.

    Args:
        views, maps: N pictures and what the network says of them.
        known_K: N intrinsic matrices (3, 3), original pixels; None estimates the focal length.
        least_confidence: a view none of whose global points is surer than this is not to be trusted. It depends on the
            model; 1.5 is the official demo's.
    """
    intrinsics_of = list(known_K) if known_K is not None else _estimated(views, maps, options)
    place = partial(_place, options=options, least_confidence=least_confidence)
    with ThreadPoolExecutor() as pool:
        placed = []
        for done, view in enumerate(pool.map(place, views, maps, intrinsics_of), start=1):
            placed.append(view)
            if progress is not None:
                progress(done, len(views), "placing cameras")
    return first_cameras_are_worlds(placed, [range(len(placed))])


# ------------------------------------------------------------------ intrinsics, in original pixels
def _estimated(views: Views, maps: Sequence[Maps], options: Fast3ROptions) -> list[np.ndarray]:
    """Square pixels, the principal point at the centre of the original."""
    focals = _focal_a_view(views, maps, options.focal)
    return [_centred_K(focal, view) for focal, view in zip(focals, views, strict=True)]


def _focal_a_view(views: Views, maps: Sequence[Maps], kind: Literal["shared", "per_view"]) -> list[float]:
    """Focal length of each view in its original pixels."""
    if kind == "per_view":
        return [_local_focal(v, m) for v, m in zip(views, maps, strict=True)]
    shared: dict[tuple[int, int], float] = {
        views[0].original_size: _focal(views[0], maps[0].points, maps[0].confidence)
    }
    for size in dict.fromkeys(view.original_size for view in views):
        if size not in shared:
            shared[size] = float(
                np.median([_local_focal(v, m) for v, m in zip(views, maps, strict=True) if v.original_size == size])
            )
    return [shared[view.original_size] for view in views]


def _local_focal(view: View, maps: Maps) -> float:
    return _focal(view, maps.local_points, maps.local_confidence)


def _focal(view: View, points: np.ndarray, confidence: np.ndarray) -> float:
    """From a map in the view's own frame; original pixels."""
    centre = _network_from_original(view) @ [*picture_centre(*view.original_size), 1.0]
    points = np.where(view.valid[..., None], points, np.nan)
    focal = estimate_focal(points, confidence, principal_point=(centre[0], centre[1]), max_points=FOCAL_POINTS)
    return focal * _scale(view)


def _centred_K(focal: float, view: View) -> np.ndarray:
    return intrinsics(focal, picture_centre(*view.original_size))


def _network_from_original(view: View) -> np.ndarray:
    return np.linalg.inv(view.original_from_network)


def _scale(view: View) -> float:
    """Original pixels to one network pixel; geometric mean of both axes."""
    return float(np.sqrt(abs(np.linalg.det(view.original_from_network[:2, :2]))))


# ------------------------------------------------------------------ one view
def _place(view: View, maps: Maps, K: np.ndarray, *, options: Fast3ROptions, least_confidence: float) -> SceneView:
    """A view in the network's world (not yet the first camera's)."""
    aligned = align_local_to_global(
        maps.local_points,
        maps.points,
        maps.confidence,
        percentile=options.alignment_percentile,
        valid=maps.valid,
        max_points=FOCAL_POINTS,
    )
    find = camera_by_similarity if options.cameras == "similarity" else camera_by_pnp
    found = find(maps, _network_from_original(view) @ K, limit=reprojection_limit(view))
    status, reason = judge(found, maps, aligned is not None, least_confidence)
    height, width = view.original_size
    camera = None
    if found is not None and status != "camera_not_found":
        camera = Camera(K=K, world_from_camera=found.world_from_camera, width=width, height=height)
    use_local = options.points == "local" and aligned is not None
    points = aligned.apply(maps.local_points) if use_local and aligned is not None else maps.points
    local_scale = aligned.scale if aligned is not None else 1.0
    in_camera = (
        maps.local_points * local_scale if camera is None else transform_points(camera.camera_from_world, points)
    )
    return SceneView.masked(
        depth=in_camera[..., 2],
        points=points,
        confidence=maps.local_confidence if use_local else maps.confidence,
        valid=maps.valid,
        name=view.name,
        source=view.source,
        original_size=view.original_size,
        original_from_network=view.original_from_network,
        image=view.pixels,
        camera=camera,
        status=status,
        status_reason=reason,
        upright_in_file=view.upright_in_file,
        timestamp=view.timestamp,
    )


def reprojection_limit(view: View) -> float:
    """Pixels of the network's picture up to which a point agrees with a camera."""
    return max(SMALLEST_PNP_LIMIT, PNP_LIMIT * min(1.0, max(view.size) / 224))


def camera_by_pnp(maps: Maps, K: np.ndarray, *, limit: float) -> PnpResult | None:
    """The camera that sees the global points at their pixels; K in network pixels."""
    return solve_pnp(
        maps.points,
        K,
        maps.valid & (maps.confidence > 1.0),
        reprojection_error=limit,
        max_points=PNP_POINTS,
        point_confidence=maps.confidence,
    )


def camera_by_similarity(maps: Maps, K: np.ndarray, *, limit: float) -> PnpResult | None:
    """The motion that takes the surer half of the local map onto the global map, less its scale; K in network pixels.

    How well it explains the global points is measured as for PnP.
    """
    fitted = align_local_to_global(
        maps.local_points,
        maps.points,
        maps.confidence,
        percentile=SIMILARITY_PERCENTILE,
        valid=maps.valid,
        max_points=FOCAL_POINTS,
    )
    if fitted is None:
        return None
    world_from_camera = np.eye(4)
    world_from_camera[:3, :3], world_from_camera[:3, 3] = fitted.rotation, fitted.translation
    height, width = maps.valid.shape
    used = maps.valid & np.isfinite(maps.points).all(-1)
    camera = Camera(K=K, world_from_camera=world_from_camera, width=width, height=height)
    pixels, depth = camera.project(maps.points[used].astype(np.float64))
    error = np.linalg.norm(pixels - pixel_grid(height, width)[used], axis=-1)
    error = np.where(depth > 0, error, np.inf)
    if not len(error):
        return None
    return PnpResult(
        K=K,
        world_from_camera=world_from_camera,
        points=len(error),
        inliers=int((error < limit).sum()),
        median_error=float(np.median(error)),
    )


def judge(found: PnpResult | None, maps: Maps, is_aligned: bool, least_confidence: float) -> tuple[ViewStatus, str]:
    """What to think of a view, and why."""
    if found is None:
        return "camera_not_found", "no camera agrees with the points of this view"
    surest = float(np.max(maps.confidence, where=maps.valid, initial=1.0))
    if surest < least_confidence:
        return "low_confidence", f"highest confidence {surest:.2f}, expected at least {least_confidence}"
    if found.inlier_ratio < LEAST_INLIERS:
        return (
            "low_confidence",
            f"the camera explains {found.inlier_ratio:.0%} of the points, expected {LEAST_INLIERS:.0%}",
        )
    if not is_aligned:
        return "low_confidence", "the view's own map does not fit its place in the scene"
    return "used", ""
