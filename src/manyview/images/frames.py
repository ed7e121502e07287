"""Frames of videos at their full size, decoded again for the views that were made of them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from manyview.errors import InputError
from manyview.images.sniff import sniff
from manyview.images.video import frames_at

_DIFFERENT = 4.0  # levels of 255, mean: the same frame differs by up to 2, frames half a second apart by 7 and more


@dataclass(frozen=True, kw_only=True, eq=False)
class WantedFrame:
    """A frame of which a view was made.

    Attributes:
        video: its path.
        timestamp, original_size: as in `View`.
        pixels: (H, W, 3) uint8, what is left of it at the view's size, to know it by.
        original_from_pixels: (3, 3) affine from these pixels to those of the frame; integers are pixel centres.
    """

    video: str
    timestamp: float
    original_size: tuple[int, int]
    pixels: np.ndarray
    original_from_pixels: np.ndarray


def is_of_video(source: str | None, timestamp: float | None) -> bool:
    """Whether a view is a frame of a video and not a photo, even one that was drawn of a frame."""
    if source is None or timestamp is None:
        return False
    try:
        return sniff(Path(source)).kind != "image"
    except OSError:
        return True


def decode_frames(wanted: Sequence[WantedFrame]) -> Generator[tuple[int, Image.Image | str], None, None]:
    """Decode frames again; each video is decoded once, and one frame is held at a time.

    Yields:
        (index in `wanted`, the upright RGB frame at its full size, or why there is none, in words), each index once:
        video after video, in order of time, and at last what could not be found.
    """
    for video in dict.fromkeys(frame.video for frame in wanted):
        yield from _of_one_video(video, {i: frame for i, frame in enumerate(wanted) if frame.video == video})


def _of_one_video(video: str, wanted: dict[int, WantedFrame]) -> Generator[tuple[int, Image.Image | str], None, None]:
    left: dict[float, list[int]] = {}
    for index, frame in wanted.items():
        left.setdefault(frame.timestamp, []).append(index)
    reason = ""
    with closing(frames_at(Path(video), left)) as frames:
        try:
            for timestamp, image in frames:
                for index in left.pop(timestamp):
                    yield index, _difference(wanted[index], image) or image
        except InputError as error:
            reason = str(error.args[0])
    for indices in left.values():
        yield from ((index, reason) for index in indices)


def _difference(frame: WantedFrame, image: Image.Image) -> str:
    """Why a picture cannot be the frame; empty if it can."""
    if (image.height, image.width) != tuple(frame.original_size):
        return f"{frame.video} has changed its size since"
    if np.abs(_at_size_of(frame, image) - _smoothed(frame.pixels)).mean() > _DIFFERENT:
        return f"{frame.video} shows something else at {frame.timestamp:.3f} s by now"
    return ""


def _at_size_of(frame: WantedFrame, image: Image.Image) -> np.ndarray:
    """(H, W, 3) float32: the picture at the size and with the extent of the frame's pixels, smoothed."""
    import cv2

    affine = frame.original_from_pixels
    scale = float(np.sqrt(abs(np.linalg.det(affine[:2, :2]))))
    small = image.resize(
        (max(1, round(image.width / scale)), max(1, round(image.height / scale))), Image.Resampling.BOX
    )
    shrink = np.array([small.width / image.width, small.height / image.height])[:, None]
    small_from_pixels = affine[:2] * shrink
    small_from_pixels[:, 2] += (shrink[:, 0] - 1) / 2
    height, width = frame.pixels.shape[:2]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    there = cv2.warpAffine(
        np.asarray(small), small_from_pixels, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return _smoothed(there)


def _smoothed(pixels: np.ndarray) -> np.ndarray:
    """Over 3 x 3 pixels, so that the way in which a picture was made smaller makes no difference."""
    import cv2

    return cv2.blur(pixels.astype(np.float32), (3, 3))
