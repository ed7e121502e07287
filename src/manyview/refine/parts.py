"""The parts of a scene that matches link: where each starts from, and which models it ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from manyview.geometry import Camera
from manyview.refine.agreement import judge_cameras
from manyview.refine.bundle import LEAST_FOR_PRIORS, Anchors
from manyview.refine.features import Features, notes_on_pictures
from manyview.refine.mapping import map_part
from manyview.refine.matching import MatchDatabase, VerifiedPair, linked_parts
from manyview.refine.options import GivenCameras
from manyview.refine.overlap import camera_in_group
from manyview.refine.own_lenses import with_fitting_lenses
from manyview.refine.settling import Mapped, Part, cameras_of, settle, sim3d
from manyview.refine.unregistered import fit_cameras, ratio_of_spreads
from manyview.refine.warn import doubts_about_cameras, doubts_about_intrinsics, doubts_about_parallax, only_turns
from manyview.scene import SceneView

LEAST_EXPLAINED = 0.5  # of its matches: a model that explains less is not trusted
MOSTLY_EXPLAINED = 0.95  # ... and one that explains less is called into question: photographs have 0.99


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """What matching and mapping found.

    Attributes:
        models: disjoint, the largest first.
        pairs, features, shared: of all views.
        reasons: why a view is in no model.
        warnings: what else there is to say.
        kept_because: why there is no model of some parts, or none that is good enough; empty where all have one.
    """

    models: tuple[Mapped, ...]
    pairs: tuple[VerifiedPair, ...]
    features: tuple[Features, ...]
    shared: np.ndarray
    reasons: Mapping[int, str]
    warnings: tuple[str, ...]
    kept_because: str = ""


def map_parts(
    views: Sequence[SceneView],
    database: MatchDatabase,
    pairs: Sequence[VerifiedPair],
    shared: np.ndarray,
    given: GivenCameras,
) -> Findings:
    """Models of all parts that matches link, and what there is to say.

    Args:
        views: as the network has them.
        database, pairs: features and verified matches of the views.
        shared: (N, N) of `overlap.overlap`, for the record.
        given: what is known of the cameras.
    """
    models: list[Mapped] = []
    reasons: dict[int, str] = {}
    warnings: list[str] = []
    kept: list[str] = []
    for members in linked_parts(pairs, len(views)):
        if len(members) == 1:
            reasons[members[0]] = "no other photo has enough verified matches with it"
            continue
        part = _part(views, members, pairs, database, given)
        found, why_not, told, why_kept = _map_one(part, views, given)
        models += found
        reasons |= why_not
        warnings += told
        kept += why_kept
    if len(views) > 1 and not pairs:
        kept.append("no two photos have enough verified matches: nothing could be refined")
    about = [*warnings, *kept, *_about_groups(views, pairs), *notes_on_pictures(views, database.features)]
    models.sort(key=lambda model: (-len(model.views), model.views))
    return Findings(
        models=tuple(models),
        pairs=tuple(pairs),
        features=tuple(database.features),
        shared=shared,
        reasons=reasons,
        warnings=tuple(dict.fromkeys(about)),
        kept_because="; ".join(dict.fromkeys(kept)),
    )


def _about_groups(views: Sequence[SceneView], pairs: Sequence[VerifiedPair]) -> list[str]:
    linked = [part for part in linked_parts(pairs, len(views)) if len(part) > 1]
    if len(linked) < 2:
        return []
    named = "; ".join(", ".join(views[view].name for view in part) for part in linked)
    return [f"no match links these {len(linked)} groups of photos: {named}"]


# ------------------------------------------------------------------ one part
def _map_one(
    part: Part, views: Sequence[SceneView], given: GivenCameras
) -> tuple[list[Mapped], dict[int, str], list[str], list[str]]:
    """Models of a part that are worth keeping, why each other view is in none, and sentences on the models and on why
    the network's cameras are kept."""
    names = ", ".join(views[view].name for view in part.members[:5]) + (", ..." if len(part.members) > 5 else "")
    if only_turns(part):
        told = f"{names}: no parallax, the photos were all taken from about one place; depth and cameras are kept"
        reason = "no parallax: a turn explains all its matches, which tell nothing of depth"
        return [], dict.fromkeys(part.members, reason), [], [told]
    fitted = [with_fitting_lenses(part, _with_positions(part, model)) for model in map_part(part)]
    models = [model for model, _ in fitted]
    told = [f"{names}: {words}" for _, said in fitted for words in said]
    told += [*doubts_about_intrinsics(part, models, given), *doubts_about_cameras(part, views, given)]
    left = "its verified matches do not determine a camera" if models else "mapping found no model of its group"
    reasons = dict.fromkeys(part.members, left)
    kept: list[Mapped] = []
    why_kept: list[str] = []
    for model in models:
        if model.within.explained < LEAST_EXPLAINED:
            reasons |= dict.fromkeys(model.views, "its matches contradict each other")
            why_kept.append(
                f"{names}: matches contradict each other, no cameras explain half of them; the network's are kept"
            )
        elif _network_is_better(part, views, model):
            reasons |= dict.fromkeys(model.views, "the network's camera explains its matches better")
            why_kept.append(
                f"{names}: the network's cameras explain the matches better than the refined ones, and are kept"
            )
        else:
            kept.append(model)
            told += [*_doubts(model, names), *doubts_about_parallax(model, names)]
    if not models:
        why_kept.append(f"{names}: no cameras were found that agree with the matches; the network's are kept")
    mapped = {view for model in kept for view in model.views}
    return kept, {view: reason for view, reason in reasons.items() if view not in mapped}, told, why_kept


