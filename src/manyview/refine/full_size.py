"""The pictures of views at their original size: photos are read again, and frames of videos decoded again."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from manyview.formats.pictures import frame_of
from manyview.images.decode import DecodeError, DecodeLimits, decode_photo, pillow_pixel_limit
from manyview.images.frames import decode_frames, is_of_video
from manyview.scene import SceneView


@dataclass(frozen=True, kw_only=True, eq=False)
class Photo:
    """The upright picture of a view: the photo or the frame of a video, or what the network saw of it.

    Attributes:
        pixels: (h, w, 3) uint8 RGB.
        original_from_photo: (3, 3) affine to pixels of the upright original; both have integers at pixel centres.
        note: why this is not the photo itself; empty if it is.
    """

    pixels: np.ndarray
    original_from_photo: np.ndarray
    note: str = ""


def open_photo(view: SceneView, max_size: int) -> Photo:
    """The picture of one view, at most `max_size` pixels long, or what the network saw of it and why.

    For several frames of a video, `open_one_by_one` is faster.
    """
    ((_, opened),) = open_one_by_one([view], max_size)
    return opened()


def open_one_by_one(
    views: Sequence[SceneView], max_size: int
) -> Generator[tuple[int, Callable[[], Photo]], None, None]:
    """The pictures of views, as `open_photo` has them, each as a function, so that threads can share the work.

    Frames of a video are decoded in one pass while this is iterated over, and the function holds the decoded frame:
    few of them should be kept at a time.

    Yields:
        (index of the view, function that opens its picture), each index once: photos in order, then frames in order of
        time.
    """
    is_frame = [is_of_video(view.source, view.timestamp) for view in views]
    frames = [index for index, there in enumerate(is_frame) if there]
    for index, view in enumerate(views):
        if not is_frame[index]:
            yield index, partial(_photo_in_file, view, max_size)
    with closing(decode_frames([frame_of(views[index]) for index in frames])) as decoded:
        for number, found in decoded:
            view = views[frames[number]]
            opened = _network_picture if isinstance(found, str) else partial(_shrunk, max_size=max_size)
            yield frames[number], partial(opened, view, found)


def original_files(views: Sequence[SceneView], chosen: Sequence[int], folder: Path) -> dict[int, Path]:
    """The photos of some views, by index; frames of videos are written into `folder`. Views without one are missing."""
    is_frame = {index: is_of_video(views[index].source, views[index].timestamp) for index in chosen}
    paths = {
        index: Path(source)
        for index in chosen
        if not is_frame[index] and (source := views[index].source) is not None and Path(source).is_file()
    }
    frames = [index for index in chosen if is_frame[index]]
    with closing(decode_frames([frame_of(views[index]) for index in frames])) as decoded:
        for number, found in decoded:
            if not isinstance(found, str):
                paths[frames[number]] = folder / f"{frames[number]}.png"
                found.save(paths[frames[number]], compress_level=1)
    return paths


def _photo_in_file(view: SceneView, max_size: int) -> Photo:
    if view.source is None:
        return _network_picture(view, "not from a photo")
    limits = DecodeLimits(max_pixels=pillow_pixel_limit(), spare_resolution=lambda size: max(size) / max_size)
    try:
        decoded = decode_photo(Path(view.source), limits)
    except DecodeError as error:
        return _network_picture(view, f"{view.source} cannot be read ({error.args[0]})")
    if decoded.original_size != tuple(view.original_size):
        return _network_picture(view, f"{view.source} has changed its size since")
    return _shrunk(view, decoded.image, max_size)


def _shrunk(view: SceneView, image: Image.Image, max_size: int) -> Photo:
    """A picture with the extent of the view's original, made smaller if it is too large."""
    height, width = view.original_size
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
