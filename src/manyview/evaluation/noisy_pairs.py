"""Pairwise pointmaps with known errors, made from procedural worlds, and how far an alignment of them is off.

The errors imitate those of a pairwise network: a scale of its own for each pair, noise from pixel to pixel, larger
smooth distortions, a small rotation of the second picture, and much more of both, with low confidence, where the second
picture shows what the first does not see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from manyview.alignment.problem import Alignment, PairMaps
from manyview.errors import InputError
from manyview.geometry import (
    Similarity,
    fit_similarity,
    invert_rigid,
    points_from_depth,
    project_points,
    transform_points,
)
from manyview.worlds import WorldSettings, render_worlds

PIXEL_NOISE = 0.015
SMOOTH_NOISE = 0.03
SMOOTH_CELLS = (4, 5)
LARGEST_LOG_SCALE = 0.6
ROTATION_DEGREES = 1.0
UNSEEN_FACTOR = 4.0
# Median confidences, and the standard deviation of their logarithms.
SEEN_CONFIDENCE, UNSEEN_CONFIDENCE, CONFIDENCE_SPREAD = 9.0, 1.35, 0.4
SEEN_DEPTH_TOLERANCE = 0.05


@dataclass(frozen=True, kw_only=True)
class TrueGeometry:
    """What pairs were made from: `world_from_camera` and `K` (N, 4, 4) and (N, 3, 3), `depth` (N, H, W), 0 for sky."""

    world_from_camera: np.ndarray
    K: np.ndarray
    depth: np.ndarray


@dataclass(frozen=True, kw_only=True)
class AlignmentErrors:
    """Against the truth, after the similarity that fits the camera centres best.

    Attributes:
        centre: root mean square distance of the camera centres, in units of the truth; `relative_centre`: of the
            largest distance of a true centre from their middle.
        rotation: mean angle between estimated and true relative rotations over all pairs of pictures, degrees.
        depth: mean of |d - d*| / d* over the pixels with true depth. `focal`: mean of |f / f* - 1|.
    """

    centre: float
    relative_centre: float
    rotation: float
    depth: float
    focal: float


def noisy_pairs(
    seed: int,
    views: int,
    size: tuple[int, int],
    edges: Sequence[tuple[int, int]] | None = None,
    *,
    settings: WorldSettings | None = None,
    noise: float = 1.0,
) -> tuple[PairMaps, TrueGeometry]:
    """Pairs of one procedural world, as a network might predict them.

    Args:
        seed: of the world and of the errors.
        views: N. `size`: (height, width) of the pictures.
        edges: ordered pairs; None takes all N (N - 1).
        settings: of the world; None is a room with objects, seen with much overlap.
        noise: factor of all errors; 0 gives exact pointmaps, each pair with its own scale still.
    """
    if settings is None:
        settings = WorldSettings(
            compositions=("clutter",), paths=("orbit", "handheld"), spread=0.6, noise=0.0, blur=0.0
        )
    world = render_worlds([seed], views, size, settings)
    truth = TrueGeometry(
        world_from_camera=world.world_from_camera[0].double().numpy(),
        K=world.K[0].double().numpy(),
        depth=world.depth[0].numpy(),
    )
    edges = [(i, j) for i in range(views) for j in range(views) if i != j] if edges is None else list(edges)
    random = np.random.default_rng(seed)
    made = [_pair(truth, i, j, random, noise) for i, j in edges]
    points = [tuple(points for points, _ in pair) for pair in made]
    confidence = [tuple(sure for _, sure in pair) for pair in made]
    return PairMaps.checked(np.array(edges), points, confidence), truth


def alignment_errors(found: Alignment, truth: TrueGeometry) -> AlignmentErrors:
    """How far an alignment of `noisy_pairs` is off."""
    centres, true_centres = found.world_from_camera[:, :3, 3], truth.world_from_camera[:, :3, 3]
    fit = _centre_fit(centres, true_centres)
    miss = np.linalg.norm(fit.apply(centres) - true_centres, axis=1)
    extent = np.linalg.norm(true_centres - true_centres.mean(0), axis=1).max()
    depth_errors = []
    for depth, true_depth in zip(found.depth, truth.depth, strict=True):
        relative = fit.scale * depth / np.where(true_depth > 0, true_depth, np.nan)
        depth_errors.append(np.abs(relative - 1)[true_depth > 0])
    centre = float(np.sqrt(np.mean(miss**2)))
    return AlignmentErrors(
        centre=centre,
        relative_centre=centre / float(extent),
        rotation=float(_relative_angles(found.world_from_camera, truth.world_from_camera).mean()),
        depth=float(np.concatenate(depth_errors).mean()),
        focal=float(np.abs(found.K[:, 0, 0] / truth.K[:, 0, 0] - 1).mean()),
    )


def _pair(
    truth: TrueGeometry, i: int, j: int, random: np.random.Generator, noise: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Points and confidence of pictures i and j in camera i's frame."""
    camera_from_world = invert_rigid(truth.world_from_camera[i])
    scale = np.exp(random.uniform(-LARGEST_LOG_SCALE, LARGEST_LOG_SCALE)) / np.median(
        truth.depth[i][truth.depth[i] > 0]
    )
    first, second = (
        transform_points(
            camera_from_world, points_from_depth(truth.depth[view], truth.K[view], truth.world_from_camera[view])
        )
        for view in (i, j)
    )
    seen = _seen(second, truth.depth[i], truth.K[i])
    factor = np.where(seen, 1.0, UNSEEN_FACTOR)
    turned = _turned(second, camera_from_world @ truth.world_from_camera[j][:, 3], random, noise)
    return [
        _observed(scale * first, np.ones_like(factor), np.full(first.shape[:2], SEEN_CONFIDENCE), random, noise),
        _observed(scale * turned, factor, np.where(seen, SEEN_CONFIDENCE, UNSEEN_CONFIDENCE), random, noise),
    ]


