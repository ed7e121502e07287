"""A refinement's result as a report: what became of each photo, in numbers that people can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite

import numpy as np

from manyview.geometry import Camera
from manyview.refine.agreement import errors
from manyview.refine.matching import VerifiedPair
from manyview.refine.outcomes import straightened
from manyview.refine.overlap import camera_in_group
from manyview.refine.pair_graph import PairGraph, pair_graph
from manyview.refine.refine import RefinedScene
from manyview.refine.report import CameraSource, PhotoOutcome, RefineReport, refine_report
from manyview.refine.result import Refined, ViewOutcome
from manyview.scene import Scene, SceneView


def report_of(before: Scene, refined: RefinedScene) -> tuple[RefineReport, PairGraph]:
    """What a refinement did, and how the photos hang together by their verified matches.

    Args:
        before: the scene that was refined.
        refined: what came out.
    """
    found = refined.cameras
    old = missed_by(before.views, found.verified)
    # As found: photos of lenses may have been drawn anew since, and matches are where these show them.
    new = missed_by(found.scene.views, straightened(found.verified, found.models))
    size = _scene_size(found.scene.views)
    photos = [
        _photo(outcome, found, view.group, old[outcome.view], new[outcome.view], size)
        for outcome, view in zip(found.views, found.scene.views, strict=True)
    ]
    report = refine_report(
        photos,
        points=len(found.points),
        kept="refined" if found.kept == "refined" else "unrefined",
        verdict=refined.words[:1].upper() + refined.words[1:] + ".",
        settings=asdict(found.options),
        seconds=found.seconds,
        warnings=found.warnings,
    )
    return report, graph_of(found.scene.views, found.verified)


def graph_of(views: Sequence[SceneView], verified: Sequence[VerifiedPair], *, with_cameras: bool = True) -> PairGraph:
    """How views hang together by their verified matches."""
    counts = np.zeros((len(views), len(views)))
    for pair in verified:
        counts[pair.first, pair.second] = counts[pair.second, pair.first] = len(pair)
    cameras = [view.camera for view in views] if with_cameras else None
    return pair_graph([view.name for view in views], counts, "matches", cameras=cameras)


def missed_by(views: Sequence[SceneView], verified: Sequence[VerifiedPair]) -> list[float | None]:
    """For each view the median over its verified matches of how far, in pixels, the cameras miss them.

    See `agreement.errors`. None for views without a match whose two cameras are known in one frame.
    """
    found: list[list[np.ndarray]] = [[] for _ in views]
    for pair in verified:
        ends = views[pair.first], views[pair.second]
        first, second = (camera_in_group(view) for view in ends)
        if first is None or second is None or ends[0].group != ends[1].group:
            continue
        missed = _finite_errors(first, second, pair)
        found[pair.first].append(missed)
        found[pair.second].append(missed)
    joined = [np.concatenate(parts) if parts else np.zeros(0) for parts in found]
    return [float(np.median(values)) if len(values) else None for values in joined]


def _finite_errors(first: Camera, second: Camera, pair: VerifiedPair) -> np.ndarray:
    """A match that a camera would see behind itself counts as missed by the whole picture."""
    missed = errors(first, second, pair.first_pixels, pair.second_pixels)
    return np.minimum(missed, max(first.width, first.height, second.width, second.height))


def _photo(
    outcome: ViewOutcome, found: Refined, group: int, before: float | None, after: float | None, size: float | None
) -> PhotoOutcome:
    return PhotoOutcome(
        name=outcome.name,
        registered=outcome.registered != "no",
        reason="; ".join(words for words in (outcome.reason, outcome.note) if words),
        camera_source=_source(outcome, found),
        observations=outcome.observations,
        error_before=before,
        error_after=after,
        rotation_degrees=outcome.turned if isfinite(outcome.turned) else None,
        translation=outcome.moved / size if size and isfinite(outcome.moved) else None,
        group=group,
    )


def _source(outcome: ViewOutcome, found: Refined) -> CameraSource:
    if camera_in_group(found.scene.views[outcome.view]) is None:
        return "none"
    if outcome.model is None:
        return "network"
    return "refined" if found.how[outcome.model] == "start" else "incremental"


def _scene_size(views: Sequence[SceneView]) -> float | None:
    """Median distance of what the cameras see."""
    depths = [np.median(view.depth[view.valid]) for view in views if view.group == 0 and view.valid.any()]
    return float(np.median(depths)) if depths else None
