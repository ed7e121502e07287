"""A DUSt3R network that knows the truth: it recognises photos of box-shaped rooms and says where their walls are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from manyview.geometry import Camera, intrinsics, picture_centre, pixel_grid, transform_pixels, transform_points
from manyview.images import Fit, View, load_views
from manyview.methods.model import Model
from manyview.networks.dust3r import Dust3R, Prepared
from manyview.networks.economy import USUAL, Economy
from manyview.networks.pointmaps import Pointmaps
from manyview.scene import Scene, SceneView
from toys import PAIRS_INFO, SMALLEST_PAIRS

ROOM = np.array([4.0, 3.0, 6.0])  # half the size of the box that the cameras stand in
SURE, UNSURE = 10.0, 1.05
LEAST_LINK = 2.0


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A picture (H, W, 3) uint8 from inside a box, and its camera in original pixels; rooms share nothing."""

    pixels: np.ndarray
    camera: Camera
    room: int = 0

    def depth_at(self, pixels: np.ndarray) -> np.ndarray:
        """z-depth (...) of the walls at original pixels (..., 2)."""
        return _depth(self.camera, pixels)

    def points_at(self, pixels: np.ndarray) -> np.ndarray:
        """World points (..., 3) at original pixels (..., 2)."""
        return self.camera.unproject(pixels, self.depth_at(pixels))


def take_photo(
    number: int,
    *,
    size: tuple[int, int] = (96, 128),
    room: int = 0,
    focal: float = 1.1,
    off_centre: tuple[float, float] = (0.0, 0.0),
) -> Photo:
    """The photo of this number; the focal length in longer sides, the offset in shares of the sides."""
    height, width = size
    centre_x, centre_y = picture_centre(height, width)
    K = intrinsics(focal * max(size), (centre_x + off_centre[0] * width, centre_y + off_centre[1] * height))
    camera = Camera(K=K, world_from_camera=_place(number), width=width, height=height)
    grid = pixel_grid(height, width)
    return Photo(pixels=_colours(camera.unproject(grid, _depth(camera, grid)), room), camera=camera, room=room)


def photos(count: int, **options) -> list[Photo]:
    """So many photos of one room."""
    return [take_photo(number, **options) for number in range(count)]


