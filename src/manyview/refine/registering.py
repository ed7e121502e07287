"""Registering more views with a sparse model: by their matches alone, or with a guess of where they stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from manyview.geometry import Camera, invert_rigid, transform_points
from manyview.refine.agreement import judge_cameras
from manyview.refine.lenses import K_of_colmap
from manyview.refine.matching import VerifiedPair, without_distortion
from manyview.refine.two_views import length_by_points, relative_motion
from manyview.refine.unregistered import fit_cameras, ratio_of_spreads

if TYPE_CHECKING:
    import pycolmap

How = Literal["matches", "guess"]

# Share of a view's matches that are right, if it is to be registered by these alone: with 0.25, COLMAP's default, it
# tries for ten seconds what chance matches cannot give.
LEAST_RIGHT = 0.5
LEAST_CONFIRMED = 0.25  # of the candidates of one of its pairs that verification must have let pass for that
LEAST_POINTS = 6  # known points that a view has to see
LEAST_SHARE = 0.6  # of these, and of all its matches with registered views, that its camera has to explain


def register_rest(
    mapper: pycolmap.IncrementalMapper,
    options: pycolmap.IncrementalMapperOptions,
    wanted: Sequence[int],
    pairs: Sequence[VerifiedPair],
    settle: Callable[[int], None],
) -> None:
    """Register views as long as one can be: by the points they see, then by matches alone.

    Args:
        mapper, options: COLMAP's.
        wanted: views that may be registered.
        pairs: verified matches. A view of which most were refuted in every pair is not registered by matches alone:
            what chance has left costs seconds, and leads nowhere.
        settle: called with each image that was registered.
    """
    images = {view + 1 for view in wanted}
    by_matches = copy(options)
    by_matches.abs_pose_min_inlier_ratio = LEAST_RIGHT
    sound = [pair for pair in pairs if len(pair) >= LEAST_CONFIRMED * pair.candidates]
    confirmed = images & {view + 1 for pair in sound for view in (pair.first, pair.second)}
    ways = (
        (mapper.register_next_image, options, images, False),
        (mapper.register_next_structure_less_image, by_matches, confirmed, True),
    )
    found = True
    while found:
        found = False
        for register, limits, allowed, structure_less in ways:
            for image in mapper.find_next_images(limits, structure_less):
                if image in allowed and register(limits, image):
                    settle(image)
                    found = True
                    break
            if found:
                break


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """A view that is not registered, and what is known of where it stands.

    Attributes:
        view: which one.
        pairs: its verified matches with registered views.
        pixels, points: (M, 2) COLMAP's pixels and (M, 3) points of the model that their matches see.
        guess: world_from_camera in the model's frame as the network has it; None if it has none.
    """

    view: int
    pairs: tuple[VerifiedPair, ...]
    pixels: np.ndarray
    points: np.ndarray
    guess: np.ndarray | None


def register_by_few(
    mapper: pycolmap.IncrementalMapper,
    model: pycolmap.Reconstruction,
    candidate: Candidate,
    *,
    limit: float,
    seed: int,
) -> How | None:
    """Register a view that sees too few known points for COLMAP, if a camera explains these and its other matches.

    Cameras are tried from the known points alone, from its matches with one registered view, whose known points then
    tell only how far away it is, and from where the network has it. Epipolar geometry is what tells a right camera from
    a wrong one here: many matches confirm it that see no known point yet.

    Args:
        mapper, model: COLMAP's.
        candidate: the view.
        limit: original pixels up to which a known point agrees.
        seed: of RANSAC.

    Returns:
        How the camera was found; None if there is none.
    """
    import pycolmap

    if len(candidate.points) < LEAST_POINTS or not candidate.pairs:
        return None
    lens = model.camera(model.image(candidate.view + 1).camera_id)
    others = {view: camera for view, camera in _registered(model, candidate.pairs).items() if view != candidate.view}
    lenses = {view: model.camera(model.image(view + 1).camera_id) for view in (*others, candidate.view)}
    pairs = without_distortion(candidate.pairs, lenses)
    alone = [*_by_points(candidate, lens, limit, seed), *_by_pairs(candidate, model, lens, others, limit, seed)]
    ways: list[tuple[How, list[np.ndarray]]] = [("matches", alone), ("guess", _by_guess(candidate, lens, limit))]
    for how, cameras in ways:
        judged = [_explained(candidate, camera, lens, others, pairs, limit) for camera in cameras]
        best = max(range(len(cameras)), key=lambda row: judged[row], default=-1)
        if best >= 0 and min(judged[best]) >= LEAST_SHARE:
            image = model.image(candidate.view + 1)
            found = pycolmap.Rigid3d(invert_rigid(cameras[best])[:3])
            model.frame(image.frame_id).set_cam_from_world(image.camera_id, found)
            mapper.observation_manager.register_frame(image.frame_id)
            return how
    return None


def candidate_for(
    model: pycolmap.Reconstruction,
    graph: pycolmap.CorrespondenceGraph,
    pairs: Sequence[VerifiedPair],
    start: Mapping[int, Camera],
    view: int,
) -> Candidate:
    """What is known of where a view stands, by its matches and by the network.

    Args:
        model, graph: COLMAP's.
        pairs: verified matches between all views.
        start: cameras of the network in its frame, as far as there are any.
        view: which one.
    """
    pixels, points = known_points(model, graph, view + 1)
    own = [pair for pair in pairs if view in (pair.first, pair.second)]
    linked = [pair for pair in own if model.image(pair.first + pair.second - view + 1).has_pose]
    return Candidate(
        view=view, pairs=tuple(linked), pixels=pixels, points=points, guess=guessed_camera(model, start, view)
    )


def known_points(
    model: pycolmap.Reconstruction, graph: pycolmap.CorrespondenceGraph, image: int
) -> tuple[np.ndarray, np.ndarray]:
    """(M, 2) COLMAP's pixels of an image and (M, 3) points of the model that their matches in other views see."""
    pixels, points = [], []
    for row in range(model.image(image).num_points2D()):
        seen = set()
        for match in graph.extract_correspondences(image, row):
            other = model.image(match.image_id)
            if other.has_pose and other.points2D[match.point2D_idx].has_point3D():
                seen.add(other.points2D[match.point2D_idx].point3D_id)
        for point in sorted(seen):
            pixels.append(model.image(image).points2D[row].xy)
            points.append(model.point3D(point).xyz)
    return np.array(pixels, dtype=np.float64).reshape(-1, 2), np.array(points, dtype=np.float64).reshape(-1, 3)


