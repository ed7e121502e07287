"""Photos of textured planes and a box before them, with exact cameras and depth, for tests of dense depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from manyview.geometry import Camera, intrinsics, picture_centre, pixel_grid


@dataclass(frozen=True, kw_only=True)
class Surface:
    """A plane `normal` @ x = `distance`, cut off outside `extent` (least and most x, then y) of the world if given."""

    normal: tuple[float, float, float] = (0.3, -0.2, 1.0)
    distance: float = 4.0
    extent: tuple[float, float, float, float] | None = None
    texture: float = 1.0


WALL = Surface()
BOARD = Surface(normal=(0.0, 0.1, 1.0), distance=2.8, extent=(-0.5, 0.4, -0.4, 0.5))


@dataclass(frozen=True, kw_only=True, eq=False)
class Photo:
    """(H, W, 3) uint8, its camera and exact z-depth (H, W)."""

    pixels: np.ndarray
    camera: Camera
    depth: np.ndarray


def camera_at(
    place: Sequence[float], *, size: tuple[int, int] = (72, 96), focal: float = 1.0, turn: float = 0.0
) -> Camera:
    """Looks along +z, turned by `turn` radians about the vertical; the focal length in longer sides."""
    height, width = size
    world_from_camera = np.eye(4)
    cos, sin = np.cos(turn), np.sin(turn)
    world_from_camera[:3, :3] = [[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]
    world_from_camera[:3, 3] = place
    K = intrinsics(focal * max(size), picture_centre(height, width))
    return Camera(K=K, world_from_camera=world_from_camera, width=width, height=height)


def photograph(camera: Camera, surfaces: Sequence[Surface] = (WALL,)) -> Photo:
    """What the camera sees of the surfaces."""
    pixels = pixel_grid(camera.height, camera.width)
    nearest = np.full(pixels.shape[:2], np.inf)
    grey = np.zeros(pixels.shape[:2])
    for number, surface in enumerate(surfaces):
        depth = _plane_depth(camera, pixels, surface)
        points = camera.unproject(pixels, np.where(depth > 0, depth, 1.0))
        seen = (depth > 0) & (depth < nearest) & _within(points, surface)
        nearest = np.where(seen, depth, nearest)
        grey = np.where(seen, surface.texture * _texture(points, number), grey)
    # Red and green pull against each other a little, so that a mix-up of channels would show.
    values = np.rint(128 + 110 * grey).clip(0, 255).astype(np.uint8)
    depth = np.where(np.isfinite(nearest), nearest, 0.0)
    return Photo(pixels=np.stack([values, 255 - values // 2, values // 3], -1), camera=camera, depth=depth)


def row_of_photos(
    count: int = 5, surfaces: Sequence[Surface] = (WALL, BOARD), gap: float = 0.35, **camera
) -> list[Photo]:
    """From places beside each other, all looking towards the middle of the wall."""
    across = (np.arange(count) - (count - 1) / 2) * gap
    places = [(x, 0.15 * (number % 2), 0.0) for number, x in enumerate(across)]
    return [
        photograph(camera_at(place, turn=-float(np.arctan2(place[0], 4.0)), **camera), surfaces) for place in places
    ]


def _plane_depth(camera: Camera, pixels: np.ndarray, surface: Surface) -> np.ndarray:
    """(H, W) z-depth of the plane, not above 0 behind the camera."""
    normal = np.asarray(surface.normal)
    towards = (camera.unproject(pixels, np.ones(pixels.shape[:2])) - camera.centre) @ normal
    return (surface.distance - camera.centre @ normal) / np.where(np.abs(towards) < 1e-9, 1e-9, towards)


def _within(points: np.ndarray, surface: Surface) -> np.ndarray:
    if surface.extent is None:
        return np.ones(points.shape[:2], dtype=bool)
    left, right, top, bottom = surface.extent
    x, y = points[..., 0], points[..., 1]
    return (x >= left) & (x <= right) & (y >= top) & (y <= bottom)


def _texture(points: np.ndarray, number: int) -> np.ndarray:
    """(H, W), about -1..1: waves of many lengths, of which none repeats within a picture."""
    generator = np.random.default_rng(100 + number)
    total = np.zeros(points.shape[:2])
    for length in np.geomspace(0.25, 1.5, 14):
        direction = generator.normal(size=2)
        direction /= np.linalg.norm(direction)
        total += np.sin(2 * np.pi * points[..., :2] @ direction / length + generator.uniform(0, 7))
    return total / 6
