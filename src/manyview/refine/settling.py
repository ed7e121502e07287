"""A sparse model from cameras that are about right: triangulate, adjust, register what is left, adjust again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from manyview.geometry import Camera, Similarity, invert_rigid
from manyview.refine.agreement import Agreement, errors, judge_cameras
from manyview.refine.bundle import FINE, ROUGH, Anchors, adjust
from manyview.refine.lenses import K_of_colmap
from manyview.refine.matching import MatchDatabase, VerifiedPair, without_distortion
from manyview.refine.options import RefineOptions
from manyview.refine.registering import candidate_for, register_by_few, register_rest

if TYPE_CHECKING:
    import pycolmap

How = Literal["start", "incremental"]
FILTER_ERROR = 4.0  # pixels of the picture with the features: COLMAP's limit of the reprojection error
REGISTER_ERROR = 12.0  # the same for a view that is to be registered, before it is adjusted
LOOSEST_ERROR = 32.0
FEW_VIEWS = 30  # up to these, points that only two views see are kept: COLMAP leaves them out
LEAST_SHARE = 0.4  # of the matches between a view and the others that its camera has to explain
LEAST_POINTS = 15  # that a registered view must see
SETTLED = 1e-3  # share of the observations that come and go from round to round once a model has settled
ROUNDS = 4  # of triangulation and adjustment at the final limit


@dataclass(frozen=True, kw_only=True, eq=False)
class Mapped:
    """A sparse model of some of the views.

    Attributes:
        model: view i is its image i + 1. Its frame and scale are its own, or those of the given cameras.
        how: "start" from the network's (or given) cameras, or "incremental".
        views: those that are registered, in order.
        guessed: those among them that only the network's camera made it possible to register.
        agreement: with the verified matches of its part; views that are not registered explain none.
        within: with those between its own views.
    """

    model: pycolmap.Reconstruction
    how: How
    views: tuple[int, ...]
    guessed: frozenset[int]
    agreement: Agreement
    within: Agreement


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Views that matches link, and what mapping knows of them.

    Attributes:
        members: the views.
        pairs: the verified matches between them.
        start: cameras in one frame, as far as the network gave one, or the user.
        database, options, anchors: as elsewhere; constant cameras are among `start`.
    """

    members: tuple[int, ...]
    pairs: tuple[VerifiedPair, ...]
    start: Mapping[int, Camera]
    database: MatchDatabase
    options: RefineOptions
    anchors: Anchors

    @property
    def is_small(self) -> bool:
        """Whether points that only two views see are needed."""
        return len(self.members) <= FEW_VIEWS

    @property
    def scaled_options(self) -> RefineOptions:
        """The options with the loss in original pixels."""
        return replace(self.options, loss_scale=self.options.loss_scale * self.database.resolution)


def settle(
    part: Part,
    cameras: Mapping[int, Camera],
    lenses: Mapping[int, pycolmap.Camera],
    how: How,
    wanted: Sequence[int],
) -> Mapped | None:
    """Triangulate with these cameras, adjust, register what is left, and adjust again.

    Args:
        part: of which the views are.
        cameras: where to start from, at least two.
        lenses: COLMAP's cameras by number, instead of those of the database.
        how: to be said in the result.
        wanted: the views to register if it can be done.
    """
    import pycolmap

    cache = part.database.cache(part.members)
    model = pycolmap.Reconstruction()
    model.load(cache)
    for number, lens in lenses.items():
        model.camera(number).params = lens.params.tolist()
    for view, camera in cameras.items():
        _register(model, view, camera)
    mapper = pycolmap.IncrementalMapper(cache)
    mapper.begin_reconstruction(model)
    try:
        if not _converge(part, mapper, model, _limits(part, cameras)):
            return None
        before = model.num_reg_images()
        guessed = _register_more(part, mapper, model, cache, wanted)
        if model.num_reg_images() > before and not _converge(part, mapper, model, [FILTER_ERROR] * ROUNDS):
            return None
        _drop_views(model, mapper, part)
        if not _adjusted(part, model, tolerance=FINE):
            return None
        mapper.filter_points(mapper_options(part, FILTER_ERROR))
    finally:
        mapper.end_reconstruction(False)
    return judged(part, model, how, guessed)