def guessed_camera(model: pycolmap.Reconstruction, start: Mapping[int, Camera], view: int) -> np.ndarray | None:
    """(4, 4) world_from_camera in the model's frame: the starting camera, moved as those of registered views are."""
    shared = [image - 1 for image in model.reg_image_ids() if image - 1 in start]
    if not shared or view not in start:
        return None
    source = np.array([start[other].world_from_camera for other in shared])
    target = np.array([_world_from_camera(model, other) for other in shared])
    scale = ratio_of_spreads(source, target)
    if scale is None:
        return None
    reach = float(np.linalg.norm(source[:, :3, 3] - np.median(source[:, :3, 3], axis=0), axis=1).mean())
    fitted = fit_cameras(source, target, scale=scale, reach=reach)
    return fitted.apply_to_camera(start[view].world_from_camera)


def _world_from_camera(model: pycolmap.Reconstruction, view: int) -> np.ndarray:
    camera_from_world = np.eye(4)
    camera_from_world[:3] = model.image(view + 1).cam_from_world().matrix()
    return invert_rigid(camera_from_world)


def _registered(model: pycolmap.Reconstruction, pairs: Sequence[VerifiedPair]) -> dict[int, Camera]:
    views = {view for pair in pairs for view in (pair.first, pair.second) if model.image(view + 1).has_pose}
    lenses = {view: model.camera(model.image(view + 1).camera_id) for view in views}
    return {view: _camera(lens, _world_from_camera(model, view)) for view, lens in sorted(lenses.items())}


def _camera(lens: pycolmap.Camera, world_from_camera: np.ndarray) -> Camera:
    return Camera(K=K_of_colmap(lens), world_from_camera=world_from_camera, width=lens.width, height=lens.height)