def _seen(points: np.ndarray, depth: np.ndarray, K: np.ndarray) -> np.ndarray:
    """(H, W) bool: whether a camera with this depth map sees the points (H, W, 3), given in its frame."""
    pixels, z = project_points(points, K)
    column, row = np.nan_to_num(np.rint(pixels), nan=-1.0).clip(-1, 1e6).astype(int).transpose(2, 0, 1)
    inside = (column >= 0) & (row >= 0) & (column < depth.shape[1]) & (row < depth.shape[0])
    there = depth[np.where(inside, row, 0), np.where(inside, column, 0)]
    with np.errstate(invalid="ignore"):
        return np.logical_and(inside, np.abs(z - there) < SEEN_DEPTH_TOLERANCE * there)


def _turned(points: np.ndarray, centre: np.ndarray, random: np.random.Generator, noise: float) -> np.ndarray:
    """Points turned about their camera's centre by a small random rotation."""
    from scipy.spatial.transform import Rotation

    vector = np.radians(ROTATION_DEGREES) * noise * random.standard_normal(3) / np.sqrt(3)
    return (points - centre[:3]) @ Rotation.from_rotvec(vector).as_matrix().T + centre[:3]


def _observed(
    points: np.ndarray, factor: np.ndarray, confidence: np.ndarray, random: np.random.Generator, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """Points moved along their rays, and confidences; 0 for both where there is no point."""
    size = points.shape[:2]
    relative = PIXEL_NOISE * random.standard_normal(size) + SMOOTH_NOISE * _smooth(size, random)
    moved = points * (1 + noise * factor * relative)[..., None]
    sure = 1 + (confidence - 1) * np.exp(CONFIDENCE_SPREAD * random.standard_normal(size))
    exists = np.isfinite(moved.sum(-1))
    return np.where(exists[..., None], moved, 0).astype(np.float32), np.where(exists, sure, 0).astype(np.float32)


def _smooth(size: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """(H, W) smooth noise with about unit variance."""
    import cv2

    coarse = random.standard_normal(SMOOTH_CELLS)
    fine = cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
    return fine / max(float(fine.std()), 1e-6)


def _centre_fit(centres: np.ndarray, true_centres: np.ndarray) -> Similarity:
    try:
        return fit_similarity(centres, true_centres)
    except InputError as error:
        raise InputError("fewer than three cameras, or all on one line: their errors are not determined") from error


def _relative_angles(cameras: np.ndarray, true_cameras: np.ndarray) -> np.ndarray:
    """Degrees, for each pair of pictures."""
    first, second = np.triu_indices(len(cameras), 1)

    def relative(given: np.ndarray) -> np.ndarray:
        return given[first, :3, :3].transpose(0, 2, 1) @ given[second, :3, :3]

    between = relative(cameras).transpose(0, 2, 1) @ relative(true_cameras)
    cosine = (np.trace(between, axis1=1, axis2=2) - 1) / 2
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))
