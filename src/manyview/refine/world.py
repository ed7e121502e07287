"""Metric scale and upright worlds, from what a user knows: a distance, a baseline, a camera height, which way is up.

    change = scale_from_distance(scene, ImagePoint(view=0, x=812, y=440), ImagePoint(view=3, x=120, y=455), metres=1.2)
    scene = up_from_cameras(change.apply_to(scene)).apply_to(scene)

Each function looks at a scene and gives a `WorldChange`; nothing moves before that is applied. Positions by satellite
are in `manyview.refine.gps`, and the ground plane in `manyview.refine.ground`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from manyview.errors import InputError
from manyview.geometry.cameras import Camera, transform_pixels
from manyview.geometry.similarity import Similarity
from manyview.refine.ground import GroundPlane, fit_ground_plane, mean_up
from manyview.scene import FusedPoints, Scene, SceneView, SparsePoints, World

_SAME_SURFACE = 1.1  # ratio of neighbouring depths up to which they are taken to be on one surface
_LEVEL = 0.1  # a camera whose axis has a shorter horizontal part looks straight down or up
_TURNED_ENOUGH = 0.15  # spread of the cameras' x axes in a second direction, from which they say where up is


@dataclass(frozen=True, kw_only=True)
class ImagePoint:
    """A place in a photo.

    Attributes:
        view: index in the scene.
        x, y: pixels of the upright original, integers at pixel centres.
    """

    view: int
    x: float
    y: float


@dataclass(frozen=True, kw_only=True, eq=False)
class WorldChange:
    """How to move a scene, and why.

    Attributes:
        similarity: takes the present world to the new one.
        words: what was used and assumed, what came out, and how sure that is.
        metric: whether lengths are metres then; None if that is as it was.
        world: what the new world is; None if that is as it was.
        residual: root mean square of what does not fit, in units of the new world; None where nothing was left over.
        warnings: what speaks against it.
    """

    similarity: Similarity
    words: str
    metric: bool | None = None
    world: World | None = None
    residual: float | None = None
    warnings: tuple[str, ...] = ()

    def apply_to(self, scene: Scene) -> Scene:
        """The scene in the new world; see `apply`."""
        metric = scene.metric if self.metric is None else self.metric
        world = scene.world if self.world is None else self.world
        moved = apply(scene, self.similarity, metric=metric, world=world, words=self.words)
        return replace(moved, warnings=(*moved.warnings, *self.warnings))


def apply(scene: Scene, similarity: Similarity, *, metric: bool, world: World, words: str = "") -> Scene:
    """Move everything that lies in a scene's world: cameras, points, and depth by the scale.

    Pictures, intrinsics, confidence and what is valid stay as they are, and so does where points appear in pictures.
    Views of other groups have frames of their own: they stay, with a warning.

    Args:
        scene: is not changed.
        similarity: takes its world to the new one.
        metric: whether lengths are metres then.
        world: what the new world is.
        words: why, for `provenance.changes`.

    Raises:
        InputError: the similarity has no scale above 0, or numbers that are not finite.
    """
    if not (np.isfinite(similarity.matrix).all() and similarity.scale > 0):
        raise InputError(f"cannot move a scene by {similarity}", hint="Expected a scale above 0 and finite numbers.")
    views = tuple(view if view.group else _moved(view, similarity) for view in scene.views)
    others = [view.name for view in scene.views if view.group]
    warnings = (
        (f"{len(others)} views of other groups keep a frame and a scale of their own: {', '.join(others)}",)
        if others
        else ()
    )
    changes = scene.provenance.changes + ((words,) if words else ())
    return replace(
        scene,
        views=views,
        metric=metric,
        world=world,
        sparse=None if scene.sparse is None else _moved_points(scene.sparse, similarity),
        fused=None if scene.fused is None else _moved_fused(scene.fused, similarity),
        provenance=replace(scene.provenance, changes=changes),
        warnings=(*scene.warnings, *warnings),
    )


def _moved(view: SceneView, similarity: Similarity) -> SceneView:
    points = np.where(view.valid[..., None], similarity.apply(view.points), 0).astype(np.float32)
    depth = (view.depth.astype(np.float64) * similarity.scale).astype(np.float32)
    camera = view.camera
    if camera is not None:
        camera = replace(camera, world_from_camera=similarity.apply_to_camera(camera.world_from_camera))
    return replace(view, points=points, depth=depth, camera=camera)


def _moved_points(sparse: SparsePoints, similarity: Similarity) -> SparsePoints:
    own = sparse.group == 0
    return replace(
        sparse,
        points=np.where(own[:, None], similarity.apply(sparse.points), sparse.points),
        depth=np.where(own[sparse.point], sparse.depth * similarity.scale, sparse.depth),
    )


def _moved_fused(fused: FusedPoints, similarity: Similarity) -> FusedPoints:
    return replace(fused, points=similarity.apply(fused.points).astype(np.float32))


# ------------------------------------------------------------------ scale
def scale_from_distance(scene: Scene, first: ImagePoint, second: ImagePoint, metres: float) -> WorldChange:
    """The scale at which two points that are seen in one photo, or in two, are so many metres apart.

    Raises:
        InputError: a point is outside its photo or has no depth there, or the two are in one place.
    """
    distance = float(np.linalg.norm(world_point(scene, first) - world_point(scene, second)))
    places = " and ".join(f"({p.x:g}, {p.y:g}) of {scene.views[p.view].name}" for p in (first, second))
    return _scaled(distance, metres, f"the distance between {places}")


def scale_from_baseline(scene: Scene, first: int, second: int, metres: float) -> WorldChange:
    """The scale at which the cameras of two views (indices) are so many metres apart.

    Raises:
        InputError: a view has no camera in the scene's world, or both are in one place.
    """
    distance = float(np.linalg.norm(_camera(scene, first).centre - _camera(scene, second).centre))
    names = f"{scene.views[first].name} and {scene.views[second].name}"
    return _scaled(distance, metres, f"the distance between the cameras of {names}")


def scale_from_camera_height(
    scene: Scene, metres: float, *, views: Sequence[int] | None = None, plane: GroundPlane | None = None, seed: int = 0
) -> WorldChange:
    """The scale at which cameras are so many metres above the ground; with several, it is their median height.

    Args:
        scene: in which the ground is seen.
        metres: height of the cameras.
        views: indices of the views that were taken at this height; all with a camera by default.
        plane: the ground; found by `fit_ground_plane` by default.
        seed: of that search.

    Raises:
        InputError: the ground is not found, or the cameras are not above it.
    """
    plane = fit_ground_plane(scene, seed=seed) if plane is None else plane
    used = [index for index, view in enumerate(scene.views) if view.camera is not None] if views is None else views
    if not used:
        raise InputError("there is no view whose height could be measured", hint="Name views that have a camera.")
    heights = plane.heights(np.array([_camera(scene, index).centre for index in used]))
    spread = f", which differs by up to {np.ptp(heights) / np.median(heights):.0%}" if len(heights) > 1 else ""
    what = f"the height of {len(used)} cameras above the ground{spread} ({plane.words})"
    return replace(_scaled(float(np.median(heights)), metres, what), warnings=plane.doubts(scene))


def world_point(scene: Scene, point: ImagePoint) -> np.ndarray:
    """(3,) float64: the place in the world that a photo shows at a pixel.

    Raises:
        InputError: it is outside the photo, or the view has no camera or no depth there.
    """
    camera, view = _camera(scene, point.view), scene.views[point.view]
    pixel = np.array([point.x, point.y], dtype=np.float64)
    if not (-0.5 <= point.x <= camera.width - 0.5 and -0.5 <= point.y <= camera.height - 0.5):
        raise InputError(
            f"({point.x:g}, {point.y:g}) is outside {view.name}, which has {camera.width} x {camera.height} pixels",
            hint="Give pixels of the upright original.",
        )
    depth = _depth_at(view, transform_pixels(np.linalg.inv(view.original_from_network), pixel))
    if depth is None:
        raise InputError(
            f"{view.name} has no depth at ({point.x:g}, {point.y:g})",
            hint="Choose a point on a surface that was found.",
        )
    return camera.unproject(pixel, np.array(depth))


def _depth_at(view: SceneView, pixel: np.ndarray) -> float | None:
    """z-depth between network pixels: exact on planes, and from the nearest pixel at edges; None if there is none."""
    low = np.floor(pixel).astype(int)
    x, y = low[0] + np.array([0, 1, 0, 1]), low[1] + np.array([0, 0, 1, 1])
    inside = (x >= 0) & (y >= 0) & (x < view.size[1]) & (y < view.size[0])
    x, y = np.clip(x, 0, view.size[1] - 1), np.clip(y, 0, view.size[0] - 1)
    usable = inside & view.valid[y, x]
    if not usable.any():
        return None
    depth = view.depth[y, x].astype(np.float64)
    if not usable.all() or depth.max() > _SAME_SURFACE * depth.min():
        distance = np.where(usable, np.hypot(x - pixel[0], y - pixel[1]), np.inf)
        return float(depth[distance.argmin()])
    right, down = pixel - low
    weights = np.array([(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down])
    return float(1 / (weights @ (1 / depth)))  # 1 / depth of a plane is linear in the pixels


def _scaled(measured: float, metres: float, what: str) -> WorldChange:
    if not 0 < metres < math.inf:
        raise InputError(f"{what} is given as {metres:g} m", hint="Give metres, above 0.")
    if not 0 < measured < math.inf:
        raise InputError(f"{what} is {measured:g} in the scene, so that there is no scale", hint="Choose others.")
    scale = metres / measured
    similarity = Similarity(scale=scale, rotation=np.eye(3), translation=np.zeros(3))
    words = f"scale: {what} is {metres:g} m, and was {measured:.6g}; lengths were multiplied by {scale:.9g}"
    return WorldChange(similarity=similarity, words=words, metric=True)


def _camera(scene: Scene, index: int) -> Camera:
    if not 0 <= index < len(scene.views):
        raise InputError(f"there is no view {index}", hint=f"Views are 0 to {len(scene.views) - 1}.")
    view = scene.views[index]
    if view.camera is None:
        raise InputError(f"{view.name} has no camera in the scene's world", hint="Choose another view.")
    return view.camera


# ------------------------------------------------------------------ up
def up_from_vector(scene: Scene, up: Sequence[float] | np.ndarray) -> WorldChange:
    """Turn the scene so that a direction of its world, (3,) of any length, points up.

    Raises:
        InputError: it is no direction, or no view has a camera.
    """
    up = np.asarray(up, dtype=np.float64)
    if up.shape != (3,) or not np.isfinite(up).all() or not np.linalg.norm(up) > 0:
        raise InputError(f"got {up.tolist()} as the direction up", hint="Give three numbers, not all 0.")
    return _upright(scene, up, "as given")


def up_from_ground(scene: Scene, *, plane: GroundPlane | None = None, seed: int = 0) -> WorldChange:
    """Turn the scene so that the ground is level.

    Args:
        scene: in which the ground is seen.
        plane: the ground; found by `fit_ground_plane` by default.
        seed: of that search.

    Raises:
        InputError: the ground is not found.
    """
    plane = fit_ground_plane(scene, seed=seed) if plane is None else plane
    change = _upright(scene, plane.normal, f"at right angles to the ground, taken to be level ({plane.words})")
    return replace(change, residual=plane.residual, warnings=plane.doubts(scene))


def up_from_cameras(scene: Scene) -> WorldChange:
    """Turn the scene so that the photos are upright, on the assumption that they were taken without tilting sideways.

    Then every camera's x axis is level, and where they look in different directions, up is at right angles to all of
    them, however much they look up or down. Where they all look the same way, up is their mean up, which also takes
    them to look straight ahead.

    Raises:
        InputError: no view has a camera.
    """
    prior = mean_up(scene)
    rows = np.array([view.camera.world_from_camera[:3, 0] for view in scene.views if view.camera is not None])
    _, singular, axes = np.linalg.svd(rows)
    spread = singular[1] / np.sqrt(len(rows)) if len(rows) > 1 else 0.0
    if spread < _TURNED_ENOUGH:
        return _upright(scene, prior, "the mean up of the cameras, on the assumption that they look straight ahead")
    up = axes[2] * np.sign(axes[2] @ prior)
    tilt = np.degrees(np.sqrt(np.mean(np.arcsin(np.clip(rows @ up, -1, 1)) ** 2)))
    assumption = (
        f"on the assumption that none was tilted sideways (root mean square of what is left: {tilt:.2f} degrees)"
    )
    return _upright(scene, up, f"at right angles to the x axes of {len(rows)} cameras, {assumption}")


def _upright(scene: Scene, up: np.ndarray, how: str) -> WorldChange:
    first = next((view for view in scene.views if view.camera is not None), None)
    if first is None or first.camera is None:
        raise InputError("no view has a camera, so that there is nothing to turn upright")
    up = up / np.linalg.norm(up)
    forward = _level_direction(first.camera, up)
    rotation = np.stack([np.cross(-up, forward), -up, forward])
    similarity = Similarity(scale=1.0, rotation=rotation, translation=-rotation @ first.camera.centre)
    words = f"up: {how}; y is down, z where the camera of {first.name} looks along the ground, the origin that camera"
    return WorldChange(similarity=similarity, words=words, world="gravity up")


def _level_direction(camera: Camera, up: np.ndarray) -> np.ndarray:
    """(3,) unit, at right angles to up: where a camera looks, or if that is straight down or up, its picture's top."""
    _, y, z = camera.world_from_camera[:3, :3].T
    level = z - (z @ up) * up
    if np.linalg.norm(level) < _LEVEL:
        top = y * np.sign(z @ up)
        level = top - (top @ up) * up
    return level / np.linalg.norm(level)
