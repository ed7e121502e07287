"""Lenses: how cameras with distortion see, by COLMAP's camera models, and the pinhole camera that replaces one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from manyview.errors import InputError
from manyview.formats.describe import HALF_PIXEL
from manyview.geometry.cameras import Camera, transform_pixels

if TYPE_CHECKING:
    import pycolmap

PINHOLES = ("SIMPLE_PINHOLE", "PINHOLE")
_NEARLY_PINHOLES = ("SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV")  # are pinholes where their coefficients are 0
# A flat picture cannot hold more: a ray of this x / z or y / z is 63 degrees off the axis.
STEEPEST = 2.0
_BORDER_STEPS = 200  # rays along each side of the picture
_ROUND_TRIP = 0.05  # pixels that a ray and its way back may differ by
_SAME_RAY = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class Lens:
    """A camera with distortion.

    Attributes:
        model: COLMAP's name of the camera model ("OPENCV", "SIMPLE_RADIAL_FISHEYE", ...).
        params: in COLMAP's order and pixels (the centre of the top-left pixel is (0.5, 0.5)), for the stored picture.
        stored_size: (height, width) of the stored picture.
        original_from_stored: (3, 3) affine, a turn by quarters, from stored pixels to those of the upright original;
            both with integers at pixel centres.
    """

    model: str
    params: tuple[float, ...]
    stored_size: tuple[int, int]
    original_from_stored: np.ndarray

    def project(self, rays: np.ndarray) -> np.ndarray:
        """Points (P, 3) in the frame of the upright camera -> (P, 2) pixels of the upright original; nan if behind."""
        stored = self._camera().img_from_cam(np.ascontiguousarray(rays @ self._turn, dtype=np.float64))
        return transform_pixels(self.original_from_stored, np.asarray(stored, dtype=np.float64) - HALF_PIXEL)

    def unproject(self, pixels: np.ndarray) -> np.ndarray:
        """(P, 2) pixels of the upright original -> (P, 3) unit rays in the upright camera's frame; nan if none."""
        stored = transform_pixels(np.linalg.inv(self.original_from_stored), pixels) + HALF_PIXEL
        rays = self._camera().cam_ray_from_img(np.ascontiguousarray(stored, dtype=np.float64))
        return np.asarray(rays, dtype=np.float64).reshape(-1, 3) @ self._turn.T

    @property
    def _turn(self) -> np.ndarray:
        """(3, 3) rotation from the frame of the stored picture's camera to that of the upright one."""
        turn = np.eye(3)
        turn[:2, :2] = self.original_from_stored[:2, :2]
        return turn

    def _camera(self) -> pycolmap.Camera:
        import pycolmap

        height, width = self.stored_size
        return pycolmap.Camera(model=self.model, width=width, height=height, params=list(self.params))


def upright_camera(
    camera: pycolmap.Camera,
    world_from_camera: np.ndarray,
    stored_size: tuple[int, int],
    original_from_stored: np.ndarray,
) -> tuple[Camera, Lens | None]:
    """A camera of the stored picture as one of the upright original, and its lens if it has distortion.

    Args:
        camera: of any of COLMAP's models but spherical ones, for a picture of this shape but maybe another size.
        world_from_camera: (4, 4) rigid, OpenCV axes, of the stored picture's camera.
        stored_size: (height, width) of the photo.
        original_from_stored: as in `Lens`.

    Raises:
        InputError: a spherical camera, which has no picture plane, or numbers that are no camera.
    """
    camera = _of_size(camera, stored_size)
    name = camera.model.name
    lens = Lens(
        model=name,
        params=tuple(float(number) for number in camera.params),
        stored_size=stored_size,
        original_from_stored=original_from_stored,
    )
    K = np.array(camera.calibration_matrix(), dtype=np.float64)
    K[:2, 2] -= HALF_PIXEL
    turn = np.eye(4)
    turn[:3, :3] = lens._turn
    is_sideways = original_from_stored[0, 0] == 0
    height, width = (stored_size[1], stored_size[0]) if is_sideways else stored_size
    upright = Camera(
        K=original_from_stored @ K @ lens._turn.T,
        world_from_camera=world_from_camera @ turn.T,
        width=width,
        height=height,
    )
    extra = [camera.params[index] for index in camera.extra_params_idxs()]
    straight = name in PINHOLES or (name in _NEARLY_PINHOLES and not any(extra))
    return upright, None if straight else lens


