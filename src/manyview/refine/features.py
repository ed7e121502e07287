"""Features of the photos at their original size, found by COLMAP's SIFT."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from manyview.geometry import transform_pixels
from manyview.refine.full_size import Photo, open_one_by_one, open_photo
from manyview.refine.options import RefineOptions
from manyview.scene import SceneView


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

    A view without a photo of its own (an array, a file or a frame of a video that is no more) has those of the picture
    that the network saw.
    """
    found: dict[int, Features] = {}
    waiting: deque[tuple[int, Future[Features]]] = deque()
    most = 2 * options.thread_count  # frames of videos are held while they wait
    with (
        closing(open_one_by_one(views, options.max_image_size)) as opened,
        ThreadPoolExecutor(options.thread_count) as pool,
    ):
        for index, photo in opened:
            if len(waiting) == most:
                first, future = waiting.popleft()
                found[first] = future.result()
            waiting.append((index, pool.submit(_features_in, photo, views[index], options)))
        found |= {index: future.result() for index, future in waiting}
    return [found[index] for index in range(len(views))]


def features_of(view: SceneView, options: RefineOptions) -> Features:
    """Features of one view."""
    return _features_in(partial(open_photo, view, options.max_image_size), view, options)


def notes_on_pictures(views: Sequence[SceneView], features: Sequence[Features]) -> list[str]:
    """A sentence for each reason why views were not matched in their photos: how many, at which size and why."""
    noted: dict[str, list[tuple[str, str]]] = {}
    for view, found in zip(views, features, strict=True):
        if found.note:
            (height, width), factor = view.original_size, found.resolution
            sizes = f"{round(width / factor)} x {round(height / factor)} instead of {width} x {height} pixels"
            note = found.note.replace(view.source or "\0", "its file")
            noted.setdefault(note, []).append((view.name, sizes))
    told = []
    for note, own in noted.items():
        names = ", ".join([name for name, _ in own[:5]] + ["..."] * (len(own) > 5))
        sizes = ", ".join(dict.fromkeys(sizes for _, sizes in own))
        told.append(f"{len(own)} of {len(views)} photos ({names}) {note}: {sizes}, which is less exact")
    return told


def _features_in(opened: Callable[[], Photo], view: SceneView, options: RefineOptions) -> Features:
    import pycolmap

    photo = opened()
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