# ------------------------------------------------------------------ ways to a camera: each gives world_from_camera
def _by_points(candidate: Candidate, lens: pycolmap.Camera, limit: float, seed: int) -> list[np.ndarray]:
    import pycolmap

    settings = pycolmap.AbsolutePoseEstimationOptions()
    settings.ransac.max_error, settings.ransac.random_seed = limit, seed
    found = pycolmap.estimate_and_refine_absolute_pose(
        candidate.pixels, candidate.points, lens, settings, _refinement(limit)
    )
    return [] if found is None else [_inverse(found["cam_from_world"])]


def _by_pairs(
    candidate: Candidate,
    model: pycolmap.Reconstruction,
    lens: pycolmap.Camera,
    others: Mapping[int, Camera],
    limit: float,
    seed: int,
) -> list[np.ndarray]:
    """From the matches with each registered view; the known points tell how far away it is."""
    flat = np.asarray(lens.cam_from_img(np.ascontiguousarray(candidate.pixels)), dtype=np.float64).reshape(-1, 2)
    rays = np.column_stack([flat, np.ones(len(flat))])
    found = []
    for pair in candidate.pairs:
        is_second = candidate.view == pair.second
        other = pair.first if is_second else pair.second
        own, far = pair.second_pixels, pair.first_pixels
        if not is_second:
            own, far = far, own
        known = model.camera(model.image(other + 1).camera_id), far
        motion = relative_motion(known, (lens, own), limit=limit, seed=seed)
        if motion is None:
            continue
        in_other = transform_points(others[other].camera_from_world, candidate.points)
        length = length_by_points(motion[0], in_other, rays)
        if length is not None:
            motion[0][:3, 3] *= length
            found.append(others[other].world_from_camera @ invert_rigid(motion[0]))
    return found


def _by_guess(candidate: Candidate, lens: pycolmap.Camera, limit: float) -> list[np.ndarray]:
    """From where the network has it, by steps of fitting it to ever nearer points."""
    import pycolmap

    if candidate.guess is None:
        return []
    current = pycolmap.Rigid3d(invert_rigid(candidate.guess)[:3])
    for factor in (16, 8, 4, 2, 1):
        near = _errors(current, candidate, lens) < factor * limit
        if near.sum() < LEAST_POINTS:
            return []
        refined = pycolmap.refine_absolute_pose(
            current, candidate.pixels, candidate.points, near, lens, _refinement(limit)
        )
        if refined is None:
            return []
        current = refined["cam_from_world"]
    return [_inverse(current)]


def _refinement(limit: float) -> pycolmap.AbsolutePoseRefinementOptions:
    import pycolmap

    settings = pycolmap.AbsolutePoseRefinementOptions()
    settings.loss_function_scale = limit / 4
    return settings


# ------------------------------------------------------------------ what a camera explains
def _explained(
    candidate: Candidate,
    world_from_camera: np.ndarray,
    lens: pycolmap.Camera,
    others: Mapping[int, Camera],
    pairs: Sequence[VerifiedPair],
    limit: float,
) -> tuple[float, float]:
    """Share of the known points within the limit, and share of all matches (as pinholes see them) with the others."""
    import pycolmap

    shown = _errors(pycolmap.Rigid3d(invert_rigid(world_from_camera)[:3]), candidate, lens) < limit
    cameras: list[Camera | None] = [None] * (1 + max(pair.second for pair in pairs))
    for view, camera in others.items():
        cameras[view] = camera
    cameras[candidate.view] = _camera(lens, world_from_camera)
    return float(shown.mean()), judge_cameras(cameras, pairs).explained


def _errors(camera_from_world: pycolmap.Rigid3d, candidate: Candidate, lens: pycolmap.Camera) -> np.ndarray:
    in_camera = candidate.points @ camera_from_world.rotation.matrix().T + camera_from_world.translation
    in_front = in_camera[:, 2] > 0
    error = np.full(len(candidate.pixels), np.inf)
    if in_front.any():
        shown = np.asarray(lens.img_from_cam(np.ascontiguousarray(in_camera[in_front])))
        error[in_front] = np.linalg.norm(shown - candidate.pixels[in_front], axis=1)
    return error


def _inverse(camera_from_world: pycolmap.Rigid3d) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3] = camera_from_world.matrix()
    return invert_rigid(matrix)
