"""Mapping: from cameras that agree with the matches, or photo by photo where there are none, to a sparse model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from manyview.geometry import Camera, Similarity, invert_rigid
from manyview.refine.agreement import share_explained
from manyview.refine.bundle import ROUGH, Anchors, adjust
from manyview.refine.matching import VerifiedPair, connected, image_name
from manyview.refine.settling import (
    FILTER_ERROR,
    Mapped,
    Part,
    cameras_of,
    judged,
    mapper_options,
    settle,
    triangulation_options,
)
from manyview.refine.two_views import relative_motion
from manyview.refine.unregistered import movement

if TYPE_CHECKING:
    import pycolmap

START_SLACK = 1.5  # times the usual limit: cameras that are so near are worth starting from
LOOSE_SLACK = 6.0  # the same where incremental mapping has left views out
START_SHARE = 0.5  # of a pair's matches that they have to explain so
# A model is not tried to be bettered if it explains this share of the matches, with at most this error in pixels of the
# picture with the features, and lies near its start: one that had to move far may have come to rest in a wrong place.
# Many views that are linked crosswise cannot: all those matches do not agree by chance.
GOOD_SHARE, GOOD_ERROR, GOOD_TURN = 0.97, 1.0, 5.0
MANY_VIEWS, MANY_PAIRS = 6, 2  # views; pairs to each of them
LEAST_ANGLE = 2.0  # degrees between the rays of a pair that a model can start from
PAIRS_TRIED = 3
FOCAL_NEAR = 0.08  # relative change of a focal length from which it is asked whether it was worth while ...
FOCAL_GAIN = 1.05  # ... that is, whether the median error falls by this factor
FOCAL_WILD = 3.0  # a focal length that changes by this factor is believed only ...
WILD_SHARE = 0.95  # ... if the model explains this share of the matches
SOUND_SHARE = 0.65  # of the matches between its own views that a model should explain


# ------------------------------------------------------------------ the choice
def map_part(part: Part) -> list[Mapped]:
    """Models of the part's views, none of which is in two of them; the first is the best one of most views.

    It starts from the cameras that agree with the matches. Where that leaves views out, or explains the matches badly,
    incremental mapping is tried: from the network's focal lengths, then from COLMAP's usual ones, then from single
    pairs; then cameras that agree only loosely. What registers more views is kept, and of equals what explains the
    matches better. A focal length that moves far is kept where it was if that explains the matches about as well, or
    if it moves wildly without explaining nearly all of them: repeated patterns can do that.
    """
    found = _map(part)
    if not found or not _focal_change(found[0], part) > FOCAL_NEAR:
        return found
    if _fits(found[0], part) and _is_redundant(part):
        kept = _with_starting_focal(found[0], part)
        return found if kept is None or _is_worth_it(found[0], kept) else [kept, *found[1:]]
    lenses = part.database.lenses
    database = part.database.with_lenses(replace(lenses, fixed=frozenset(lenses.K)))
    try:
        locked = _map(replace(part, database=database, anchors=replace(part.anchors, fixed_lenses=frozenset(lenses.K))))
    finally:
        part.database.set_cameras([lenses.colmap_camera(number) for number in lenses.K])
    is_wild = _focal_change(found[0], part) > FOCAL_WILD - 1 and found[0].agreement.explained < WILD_SHARE
    if is_wild:
        return locked
    return locked if locked and not _is_worth_it(found[0], locked[0]) else found


def _focal_change(model: Mapped, part: Part) -> float:
    """How far a focal length is from the one it started from: 0.5 for 1.5 times, or for its 1.5th part."""
    lenses = part.database.lenses
    ratios = [
        model.model.camera(number).mean_focal_length() / float(np.mean(np.diag(lenses.K[number])[:2]))
        for number in {lenses.number_of[view] for view in model.views}
    ]
    return max(max(ratio, 1 / ratio) for ratio in ratios) - 1


def _with_starting_focal(model: Mapped, part: Part) -> Mapped | None:
    """The model adjusted once more with the focal lengths that it started from; None where that cannot be done."""
    import pycolmap

    lenses = part.database.lenses
    changed = pycolmap.Reconstruction(model.model)
    for number in changed.cameras:
        changed.camera(number).params = lenses.colmap_camera(number).params.tolist()
    anchors = replace(part.anchors, fixed_lenses=frozenset(lenses.K))
    if not adjust(changed, part.scaled_options, anchors, tolerance=ROUGH):
        return None
    return judged(part, changed, model.how, model.guessed)


def _is_worth_it(free: Mapped, locked: Mapped) -> bool:
    """Whether letting the focal length go explains the matches clearly better than keeping it.

    Where it does not, the photos do not tell the focal length (or a wrong one has led the cameras astray).
    """
    if rank(free)[:2] != rank(locked)[:2]:
        return rank(free)[:2] > rank(locked)[:2]
    if abs(free.agreement.explained - locked.agreement.explained) > 0.02:
        return free.agreement.explained > locked.agreement.explained
    return free.agreement.median_error * FOCAL_GAIN < locked.agreement.median_error


def _map(part: Part) -> list[Mapped]:
    """As `map_part`, without a second look at focal lengths."""
    models = map_from_start(part, START_SLACK)
    if models and is_good(models[0], part):
        return models
    ways: list[Callable[[], list[Mapped]]] = [
        lambda: map_incrementally(part, usual_focal=False),
        lambda: map_incrementally(part, usual_focal=True),
        lambda: map_from_pairs(part),
        lambda: map_from_start(part, LOOSE_SLACK),
    ]
    if len(part.anchors.constant) > 1:  # the frame is given, and a model of its own frame is of no use
        ways = ways[3:]
    for way in ways:
        models += way()
        if any(len(model.views) == len(part.members) and is_sound(model) for model in models):
            break
    return disjoint(sorted(models, key=rank, reverse=True))


def is_good(model: Mapped, part: Part) -> bool:
    """Whether all views are registered, nearly all matches explained, and that cannot be by chance."""
    return _fits(model, part) and (_turned(model, part) < GOOD_TURN or _is_redundant(part))


def _fits(model: Mapped, part: Part) -> bool:
    limit = GOOD_ERROR * part.database.resolution
    complete = len(model.views) == len(part.members)
    return complete and model.agreement.explained >= GOOD_SHARE and model.agreement.median_error < limit


def _is_redundant(part: Part) -> bool:
    """Whether so many views are linked crosswise that wrong cameras could not explain nearly all matches."""
    return len(part.members) >= MANY_VIEWS and len(part.pairs) >= MANY_PAIRS * len(part.members)


def _turned(model: Mapped, part: Part) -> float:
    """Median over the linked pairs, degrees: how far their relative rotation is from that of the starting cameras."""
    cameras = cameras_of(model.model, len(part.database.features))
    angles = [0.0]
    for pair in part.pairs:
        found = cameras[pair.first], cameras[pair.second]
        start = part.start.get(pair.first), part.start.get(pair.second)
        if found[0] and found[1] and start[0] and start[1]:
            before = start[0].camera_from_world @ start[1].world_from_camera
            after = found[0].camera_from_world @ found[1].world_from_camera
            angles.append(movement(before, after, Similarity.identity())[0])
    return float(np.median(angles))


def is_sound(model: Mapped) -> bool:
    """Whether a model explains most of the matches between its own views.

    Where much repeats itself, or only two views can be compared, a wrong model can have many views and points, too.
    """
    return model.within.explained >= SOUND_SHARE


def rank(model: Mapped) -> tuple[bool, int, float, float]:
    """Sound ones first, of these those of more views, then what explains more, then the smaller errors."""
    sound = is_sound(model)
    views = len(model.views) if sound else 0
    return sound, views, round(model.agreement.explained, 2), -model.agreement.median_error


def disjoint(models: Sequence[Mapped]) -> list[Mapped]:
    """Those that share no view with an earlier one."""
    kept: list[Mapped] = []
    for model in models:
        if not any(set(model.views) & set(other.views) for other in kept):
            kept.append(model)
    return kept


# ------------------------------------------------------------------ from cameras
def agreeing_views(part: Part, slack: float) -> tuple[int, ...]:
    """The largest set of views whose starting cameras agree, pair by pair, with the matches that link them.

    Where cameras are constant, it is the set with all of these, whether they agree or not.
    """
    edges = [
        (pair.first, pair.second)
        for pair in part.pairs
        if pair.first in part.start
        and pair.second in part.start
        and share_explained(part.start[pair.first], part.start[pair.second], pair, slack=slack) >= START_SHARE
    ]
    held = sorted(part.anchors.constant & set(part.start))
    sets = connected([*edges, *((held[0], view) for view in held[1:])], 1 + max(part.members))
    chosen = sets[0] if len(held) < 2 else next(views for views in sets if held[0] in views)
    return chosen if len(chosen) > 1 else ()


def map_from_start(part: Part, slack: float) -> list[Mapped]:
    """A model that starts from the cameras which agree with the matches; empty if there are none.

    Args:
        part: the views.
        slack: times the usual limit up to which they do.
    """
    views = agreeing_views(part, slack)
    if not views:
        return []
    model = settle(part, {view: part.start[view] for view in views}, {}, "start", part.members)
    return [] if model is None else [model]


# ------------------------------------------------------------------ photo by photo
def map_incrementally(part: Part, *, usual_focal: bool) -> list[Mapped]:
    """Models by COLMAP's incremental mapping, each settled as those from cameras are; the largest first.

    Args:
        part: the views.
        usual_focal: start from COLMAP's usual focal length instead of the network's, where it is not known.
    """
    database = part.database
    lenses = database.lenses
    free = [number for number in set(lenses.number_of) if number not in lenses.fixed]
    if usual_focal and not free:
        return []
    if usual_focal:
        database.set_cameras([lenses.with_usual_focal(number) for number in free])
    try:
        found = _run_pipeline(part)
    finally:
        if usual_focal:
            database.set_cameras([lenses.colmap_camera(number) for number in free])
    settled = []
    for model in sorted(found, key=lambda model: -model.num_reg_images()):
        placed = {
            view: camera
            for view, camera in enumerate(cameras_of(model, len(database.features)))
            if camera is not None and view in part.members
        }
        kept = {number: model.camera(number) for number in {lenses.number_of[view] for view in placed}}
        if len(placed) > 1:
            settled.append(settle(_in_its_frame(part), placed, kept, "incremental", part.members))
    return [model for model in settled if model is not None]


def _in_its_frame(part: Part) -> Part:
    """Without given positions: a model that is not in their frame must not be pulled towards them."""
    return replace(part, anchors=Anchors(fixed_lenses=part.anchors.fixed_lenses))


def _run_pipeline(part: Part) -> list[pycolmap.Reconstruction]:
    import pycolmap

    settings = pycolmap.IncrementalPipelineOptions()
    settings.image_names = [image_name(view) for view in part.members]
    settings.extract_colors = False
    settings.min_model_size = 2
    settings.structure_less_registration_fallback = False  # `settle` does that, in less time
    settings.min_num_matches = part.options.min_matches
    settings.num_threads, settings.random_seed = part.options.mapping_threads, part.options.seed
    settings.constant_cameras = set(part.database.lenses.fixed)
    settings.ba_refine_principal_point = False  # only once all is in place
    settings.mapper = mapper_options(part, FILTER_ERROR)
    settings.triangulation = triangulation_options(part, FILTER_ERROR)
    settings.triangulation.ignore_two_view_tracks = True
    pycolmap.set_random_seed(part.options.seed)
    with TemporaryDirectory(prefix="manyview-mapping-") as folder:
        found = pycolmap.incremental_mapping(str(part.database.path), str(Path(folder)), folder, settings)
    return [found[number] for number in sorted(found)]


# ------------------------------------------------------------------ from one pair
def map_from_pairs(part: Part) -> list[Mapped]:
    """A model that grows from a pair of views: for few photos, of which COLMAP asks more than they have.

    Some pairs with many matches and enough parallax are tried, with the intrinsics that are known or the network's.
    """
    models = []
    tried = 0
    for pair in sorted(part.pairs, key=lambda pair: -len(pair)):
        cameras = _two_views(part, pair)
        if cameras is None:
            continue
        model = settle(_in_its_frame(part), cameras, {}, "incremental", part.members)
        tried += 1
        if model is not None:
            models.append(model)
        if tried == PAIRS_TRIED or (model is not None and len(model.views) == len(part.members)):
            break
    return models


def _two_views(part: Part, pair: VerifiedPair) -> dict[int, Camera] | None:
    """Cameras of a pair from its matches alone, in the first one's frame; None without enough parallax."""
    lenses = part.database.lenses
    ends = (pair.first, pair.first_pixels), (pair.second, pair.second_pixels)
    first, second = ((lenses.colmap_camera(lenses.number_of[view]), pixels) for view, pixels in ends)
    limit = FILTER_ERROR * part.database.resolution
    found = relative_motion(first, second, limit=limit, seed=part.options.seed)
    if found is None or not found[1] > LEAST_ANGLE:
        return None
    placed = {pair.first: np.eye(4), pair.second: invert_rigid(found[0])}
    return {view: lenses.camera_at(lenses.number_of[view], matrix) for view, matrix in placed.items()}
