"""From the network's cameras to exact ones: what is done in which order.

features   of the upright photos at their original size (SIFT)
matches    of the pairs that share something in the network's eyes, verified by RANSAC
parts      views that matches link
models     from the network's cameras where they agree with the matches, else photo by photo; bundle adjustment
frames     what could not be registered keeps the network's camera, laid upon the refined ones by a similarity
judgement  whatever explains the matches better is kept: the refined cameras, or the network's
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import numpy as np

from manyview.errors import InputError
from manyview.geometry import Camera
from manyview.refine.agreement import judge_cameras
from manyview.refine.assemble import Findings, kept_network, refined_scene
from manyview.refine.bundle import LEAST_FOR_PRIORS, Anchors
from manyview.refine.colmap_log import quiet_colmap
from manyview.refine.features import extract_features
from manyview.refine.frames import lay_out
from manyview.refine.lenses import find_lenses
from manyview.refine.mapping import map_part
from manyview.refine.matching import MatchDatabase, VerifiedPair, linked_parts
from manyview.refine.options import GivenCameras, RefineOptions
from manyview.refine.overlap import bridging_pairs, camera_in_group, choose_pairs, overlap
from manyview.refine.result import Refined
from manyview.refine.settling import Mapped, Part, cameras_of, settle
from manyview.refine.unregistered import fit_cameras, ratio_of_spreads
from manyview.refine.warn import doubts_about_cameras, doubts_about_intrinsics, only_turns
from manyview.scene import Scene, SceneView

Progress: TypeAlias = Callable[[int, "int | None", str], None]

DATABASE = "matches.db"
MOST_BRIDGES = 200  # pairs that are tried in addition where the matches leave parts without a link
STEPS = 4
LEAST_EXPLAINED = 0.5  # of its matches: a model that explains less is not trusted


@dataclass
class _Clock:
    """Seconds of each step; tells which one runs."""

    progress: Progress | None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        if self.progress is not None:
            self.progress(len(self.seconds), STEPS, name)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


def refine_scene(
    scene: Scene,
    options: RefineOptions = RefineOptions(),  # noqa: B008 (frozen)
    *,
    given: GivenCameras | None = None,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> Refined:
    """Find exact cameras for the photos of a scene.

    With one thread, equal input and seed give equal numbers on one machine; with more, COLMAP's sums are taken in
    varying order and results differ by rounding.

    Args:
        scene: cameras and depth of a network; photos are read from where its views say (`SceneView.source`).
        options: see there.
        given: intrinsics and cameras that are known; those of the scene count as the network's.
        folder: keep COLMAP's database of features and matches here (`matches.db`); by default it is thrown away.
        progress: called as (done, total, what).

    Returns:
        The refined scene, or the network's where that is better, and how it came about. The scene given is not changed.

    Raises:
        InputError: the folder has a database already, or what is given does not fit the views.
    """
    given = (given or GivenCameras()).checked(len(scene.views))
    with TemporaryDirectory(prefix="manyview-refine-") as scratch, quiet_colmap():
        path = Path(scratch) / DATABASE if folder is None else _new_database(Path(folder))
        return _refine(scene, options, given, path, _Clock(progress))


def _new_database(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / DATABASE
    if path.exists():
        raise InputError(f"{path} exists", hint="Give another folder, or remove the file.")
    return path


def _refine(scene: Scene, options: RefineOptions, given: GivenCameras, path: Path, clock: _Clock) -> Refined:
    with clock.step("features"):
        features = extract_features(scene.views, options)
        shared = overlap(scene.views)
    with clock.step("matches"):
        database = MatchDatabase(path, features, find_lenses(scene.views, given, options), options)
        pairs = match_views(database, scene.views, shared)
    with clock.step("mapping"):
        findings = _map_parts(scene.views, database, pairs, shared, given)
    with clock.step("judgement"):
        if not findings.models:
            return kept_network(scene, findings, options, clock.seconds)
        frames = lay_out(scene.views, findings.models, features, shared, _given_frame(scene, given))
        refined = refined_scene(scene, findings, frames, options, clock.seconds, is_given=_has_given(scene, given))
        if refined.after.is_worse_than(refined.before):
            told = (
                f"the refined cameras explain {refined.after.explained:.0%} of the matches and the network's "
                f"{refined.before.explained:.0%}: the network's are kept"
            )
            return kept_network(scene, replace(findings, warnings=(*findings.warnings, told)), options, clock.seconds)
    return refined


# ------------------------------------------------------------------ matches
def match_views(database: MatchDatabase, views: Sequence[SceneView], shared: np.ndarray) -> list[VerifiedPair]:
    """Match the pairs that share something; where that leaves parts without a link, some between these, too."""
    options = database.options
    tried = choose_pairs(shared, views, all_up_to=options.all_pairs_up_to, per_view=options.pairs_per_view)
    database.match(tried)
    found = database.verified()
    parts = linked_parts(found, len(views))
    bridges = bridging_pairs(parts, tried, MOST_BRIDGES)
    if not bridges:
        return found
    database.match(bridges)
    return database.verified()


# ------------------------------------------------------------------ parts
def _map_parts(
    views: Sequence[SceneView],
    database: MatchDatabase,
    pairs: Sequence[VerifiedPair],
    shared: np.ndarray,
    given: GivenCameras,
) -> Findings:
    """Models of all parts that matches link, the largest first, and what there is to say."""
    models: list[Mapped] = []
    reasons: dict[int, str] = {}
    warnings: list[str] = []
    for members in linked_parts(pairs, len(views)):
        if len(members) == 1:
            reasons.update(dict.fromkeys(members, "no other photo has enough verified matches with it"))
            continue
        part = _part(views, members, pairs, database, given)
        found, reason, told = _map_one(part, views, given)
        models += found
        warnings += told
        mapped = {view for model in found for view in model.views}
        reasons.update({view: reason for view in members if view not in mapped})
    models.sort(key=lambda model: (-len(model.views), model.views))
    return Findings(
        models=tuple(models),
        pairs=tuple(pairs),
        features=tuple(database.features),
        shared=shared,
        reasons=reasons,
        warnings=tuple(dict.fromkeys([*warnings, *_about_matches(views, pairs)])),
    )


def _about_matches(views: Sequence[SceneView], pairs: Sequence[VerifiedPair]) -> list[str]:
    parts = linked_parts(pairs, len(views))
    if not pairs:
        return ["no two photos have enough verified matches: nothing could be refined"] if len(views) > 1 else []
    linked = [part for part in parts if len(part) > 1]
    if len(linked) < 2:
        return []
    named = "; ".join(", ".join(views[view].name for view in part) for part in linked)
    return [f"no match links these {len(linked)} groups of photos: {named}"]


def _map_one(part: Part, views: Sequence[SceneView], given: GivenCameras) -> tuple[list[Mapped], str, list[str]]:
    """Models of a part, why its other views are in none, and what there is to say."""
    names = ", ".join(views[view].name for view in part.members[:5]) + (", ..." if len(part.members) > 5 else "")
    if only_turns(part):
        told = f"{names}: no parallax, the photos were all taken from about one place; depth and cameras are kept"
        return [], "no parallax: a turn explains all its matches, which tell nothing of depth", [told]
    models = [_with_positions(part, model) for model in map_part(part)]
    told = [*doubts_about_intrinsics(part, models, given), *doubts_about_cameras(part, views, given)]
    sound = [model for model in models if model.within.explained >= LEAST_EXPLAINED]
    kept = [model for model in sound if not _network_is_better(part, views, model)]
    if len(sound) < len(models):
        told.append(f"{names}: matches contradict each other, no cameras explain half of them; the network's are kept")
    if len(kept) < len(sound):
        told.append(f"{names}: the network's cameras explain the matches better than the refined ones, and are kept")
    reason = "its verified matches do not determine a camera" if models else "mapping found no model of its group"
    return kept, reason, told


def _network_is_better(part: Part, views: Sequence[SceneView], model: Mapped) -> bool:
    """Whether the network explains a model's own matches clearly better than the model does."""
    within = [pair for pair in part.pairs if pair.first in model.views and pair.second in model.views]
    groups = [view.group for view in views]
    network = judge_cameras([camera_in_group(view) for view in views], within, groups)
    return judge_cameras(cameras_of(model.model, len(views)), within).is_worse_than(network)


