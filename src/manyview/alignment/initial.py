"""Where the default alignment starts: pairs chained along the best edges, on the sampled pixels alone.

As in the published initialisation (DUSt3R, section 3.4) the pairs of a maximum spanning tree are put together like a
puzzle, but each picture has the focal length of its own pointmaps, and cameras come from the picture's own pointmap
wherever it is the first of any edge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from manyview.alignment.fast_samples import Observed
from manyview.alignment.fast_state import Placement
from manyview.alignment.objective import FIRST
from manyview.alignment.problem import KnownCameras
from manyview.geometry import default_focal, intrinsics, solve_pnp, solve_pnp_unknown_focal

BASE_SCALE = 0.5
"""Geometric mean of the pairs' scales unless known cameras set the scale, as published."""

FOCAL_STEPS = 10
FIT_STEPS = 3
FOCAL_CANDIDATES = 11
PNP_POINTS = 100
PAIRS_AT_ONCE = 32
TINY = 1e-100


def fit_similarities(source: Tensor, target: Tensor, weights: Tensor, steps: int = FIT_STEPS) -> tuple[Tensor, ...]:
    """B similarities that take points to points with the least sum of weighted distances, by re-weighted least squares.

    Umeyama's closed form (PAMI 1991) for each step. Where no point has weight all count alike; where the points do not
    determine a similarity the rotation is any and the scale is 1.

    Args:
        source, target: (B, P, 3) float64. `weights`: (B, P).
        steps: re-weightings after the first, plain, fit.

    Returns:
        scale (B,), rotation (B, 3, 3), translation (B, 3).
    """
    weights = torch.where(weights.sum(1, keepdim=True) > 0, weights, 1.0)
    scale, rotation, translation = _fit(source, target, weights)
    for _ in range(steps):
        placed = scale[:, None, None] * source @ rotation.mT + translation[:, None]
        distance = torch.linalg.vector_norm(placed - target, dim=-1)
        floor = 0.1 * (distance * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True) + TINY
        scale, rotation, translation = _fit(source, target, weights / torch.maximum(distance, floor))
    return scale, rotation, translation