def _doubts(model: Mapped, names: str) -> list[str]:
    if model.within.explained >= MOSTLY_EXPLAINED:
        return []
    share = f"{1 - model.within.explained:.0%}"
    return [
        f"{names}: {share} of the verified matches contradict the refined cameras, as where patterns repeat or things "
        "move; check the result"
    ]


def _network_is_better(part: Part, views: Sequence[SceneView], model: Mapped) -> bool:
    """Whether the network explains a model's own matches clearly better than the model does."""
    within = [pair for pair in part.pairs if pair.first in model.views and pair.second in model.views]
    groups = [view.group for view in views]
    return model.within.is_worse_than(judge_cameras([camera_in_group(view) for view in views], within, groups))


def _with_positions(part: Part, model: Mapped) -> Mapped:
    """A model of its own frame, laid upon the given positions and adjusted with them."""
    known = [view for view in model.views if view in part.anchors.positions]
    if model.how == "start" or len(known) < LEAST_FOR_PRIORS:
        return model
    cameras = cameras_of(model.model, len(part.database.features))
    source = np.array([camera.world_from_camera for view in known if (camera := cameras[view]) is not None])
    target = np.array([part.start[view].world_from_camera for view in known])
    scale = ratio_of_spreads(source, target)
    if scale is None:
        return model
    reach = float(np.linalg.norm(source[:, :3, 3] - source[:, :3, 3].mean(axis=0), axis=1).max())
    model.model.transform(sim3d(fit_cameras(source, target, scale=scale, reach=reach)))
    moved = cameras_of(model.model, len(cameras))
    lenses = {number: model.model.camera(number) for number in model.model.cameras}
    placed = {view: camera for view, camera in enumerate(moved) if camera is not None}
    adjusted = settle(part, placed, lenses, "incremental", model.views)
    return model if adjusted is None or len(adjusted.views) < len(model.views) else adjusted


# ------------------------------------------------------------------ where it starts from
def _part(
    views: Sequence[SceneView],
    members: Sequence[int],
    pairs: Sequence[VerifiedPair],
    database: MatchDatabase,
    given: GivenCameras,
) -> Part:
    known = {view: matrix for view in members if (matrix := given.camera_of(view)) is not None}
    is_constant = database.options.known_cameras == "constant"
    return Part(
        members=tuple(members),
        pairs=tuple(pair for pair in pairs if pair.first in members),
        start=_start(views, members, database, known),
        database=database,
        options=database.options,
        anchors=Anchors(
            fixed_lenses=database.lenses.fixed,
            constant=frozenset(known) if is_constant else frozenset(),
            positions={} if is_constant else {view: matrix[:3, 3] for view, matrix in known.items()},
        ),
    )


def _start(
    views: Sequence[SceneView], members: Sequence[int], database: MatchDatabase, known: Mapping[int, np.ndarray]
) -> dict[int, Camera]:
    """Starting cameras in one frame: the given ones, and those of the network, carried into their frame."""
    groups = [views[view].group for view in members if camera_in_group(views[view]) is not None]
    main = max(set(groups), key=lambda group: (groups.count(group), -group), default=0)
    cameras = {view: camera_in_group(views[view]) for view in members if views[view].group == main}
    network = {view: camera.world_from_camera for view, camera in cameras.items() if camera is not None}
    both = [view for view in known if view in network]
    placed = {**_carried(views, network, known, both), **known}
    if not both:  # nothing says how the two frames lie to each other: one of them, and a single camera is no start
        placed = known if len(known) > 1 else network
    return {view: database.lenses.camera_at(database.lenses.number_of[view], placed[view]) for view in sorted(placed)}


def _carried(
    views: Sequence[SceneView],
    network: Mapping[int, np.ndarray],
    known: Mapping[int, np.ndarray],
    both: Sequence[int],
) -> dict[int, np.ndarray]:
    """The network's cameras in the frame of the given ones, by the views that have both; one leaves the scale."""
    if not both:
        return {}
    source, target = np.array([network[view] for view in both]), np.array([known[view] for view in both])
    depths = [np.median(views[view].depth[views[view].valid]) for view in both if views[view].valid.any()]
    reach = float(np.median(depths)) if depths else 1.0
    fitted = fit_cameras(source, target, scale=ratio_of_spreads(source, target) or 1.0, reach=reach)
    return {view: fitted.apply_to_camera(matrix) for view, matrix in network.items()}
