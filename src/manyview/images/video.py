"""Frames of a video, one at a time: sampled by time, upright, with what went wrong on the way."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from manyview.errors import InputError, NoValidImagesError
from manyview.images.decode import DecodeError, pillow_pixel_limit

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import InputContainer

DEFAULT_FPS = 1.0
DEFAULT_MAX_FRAMES = 1500

# Playlists and the like can make FFmpeg read other files; only plain containers are opened.
_CONTAINERS = "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg"
_SAME_TIME = Fraction(1, 1_000_000)  # seconds by which time stamps of one frame may differ, once they were written down
_MISSING_TAIL = 0.02  # fraction of the stated duration that may be missing at the end without a warning
_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


@dataclass(frozen=True)
class SampledFrame:
    """One frame of a video.

    Attributes:
        index: how many frames were decoded before it.
        timestamp: seconds after the first frame.
        image: RGB, upright.
        upright_in_file: False if the video's rotation flag was applied.
    """

    index: int
    timestamp: float
    image: Image.Image
    upright_in_file: bool


class VideoSampler:
    """Iterating over it decodes the video once, holding one frame at a time.

    The first frame at or after each multiple of 1 / `fps` seconds is taken, by its presentation time, so that a
    variable frame rate makes no difference. If that gives more than `max_frames`, they are spread evenly over the
    duration, or are the first ones if the file does not state its duration.

    Attributes:
        warnings: what a user should know; complete once the iteration has ended.
        expected: how many frames there will be at most, or None if the file does not tell.
    """

    def __init__(
        self, path: Path, *, fps: float | None = None, max_frames: int | None = None, max_pixels: int | None = None
    ) -> None:
        """
        Args:
            path: the video.
            fps: frames a second; 1 by default.
            max_frames: 1500 by default.
            max_pixels: larger frames are refused; Pillow's limit for photos by default.

        Raises:
            InputError: `fps` or `max_frames` is not positive.
            NoValidImagesError: the file cannot be opened as a video.
        """
        if fps is not None and not (fps > 0 and math.isfinite(fps)):
            raise InputError(f"fps: expected a positive number, got {fps}")
        if max_frames is not None and max_frames < 1:
            raise InputError(f"max_frames: expected at least 1, got {max_frames}")
        self.path = path
        self.warnings: list[str] = []
        self._max_frames = max_frames or DEFAULT_MAX_FRAMES
        self._max_pixels = max_pixels or pillow_pixel_limit()
        self._interval = 1 / Fraction(fps or DEFAULT_FPS).limit_denominator(1_000_000)
        self._damaged = 0
        self._stopped_early = ""
        with closing(self._open()) as container:
            self._duration = _duration(container)
            self._check_size(container.streams.video[0])
        self.expected = self._plan(asked_for_less=max_frames is not None and fps is None)

    def __iter__(self) -> Generator[SampledFrame, None, None]:
        self._damaged = 0
        last_time, taken, index = Fraction(0), 0, -1
        wanted = Fraction(0)
        with closing(self._open()) as container:
            for index, (time, frame) in enumerate(self._timed_frames(container)):
                last_time = time
                if time < wanted:
                    continue
                yield SampledFrame(index, float(time), *_upright(frame))
                taken += 1
                if taken == self._max_frames:
                    break
                wanted = (time // self._interval + 1) * self._interval
        self._report(last_time, taken, index + 1)

    def _open(self) -> InputContainer:
        import av
        from av.error import FFmpegError

        options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
        try:
            container = av.open(f"file:{self.path}", options=options)
        except (FFmpegError, OSError, ValueError) as error:
            raise NoValidImagesError(
                f"{self.path} cannot be opened as a video: {_text(error)}",
                hint="It may be cut off (the index of many MP4 files stands at their end) or of another kind.",
            ) from error
        if not container.streams.video:
            container.close()
            raise NoValidImagesError(f"{self.path} holds no video stream", hint="Pass photos or a video.")
        container.streams.video[0].thread_type = "AUTO"
        return container

    def _check_size(self, stream: VideoStream) -> None:
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > self._max_pixels:
            raise NoValidImagesError(
                f"{self.path}: frames of {width} x {height} exceed the limit of {self._max_pixels} pixels",
                hint="Raise it with max_pixels if you trust the file.",
            )
        ratio = stream.sample_aspect_ratio
        if ratio and ratio != 1:
            self.warnings.append(
                f"{self.path.name}: its pixels are not square ({ratio.numerator}:{ratio.denominator}); "
                "they are used as stored"
            )

    def _plan(self, *, asked_for_less: bool) -> int | None:
        """Widen the interval where there would be too many frames; how many there will be."""
        if self._duration is None:
            return None
        number = math.ceil(self._duration / self._interval) or 1
        if number <= self._max_frames:
            return number
        self._interval = self._duration / self._max_frames
        if not asked_for_less:
            self.warnings.append(
                f"{self.path.name}: {self._max_frames} frames were spread over its {float(self._duration):.1f} s, one "
                f"each {float(self._interval):.2f} s, because there would be {number}; max_frames changes this"
            )
        return self._max_frames

    def _timed_frames(self, container: InputContainer) -> Iterator[tuple[Fraction, VideoFrame]]:
        """Undamaged frames with their time in seconds after the first one."""
        stream = container.streams.video[0]
        usual_step = 1 / Fraction(stream.average_rate or 25)
        first: Fraction | None = None
        last = -usual_step
        for frame in self._decoded_frames(container):
            if frame.pts is None or frame.time_base is None:
                time = last + usual_step
            else:
                stamp = frame.pts * frame.time_base
                first = stamp if first is None else first
                time = stamp - first
                if time <= last:  # time stamps that start again: go on at the usual rate from here
                    time = last + usual_step
                    first = stamp - time
            last = time
            yield time, frame

    def _decoded_frames(self, container: InputContainer) -> Iterator[VideoFrame]:
        from av.error import FFmpegError

        packets = iter(container.demux(container.streams.video[0]))
        while True:
            try:
                packet = next(packets, None)
            except (FFmpegError, OSError, ValueError) as error:
                self._stopped_early = _text(error)
                return
            if packet is None:
                return
            try:
                frames = packet.decode()
            except (FFmpegError, OSError, ValueError):
                self._damaged += 1
                continue
            for frame in frames:
                if getattr(frame, "is_corrupt", False):
                    self._damaged += 1
                elif frame.width * frame.height > self._max_pixels:  # the size may change on the way
                    raise DecodeError(f"too many pixels: a frame of {frame.width} x {frame.height}")
                else:
                    yield frame  # pyright: ignore[reportReturnType]

    def _report(self, last_time: Fraction, taken: int, decoded: int) -> None:
        if taken == 0:
            raise NoValidImagesError(
                f"{self.path}: no frame could be decoded" + (f" ({self._damaged} are damaged)" if self._damaged else "")
            )
        name = self.path.name
        if self._damaged:
            self.warnings.append(f"{name}: {self._damaged} damaged parts were left out, {decoded} frames were decoded")
        if self._duration is None:
            if taken == self._max_frames:
                self.warnings.append(f"{name}: only the first {float(last_time):.1f} s were used (max_frames {taken})")
            return
        reached = last_time + self._interval if taken == self._max_frames else last_time
        missing = self._duration - reached
        if self._stopped_early or missing > max(self._duration * Fraction(_MISSING_TAIL), Fraction(1, 2)):
            self.warnings.append(
                f"{name}: only {float(last_time):.1f} of {float(self._duration):.1f} s could be decoded; the rest is "
                f"missing or damaged{f' ({self._stopped_early})' if self._stopped_early else ''}"
            )


def frames_at(path: Path, timestamps: Iterable[float]) -> Generator[tuple[float, Image.Image], None, None]:
    """Frames that a `VideoSampler` gave before, decoded again in one pass that holds one of them at a time.

    Args:
        path: the video.
        timestamps: of `SampledFrame`, in any order.

    Yields:
        (timestamp, RGB picture), equal to what the sampler gave, in order of time; each timestamp once.

    Raises:
        NoValidImagesError: the file cannot be opened as a video.
        DecodeError: some of the frames are not there any more; raised after all those that are.
    """
    wanted = deque(sorted(set(timestamps)))
    count, missing = len(wanted), []
    reader = VideoSampler(path)
    with closing(reader._open()) as container:
        for time, frame in reader._timed_frames(container):
            while wanted and wanted[0] < time - _SAME_TIME:
                missing.append(wanted.popleft())
            if wanted and wanted[0] <= time + _SAME_TIME:
                yield wanted.popleft(), _upright(frame)[0]
            if not wanted:
                break
    missing += wanted
    if missing:
        raise DecodeError(
            f"{path}: {len(missing)} of {count} frames are not there any more, the first of them at {missing[0]:.3f} s",
            hint="The video has changed, or was cut off.",
        )


def _duration(container: InputContainer) -> Fraction | None:
    """Seconds, or None where the file does not tell."""
    stream = container.streams.video[0]
    if stream.duration and stream.time_base:
        return stream.duration * stream.time_base
    return Fraction(container.duration, 1_000_000) if container.duration and container.duration > 0 else None


def _upright(frame: VideoFrame) -> tuple[Image.Image, bool]:
    """The frame in RGB with its display matrix applied, and whether there was nothing to turn."""
    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    turn = round(frame.rotation / 90) * 90 % 360  # counter-clockwise
    return (image.transpose(_TURNS[turn]), False) if turn else (image, True)


def _text(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