class ExactNetwork(Dust3R):
    """What a perfect network would say of the photos it knows, each pair in a scale of its own.

    Attributes:
        asked: pairs that it was shown, as indices of the photos it knows (equal photos count as the first of them).
        encoded: how many pictures went through its encoder.
        noise: of distances along the rays, relative to them.
    """

    def __init__(self, known: Sequence[Photo], views: Sequence[View], noise: float = 0.0) -> None:
        super().__init__(SMALLEST_PAIRS)
        self.photos, self.views = list(known), list(views)
        self.noise = noise
        self.asked: list[tuple[int, int]] = []
        self.encoded = 0

    def encode(self, images: Tensor) -> Tensor:
        """Tokens are the pixels of each patch."""
        self.encoded += len(images)
        return F.pixel_unshuffle(images, self.config.patch_size).flatten(2).mT

    def prepare(self, tokens: Tensor, grid: tuple[int, int], *, side: int) -> None:
        """Nothing is known of a picture alone."""

    def decode(
        self,
        first: Tensor,
        second: Tensor,
        first_grid: tuple[int, int],
        second_grid: tuple[int, int],
        economy: Economy = USUAL,
        prepared: Prepared = (None, None),
    ) -> Pointmaps:
        pairs = [
            (self._recognised(one, first_grid), self._recognised(two, second_grid))
            for one, two in zip(first, second, strict=True)
        ]
        self.asked += pairs
        said = [self._say(*pair) for pair in pairs]
        batches = [[torch.from_numpy(np.stack([sides[side][kind] for sides in said])).float() for side in (0, 1)]
                   for kind in (0, 1)]  # fmt: skip
        return Pointmaps(points=batches[0], confidence=batches[1])

    def _recognised(self, tokens: Tensor, grid: tuple[int, int]) -> int:
        images = F.pixel_shuffle(tokens.mT.unflatten(1, grid), self.config.patch_size)
        picture = (images.permute(1, 2, 0).numpy() * 0.5 + 0.5) * 255
        differences = {
            index: np.abs(view.pixels - picture).mean()
            for index, view in enumerate(self.views)
            if view.pixels.shape == picture.shape
        }
        best = min(differences, key=lambda index: differences[index])
        assert differences[best] < 3, "a photo that is not known"  # other resizing changes pixels a little
        return best

    def _say(self, first: int, second: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """(points, confidence) of both; nonsense of low confidence where the rooms differ."""
        rng = np.random.default_rng([first, second])
        scale = np.exp(rng.uniform(-1, 1))
        into = self.photos[first].camera.camera_from_world
        sides = []
        for index in (first, second):
            xyz = transform_points(into, self._world_points(index)) * scale
            xyz = xyz * (1 + self.noise * rng.normal(size=(*xyz.shape[:2], 1)))
            linked = self.photos[index].room == self.photos[first].room
            sides.append(
                (xyz if linked else rng.normal(size=xyz.shape), np.full(xyz.shape[:2], SURE if linked else UNSURE))
            )
        return sides[0], sides[1]

    def _world_points(self, index: int) -> np.ndarray:
        view = self.views[index]
        return self.photos[index].points_at(transform_pixels(view.original_from_network, pixel_grid(*view.size)))


def exact_model(known: Sequence[Photo], *, image_size: int = 64, fit: Fit = "crop", noise: float = 0.0) -> Model:
    """A model that knows these photos as it will be shown them."""
    views = load_views(
        [photo.pixels for photo in known],
        size=image_size,
        fit=fit,
        patch_size=SMALLEST_PAIRS.patch_size,
        square_ok=PAIRS_INFO.square_ok,
    )
    info = replace(PAIRS_INFO, image_size=image_size, least_link=LEAST_LINK)
    return Model(ExactNetwork(known, list(views), noise).eval(), info, torch.device("cpu"), torch.float32)


def network_of(model: Model) -> ExactNetwork:
    """The network of `exact_model`."""
    assert isinstance(model.network, ExactNetwork)
    return model.network


def _place(number: int) -> np.ndarray:
    generator = np.random.default_rng(number)
    yaw, pitch = generator.uniform(-0.3, 0.3), generator.uniform(-0.15, 0.15)
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    tilt = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    world_from_camera = np.eye(4)
    world_from_camera[:3, :3] = turn @ tilt
    world_from_camera[:3, 3] = generator.uniform(-1, 1, 3)
    return world_from_camera


def _depth(camera: Camera, pixels: np.ndarray) -> np.ndarray:
    rays = np.concatenate([pixels, np.ones_like(pixels[..., :1])], axis=-1) @ np.linalg.inv(camera.K).T
    directions = rays @ camera.world_from_camera[:3, :3].T
    with np.errstate(divide="ignore"):
        return ((np.sign(directions) * ROOM - camera.centre) / directions).min(axis=-1)


def _colours(points: np.ndarray, room: int) -> np.ndarray:
    """Smooth colours with a chequer on them, by place on the wall: the same from every view of a room."""
    chequer = np.floor(points * (1 + 0.3 * room) + 0.25).sum(-1, keepdims=True) % 2
    shade = 40 + 60 * chequer + 140 * (points / ROOM + 1) / 2
    return np.clip(np.roll(shade, room, axis=-1) / (1 + 0.5 * room), 0, 255).astype(np.uint8)


# ------------------------------------------------------------------ what is promised of a result
def cameras_in_first(known: Sequence[Photo]) -> np.ndarray:
    """(N, 4, 4): the true cameras in the frame of the first."""
    return known[0].camera.camera_from_world @ np.stack([photo.camera.world_from_camera for photo in known])


def true_depth(photo: Photo, view: SceneView) -> np.ndarray:
    """(H, W) at the pixels that the network saw."""
    return photo.depth_at(transform_pixels(view.original_from_network, pixel_grid(*view.size)))


def scale_of(scene: Scene, known: Sequence[Photo]) -> float:
    """Scene units to one true unit, from depth."""
    ratios = [(v.depth / true_depth(p, v))[v.valid] for v, p in zip(scene.views, known, strict=True)]
    return float(np.median(np.concatenate(ratios)))


def expect_true(
    scene: Scene, known: Sequence[Photo], *, given: bool = False, scale: float | None = None, tolerance: float = 2e-3
) -> None:
    """All cameras, depth maps and points are the true ones.

    Args:
        given: in the true world, and not in the first camera's frame.
        scale: scene units to one true unit; None takes it from depth.
        tolerance: of angles, and of lengths and focal lengths relatively.
    """
    assert [view.status for view in scene.views] == ["used"] * len(known)
    scale = scale_of(scene, known) if scale is None else scale
    cameras = np.stack([photo.camera.world_from_camera for photo in known]) if given else cameras_in_first(known)
    np.testing.assert_allclose(scene.world_from_camera[:, :3, :3], cameras[:, :3, :3], atol=tolerance)
    np.testing.assert_allclose(scene.world_from_camera[:, :3, 3], scale * cameras[:, :3, 3], atol=4 * scale * tolerance)
    for view, photo in zip(scene.views, known, strict=True):
        assert view.camera is not None
        np.testing.assert_allclose(view.camera.K, photo.camera.K, rtol=tolerance, atol=1e-9)
        assert (view.camera.height, view.camera.width) == view.original_size == photo.pixels.shape[:2]
        error = view.depth / (scale * true_depth(photo, view)) - 1
        assert np.quantile(np.abs(error[view.valid]), 0.99) < 5 * tolerance
        expect_points_are_unprojected_depth(view, view.camera)


def expect_points_are_unprojected_depth(view: SceneView, camera: Camera) -> None:
    """Through the camera of the result, whose intrinsics are of original pixels."""
    pixels = transform_pixels(view.original_from_network, pixel_grid(*view.size))
    points = camera.unproject(pixels, view.depth.astype(np.float64))
    np.testing.assert_allclose(view.points[view.valid], points[view.valid], rtol=1e-4, atol=1e-4)
