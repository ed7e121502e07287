"""What `manyview refine` and `manyview report` do, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manyview.app.report_page import (
    REPORT_JSON,
    REPORT_PAGE,
    complete_report,
    save_report,
    thumbnails_of,
    worst_findings,
)
from manyview.errors import InputError
from manyview.images import Inputs, Progress
from manyview.methods.model import load
from manyview.refine.densify import DensifyOptions
from manyview.refine.lenses import intrinsics_of_photos
from manyview.refine.options import GivenCameras, RefineOptions
from manyview.refine.photo_matches import match_scene
from manyview.refine.photo_reading import MeasuredPhotos, measure_photos, measure_views
from manyview.refine.refine import RefinedScene, cameras_from, refine_scene
from manyview.refine.refined_report import graph_of, report_of
from manyview.refine.report import Report
from manyview.refine.world_wish import WorldWish, fulfilled
from manyview.scene import Scene
from manyview.scene_photos import UNDISTORTED

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """What is to be done with a scene.

    Attributes:
        bundle_adjust: how, or None for not at all.
        densify: how to search dense depth, or None for not at all.
        world: what is known of scale and orientation.
        K: (3, 3) known intrinsics of all photos, original pixels.
        cameras_are_known: the scene's cameras are exact or near, as `bundle_adjust.known_cameras` says.
        device: of the dense search.
    """

    bundle_adjust: RefineOptions | None
    densify: DensifyOptions | None
    world: WorldWish
    K: Sequence[Sequence[float]] | None
    cameras_are_known: bool
    device: torch.device

    def checked(self) -> Work:
        """The same, if there is something to do.

        Raises:
            InputError: there is nothing to do.
        """
        if self.bundle_adjust is None and self.densify is None and self.world.is_empty:
            raise InputError(
                "there is nothing to do",
                hint="Add --bundle-adjust, --densify, or what is known of scale and orientation (--help).",
            )
        return self

    @property
    def names(self) -> list[str]:
        """Of the files and folders beside the scene that it may make."""
        if self.bundle_adjust is None:
            return []
        return [REPORT_JSON, REPORT_PAGE, *([UNDISTORTED] if self.bundle_adjust.has_distortion else [])]


@dataclass(frozen=True, kw_only=True, eq=False)
class WorkResult:
    """A scene after the work, where its cameras are from in words, and what a report needs."""

    scene: Scene
    words: str
    before: Scene
    refined: RefinedScene | None = None
    progress: Progress | None = field(default=None, repr=False)

    def save_report(self, folder: Path, *, overwrite: bool) -> list[Path]:
        """report.json and report.html, if cameras were refined."""
        if self.refined is None:
            return []
        measured = measure_views(self.before.views, progress=self.progress)
        refined, graph = report_of(self.before, self.refined)
        report = complete_report(measured, graph=graph, refined=refined)
        return save_report(folder, report, thumbnails_of(measured), title="Refinement report", overwrite=overwrite)


def carry_out(scene: Scene, work: Work, *, drawn: Path, progress: Progress | None = None) -> WorkResult:
    """Refine cameras, search dense depth, then scale and turn the world.

    Args:
        scene: is not changed.
        work: what is known of scale and orientation is checked before anything is done. Where it turns out afterwards
            that nothing follows from it, that is a warning, so that the other work is not lost.
        drawn: folder for photos that are drawn anew.
        progress: called as (done, total, what).

    Raises:
        InputError: what is given does not fit the scene; or the world is all that is to be changed, and cannot be.
    """
    wishes = work.world.wishes(scene)
    words, refined, result = "as they were", None, scene
    if work.bundle_adjust is not None:
        refined = refine_scene(
            scene,
            work.bundle_adjust,
            given=_given(scene, work),
            densify=work.densify,
            photos=drawn,
            device=work.device,
            progress=progress,
        )
        words, result = refined.words, refined.scene
    elif work.densify is not None:
        from manyview.refine.scene_depth import densify_scene

        result = densify_scene(_in_doubt(scene), work.densify, device=work.device, progress=progress).scene
    lenses = {} if refined is None else refined.lenses
    result = fulfilled(result, wishes, lenses, strict=work.bundle_adjust is None and work.densify is None)
    return WorkResult(scene=result, words=words, before=scene, refined=refined, progress=progress)


def _in_doubt(scene: Scene) -> Scene:
    """With a warning, if dense depth is to be searched with cameras that are only a network's."""
    if cameras_from(scene) != "network":
        return scene
    told = (
        "dense depth needs exact cameras, and these are the network's: little will be confirmed, and it may be wrong; "
        "refine them first (--bundle-adjust)"
    )
    return replace(scene, warnings=(*scene.warnings, told))


def _given(scene: Scene, work: Work) -> GivenCameras | None:
    K = None if work.K is None else intrinsics_of_photos(scene.views, work.K)
    cameras = [None if view.camera is None else view.camera.world_from_camera for view in scene.views]
    if K is None and not work.cameras_are_known:
        return None
    return GivenCameras(K=K, world_from_camera=cameras if work.cameras_are_known else None)


def report_on_photos(
    inputs: Inputs,
    folder: Path,
    *,
    model: str | None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], list[Path]]:
    """Measure photos, match them, and write the report; returns its main figures and the files.

    Args:
        inputs: as `manyview.reconstruct` takes them.
        folder: for report.json and report.html.
        model: tells which pairs of many photos are worth matching; None for no matching at all.
        device: of the model.
    """
    measured = measure_photos(inputs, progress=progress)
    graph = None
    if model is not None and len(measured.photos) > 1:
        scene = load(model, device=device).reconstruct(inputs, progress=progress)
        measured = replace(measured, warnings=(*measured.warnings, *_unmatched(measured, scene)))
        graph = graph_of(scene.views, match_scene(scene.views, RefineOptions()), with_cameras=False)
    report = complete_report(measured, graph=graph)
    files = save_report(folder, report, thumbnails_of(measured), overwrite=overwrite)
    return report_figures(report), files


def report_figures(report: Report) -> dict[str, Any]:
    """The report's main figures, and the worst finding of each photo with a problem or in doubt, in words."""
    worst = [(name, finding) for name, finding in worst_findings(report) if finding.severity != "note"]
    figures: dict[str, Any] = {
        "photos": len(report.photos.photos),
        "not readable": len(report.photos.skipped),
        "with problems": sum(finding.severity == "problem" for _, finding in worst),
        "in doubt": sum(finding.severity == "doubt" for _, finding in worst),
    }
    if report.graph is not None:
        figures["matched"] = len(report.graph.photos)
        figures["connected parts"] = len(report.graph.components)
        figures["photos worth adding"] = len(report.graph.worth_adding)
    figures["findings"] = [f"{name}, {found.kind.replace('_', ' ')}: {found.words}" for name, found in worst]
    return figures


def _unmatched(measured: MeasuredPhotos, scene: Scene) -> list[str]:
    """Which photos are in the report but not in the graph, and why: the network takes no picture of them."""
    why = dict(scene.skipped)
    matched = {view.name for view in scene.views}
    return [
        f"{photo.name} is not matched with the others: {why.get(photo.name, 'the network left it out')}"
        for photo in measured.photos
        if photo.name not in matched
    ]
