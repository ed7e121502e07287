"""`PosedPhotos`: photos whose cameras are known from elsewhere, and what a network needs so that it can add depth.

posed = read_colmap("project/")                  # or read_transforms("project/transforms.json")
posed = undistort_photos(posed, "work/")         # photos of lenses with distortion are drawn anew
scene = manyview.reconstruct(posed.paths, model="manyview-small-pairs", strict=True,
                             intrinsics=posed.K, world_from_camera=posed.world_from_camera)
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from manyview.errors import InputError
from manyview.formats.colmap import Observations
from manyview.formats.lens import Lens, upright_camera
from manyview.geometry.cameras import Camera
from manyview.images.decode import DecodeLimits, decode_photo, pillow_pixel_limit
from manyview.images.load import Progress, load_views
from manyview.images.sniff import sniff
from manyview.images.views import View
from manyview.scene import Provenance, Scene, SceneView

if TYPE_CHECKING:
    import pycolmap

_ORIENTATION_TAG = 0x0112
_MIRRORED = (2, 4, 5, 7)


@dataclass(frozen=True, kw_only=True, eq=False)
class PosedPoints:
    """P points that a file has beside its cameras.

    Attributes:
        points: (P, 3) float64, world frame.
        colours: (P, 3) uint8 RGB.
        observations: for each photo, which points it sees at which pixels of its upright original (also where the
            lens has distortion: the pixels of the photo as it is); None where the file does not say.
    """

    points: np.ndarray
    colours: np.ndarray
    observations: tuple[Observations, ...] | None = None

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True, kw_only=True, eq=False)
class PosedPhotos:
    """N photos with known cameras, in one world (OpenCV axes of the cameras; the world's own axes are the file's).

    Attributes:
        names: as the file calls them.
        paths: of the photos; each exists and can be read.
        cameras: in pixels of the upright originals, integers at pixel centres; without the distortion of `lenses`.
        lenses: None where a photo's camera is a pinhole camera; see `undistort_photos`.
        points: the sparse points, if the file has any.
        metric: whether lengths are metres.
        source: the file or folder that this was read from.
        skipped: names and reasons of what could not be used.
    """

    names: tuple[str, ...]
    paths: tuple[Path, ...]
    cameras: tuple[Camera, ...]
    lenses: tuple[Lens | None, ...]
    points: PosedPoints | None = None
    metric: bool = False
    source: str = ""
    skipped: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def K(self) -> np.ndarray:
        """(N, 3, 3) float64, pixels of the upright originals."""
        return np.array([camera.K for camera in self.cameras]).reshape(-1, 3, 3)

    @property
    def world_from_camera(self) -> list[np.ndarray]:
        """N rigid (4, 4) float64."""
        return [camera.world_from_camera for camera in self.cameras]

    @property
    def is_distorted(self) -> bool:
        """Whether a photo has to be drawn anew before its camera is a pinhole camera."""
        return any(lens is not None for lens in self.lenses)


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedPhoto:
    """A photo and its camera, as they are found in a file.

    Attributes:
        name, path, camera, lens: as in `PosedPhotos`.
        original_from_given: (3, 3) affine from pixels of the camera in the file, but with integers at pixel centres, to
            pixels of the upright original.
    """

    name: str
    path: Path
    camera: Camera
    lens: Lens | None
    original_from_given: np.ndarray


def place_photo(name: str, path: Path, camera: pycolmap.Camera, world_from_camera: np.ndarray) -> PlacedPhoto:
    """A camera that a file gives for a photo, in pixels of the upright original.

    Programs that look at pixels as they are stored give cameras that lie on their side where the photo has an
    orientation flag. Cameras for a smaller or larger version of the photo are scaled.

    Args:
        name: as the file calls it.
        path: of the photo.
        camera: of any model.
        world_from_camera: (4, 4) rigid, OpenCV axes.

    Raises:
        InputError: the photo is missing or cannot be read, has another shape than the camera, or is stored mirrored.
    """
    stored, orientation = _checked_photo(path)
    given = (camera.height, camera.width)
    upright = (stored[1], stored[0]) if orientation in (5, 6, 7, 8) else stored
    if not _same_shape(given, stored):
        if not _same_shape(given, upright):
            raise InputError(
                f"the photo has {stored[1]} x {stored[0]} pixels and its camera {given[1]} x {given[0]}",
                hint="Give the photos that the cameras were found with.",
            )
        stored, orientation = upright, 1  # these cameras are of the upright photo
    if orientation in _MIRRORED:
        raise InputError(
            "the photo is stored mirrored, and its camera is that of the mirrored picture",
            hint="Save it without an orientation flag first.",
        )
    original_from_stored = _original_from_stored(orientation, stored)
    placed, lens = upright_camera(camera, world_from_camera, stored, original_from_stored)
    return PlacedPhoto(
        name=name,
        path=path.absolute(),
        camera=placed,
        lens=lens,
        original_from_given=original_from_stored @ _resized(given, stored),
    )


def posed_photos(
    photos: Sequence[PlacedPhoto],
    points: PosedPoints | None,
    *,
    metric: bool,
    source: str,
    skipped: Sequence[tuple[str, str]],
) -> PosedPhotos:
    """Photos that were placed one by one, together."""
    return PosedPhotos(
        names=tuple(photo.name for photo in photos),
        paths=tuple(photo.path for photo in photos),
        cameras=tuple(photo.camera for photo in photos),
        lenses=tuple(photo.lens for photo in photos),
        points=points,
        metric=metric,
        source=source,
        skipped=tuple(skipped),
    )


def scene_without_depth(posed: PosedPhotos, *, size: int = 512, progress: Progress | None = None) -> Scene:
    """The photos and cameras as a `Scene` in which no pixel has depth; its world is that of the given cameras.

    Args:
        posed: of pinhole cameras.
        size: pixels of the long side of the pictures that the scene keeps; nothing is cut off.
        progress: called after each picture.

    Raises:
        InputError: a lens has distortion, or a photo cannot be read.
    """
    if posed.is_distorted:
        count = sum(lens is not None for lens in posed.lenses)
        raise InputError(
            f"{count} of {len(posed)} cameras have lens distortion, and those of a scene are pinhole cameras",
            hint="Use undistort_photos first.",
        )
    views = load_views(list(posed.paths), size=size, fit="pad", strict=True, progress=progress)
    return Scene(
        views=tuple(_view(view, camera) for view, camera in zip(views, posed.cameras, strict=True)),
        provenance=Provenance(
            model="none: given cameras", weights_sha256="", weights_licence="none", settings={"cameras": posed.source}
        ),
        skipped=posed.skipped,
        warnings=views.warnings,
        metric=posed.metric,
        world="given",
    )


# ------------------------------------------------------------------ stored and upright
def _checked_photo(path: Path) -> tuple[tuple[int, int], int]:
    """(height, width) of the stored pixels, and the orientation flag that is still to be applied to them.

    The pixels are decoded, too, so that one damaged photo is left out before a whole set is worked on.
    """
    if not path.is_file():
        raise InputError("no such file", hint=f"Expected {path}.")
    content = sniff(path)
    if content.kind != "image":
        raise InputError(f"not a photo: {content.detail or content.kind}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                found = (image.height, image.width), image.getexif().get(_ORIENTATION_TAG, 1)
                image.draft(None, (1, 1))  # all of a JPEG is read, but only a small picture made of it
                image.load()
                return found
    except UnidentifiedImageError:  # HEIF, whose decoder turns pictures itself
        return decode_photo(path, decode_limits()).original_size, 1
    except Exception as error:  # decoders raise almost anything on damaged bytes
        raise InputError(f"cannot be read: {str(error).strip() or type(error).__name__}") from error


def decode_limits() -> DecodeLimits:
    """Photos at their full size."""
    return DecodeLimits(max_pixels=pillow_pixel_limit(), spare_resolution=lambda size: 1.0)


def _same_shape(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether one is the other resized: the sides have the same ratio, but for rounding to whole pixels."""
    (small_height, small_width), (height, width) = sorted((a, b))
    scale = max(small_height / height, small_width / width)
    return abs(small_height - scale * height) <= 1 and abs(small_width - scale * width) <= 1


