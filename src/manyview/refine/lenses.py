"""Our intrinsics and COLMAP's cameras, which put pixel centres at half integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from manyview.errors import InputError
from manyview.formats.describe import HALF_PIXEL
from manyview.geometry import Camera, default_focal, intrinsics, picture_centre
from manyview.refine.options import GivenCameras, RefineOptions, checked_intrinsics
from manyview.refine.overlap import camera_in_group
from manyview.refine.photo_tags import PhotoTags, read_tags
from manyview.scene import SceneView
from manyview.scene_photos import photo_of

if TYPE_CHECKING:
    import pycolmap

USUAL_FOCAL = 1.2  # times the longer side
MIDDLE = 0.15  # of a picture's sides: how far from its middle a principal point is that belongs to it
FILM_DIAGONAL = 43.2666  # mm, of 36 x 24
SQUARE = 1e-6  # relative difference of focal lengths up to which pixels are square
_WITH_TWO_FOCALS = {"SIMPLE_PINHOLE": "PINHOLE", "SIMPLE_RADIAL": "OPENCV"}
_COEFFICIENTS = {"SIMPLE_PINHOLE": 0, "PINHOLE": 0, "SIMPLE_RADIAL": 1, "OPENCV": 4}


@dataclass(frozen=True, kw_only=True)
class Lenses:
    """The cameras that took N photos, before refinement.

    Attributes:
        number_of: the camera of each view, from 1.
        K: the intrinsics of each camera, original pixels.
        sizes: (height, width) of each camera's photos.
        fixed: numbers of those that may not change.
        model: COLMAP's name for each.
    """

    number_of: tuple[int, ...]
    K: Mapping[int, np.ndarray]
    sizes: Mapping[int, tuple[int, int]]
    fixed: frozenset[int]
    model: Mapping[int, str]

    def camera_at(self, number: int, world_from_camera: np.ndarray) -> Camera:
        """A camera with these intrinsics at a place."""
        height, width = self.sizes[number]
        return Camera(K=self.K[number], world_from_camera=world_from_camera, width=width, height=height)

    def colmap_camera(self, number: int, K: np.ndarray | None = None) -> pycolmap.Camera:
        """A camera without distortion, of these or of other intrinsics."""
        import pycolmap

        height, width = self.sizes[number]
        camera = pycolmap.Camera(
            camera_id=number,
            model=self.model[number],
            width=width,
            height=height,
            params=_parameters(self.model[number], self.K[number] if K is None else K),
        )
        camera.has_prior_focal_length = number in self.fixed
        return camera

    def with_usual_focal(self, number: int) -> pycolmap.Camera:
        """The camera with the focal length that COLMAP starts from where it knows nothing."""
        height, width = self.sizes[number]
        return self.colmap_camera(number, intrinsics(USUAL_FOCAL * max(height, width), tuple(self.K[number][:2, 2])))


def find_lenses(
    views: Sequence[SceneView], given: GivenCameras, options: RefineOptions, *, are_known: bool = False
) -> Lenses:
    """Which views share a camera, and what is known of it: given intrinsics, else the median of the network's.

    Shared intrinsics are those of all photos of one size with the same given K, or without one. Where a view's own
    intrinsics are not a guess, only views with equal ones share them. Of what is a guess, photos whose EXIF block names
    another camera or focal length do not share it, and it starts from that focal length.

    Args:
        views: with the cameras that are known so far.
        given: its intrinsics.
        options: of the refinement. Intrinsics that it may not change are kept view by view.
        are_known: the views' own intrinsics are no network's guess.
    """
    keeps = are_known or not options.refine_intrinsics
    tags = [PhotoTags() if keeps or given.K_of(index) is not None else _tags(view) for index, view in enumerate(views)]
    keys = [
        (*_key(index, view, given, options, keeps_own=keeps), _lens_of(tags[index])) for index, view in enumerate(views)
    ]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys), start=1)}
    number_of = tuple(numbers[key] for key in keys)
    members = {number: [i for i, other in enumerate(number_of) if other == number] for number in numbers.values()}
    K = {
        number: _with_focal_of(tags[own[0]], _K_of(views, own, given), views[own[0]].original_size)
        for number, own in members.items()
    }
    known = {number for number, own in members.items() if given.K_of(own[0]) is not None}
    return Lenses(
        number_of=number_of,
        K=K,
        sizes={
            number: (int(views[own[0]].original_size[0]), int(views[own[0]].original_size[1]))
            for number, own in members.items()
        },
        fixed=frozenset(members if not options.refine_intrinsics else known),
        model={number: _model_for(matrix, options.camera_model) for number, matrix in K.items()},
    )


def intrinsics_of_photos(
    views: Sequence[SceneView],
    K: np.ndarray | Sequence[Sequence[float]],
    *,
    size: tuple[int, int] | None = None,
) -> list[np.ndarray]:
    """Known intrinsics of one camera, in the pixels of each of its photos.

    They are scaled for photos of the same shape at another size. Where a photo was turned by a quarter, the focal
    lengths change places; as nobody says to which side, its principal point is then the picture's middle.

    Args:
        views: N photos of the camera.
        K: (3, 3), original pixels of photos of one size, with integers at pixel centres.
        size: (height, width) of the photos to whose pixels K belongs. By default that of the views in whose middle its
            principal point is, the nearest if there are some.

    Returns:
        N matrices (3, 3).

    Raises:
        InputError: K is no intrinsic matrix, is in the middle of no view, or a view has another shape.
    """
    known = checked_intrinsics(np.asarray(K))
    own = _size_of(known, views) if size is None else (int(size[0]), int(size[1]))
    return [_carried(known, own, view) for view in views]


def K_of_colmap(camera: pycolmap.Camera) -> np.ndarray:
    """(3, 3) with integers at pixel centres; distortion is left out."""
    K = np.asarray(camera.calibration_matrix(), dtype=np.float64).copy()
    K[:2, 2] -= HALF_PIXEL
    return K


def distortion_of(camera: pycolmap.Camera) -> np.ndarray:
    """The coefficients after the intrinsics: () for pinholes, (k,) for SIMPLE_RADIAL, (k1, k2, p1, p2) for OPENCV."""
    count = _COEFFICIENTS[camera.model_name]
    return np.asarray(camera.params, dtype=np.float64)[len(camera.params) - count :].copy()


def straightened(camera: pycolmap.Camera | None, pixels: np.ndarray) -> np.ndarray:
    """(M, 2) original pixels -> where a pinhole with the same intrinsics would show the same; nan if nowhere.

    Without a camera they stay.
    """
    if camera is None or not distortion_of(camera).any():
        return pixels
    rays = np.asarray(camera.cam_from_img(np.ascontiguousarray(pixels + HALF_PIXEL)), dtype=np.float64).reshape(-1, 2)
    K = K_of_colmap(camera)
    return rays @ K[:2, :2].T + K[:2, 2]


def _key(index: int, view: SceneView, given: GivenCameras, options: RefineOptions, *, keeps_own: bool) -> tuple:
    if options.intrinsics == "per_view":
        return (index,)
    K, camera = given.K_of(index), camera_in_group(view)
    if K is None and camera is not None and keeps_own:
        K = camera.K
    return (*view.original_size, None if K is None else np.asarray(K, dtype=np.float64).tobytes())


def _tags(view: SceneView) -> PhotoTags:
    path = photo_of(view)
    return PhotoTags() if path is None else read_tags(path)


def _lens_of(tags: PhotoTags) -> tuple:
    return tags.camera, tags.focal_mm, tags.focal_35mm


def _with_focal_of(tags: PhotoTags, K: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """K (3, 3) with the focal length of the EXIF block, if that says it in terms of the picture's (height, width)."""
    if tags.focal_35mm is None:
        return K
    changed = K.copy()
    changed[:2, :2] *= tags.focal_35mm / FILM_DIAGONAL * float(np.hypot(*size)) / float(np.mean([K[0, 0], K[1, 1]]))
    return changed


