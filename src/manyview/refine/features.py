"""Features of the photos at their original size, found by COLMAP's SIFT."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from manyview.geometry import transform_pixels
from manyview.images.decode import DecodeError, DecodeLimits, decode_photo, pillow_pixel_limit
from manyview.refine.options import RefineOptions
from manyview.scene import SceneView


@dataclass(frozen=True, kw_only=True, eq=False)
class Photo:
    """The upright picture of a view in which features are looked for.

    Attributes:
        pixels: (h, w, 3) uint8 RGB.
        original_from_photo: (3, 3) affine to pixels of the upright original; both have integers at pixel centres.
        note: why this is not the photo itself; empty if it is.
    """

    pixels: np.ndarray
    original_from_photo: np.ndarray
    note: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """K features of one view.

    Attributes:
        pixels: (K, 2) float64, pixels of the upright original with integers at pixel centres.
        scales, angles: (K,) float32: size in original pixels, and direction in radians.
        descriptors: (K, 128) uint8.
        colours: (K, 3) uint8 RGB.
        resolution: original pixels to one pixel of the picture in which they were found.
        note: as in `Photo`.
    """

    pixels: np.ndarray
    scales: np.ndarray
    angles: np.ndarray
    descriptors: np.ndarray
    colours: np.ndarray
    resolution: float = 1.0
    note: str = ""

    def __len__(self) -> int:
        return len(self.pixels)


def extract_features(views: Sequence[SceneView], options: RefineOptions) -> list[Features]:
    """Features of every view, some photos at a time.

    A view without a photo of its own (an array, a frame of a video, a file that is no more) has those of the picture
    that the network saw.
    """
    with ThreadPoolExecutor(options.thread_count) as pool:
        return list(pool.map(lambda view: features_of(view, options), views))


def features_of(view: SceneView, options: RefineOptions) -> Features:
    """Features of one view."""
    import pycolmap

    photo = open_photo(view, options.max_image_size)
    is_small = max(photo.pixels.shape[:2]) < options.upsample_below
    settings = pycolmap.FeatureExtractionOptions()
    settings.use_gpu, settings.num_threads = False, 1
    settings.sift.max_num_features = options.max_features
    settings.sift.first_octave = -1 if is_small else 0
    extractor = pycolmap.FeatureExtractor.create(settings, pycolmap.Device.cpu)
    grey = np.asarray(Image.fromarray(photo.pixels).convert("L"))
    keypoints, descriptors = extractor.extract_from_uint8_array(grey)
    found = np.asarray(pycolmap.keypoints_to_matrix(keypoints), dtype=np.float64).reshape(-1, 4)
    vectors = np.asarray(descriptors.data, dtype=np.uint8).reshape(-1, 128)
    return _in_original(photo, found, vectors, view)


def open_photo(view: SceneView, max_size: int) -> Photo:
    """The photo of a view, at most `max_size` pixels long, or what the network saw of it and why."""
    if view.source is None or view.timestamp is not None:
        return _network_picture(view, "not from a photo")
    limits = DecodeLimits(max_pixels=pillow_pixel_limit(), spare_resolution=lambda size: max(size) / max_size)
    try:
        decoded = decode_photo(Path(view.source), limits)
    except DecodeError as error:
        return _network_picture(view, f"{view.source} cannot be read ({error.args[0]})")
    if decoded.original_size != tuple(view.original_size):
        return _network_picture(view, f"{view.source} has changed its size since")
    image, (height, width) = decoded.image, view.original_size
    factor = max_size / max(image.size)
    if factor < 1:
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    scale_x, scale_y = width / image.width, height / image.height
    affine = np.array([[scale_x, 0, (scale_x - 1) / 2], [0, scale_y, (scale_y - 1) / 2], [0, 0, 1]])
    return Photo(pixels=np.asarray(image), original_from_photo=affine)


def _network_picture(view: SceneView, reason: str) -> Photo:
    note = f"matched in the network's picture, since {reason}"
    return Photo(pixels=view.image, original_from_photo=view.original_from_network, note=note)


def _in_original(photo: Photo, found: np.ndarray, vectors: np.ndarray, view: SceneView) -> Features:
    """Carry keypoints (x, y, scale, angle; the top-left pixel's centre at (0.5, 0.5)) to the original's pixels."""
    in_photo = found[:, :2] - 0.5
    pixels = transform_pixels(photo.original_from_photo, in_photo)
    height, width = view.original_size
    # The network's picture may be padded: what was found there is no part of the photo.
    inside = (pixels >= -0.5).all(axis=1) & (pixels < np.array([width, height]) - 0.5).all(axis=1)
    linear = photo.original_from_photo[:2, :2]
    resolution = float(np.sqrt(abs(np.linalg.det(linear))))
    row = np.clip(np.rint(in_photo[:, 1]), 0, photo.pixels.shape[0] - 1).astype(int)
    column = np.clip(np.rint(in_photo[:, 0]), 0, photo.pixels.shape[1] - 1).astype(int)
    directions = np.stack([np.cos(found[:, 3]), np.sin(found[:, 3])], axis=-1) @ linear.T
    return Features(
        pixels=pixels[inside],
        scales=(found[:, 2] * resolution)[inside].astype(np.float32),
        angles=np.arctan2(directions[:, 1], directions[:, 0])[inside].astype(np.float32),
        descriptors=vectors[inside],
        colours=photo.pixels[row, column][inside],
        resolution=resolution,
        note=photo.note,
    )