def _adjusted(part: Part, model: pycolmap.Reconstruction, tolerance: float = ROUGH) -> bool:
    """Adjust a model in place; False where nothing is left of it, or the solver fails."""
    if model.num_reg_images() < 2 or not model.num_points3D():
        return False
    return adjust(model, part.scaled_options, part.anchors, tolerance=tolerance)


def _register(model: pycolmap.Reconstruction, view: int, camera: Camera) -> None:
    import pycolmap

    image = model.image(view + 1)
    frame = model.frame(image.frame_id)
    frame.set_cam_from_world(image.camera_id, pycolmap.Rigid3d(camera.camera_from_world[:3]))
    model.register_frame(image.frame_id)


def _limits(part: Part, cameras: Mapping[int, Camera]) -> list[float]:
    """Reprojection errors up to which points are kept, round by round: from what the cameras need down to the usual."""
    both = [pair for pair in part.pairs if pair.first in cameras and pair.second in cameras]
    measured = [errors(cameras[p.first], cameras[p.second], p.first_pixels, p.second_pixels) for p in both]
    typical = float(np.median(np.concatenate(measured))) / part.database.resolution if measured else FILTER_ERROR
    limit = float(np.clip(4 * typical, FILTER_ERROR, LOOSEST_ERROR))
    limits = []
    while limit > FILTER_ERROR * 1.01:
        limits += [limit, limit]
        limit = max(limit / 2, FILTER_ERROR)
    return [*limits, *[FILTER_ERROR] * ROUNDS]


def _converge(
    part: Part, mapper: pycolmap.IncrementalMapper, model: pycolmap.Reconstruction, limits: Sequence[float]
) -> bool:
    """Triangulate, adjust and drop what does not fit, with a limit for each round, until nothing changes any more.

    Returns:
        Whether a model is left; otherwise it is of no use.
    """
    previous = (0.0, 0)
    for limit in limits:
        triangulation = triangulation_options(part, limit)
        for image in model.reg_image_ids():
            mapper.triangulate_image(triangulation, image)
        mapper.complete_and_merge_tracks(triangulation)
        mapper.retriangulate(triangulation)
        if not _adjusted(part, model):
            return False
        mapper.filter_points(mapper_options(part, limit))
        observations = model.compute_num_observations()
        if limit == previous[0] and abs(observations - previous[1]) <= SETTLED * observations:
            break
        previous = (limit, observations)
    return model.num_points3D() > 0


def _register_more(
    part: Part,
    mapper: pycolmap.IncrementalMapper,
    model: pycolmap.Reconstruction,
    cache: pycolmap.DatabaseCache,
    wanted: Sequence[int],
) -> frozenset[int]:
    """Register the other views: by matches alone, then by fewer, or with the starting camera as a guess."""
    mapping, triangulation = mapper_options(part, FILTER_ERROR), triangulation_options(part, FILTER_ERROR)

    def settle_view(image: int) -> None:
        mapper.triangulate_image(triangulation, image)
        mapper.complete_and_merge_tracks(triangulation)
        # Where adjustment fails, the camera stays as it was registered, and is judged in the end.
        if _adjusted(part, model):
            mapper.filter_points(mapping)

    register_rest(mapper, mapping, wanted, part.pairs, settle_view)
    guessed = set()
    found = True
    while found:
        left = [view for view in wanted if not model.image(view + 1).has_pose]
        candidates = [candidate_for(model, cache.correspondence_graph, part.pairs, part.start, view) for view in left]
        found = False
        for candidate in sorted(candidates, key=lambda candidate: -len(candidate.points)):
            limit = REGISTER_ERROR * part.database.resolution
            how = register_by_few(mapper, model, candidate, limit=limit, seed=part.options.seed)
            if how is not None:
                guessed |= {candidate.view} if how == "guess" else set()
                settle_view(candidate.view + 1)
                register_rest(mapper, mapping, wanted, part.pairs, settle_view)
                found = True
                break
    return frozenset(guessed)