def _K_of(views: Sequence[SceneView], members: Sequence[int], given: GivenCameras) -> np.ndarray:
    known = given.K_of(members[0])
    if known is not None:
        return known
    size = tuple(views[members[0]].original_size)
    alike = [view for view in views if tuple(view.original_size) == size]
    cameras = _cameras([views[member] for member in members]) or _cameras(alike)
    if not cameras:
        height, width = size
        return intrinsics(default_focal(height, width), picture_centre(height, width))
    return np.median([camera.K for camera in cameras], axis=0)


def _cameras(views: Sequence[SceneView]) -> list[Camera]:
    return [camera for camera in map(camera_in_group, views) if camera is not None]


def _model_for(K: np.ndarray, model: str) -> str:
    """The model asked for, or its sister with two focal lengths where pixels are not square."""
    is_square = abs(K[0, 0] / K[1, 1] - 1) < SQUARE
    return model if is_square else _WITH_TWO_FOCALS.get(model, model)


def _parameters(model: str, K: np.ndarray) -> list[float]:
    focals = [K[0, 0], K[1, 1]] if model in ("PINHOLE", "OPENCV") else [(K[0, 0] + K[1, 1]) / 2]
    return [*focals, K[0, 2] + HALF_PIXEL, K[1, 2] + HALF_PIXEL, *[0.0] * _COEFFICIENTS[model]]