def _resized(given: tuple[int, int], stored: tuple[int, int]) -> np.ndarray:
    """(3, 3) affine from a picture to the same at another size; both have integers at pixel centres."""
    scale_y, scale_x = stored[0] / given[0], stored[1] / given[1]
    return np.array([[scale_x, 0, (scale_x - 1) / 2], [0, scale_y, (scale_y - 1) / 2], [0, 0, 1]])


def _original_from_stored(orientation: int, stored_size: tuple[int, int]) -> np.ndarray:
    """(3, 3) affine; both have integers at pixel centres."""
    height, width = stored_size
    turns = {
        3: [[-1, 0, width - 1], [0, -1, height - 1], [0, 0, 1]],
        6: [[0, -1, height - 1], [1, 0, 0], [0, 0, 1]],
        8: [[0, 1, 0], [-1, 0, width - 1], [0, 0, 1]],
    }
    return np.array(turns.get(orientation, np.eye(3)), dtype=np.float64)


# ------------------------------------------------------------------ a scene
def _view(view: View, camera: Camera) -> SceneView:
    height, width = view.size
    return SceneView.masked(
        depth=np.zeros((height, width)),
        points=np.zeros((height, width, 3)),
        confidence=np.ones((height, width)),
        valid=np.zeros((height, width), dtype=bool),
        name=view.name,
        source=view.source,
        original_size=view.original_size,
        original_from_network=view.original_from_network,
        image=view.pixels,
        camera=camera,
        upright_in_file=view.upright_in_file,
    )
