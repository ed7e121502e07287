"""What became of each view and pair, in numbers and words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from manyview.refine.agreement import Agreement, judge_cameras, share_explained
from manyview.refine.frames import Frames
from manyview.refine.matching import VerifiedPair
from manyview.refine.overlap import camera_in_group
from manyview.refine.parts import Findings
from manyview.refine.result import PairOutcome, Registration, ViewOutcome
from manyview.refine.settling import as_pinholes
from manyview.refine.sparse import observation_errors
from manyview.refine.unregistered import movement
from manyview.scene import SceneView

if TYPE_CHECKING:
    import pycolmap


def view_outcome(
    index: int,
    before: SceneView,
    after: SceneView,
    number: int | None,
    reason: str,
    findings: Findings,
    frames: Frames | None,
) -> ViewOutcome:
    """What became of a view.

    Args:
        index: of the view.
        before, after: as the network has it, and in the result.
        number: of the model that has it; None without.
        reason: why it is in none, or not with the others.
        findings, frames: of the refinement; no frames where the network's cameras are kept.
    """
    own = [pair for pair in findings.pairs if index in (pair.first, pair.second)]
    registered: Registration = "no"
    errors, moved = np.zeros(0), (float("nan"), float("nan"))
    if number is not None and frames is not None:
        model = findings.models[number]
        registered = "guess" if index in model.guessed else "matches"
        errors = observation_errors(model.model, index)
        old, new = camera_in_group(before), camera_in_group(after)
        if old is not None and new is not None:
            moved = movement(old.world_from_camera, new.world_from_camera, frames.from_network[index])
    return ViewOutcome(
        view=index,
        name=before.name,
        registered=registered,
        reason=reason,
        model=number if frames is not None else None,
        matches=sum(len(pair) for pair in own),
        linked=len(own),
        observations=len(errors),
        reprojection_error=float(errors.mean()) if len(errors) else float("nan"),
        turned=moved[0],
        moved=moved[1],
        note=findings.features[index].note,
    )


def pair_outcomes(
    before: Sequence[SceneView], after: Sequence[SceneView], findings: Findings
) -> tuple[PairOutcome, ...]:
    """What became of each pair, in the order of the findings."""
    models = [] if after is before else [model.model for model in findings.models]
    return tuple(
        PairOutcome(
            first=pair.first,
            second=pair.second,
            shared=float(min(findings.shared[pair.first, pair.second], findings.shared[pair.second, pair.first])),
            candidates=pair.candidates,
            matches=len(pair),
            before=_share(before, pair),
            after=_share(after, seen),
        )
        for pair, seen in zip(findings.pairs, straightened(findings.pairs, models), strict=True)
    )


def straightened(pairs: Sequence[VerifiedPair], models: Sequence[pycolmap.Reconstruction]) -> list[VerifiedPair]:
    """The pairs as the pinholes of the scene see them that is refined to these models."""
    flat = list(pairs)
    for model in models:
        flat = as_pinholes(flat, model)
    return flat


def judge_views(views: Sequence[SceneView], pairs: Sequence[VerifiedPair]) -> Agreement:
    """How well the cameras of views, each in the frame of its group, explain pairs."""
    return judge_cameras([camera_in_group(view) for view in views], pairs, [view.group for view in views])


def _share(views: Sequence[SceneView], pair: VerifiedPair) -> float:
    first, second = views[pair.first], views[pair.second]
    cameras = camera_in_group(first), camera_in_group(second)
    if cameras[0] is None or cameras[1] is None or first.group != second.group:
        return float("nan")
    return share_explained(cameras[0], cameras[1], pair)
