"""`load_views`: photos or a video in, `Views` out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from manyview.errors import InputError, NoValidImagesError
from manyview.images.colour import image_from_array
from manyview.images.decode import (
    Decoded,
    DecodeError,
    DecodeLimits,
    decode_image,
    decode_photo,
    picture_digest,
    pillow_pixel_limit,
)
from manyview.images.resize import Fit, FitRules, NetworkFrame, network_frame, render, spare_resolution
from manyview.images.sources import Inputs, Source, find_sources
from manyview.images.video import VideoSampler
from manyview.images.views import Skipped, View, Views

Progress: TypeAlias = Callable[[int, "int | None", str], None]
"""Called as progress(done, total, what) after each picture; `total` is None where it cannot be known."""

_THREADS = 4  # decoding scales with cores, and so does its memory
_CROPPED_AWAY = 0.01  # fraction of the picture from which a loss is reported


@dataclass(frozen=True)
class _Outcome:
    """A view, or why there is none."""

    view: View | None = None
    skipped: Skipped | None = None


def load_views(
    inputs: Inputs,
    *,
    size: int = 512,
    fit: Fit = "crop",
    patch_size: int = 16,
    square_ok: bool = False,
    crop_to_landscape: bool = False,
    rotate_clockwise_90: bool = False,
    fps: float | None = None,
    max_frames: int | None = None,
    max_pixels: int | None = None,
    strict: bool = False,
    dedup: bool = False,
    progress: Progress | None = None,
) -> Views:
    """Read the pictures of one scene and bring them to the network's size.

    Args:
        inputs: a folder (its photos in natural order of their names), a video, a photo, an array, a Pillow picture,
            or a list of these (but of videos).
        size: pixels of the long side; 224 with fit "crop" gives squares of 224.
        fit: "crop" follows the official DUSt3R and Fast3R loaders and may cut borders off; "pad" keeps everything
            and repeats the border pixels up to whole patches.
        patch_size: pixels; heights and widths are multiples of it.
        square_ok: keep square pictures square, where the official rule cuts them to 4:3.
        crop_to_landscape: first cut to 4:3 at the centre.
        rotate_clockwise_90: before that, turn the upright pictures.
        fps: frames a second to take from a video, 1 by default.
        max_frames: of a video, 1500 by default; spread evenly over its duration where it is known.
        max_pixels: largest picture that is decoded; Pillow's limit against decompression bombs by default.
        strict: make an input that cannot be used an error instead of leaving it out.
        dedup: leave out pictures whose pixels equal those of an earlier one.
        progress: called after each picture.

    Returns:
        The views in order, what was skipped with reasons, and warnings.

    Raises:
        InputError: an option, path or array cannot be used, or with `strict`, a picture.
        NoValidImagesError: no picture could be read; the message counts the reasons.
    """
    rules = FitRules(
        size=size,
        fit=fit,
        patch_size=patch_size,
        square_ok=square_ok,
        crop_to_landscape=crop_to_landscape,
        rotate_clockwise_90=rotate_clockwise_90,
    )
    if max_pixels is not None and max_pixels < 1:
        raise InputError(f"max_pixels: expected at least 1, got {max_pixels}")
    sources = find_sources(inputs)
    warnings = list(sources.warnings)
    if sources.video is not None:
        sampler = VideoSampler(sources.video, fps=fps, max_frames=max_frames, max_pixels=max_pixels)
        outcomes = _video_outcomes(sampler, rules)
        collected = _collect(outcomes, sampler.expected, "reading video", strict=strict, progress=progress)
        warnings += sampler.warnings
    else:
        if fps is not None or max_frames is not None:
            warnings.append("fps and max_frames concern videos; they were not used for photos")
        outcomes = _photo_outcomes(sources.photos, rules, max_pixels)
        collected = _collect(outcomes, len(sources.photos), "reading photos", strict=strict, progress=progress)
    return _finish(collected, warnings, dedup=dedup)


def _photo_outcomes(
    photos: Sequence[Source], rules: FitRules, max_pixels: int | None
) -> Generator[_Outcome, None, None]:
    """In order; a few are decoded at a time."""
    limits = DecodeLimits(max_pixels or pillow_pixel_limit(), partial(spare_resolution, rules=rules))
    executor = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), thread_name_prefix="manyview-decode")
    try:
        yield from executor.map(partial(_photo_outcome, rules=rules, limits=limits), photos)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _photo_outcome(source: Source, rules: FitRules, limits: DecodeLimits) -> _Outcome:
    if isinstance(source.content, np.ndarray):
        # A wrong array is a mistake in the caller's program, not a damaged file: it is always an error.
        decoded = _from_array(source.content, source.name, limits)
    else:
        decoded = _decoded_or_reason(source.content, limits)
    if isinstance(decoded, str):
        return _Outcome(skipped=Skipped(source.name, decoded))
    return _view(source.name, source.content if isinstance(source.content, Path) else None, decoded, rules)


def _decoded_or_reason(content: Path | Image.Image, limits: DecodeLimits) -> Decoded | str:
    try:
        return decode_photo(content, limits) if isinstance(content, Path) else decode_image(content, limits)
    except InputError as error:
        return str(error.args[0])


def _from_array(array: np.ndarray, name: str, limits: DecodeLimits) -> Decoded | str:
    image, changes = image_from_array(array, name)
    try:
        limits.check(image.width, image.height)
    except DecodeError as error:
        return str(error.args[0])
    return Decoded(image, (image.height, image.width), True, picture_digest(image), changes)


def _video_outcomes(sampler: VideoSampler, rules: FitRules) -> Generator[_Outcome, None, None]:
    with closing(iter(sampler)) as frames:
        for frame in frames:
            name = f"{sampler.path.stem}#{frame.index:06d}"
            height, width = frame.image.height, frame.image.width
            decoded = Decoded(frame.image, (height, width), frame.upright_in_file, picture_digest(frame.image))
            outcome = _view(name, sampler.path, decoded, rules)
            if outcome.view is not None:
                outcome = _Outcome(view=replace(outcome.view, timestamp=frame.timestamp))
            yield outcome


def _view(name: str, source: Path | None, decoded: Decoded, rules: FitRules) -> _Outcome:
    try:
        frame = network_frame(decoded.original_size, rules)
    except InputError as error:
        return _Outcome(skipped=Skipped(name, str(error.args[0])))
    return _Outcome(
        view=View(
            name=name,
            # Absolute, so that the photo is found also from another working folder.
            source=None if source is None else str(source.absolute()),
            pixels=render(frame, decoded.image),
            original_size=decoded.original_size,
            original_from_network=frame.original_from_network,
            valid=frame.valid,
            upright_in_file=decoded.upright_in_file,
            digest=decoded.digest,
            changes=decoded.changes + _cropped_away(frame),
        )
    )


def _cropped_away(frame: NetworkFrame) -> tuple[str, ...]:
    kept_height, kept_width = frame.kept
    if kept_height * kept_width > 1 - _CROPPED_AWAY:
        return ()
    sides = ((kept_width, "width"), (kept_height, "height"))
    lost = [f"{1 - kept:.0%} of the {side}" for kept, side in sides if kept < 0.995]
    return (f"{' and '.join(lost)} was cropped away",)


def _collect(
    outcomes: Generator[_Outcome, None, None], total: int | None, what: str, *, strict: bool, progress: Progress | None
) -> list[_Outcome]:
    collected = []
    with closing(outcomes):
        for outcome in outcomes:
            if strict and outcome.skipped is not None:
                _refuse(outcome.skipped)
            collected.append(outcome)
            if progress is not None:
                progress(len(collected), total, what)
    return collected


def _refuse(skipped: Skipped) -> None:
    raise InputError(f"{skipped.name}: {skipped.reason}", hint="Without strict it would be left out with a warning.")


def _finish(outcomes: Sequence[_Outcome], warnings: list[str], *, dedup: bool) -> Views:
    first_of: dict[str, str] = {}
    views: list[View] = []
    skipped: list[Skipped] = []
    duplicates: list[str] = []
    for outcome in outcomes:
        view = outcome.view
        if outcome.skipped is not None:
            skipped.append(outcome.skipped)
        if view is None:
            continue
        original = first_of.setdefault(view.digest, view.name)
        if original != view.name:
            duplicates.append(f"{view.name} = {original}")
            if dedup:
                skipped.append(Skipped(view.name, f"duplicate: same pixels as {original}"))
                continue
        views.append(view)
    if not views:
        raise _nothing_left(skipped)
    warnings += _duplicate_warning(duplicates, dedup) + _crop_warning(views) + _skip_warning(skipped)
    return Views(items=tuple(views), skipped=tuple(skipped), warnings=tuple(warnings))


def _reasons(skipped: Sequence[Skipped]) -> str:
    counts = Counter(item.reason.split(":", 1)[0] for item in skipped)
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())


def _nothing_left(skipped: Sequence[Skipped]) -> NoValidImagesError:
    message = f"none of {len(skipped)} inputs could be used: {_reasons(skipped)}"
    first = f"The first, {skipped[0].name}: {skipped[0].reason}" if skipped else ""
    return NoValidImagesError(message, hint=first)


def _duplicate_warning(duplicates: Sequence[str], dedup: bool) -> list[str]:
    if not duplicates or dedup:
        return []
    shown = ", ".join(duplicates[:3]) + (" ..." if len(duplicates) > 3 else "")
    return [f"{len(duplicates)} pictures have the same pixels as an earlier one ({shown}); dedup leaves them out"]


def _crop_warning(views: Sequence[View]) -> list[str]:
    cropped = [(view.name, change) for view in views for change in view.changes if change.endswith("cropped away")]
    if not cropped:
        return []
    name, change = cropped[0]
    return [f'{len(cropped)} of {len(views)} pictures lost a part (of {name}, {change}); fit="pad" keeps everything']


def _skip_warning(skipped: Sequence[Skipped]) -> list[str]:
    return [f"{len(skipped)} inputs were skipped: {_reasons(skipped)}"] if skipped else []
