"""From a network's scene to one that is ready for use: exact cameras, depth that agrees with them, dense depth.

cameras      features, matches, mapping and bundle adjustment (`manyview.refine.exact_cameras`)
photos       those of lenses with distortion are drawn anew (`manyview.refine.straighten`)
depth        every map is fitted to the sparse points (`manyview.refine.depth_fit`)
dense depth  on request: found in the photos around that depth (`manyview.refine.densify`)
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from manyview.errors import InputError
from manyview.formats.lens import Lens
from manyview.images import Progress
from manyview.refine.depth_fit import DepthFit
from manyview.refine.exact_cameras import refine_cameras
from manyview.refine.options import GivenCameras, RefineOptions
from manyview.refine.result import Refined
from manyview.refine.straighten import lenses_of, straighten
from manyview.scene import Scene

if TYPE_CHECKING:
    import torch

    from manyview.refine.densify import Densified, DensifyOptions


@dataclass(frozen=True, kw_only=True, eq=False)
class RefinedScene:
    """What came out of `refine_scene`.

    Attributes:
        scene: with the better cameras, `sparse` points, and depth that fits them.
        cameras: how the cameras came about.
        fits: what was done to the depth of each view that has sparse points, by index.
        dense: depth maps and cloud of the photometric search, if it was asked for and could be done.
        lenses: of the views whose photos were drawn anew, by index; see `straighten.straight_point`.
        words: which cameras the scene has, in one sentence.
    """

    scene: Scene
    cameras: Refined
    fits: Mapping[int, DepthFit] = field(default_factory=dict)
    dense: Densified | None = None
    lenses: Mapping[int, Lens] = field(default_factory=dict)

    @property
    def words(self) -> str:
        found = self.cameras
        registered, views = len(found.registered), len(self.scene.views)
        if found.kept == "network":
            return f"the network's cameras, since {found.kept_because}"
        error = f"reprojection error {found.reprojection_error:.2f} pixels"
        rest = "" if registered == views else f"; the other {views - registered} keep the network's camera or none"
        return f"refined by bundle adjustment: {registered} of {views} photos registered, {error}{rest}"


def refine_scene(
    scene: Scene,
    options: RefineOptions | None = None,
    *,
    given: GivenCameras | None = None,
    densify: DensifyOptions | None = None,
    photos: str | Path | None = None,
    overwrite: bool = False,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> RefinedScene:
    """Make the cameras of a scene exact, and its depth agree with them.

    Args:
        scene: of any model; its photos are read again at their full size. It is not changed.
        options: of matching and bundle adjustment.
        given: intrinsics and cameras that are known.
        densify: also search dense depth in the photos, so.
        photos: folder into which photos are drawn anew where the camera model has distortion; needed only then. To
            write them with the scene, so that both are replaced together, pass it to `Scene.write` as `drawn`.
        overwrite: replace photos that are there from an earlier call.
        device: of the dense search.
        progress: called as (done, total, what).

    Returns:
        The scene, and how it came about. Where refinement would not explain the matches better, or nothing matches, the
        scene has the network's cameras and depth, and a warning says why.

    Raises:
        InputError: what is given does not fit, or `photos` is missing although a lens has distortion.
    """
    options = options or RefineOptions()
    if options.has_distortion and photos is None:
        raise InputError(
            f"the camera model {options.camera_model} has distortion, and the cameras of a scene are pinholes",
            hint="Give a folder in which the photos are drawn anew: photos=...",
        )
    found = refine_cameras(scene, options, given=given, progress=progress)
    if found.kept == "network":
        kept = _noted(found.scene, found, {})
        return RefinedScene(scene=_without_dense(kept) if densify else kept, cameras=found)
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    refined = replace(found.scene, sparse=found.points, fused=None)
    lenses = lenses_of(found)
    refined, fits = _fitted(refined, lenses, photos, overwrite=overwrite)
    seconds["depth"] = round(time.perf_counter() - start, 3)
    dense = None
    if densify is not None:
        start = time.perf_counter()
        refined, dense = _densified(refined, densify, device, progress)
        seconds["dense depth"] = round(time.perf_counter() - start, 3)
    noted = _noted(refined, found, seconds)
    return RefinedScene(scene=noted, cameras=found, fits=fits, dense=dense, lenses=lenses)


def _fitted(
    scene: Scene, lenses: Mapping[int, Lens], photos: str | Path | None, *, overwrite: bool
) -> tuple[Scene, Mapping[int, DepthFit]]:
    from manyview.refine.scene_depth import refit_scene

    assert scene.sparse is not None
    fitted, fits = refit_scene(scene, scene.sparse)  # where photos and network pictures still have their distortion
    if lenses and photos is not None:
        fitted = straighten(fitted, lenses, photos, overwrite=overwrite)
    return fitted, fits


def _densified(
    scene: Scene, options: DensifyOptions, device: str | torch.device, progress: Progress | None
) -> tuple[Scene, Densified]:
    from manyview.refine.scene_depth import densify_scene

    found = densify_scene(scene, options, device=device, progress=progress)
    return found.scene, found.dense


def _without_dense(scene: Scene) -> Scene:
    told = "dense depth needs exact cameras, and these are the network's: it was left out"
    return replace(scene, warnings=(*scene.warnings, told))


def cameras_from(scene: Scene) -> str:
    """Where a scene's cameras are from: "network", "bundle adjustment" or "given"."""
    unsaid = "given" if scene.world == "given" else "network"
    return str(scene.provenance.settings.get("cameras_from", unsaid))


def _noted(scene: Scene, found: Refined, seconds: Mapping[str, float]) -> Scene:
    """With what was done in its provenance."""
    settings = {
        **scene.provenance.settings,
        "cameras_from": "bundle adjustment" if found.kept == "refined" else cameras_from(scene),
        "registered": len(found.registered),
        "camera_model": found.options.camera_model,
    }
    timed = {**scene.provenance.seconds, **{f"refine: {part}": value for part, value in seconds.items()}}
    return replace(scene, provenance=replace(scene.provenance, settings=settings, seconds=timed))