def _part(
    views: Sequence[SceneView],
    members: Sequence[int],
    pairs: Sequence[VerifiedPair],
    database: MatchDatabase,
    given: GivenCameras,
) -> Part:
    known = {view: given.camera_of(view) for view in members}
    cameras = {view: matrix for view, matrix in known.items() if matrix is not None}
    is_constant = database.options.known_cameras == "constant"
    return Part(
        members=tuple(members),
        pairs=tuple(pair for pair in pairs if pair.first in members),
        start=_start(views, members, database, cameras),
        database=database,
        options=database.options,
        anchors=Anchors(
            fixed_lenses=database.lenses.fixed,
            constant=frozenset(cameras) if is_constant else frozenset(),
            positions={} if is_constant else {view: matrix[:3, 3] for view, matrix in cameras.items()},
        ),
    )


def _start(
    views: Sequence[SceneView], members: Sequence[int], database: MatchDatabase, known: dict[int, np.ndarray]
) -> dict[int, Camera]:
    """Starting cameras in one frame: the given ones, and those of the network, carried into their frame."""
    lenses = database.lenses
    groups = [views[view].group for view in members if camera_in_group(views[view]) is not None]
    main = max(set(groups), key=lambda group: (groups.count(group), -group), default=0)
    network = {view: camera_in_group(views[view]) for view in members if views[view].group == main}
    found = {view: camera.world_from_camera for view, camera in network.items() if camera is not None}
    both = [view for view in known if view in found]
    if len(both) > 1:
        source, target = np.array([found[view] for view in both]), np.array([known[view] for view in both])
        depths = [np.median(views[view].depth[views[view].valid]) for view in both if views[view].valid.any()]
        reach = float(np.median(depths)) if depths else 1.0
        fitted = fit_cameras(source, target, scale=ratio_of_spreads(source, target) or 1.0, reach=reach)
        found = {view: fitted.apply_to_camera(matrix) for view, matrix in found.items()}
    elif known:
        found = {}
    placed = {**found, **known}
    cameras = {}
    for view in sorted(placed):
        number = lenses.number_of[view]
        height, width = lenses.sizes[number]
        cameras[view] = Camera(K=lenses.K[number], world_from_camera=placed[view], width=width, height=height)
    return cameras


def _with_positions(part: Part, model: Mapped) -> Mapped:
    """A model of its own frame, laid upon the given positions and adjusted with them."""
    import pycolmap

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
    fitted = fit_cameras(source, target, scale=scale, reach=reach)
    model.model.transform(pycolmap.Sim3d(fitted.scale, pycolmap.Rotation3d(fitted.rotation), fitted.translation))
    moved = cameras_of(model.model, len(cameras))
    lenses = {number: model.model.camera(number) for number in model.model.cameras}
    placed = {view: camera for view, camera in enumerate(moved) if camera is not None}
    return settle(part, placed, lenses, "incremental", model.views) or model


# ------------------------------------------------------------------ the world
def _has_given(scene: Scene, given: GivenCameras) -> bool:
    return scene.world == "given" or any(given.camera_of(view) is not None for view in range(len(scene.views)))


def _given_frame(scene: Scene, given: GivenCameras) -> GivenCameras:
    """The cameras that say where the world is: those that are given, or the scene's own if its world is a given one."""
    if scene.world != "given" or any(given.camera_of(view) is not None for view in range(len(scene.views))):
        return given
    return GivenCameras(
        world_from_camera=[None if view.camera is None else view.camera.world_from_camera for view in scene.views]
    )
