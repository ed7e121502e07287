"""The ground plane of a scene, by RANSAC among its points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from manyview.errors import InputError
from manyview.scene import Scene

_POINTS = 8000
_SAMPLES = 600
_PLANES = 4  # that are looked for, so that a table does not pass for the floor
_SHARE_OF_DISTANCE = 0.01  # a point this share of the usual distance off a plane is still on it
_STEEPEST = np.cos(np.radians(45))  # of planes against the cameras' mean up
_TILTED = np.sin(np.radians(12))  # of the cameras' x axes against planes: photos are not turned sideways by more
_LEAST_SHARE, _LEAST_OF_BEST = 0.1, 0.2  # of all points, and of those of the best plane
_LOWER = 1.1  # ratio of heights from which a plane is another one, further down
_SURE_HEIGHTS = 0.5  # share of their median by which cameras' heights above the ground usually differ at most


@dataclass(frozen=True, kw_only=True, eq=False)
class GroundPlane:
    """The points x with normal @ x + offset = 0.

    Attributes:
        normal: (3,) float64, unit, world frame; points up.
        offset: world units.
        share: of the scene's points that lie on it, 0 to 1.
        residual: root mean square of their distances to it, world units.
    """

    normal: np.ndarray
    offset: float
    share: float
    residual: float

    def heights(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) -> (...) distances above the ground, negative below it."""
        return points @ self.normal + self.offset

    def doubts(self, scene: Scene) -> tuple[str, ...]:
        """What speaks against this plane being the ground on which all the cameras stand."""
        heights = self.heights(np.array([view.camera.centre for view in scene.views if view.camera is not None]))
        differ = float(np.ptp(heights) / np.median(heights))
        if differ <= _SURE_HEIGHTS:
            return ()
        told = f"the cameras' heights above the plane that was taken for the ground differ by {differ:.0%}"
        return (f"{told}: check that it is the ground",)

    @property
    def words(self) -> str:
        return f"{self.share:.0%} of the points lie on it, with a root mean square distance of {self.residual:.3g}"


def fit_ground_plane(scene: Scene, *, seed: int = 0) -> GroundPlane:
    """The lowest of the large planes below the cameras that are about level.

    Before up is known, level is taken from the cameras, since photos are upright, at least roughly: within 45 degrees
    of their mean up, as they may look up or down, and within 12 degrees of most of their x axes.

    Raises:
        InputError: there are no cameras or points, or no such plane.
    """
    up = mean_up(scene)
    centres = np.array([view.camera.centre for view in scene.views if view.camera is not None])
    points = scene.point_cloud(max_points=_POINTS, seed=seed).points.astype(np.float64)
    hint = "Give the direction up instead, or photos that show more of the ground."
    if len(points) < 3:
        raise InputError(f"the scene has {len(points)} points, too few for a ground plane", hint=hint)
    tolerance = _SHARE_OF_DISTANCE * float(np.median(np.linalg.norm(points - centres.mean(axis=0), axis=1)))
    across = np.array([view.camera.world_from_camera[:3, 0] for view in scene.views if view.camera is not None])
    planes = _planes(points, _Level(up, across), tolerance, np.random.default_rng(seed))
    planes = [plane for plane in planes if np.median(plane.heights(centres)) > 5 * tolerance]
    if not planes:
        raise InputError(
            f"no plane below the cameras is level and has {_LEAST_SHARE:.0%} of the points: no ground was found",
            hint=hint,
        )
    ground = planes[0]
    for plane in planes[1:]:
        enough = plane.share > _LEAST_OF_BEST * planes[0].share
        if enough and np.median(plane.heights(centres)) > _LOWER * np.median(ground.heights(centres)):
            ground = plane
    return ground


def mean_up(scene: Scene) -> np.ndarray:
    """(3,) unit: the mean of the directions that are up in the photos, world frame.

    Raises:
        InputError: no view has a camera, or the cameras' ups cancel out.
    """
    ups = [-view.camera.world_from_camera[:3, 1] for view in scene.views if view.camera is not None]
    total = np.sum(ups, axis=0) if ups else np.zeros(3)
    if not np.linalg.norm(total) > 1e-6 * max(len(ups), 1):
        raise InputError(f"{len(ups)} cameras do not say where up is", hint="Give the direction up.")
    return total / np.linalg.norm(total)


@dataclass(frozen=True, eq=False)
class _Level:
    """What the cameras say of level: their mean up (3,), and their x axes (N, 3)."""

    up: np.ndarray
    across: np.ndarray

    def allows(self, normals: np.ndarray) -> np.ndarray:
        """Unit normals (P, 3) -> (P,) whether their planes may be level."""
        tilted = np.median(np.abs(normals @ self.across.T), axis=1)
        return (np.abs(normals @ self.up) > _STEEPEST) & (tilted < _TILTED)


def _planes(points: np.ndarray, level: _Level, tolerance: float, generator: np.random.Generator) -> list[GroundPlane]:
    """Planes with many points, the largest first; the points of one are not looked at for the next."""
    found: list[GroundPlane] = []
    rest = points
    while len(found) < _PLANES and len(rest) >= max(3, _LEAST_SHARE * len(points)):
        candidate = _largest(rest, level, tolerance, generator)
        if candidate is None:
            break
        plane = _refitted(points, *candidate, tolerance)
        if plane.share < _LEAST_SHARE or not level.allows(plane.normal[None])[0]:
            break
        found.append(plane)
        rest = rest[np.abs(plane.heights(rest)) > 2 * tolerance]
    return sorted(found, key=lambda plane: -plane.share)


def _largest(
    points: np.ndarray, level: _Level, tolerance: float, generator: np.random.Generator
) -> tuple[np.ndarray, float] | None:
    """Normal and offset of the plane through three points that has the most points; None if none may be level."""
    a, b, c = points[generator.integers(len(points), size=(3, _SAMPLES))]
    normals = np.cross(b - a, c - a)
    lengths = np.linalg.norm(normals, axis=1)
    normals /= np.maximum(lengths, np.finfo(float).tiny)[:, None]
    usable = level.allows(normals)
    if not usable.any():
        return None
    normals = normals[usable] * np.sign(normals[usable] @ level.up)[:, None]
    offsets = -np.einsum("ij,ij->i", normals, a[usable])
    counts = (np.abs(points @ normals.T + offsets) < tolerance).sum(axis=0)
    best = int(counts.argmax())
    return normals[best], float(offsets[best])


def _refitted(points: np.ndarray, normal: np.ndarray, offset: float, tolerance: float) -> GroundPlane:
    """The plane with the least squared distances to the points near it, found anew a few times."""
    near = np.abs(points @ normal + offset) < tolerance
    for _ in range(3):
        middle = points[near].mean(axis=0)
        smallest = np.linalg.svd(points[near] - middle, full_matrices=False)[2][2]
        normal = smallest * np.sign(smallest @ normal)
        offset = float(-normal @ middle)
        near = np.abs(points @ normal + offset) < tolerance
    residual = float(np.sqrt(np.mean((points[near] @ normal + offset) ** 2)))
    return GroundPlane(normal=normal, offset=offset, share=float(near.mean()), residual=residual)