def pinhole_within(lens: Lens, camera: Camera) -> Camera:
    """The pinhole camera of the same size, place and principal point that sees only what the lens sees.

    Its focal lengths keep their ratio and are as short as they may be without pixels that the photo does not have.

    Raises:
        InputError: the lens model gives the rays of such a picture no place, or no unique one.
    """
    width, height = camera.width, camera.height
    left, top, right, bottom = _rectangle_of_rays(lens, width, height)
    (fx, fy), (cx, cy) = (camera.K[0, 0], camera.K[1, 1]), camera.K[:2, 2]
    if not (left < 0 < right and top < 0 < bottom) or not (-0.5 < cx < width - 0.5 and -0.5 < cy < height - 0.5):
        raise _cannot_undistort(lens)
    zoom = max(
        (cx + 0.5) / (-left * fx),
        (width - 0.5 - cx) / (right * fx),
        (cy + 0.5) / (-top * fy),
        (height - 0.5 - cy) / (bottom * fy),
    )
    K = np.array([[fx * zoom, 0, cx], [0, fy * zoom, cy], [0, 0, 1]])
    pinhole = Camera(K=K, world_from_camera=camera.world_from_camera, width=width, height=height)
    if not _is_within(pinhole, lens):
        raise _cannot_undistort(lens)
    return pinhole


def _cannot_undistort(lens: Lens) -> InputError:
    return InputError(
        f"a {lens.model} camera with parameters {list(lens.params)} cannot be undistorted: "
        "the rays of a flat picture have no place in the photo, or no unique one",
        hint="Check the numbers; coefficients that are too strong bend the border beyond any ray.",
    )


def _rectangle_of_rays(lens: Lens, width: int, height: int) -> tuple[float, float, float, float]:
    """Least and most x / z and y / z (left, top, right, bottom) of a rectangle of rays inside the photo's border."""
    top_left, top_right, bottom_right, bottom_left = _corners(width, height)
    left = _slopes(lens, top_left, bottom_left, 0, -1).max()
    top = _slopes(lens, top_left, top_right, 1, -1).max()
    right = _slopes(lens, top_right, bottom_right, 0, 1).min()
    bottom = _slopes(lens, bottom_left, bottom_right, 1, 1).min()
    return float(left), float(top), float(right), float(bottom)


def _slopes(lens: Lens, start: np.ndarray, end: np.ndarray, axis: int, side: int) -> np.ndarray:
    """x / z or y / z along one side of the picture, at most `STEEPEST`, also where no ray of the front half hits it."""
    pixels = np.linspace(start, end, _BORDER_STEPS)
    rays = lens.unproject(pixels)
    # Inverse models may answer where they have no answer: only rays that lead back are believed.
    found = (rays[:, 2] > 0) & (np.abs(lens.project(rays) - pixels).max(axis=-1) < _ROUND_TRIP)
    slope = np.where(found, rays[:, axis] / np.where(found, rays[:, 2], 1), side * STEEPEST)
    return np.clip(slope, -STEEPEST, STEEPEST)


def _is_within(pinhole: Camera, lens: Lens) -> bool:
    """Whether each ray of the pinhole picture's border falls into the photo, and no other ray to the same place."""
    corners = _corners(pinhole.width, pinhole.height)
    sides = [
        np.linspace(start, end, _BORDER_STEPS) for start, end in zip(corners, np.roll(corners, -1, 0), strict=True)
    ]
    border = np.concatenate(sides)
    rays = np.concatenate([border, np.ones_like(border[:, :1])], axis=-1) @ np.linalg.inv(pinhole.K).T
    pixels = lens.project(rays)
    back = lens.unproject(pixels)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    low, high = corners[0] - _ROUND_TRIP, corners[2] + _ROUND_TRIP
    return bool(((pixels >= low) & (pixels <= high)).all() and (np.abs(back - rays).max(axis=-1) < _SAME_RAY).all())


def _corners(width: int, height: int) -> np.ndarray:
    """(4, 2) pixels, clockwise from the top left."""
    right, bottom = width - 0.5, height - 0.5
    return np.array([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]])


def _of_size(camera: pycolmap.Camera, size: tuple[int, int]) -> pycolmap.Camera:
    import pycolmap

    if camera.is_spherical() or not camera.verify_params() or not np.isfinite(camera.params).all():
        raise InputError(
            f"got a {camera.model.name} camera with parameters {list(camera.params)}, which has no picture plane",
            hint="Cut panoramas into perspective pictures first.",
        )
    if (camera.height, camera.width) == size:
        return camera
    scaled = pycolmap.Camera(
        model=camera.model.name, width=camera.width, height=camera.height, params=list(camera.params)
    )
    scaled.rescale(size[1], size[0])
    return scaled