# ------------------------------------------------------------------ one K for photos of several sizes
def _size_of(K: np.ndarray, views: Sequence[SceneView]) -> tuple[int, int]:
    """The size among those of the views in whose middle the principal point of K is."""
    sizes = list(dict.fromkeys((int(view.original_size[0]), int(view.original_size[1])) for view in views))
    off = {size: float(np.abs((K[:2, 2] + HALF_PIXEL) / size[::-1] - 0.5).max()) for size in sizes}
    near = [size for size in sizes if off[size] <= MIDDLE]
    if not near:
        view = views[0]
        raise InputError(
            f"the given intrinsics do not fit {view.name} of {_named(view.original_size)} pixels: their principal "
            f"point ({K[0, 2]:g}, {K[1, 2]:g}) is far from its middle",
            hint="Give intrinsics in pixels of the upright photos: FX,FY,CX,CY of their full size.",
        )
    return min(near, key=lambda size: off[size])


def _carried(K: np.ndarray, size: tuple[int, int], view: SceneView) -> np.ndarray:
    """K of photos of one size (height, width) in the pixels of a view."""
    wanted = (int(view.original_size[0]), int(view.original_size[1]))
    if wanted == size:
        return K.copy()
    if _same_shape(size, wanted):
        scaled = np.diag([wanted[1] / size[1], wanted[0] / size[0], 1.0]) @ K
        scaled[:2, 2] += HALF_PIXEL * (np.diag(scaled)[:2] / np.diag(K)[:2] - 1)
        return scaled
    if _same_shape((size[1], size[0]), wanted):
        focals = K[1, 1] * wanted[1] / size[0], K[0, 0] * wanted[0] / size[1]
        turned = intrinsics(1.0, picture_centre(*wanted))
        turned[[0, 1], [0, 1]] = focals
        return turned
    raise InputError(
        f"the given intrinsics are those of photos of {_named(size)} pixels, and {view.name} has {_named(wanted)}, "
        "which is another shape",
        hint="Give intrinsics only for photos of one camera that are not cropped.",
    )


def _same_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes differ by one factor, but for a pixel by rounding."""
    factor = max(other) / max(size)
    return all(abs(a * factor - b) <= max(1.0, factor) for a, b in zip(size, other, strict=True))


def _named(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"
