"""Photos that nobody took: features of points in space with exact cameras, for tests of matching and mapping.

Every point has a descriptor of its own, so that COLMAP's matcher finds it again in each view that sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from manyview.geometry import Camera, intrinsics, invert_rigid, transform_pixels
from manyview.refine.features import Features
from manyview.scene import Provenance, Scene, SceneView

PHOTO_SIZE = (480, 640)  # (height, width)
NETWORK_SIZE = (48, 64)
SCALE = 10.0  # original pixels to one of the network's
ORIGINAL_FROM_NETWORK = np.array([[SCALE, 0, (SCALE - 1) / 2], [0, SCALE, (SCALE - 1) / 2], [0, 0, 1]])
FOCAL = 520.0
PRINCIPAL_POINT = (327.3, 232.8)  # not the middle of the picture, which is (319.5, 239.5)
RADIUS = 6.0  # of the circle that the cameras stand on; the points are within 2 of its centre


@dataclass(frozen=True, kw_only=True, eq=False)
class SparseWorld:
    """What photos of points show, and where they were taken.

    Attributes:
        cameras: the exact ones, one a view, in the frame of the points.
        points: (P, 3).
        features: of each view; `rows` holds the point of each.
        rows: for each view (K,) int64.
    """

    cameras: tuple[Camera, ...]
    points: np.ndarray
    features: tuple[Features, ...]
    rows: tuple[np.ndarray, ...]


def cameras_around(
    count: int, *, seed: int = 0, step: float = 12.0, focals: Sequence[float] = (), in_one_place: bool = False
) -> list[Camera]:
    """Cameras on an arc around the origin, each some degrees from the last, a little up and down, looking inwards.

    With `in_one_place` they only turn.
    """
    generator = np.random.default_rng(seed)
    cameras = []
    for index in range(count):
        angle = np.radians(step * (index - count / 2))
        centre = RADIUS * np.array([np.sin(angle), generator.uniform(-0.15, 0.15), -np.cos(angle)])
        target = generator.uniform(-0.3, 0.3, 3)
        if in_one_place:
            centre, target = np.array([0, 0, -RADIUS]), np.array([1.2 * np.sin(3 * angle), 0.8 * np.cos(5 * angle), 0])
        K = intrinsics(focals[index] if focals else FOCAL, PRINCIPAL_POINT)
        cameras.append(Camera(K=K, world_from_camera=_looking(centre, target), width=640, height=480))
    return cameras


def photographed(
    cameras: Sequence[Camera],
    *,
    seed: int = 0,
    points: int = 250,
    noise: float = 0.0,
    shown: np.ndarray | None = None,
    moves: np.ndarray | None = None,
    distortion: float = 0.0,
) -> SparseWorld:
    """Photos of points in a ball of radius 2 about the origin.

    Args:
        cameras: that take them.
        seed: of places, descriptors and noise.
        points: how many.
        noise: standard deviation in pixels.
        shown: (N, P) bool, which photos show which points, if not all that are in the picture.
        moves: (N, P, 3) how far each point is from its place when each photo is taken.
        distortion: k of COLMAP's SIMPLE_RADIAL.
    """
    generator = np.random.default_rng(seed)
    directions = generator.normal(size=(points, 3))
    places = 2 * generator.uniform(0.1, 1, (points, 1)) * directions / np.linalg.norm(directions, axis=1)[:, None]
    descriptors = generator.integers(0, 256, (points, 128), dtype=np.uint8)
    colours = generator.integers(0, 256, (points, 3), dtype=np.uint8)
    features, rows = [], []
    for index, camera in enumerate(cameras):
        pixels, _ = camera.project(places if moves is None else places + moves[index])
        pixels = _distorted(camera.K, pixels, distortion) + noise * generator.normal(size=pixels.shape)
        seen = _inside(pixels, camera) & (True if shown is None else shown[index])
        rows.append(np.flatnonzero(seen))
        features.append(_features(pixels[seen], descriptors[seen], colours[seen]))
    return SparseWorld(cameras=tuple(cameras), points=places, features=tuple(features), rows=tuple(rows))


def network_scene(
    world: SparseWorld,
    *,
    turn: float = 0.0,
    shift: float = 0.0,
    focal: float = 1.0,
    scale: float = 0.4,
    seed: int = 0,
) -> Scene:
    """What a network makes of these photos: cameras about right, depth exact but for the scale of its world.

    Args:
        world: the photos.
        turn, shift: by which cameras are wrong: degrees, and units of the world. The first one is right.
        focal: factor by which focal lengths are wrong.
        scale: the network's units to one of the world's.
        seed: of the errors.
    """
    generator = np.random.default_rng(seed)
    first_from_world = world.cameras[0].camera_from_world
    views = []
    for index, camera in enumerate(world.cameras):
        placed = first_from_world @ camera.world_from_camera
        if index:
            placed = placed @ _small_motion(generator, turn, shift)
        placed[:3, 3] *= scale
        K = camera.K.copy()
        K[[0, 1], [0, 1]] *= focal
        wrong = replace(camera, K=K, world_from_camera=placed)
        views.append(_view(f"view{index}.jpg", world, index, wrong, scale))
    provenance = Provenance(model="none", weights_sha256="0" * 64, weights_licence="none")
    return Scene(views=tuple(views), provenance=provenance)


def errors_of(scene: Scene, truth: Sequence[Camera]) -> tuple[float, float, float]:
    """Largest errors of the cameras after one similarity: degrees, share of the extent, relative focal length."""
    found = scene.world_from_camera
    exact = np.array([camera.world_from_camera for camera in truth])
    relative = np.swapaxes(found[:1, :3, :3], 1, 2) @ found[:, :3, :3]
    wanted = np.swapaxes(exact[:1, :3, :3], 1, 2) @ exact[:, :3, :3]
    degrees = np.degrees(np.linalg.norm(relative - wanted, axis=(1, 2)) / np.sqrt(2)).max()  # small angles
    steps = np.einsum("ji,nj->ni", found[0, :3, :3], found[:, :3, 3] - found[0, :3, 3])
    exact_steps = np.einsum("ji,nj->ni", exact[0, :3, :3], exact[:, :3, 3] - exact[0, :3, 3])
    ratio = (steps * exact_steps).sum() / max((steps**2).sum(), 1e-300)
    places = np.abs(ratio * steps - exact_steps).max() / max(np.abs(exact_steps).max(), 1e-300)
    focals = np.array([camera.K[0, 0] for camera in truth])
    return float(degrees), float(places), float(np.abs(scene.K[:, 0, 0] / focals - 1).max())


def _looking(centre: np.ndarray, target: np.ndarray) -> np.ndarray:
    forward = (target - centre) / np.linalg.norm(target - centre)
    right = np.cross([0, 1.0, 0], forward)
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    matrix[:3, 3] = centre
    return matrix


def _small_motion(generator: np.random.Generator, degrees: float, length: float) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    axis, direction = generator.normal(size=(2, 3))
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    matrix[:3, 3] = length * direction / np.linalg.norm(direction)
    return matrix


def _distorted(K: np.ndarray, pixels: np.ndarray, k: float) -> np.ndarray:
    flat = (pixels - K[:2, 2]) / K[[0, 1], [0, 1]]
    return flat * (1 + k * (flat**2).sum(axis=1, keepdims=True)) * K[[0, 1], [0, 1]] + K[:2, 2]


def _inside(pixels: np.ndarray, camera: Camera) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return ((pixels > -0.5) & (pixels < [camera.width - 0.5, camera.height - 0.5])).all(axis=1)


def _features(pixels: np.ndarray, descriptors: np.ndarray, colours: np.ndarray) -> Features:
    count = len(pixels)
    return Features(
        pixels=pixels,
        scales=np.full(count, 2, np.float32),
        angles=np.zeros(count, np.float32),
        descriptors=descriptors,
        colours=colours,
    )


def _view(name: str, world: SparseWorld, index: int, camera: Camera, scale: float) -> SceneView:
    """Its depth is known where the picture shows a point: the nearest of those in a pixel."""
    features, exact = world.features[index], world.cameras[index]
    depth = np.full(NETWORK_SIZE, np.inf, np.float32)
    _, depths = exact.project(world.points[world.rows[index]])
    x, y = np.rint(transform_pixels(np.linalg.inv(ORIGINAL_FROM_NETWORK), features.pixels)).astype(int).T
    np.minimum.at(depth, (y, x), (scale * depths).astype(np.float32))
    grid = np.stack(np.meshgrid(np.arange(NETWORK_SIZE[1]), np.arange(NETWORK_SIZE[0])), axis=-1).astype(float)
    valid = np.isfinite(depth)
    points = camera.unproject(transform_pixels(ORIGINAL_FROM_NETWORK, grid), np.where(valid, depth, 1))
    return SceneView.masked(
        name=name,
        source=None,
        original_size=PHOTO_SIZE,
        original_from_network=ORIGINAL_FROM_NETWORK,
        image=np.full((*NETWORK_SIZE, 3), 128, np.uint8),
        camera=camera,
        depth=depth,
        points=points,
        confidence=np.ones(NETWORK_SIZE),
        valid=valid,
    )


def carried(world_from_camera: np.ndarray, cameras: Sequence[Camera]) -> list[np.ndarray]:
    """The cameras in the frame of one of them."""
    return [invert_rigid(world_from_camera) @ camera.world_from_camera for camera in cameras]