def _drop_views(model: pycolmap.Reconstruction, mapper: pycolmap.IncrementalMapper, part: Part) -> None:
    """De-register views that see hardly any point, or whose camera contradicts its matches: one after the other."""
    while True:
        doubtful = {
            view: share
            for view, share in _shares(model, part).items()
            if view not in part.anchors.constant
            and (share < LEAST_SHARE or model.image(view + 1).num_points3D < LEAST_POINTS)
        }
        if not doubtful:
            return
        worst = min(doubtful, key=lambda view: (doubtful[view], view))
        mapper.observation_manager.deregister_frame(model.image(worst + 1).frame_id)


def _shares(model: pycolmap.Reconstruction, part: Part) -> dict[int, float]:
    """Share of the matches between each registered view and the others that the cameras explain."""
    cameras = cameras_of(model, len(part.database.features))
    pairs = as_pinholes(part.pairs, model)
    there = [pair for pair in pairs if cameras[pair.first] is not None and cameras[pair.second] is not None]
    views = [view for view, camera in enumerate(cameras) if camera is not None]
    return {
        view: judge_cameras(cameras, [pair for pair in there if view in (pair.first, pair.second)]).explained
        for view in views
    }


def judged(part: Part, model: pycolmap.Reconstruction, how: How, guessed: frozenset[int]) -> Mapped | None:
    """A model with how well it explains the matches; None where fewer than two views are registered."""
    views = tuple(sorted(image - 1 for image in model.reg_image_ids()))
    if len(views) < 2:
        return None
    cameras = cameras_of(model, len(part.database.features))
    pairs = as_pinholes(part.pairs, model)
    return Mapped(
        model=model,
        how=how,
        views=views,
        guessed=frozenset(guessed) & frozenset(views),
        agreement=judge_cameras(cameras, pairs),
        within=judge_cameras(cameras, [pair for pair in pairs if pair.first in views and pair.second in views]),
    )


def cameras_of(model: pycolmap.Reconstruction, count: int) -> list[Camera | None]:
    """Cameras of N views in the model's frame and original pixels, without distortion; None if not registered."""
    found: list[Camera | None] = [None] * count
    for image_id in model.reg_image_ids():
        image = model.image(image_id)
        lens = model.camera(image.camera_id)
        camera_from_world = np.eye(4)
        camera_from_world[:3] = image.cam_from_world().matrix()
        found[image_id - 1] = Camera(
            K=K_of_colmap(lens),
            world_from_camera=invert_rigid(camera_from_world),
            width=lens.width,
            height=lens.height,
        )
    return found


def as_pinholes(pairs: Sequence[VerifiedPair], model: pycolmap.Reconstruction) -> list[VerifiedPair]:
    """The pairs as the pinholes of `cameras_of` see them: pixels of registered views without their distortion."""
    lenses = {image - 1: model.camera(model.image(image).camera_id) for image in model.reg_image_ids()}
    return without_distortion(pairs, lenses)


def sim3d(similarity: Similarity) -> pycolmap.Sim3d:
    """COLMAP's type for the same map."""
    import pycolmap

    return pycolmap.Sim3d(similarity.scale, pycolmap.Rotation3d(similarity.rotation), similarity.translation)


# ------------------------------------------------------------------ COLMAP's settings
def mapper_options(part: Part, limit: float) -> pycolmap.IncrementalMapperOptions:
    """Limits in pixels of the picture with the features, carried to original pixels."""
    import pycolmap

    resolution = part.database.resolution
    settings = pycolmap.IncrementalMapperOptions()
    settings.init_max_error *= resolution
    settings.abs_pose_max_error *= resolution
    settings.filter_max_reproj_error = limit * resolution
    settings.constant_cameras = set(part.database.lenses.fixed)
    settings.num_threads, settings.random_seed = part.options.mapping_threads, part.options.seed
    return settings


def triangulation_options(part: Part, limit: float) -> pycolmap.IncrementalTriangulatorOptions:
    """As `mapper_options`; angles grow with the limit."""
    import pycolmap

    resolution = part.database.resolution
    looser = max(1.0, limit / FILTER_ERROR)
    settings = pycolmap.IncrementalTriangulatorOptions()
    settings.create_max_angle_error *= looser
    settings.continue_max_angle_error *= looser
    settings.re_max_angle_error *= looser
    settings.merge_max_reproj_error = limit * resolution
    settings.complete_max_reproj_error = limit * resolution
    settings.ignore_two_view_tracks = not part.is_small
    settings.random_seed = part.options.seed
    return settings
