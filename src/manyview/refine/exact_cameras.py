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
from manyview.refine.assemble import kept_network, refined_scene
from manyview.refine.colmap_log import quiet_colmap
from manyview.refine.features import Features, extract_features
from manyview.refine.frames import lay_out
from manyview.refine.lenses import find_lenses
from manyview.refine.matching import MatchDatabase, VerifiedPair, linked_parts
from manyview.refine.options import GivenCameras, RefineOptions
from manyview.refine.overlap import bridging_pairs, choose_pairs, overlap
from manyview.refine.parts import Findings, map_parts
from manyview.refine.result import Refined
from manyview.scene import Scene, SceneView, World

Progress: TypeAlias = Callable[[int, "int | None", str], None]

DATABASE = "matches.db"
MOST_BRIDGES = 200  # pairs that are tried in addition where the matches leave parts without a link
STEPS = 4
METRES = (
    "the scene was in metres, and stays so by the distances between its cameras as they were before they moved; for an "
    "exact scale, tell once more what is known of it"
)


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


def refine_cameras(
    scene: Scene,
    options: RefineOptions = RefineOptions(),  # noqa: B008 (frozen)
    *,
    given: GivenCameras | None = None,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> Refined:
    """Find exact cameras for the photos of a scene.

    Equal input, options and seed give equal numbers on one machine (with one mapping thread, as by default).

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
    clock = _Clock(progress)
    with TemporaryDirectory(prefix="manyview-refine-") as scratch, quiet_colmap():
        path = Path(scratch) / DATABASE if folder is None else _new_database(Path(folder))
        with clock.step("features"):
            features = extract_features(scene.views, options)
        return _refine(scene, features, options, given, path, clock)


def refine_features(
    scene: Scene,
    features: Sequence[Features],
    options: RefineOptions = RefineOptions(),  # noqa: B008 (frozen)
    *,
    given: GivenCameras | None = None,
) -> Refined:
    """As `refine_cameras`, with features that were found elsewhere.

    Args:
        scene, options, given: as there.
        features: one for each view, with descriptors that tell which of them show the same point.

    Raises:
        InputError: what is given does not fit the views.
    """
    if len(features) != len(scene.views):
        raise InputError(f"got features of {len(features)} views for {len(scene.views)}", hint="Give one for each.")
    given = (given or GivenCameras()).checked(len(scene.views))
    with TemporaryDirectory(prefix="manyview-refine-") as scratch, quiet_colmap():
        return _refine(scene, features, options, given, Path(scratch) / DATABASE, _Clock(None))


def _new_database(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / DATABASE
    if path.exists():
        raise InputError(f"{path} exists", hint="Give another folder, or remove the file.")
    return path


def _refine(
    scene: Scene,
    features: Sequence[Features],
    options: RefineOptions,
    given: GivenCameras,
    path: Path,
    clock: _Clock,
) -> Refined:
    with clock.step("matches"):
        shared = overlap(scene.views)
        lenses = find_lenses(scene.views, given, options, are_known=_are_known(scene, given))
        database = MatchDatabase(path, features, lenses, options)
        pairs = match_views(database, scene.views, shared)
    with clock.step("mapping"):
        findings = map_parts(scene.views, database, pairs, shared, given)
    with clock.step("judgement"):
        world, anchors = _world(scene, given)
        if not findings.models:
            return _kept(scene, findings, options, clock, world)
        frames = lay_out(scene.views, findings.models, features, shared, anchors, keep_lengths=scene.metric)
        if scene.metric and not frames.is_given:
            findings = replace(findings, warnings=(*findings.warnings, METRES))
        refined = refined_scene(scene, findings, frames, options, clock.seconds, world=world)
        if refined.after.is_worse_than(refined.before):
            told = (
                f"the network's cameras explain the matches better (score {refined.before.score:.2f}, median error "
                f"{refined.before.median_error:.2f} pixels) than the refined ones (score {refined.after.score:.2f}, "
                f"{refined.after.median_error:.2f} pixels), and are kept"
            )
            findings = replace(findings, warnings=(*findings.warnings, told), kept_because=told)
            return _kept(scene, findings, options, clock, world)
    return refined


def _kept(scene: Scene, findings: Findings, options: RefineOptions, clock: _Clock, world: World) -> Refined:
    """The network's cameras, and that they are not in the world that was given."""
    if world != scene.world:
        told = "the result is in the network's world, and not in that of the given cameras"
        findings = replace(findings, warnings=(*findings.warnings, told))
    return kept_network(scene, findings, options, clock.seconds)


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


# ------------------------------------------------------------------ the world
def _are_known(scene: Scene, given: GivenCameras) -> bool:
    """Whether the scene's cameras are no guess: imported ones, or those that the user says are known."""
    said = [(given.camera_of(index), view.camera) for index, view in enumerate(scene.views)]
    told = [(camera, own) for camera, own in said if camera is not None]
    are_its_own = all(own is not None and np.allclose(camera, own.world_from_camera) for camera, own in told)
    return scene.world == "given" or (bool(told) and are_its_own)


def _world(scene: Scene, given: GivenCameras) -> tuple[World, GivenCameras]:
    """What the world is to be, and the cameras that say where it is; none where it is the first camera's frame."""
    if any(given.camera_of(view) is not None for view in range(len(scene.views))):
        return "given", given
    if scene.world == "first camera":
        return "first camera", GivenCameras()
    cameras = [None if view.camera is None else view.camera.world_from_camera for view in scene.views]
    return scene.world, GivenCameras(world_from_camera=cameras)
