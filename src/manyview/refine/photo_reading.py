"""Photos or video frames, measured one after the other: only small numbers and thumbnails are kept."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from manyview.errors import InputError, NoValidImagesError
from manyview.images import Inputs, Progress, Skipped
from manyview.images.colour import image_from_array
from manyview.images.decode import DecodeLimits, decode_image, decode_photo, picture_digest, pillow_pixel_limit
from manyview.images.sources import Source, find_sources
from manyview.images.video import VideoSampler
from manyview.refine.photo_measures import (
    MEASURED_SIZE,
    Exposure,
    Sharpness,
    exposure,
    fingerprint,
    reduced,
    sharpness,
)
from manyview.refine.photo_tags import PhotoTags, read_tags
from manyview.scene import SceneView
from manyview.scene_photos import photo_of

THUMBNAIL_SIZE = 200  # pixels of the long side
_THREADS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredPhoto:
    """One photo by itself.

    Attributes:
        name, source, upright_in_file, digest, changes: as in `images.View`.
        size: (height, width) of the upright original.
        sharpness, exposure: measured at no more than 1024 pixels.
        tags: from its EXIF block.
        fingerprint: (255,) bool, see `photo_measures.fingerprint`.
        thumbnail: (H, W, 3) uint8 RGB, at most 200 pixels.
    """

    name: str
    source: str | None
    size: tuple[int, int]
    upright_in_file: bool
    digest: str
    changes: tuple[str, ...]
    sharpness: Sharpness
    exposure: Exposure
    tags: PhotoTags
    fingerprint: np.ndarray
    thumbnail: np.ndarray


@dataclass(frozen=True, kw_only=True)
class MeasuredPhotos:
    """All photos that could be read, in order, what could not be read and why, and warnings."""

    photos: tuple[MeasuredPhoto, ...]
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[str, ...] = ()


def measure_photos(
    inputs: Inputs,
    *,
    fps: float | None = None,
    max_frames: int | None = None,
    max_pixels: int | None = None,
    progress: Progress | None = None,
) -> MeasuredPhotos:
    """Read and measure photos, or frames of a video.

    Args:
        inputs, fps, max_frames, max_pixels, progress: as in `images.load_views`; names are the same as there.

    Raises:
        InputError: a path does not exist, or an array cannot be a picture.
        NoValidImagesError: no picture could be read.
    """
    sources = find_sources(inputs)
    if sources.video is not None:
        sampler = VideoSampler(sources.video, fps=fps, max_frames=max_frames, max_pixels=max_pixels)
        found = _collected(_frames(sampler), sampler.expected, progress)
        warnings = [*sources.warnings, *sampler.warnings]
    else:
        found = _collected(_photos(sources.photos, max_pixels), len(sources.photos), progress)
        warnings = list(sources.warnings)
    photos = tuple(item for item in found if isinstance(item, MeasuredPhoto))
    skipped = tuple(item for item in found if isinstance(item, Skipped))
    if not photos:
        first = f"The first, {skipped[0].name}: {skipped[0].reason}" if skipped else ""
        raise NoValidImagesError(f"none of {len(found)} inputs could be read", hint=first)
    return MeasuredPhotos(photos=photos, skipped=skipped, warnings=tuple(warnings))


def measure_views(views: Sequence[SceneView], *, progress: Progress | None = None) -> MeasuredPhotos:
    """Measure the photos of a scene's views; where one is none, or is no more, the picture that the network saw.

    Args:
        views: in order; names are theirs.
        progress: called after each.
    """
    limits = DecodeLimits(pillow_pixel_limit(), lambda size: max(size) / MEASURED_SIZE)
    measured, warnings = [], []
    for done, view in enumerate(views, start=1):
        found = None
        if (photo := photo_of(view)) is not None:
            found = _photo(Source(view.name, photo), limits)
        if not isinstance(found, MeasuredPhoto):
            warnings.append(f"{view.name}: measured in the network's picture, since there is no photo")
            found = _measured(view.name, Image.fromarray(view.image))
        measured.append(found)
        if progress is not None:
            progress(done, len(views), "measuring photos")
    return MeasuredPhotos(photos=tuple(measured), warnings=tuple(warnings))


def _collected(
    found: Generator[MeasuredPhoto | Skipped, None, None], total: int | None, progress: Progress | None
) -> list[MeasuredPhoto | Skipped]:
    collected = []
    with closing(found):
        for item in found:
            collected.append(item)
            if progress is not None:
                progress(len(collected), total, "measuring photos")
    return collected


def _photos(sources: Iterable[Source], max_pixels: int | None) -> Generator[MeasuredPhoto | Skipped, None, None]:
    """In order; a few are decoded at a time, huge ones one after the other and reduced on the way."""
    limits = DecodeLimits(max_pixels or pillow_pixel_limit(), lambda size: max(size) / MEASURED_SIZE)
    executor = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), thread_name_prefix="manyview-report")
    try:
        yield from executor.map(partial(_photo, limits=limits), sources)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _photo(source: Source, limits: DecodeLimits) -> MeasuredPhoto | Skipped:
    content = source.content
    if isinstance(content, np.ndarray):
        image, changes = image_from_array(content, source.name)
        return _measured(source.name, image, changes=changes)
    try:
        decoded = decode_photo(content, limits) if isinstance(content, Path) else decode_image(content, limits)
    except InputError as error:
        return Skipped(source.name, str(error.args[0]))
    return _measured(
        source.name,
        decoded.image,
        path=content if isinstance(content, Path) else None,
        size=decoded.original_size,
        upright_in_file=decoded.upright_in_file,
        digest=decoded.digest,
        changes=decoded.changes,
    )


def _frames(sampler: VideoSampler) -> Generator[MeasuredPhoto | Skipped, None, None]:
    with closing(iter(sampler)) as frames:
        for frame in frames:
            name = f"{sampler.path.stem}#{frame.index:06d}"
            yield _measured(name, frame.image, upright_in_file=frame.upright_in_file)


def _measured(
    name: str,
    image: Image.Image,
    *,
    path: Path | None = None,
    size: tuple[int, int] | None = None,
    upright_in_file: bool = True,
    digest: str = "",
    changes: tuple[str, ...] = (),
) -> MeasuredPhoto:
    pixels = reduced(image, MEASURED_SIZE)
    return MeasuredPhoto(
        name=name,
        source=None if path is None else str(path.absolute()),
        size=size or (image.height, image.width),
        upright_in_file=upright_in_file,
        digest=digest or picture_digest(image),
        changes=changes,
        sharpness=sharpness(pixels),
        exposure=exposure(pixels),
        tags=PhotoTags() if path is None else read_tags(path),
        fingerprint=fingerprint(pixels),
        thumbnail=reduced(Image.fromarray(pixels), THUMBNAIL_SIZE),
    )