def _fit(source: Tensor, target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    shares = (weights / weights.sum(1, keepdim=True))[..., None]
    source_mean, target_mean = (shares * source).sum(1), (shares * target).sum(1)
    centred = source - source_mean[:, None]
    covariance = (shares * (target - target_mean[:, None])).mT @ centred
    left, singular, right_t = torch.linalg.svd(covariance)
    signs = torch.ones_like(singular)
    signs[:, 2] = torch.linalg.det(left) * torch.linalg.det(right_t)
    rotation = (left * signs[:, None].sign()) @ right_t
    variance = (shares * centred.square()).sum((1, 2))
    scale = (singular * signs.sign()).sum(1) / variance
    scale = torch.where((variance > 0) & (scale > 0), scale, 1.0)
    return scale, rotation, target_mean - scale[:, None] * (rotation @ source_mean[..., None])[..., 0]


def initial_placement(
    samples: Sequence[Observed], edges: np.ndarray, scores: np.ndarray, known: KnownCameras
) -> tuple[Placement, list[Tensor]]:
    """Cameras, pairs, and the z-depth (P,) float32 of each picture's sampled pixels.

    Known focal lengths and cameras are put in; the rest is moved so that it fits them as well as it can.

    Args:
        samples: of each of the N pictures.
        edges: (E, 2). `scores`: (E,), how good each is. The graph is connected.
    """
    maps = _maps_by_edge(samples)
    world = _chained(len(samples), maps, edges, scores)
    cameras = [
        _camera(observed, world[observed.view], maps, edges, scores, known.focal_of(observed.view))
        for observed in samples
    ]
    rotation, centre, focal = (torch.stack([camera[part] for camera in cameras]) for part in range(3))
    depth = [_depth(points, *camera[:2]) for points, camera in zip(world, cameras, strict=True)]
    scale, pair_rotation, translation = _fit_pairs(maps, edges, world)
    placement = Placement(
        camera_rotation=rotation,
        camera_centre=centre,
        log_focal=focal.log(),
        pair_rotation=pair_rotation,
        pair_log_scale=scale.log(),
        pair_translation=translation,
    )
    placement, growth = at_base_scale(placement, None)
    placement, more = fitted_to_known(placement, known)
    return placement, [(values * (growth + more).exp()).float() for values in depth]


def at_base_scale(placement: Placement, about: Tensor | None) -> tuple[Placement, Tensor]:
    """With the published mean scale of the pairs, and the log of the growth; `about`, or the origin, stays."""
    growth = math.log(BASE_SCALE) - placement.pair_log_scale.mean()
    still = torch.eye(3).to(growth)
    shift = torch.zeros_like(still[0]) if about is None else about * (1 - growth.exp())
    return placement.transformed(still, growth, shift), growth


def _maps_by_edge(samples: Sequence[Observed]) -> dict[tuple[int, int], tuple[Tensor, Tensor]]:
    """(edge, side) -> points (P, 3) and weights (P,) of the sampled pixels."""
    return {
        (edge, side): (points, weights)
        for observed in samples
        for edge, side, points, weights in zip(
            observed.edges.tolist(), observed.sides, observed.points, observed.weights, strict=True
        )
    }


def _chained(views: int, maps: dict, edges: np.ndarray, scores: np.ndarray) -> list[Tensor]:
    """Points (P, 3) of each picture in the frame of the best pair, by Prim's algorithm for the best-scored tree."""
    first = int(scores.argmax())
    world = {int(view): maps[first, side][0].double() for side, view in enumerate(edges[first])}
    placed = np.zeros(views, dtype=bool)
    placed[list(world)] = True
    while not placed.all():
        bridges = np.flatnonzero(placed[edges[:, 0]] != placed[edges[:, 1]])
        edge = int(bridges[scores[bridges].argmax()])
        known = int(placed[edges[edge, 1]])
        points, weights = (values.double() for values in maps[edge, known])
        target = world[int(edges[edge, known])]
        scale, rotation, translation = fit_similarities(points[None], target[None], weights[None])
        new = int(edges[edge, 1 - known])
        world[new] = scale * maps[edge, 1 - known][0].double() @ rotation[0].T + translation
        placed[new] = True
    return [world[view] for view in range(views)]


def _camera(
    observed: Observed, world: Tensor, maps: dict, edges: np.ndarray, scores: np.ndarray, focal: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Rotation (3, 3), centre (3,) and focal () of one picture, from its own pointmaps where it has any."""
    own = np.flatnonzero(edges[:, FIRST] == observed.view)
    if not own.size:
        return _camera_by_pnp(observed, world, focal)
    points, weights = (values.double() for values in maps[int(own[scores[own].argmax()]), FIRST])
    _, rotation, centre = fit_similarities(points[None], world[None], weights[None])
    if focal is None:
        sides = [side == FIRST for side in observed.sides]
        focal = own_focal(observed.points[sides], observed.weights[sides], observed.offsets)
    return rotation[0], centre[0], world.new_tensor(focal if 0 < focal < math.inf else default_focal(*observed.size))


def own_focal(points: Tensor, weights: Tensor, offsets: Tensor) -> float:
    """The f for which f (X/Z, Y/Z) is nearest to the pixels, by Weiszfeld's algorithm: the middle one of M maps.

    Args:
        points: (M, P, 3), each map in the camera's frame. `weights`: (M, P). `offsets`: (P, 2) of the pixels from the
            principal point.

    Returns:
        Pixels; it is not positive or not a number where the points contradict every focal length.
    """
    ahead = points[..., 2] > 0
    directions = points[..., :2] / torch.where(ahead, points[..., 2], torch.inf)[..., None]
    used = weights * ahead
    alike = (directions * offsets).sum(-1)
    square = directions.square().sum(-1)
    pull = used
    focals = torch.zeros(len(points), dtype=points.dtype, device=points.device)
    for _ in range(FOCAL_STEPS):
        focals = (pull * alike).sum(1) / (pull * square).sum(1)
        residual = (offsets - focals[:, None, None] * directions).square().sum(-1).sqrt()
        pull = used / residual.clamp_min(1e-3)
    order = focals.argsort()
    reached = used.sum(1)[order].cumsum(0)
    return float(focals[order[torch.searchsorted(reached, reached[-1] / 2)]])


def _camera_by_pnp(observed: Observed, world: Tensor, focal: float | None) -> tuple[Tensor, Tensor, Tensor]:
    """For a picture that is never the first: no map is in its own frame. Where PnP fails it stands at the origin."""
    points = np.full((observed.size[0] * observed.size[1], 3), np.nan)
    points[observed.pixels.numpy()] = world.cpu().numpy()
    points = points.reshape(*observed.size, 3)
    if focal is None:
        found = solve_pnp_unknown_focal(
            points, principal_point=observed.principal_point, candidates=FOCAL_CANDIDATES, max_points=PNP_POINTS
        )
    else:
        found = solve_pnp(points, intrinsics(focal, observed.principal_point), max_points=PNP_POINTS)
    if found is None:
        focal = default_focal(*observed.size) if focal is None else focal
        return torch.eye(3).to(world), torch.zeros(3).to(world), world.new_tensor(focal)
    camera = torch.from_numpy(found.world_from_camera).to(world)
    return camera[:3, :3], camera[:3, 3], world.new_tensor(found.K[0, 0])


def _depth(world: Tensor, rotation: Tensor, centre: Tensor) -> Tensor:
    """z-depth (P,) of points; those behind the camera get the median of the others."""
    depth = (world - centre) @ rotation[:, 2]
    ahead = depth > 0
    usual = depth[ahead].median() if bool(ahead.any()) else torch.ones_like(depth[0])
    return torch.where(ahead, depth, usual).clamp_min(1e-3 * usual)


def _fit_pairs(maps: dict, edges: np.ndarray, world: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Every pair's similarity from both of its pictures' sampled points."""
    longest = max(len(points) for points in world)

    def padded(values: Tensor) -> Tensor:
        missing = longest - len(values)
        return values if not missing else torch.cat([values, values.new_zeros(missing, *values.shape[1:])])

    def fitted(edges_at_once: range) -> tuple[Tensor, ...]:
        source, target, weights = [], [], []
        for edge in edges_at_once:
            sides = [maps[edge, side] for side in (0, 1)]
            source.append(torch.cat([padded(points) for points, _ in sides]).double())
            weights.append(torch.cat([padded(weight) for _, weight in sides]).double())
            target.append(torch.cat([padded(world[view]) for view in edges[edge]]))
        return fit_similarities(torch.stack(source), torch.stack(target), torch.stack(weights))

    groups = [range(first, min(first + PAIRS_AT_ONCE, len(edges))) for first in range(0, len(edges), PAIRS_AT_ONCE)]
    return tuple(torch.cat(parts) for parts in zip(*map(fitted, groups), strict=True))


def fitted_to_known(placement: Placement, known: KnownCameras) -> tuple[Placement, Tensor]:
    """Everything moved so that the cameras lie on the known ones, which are then put in; and the log of the growth.

    With one known camera, or with several in one place, lengths stay as they are.
    """
    views = [view for view in range(len(placement.log_focal)) if known.camera_of(view) is not None]
    nothing = placement.log_focal.new_zeros(())
    if not views:
        return placement, nothing
    cameras = torch.stack([torch.as_tensor(np.asarray(known.camera_of(view))) for view in views]).to(nothing)
    rotations, centres = placement.camera_rotation[views], placement.camera_centre[views]
    known_mean, mean = cameras[:, :3, 3].mean(0), centres.mean(0)
    known_spread, spread = cameras[:, :3, 3] - known_mean, centres - mean
    fixed = scale_is_known(known) and bool(spread.norm() > 0)
    log_scale = (known_spread.norm() / spread.norm()).log() if fixed else nothing
    agreement = (cameras[:, :3, :3] @ rotations.mT).mean(0)
    if fixed:
        agreement = agreement + known_spread.T @ spread / (known_spread.norm() * spread.norm())
    turn = nearest_rotation(agreement)
    moved = placement.transformed(turn, log_scale, known_mean - log_scale.exp() * turn @ mean)
    moved.camera_rotation[views] = cameras[:, :3, :3]
    moved.camera_centre[views] = cameras[:, :3, 3]
    return moved, log_scale


def scale_is_known(known: KnownCameras) -> bool:
    """Whether the known cameras tell lengths: two or more that are not in one place."""
    cameras = [camera for camera in known.world_from_camera or () if camera is not None]
    centres = np.array([np.asarray(camera)[:3, 3] for camera in cameras]).reshape(-1, 3)
    return len(centres) > 1 and float(np.ptp(centres, axis=0).max()) > 1e-9 * float(1 + np.abs(centres).max())


def nearest_rotation(matrix: Tensor) -> Tensor:
    """The rotation (3, 3) that is nearest to a matrix."""
    left, _, right_t = torch.linalg.svd(matrix)
    signs = torch.ones_like(matrix[0])
    signs[2] = torch.linalg.det(left @ right_t).sign()
    return (left * signs) @ right_t
