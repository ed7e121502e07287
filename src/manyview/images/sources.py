"""What a user passed, as a list of named pictures or one video."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, Union

import numpy as np
from PIL import Image

from manyview.errors import InputError, NoValidImagesError
from manyview.images.sniff import sniff

ImageInput: TypeAlias = Union[str, "os.PathLike[str]", np.ndarray, Image.Image]
"""A path, an array (H, W), (H, W, 1|3|4) of uint8, uint16 or floating point in [0, 1], or a Pillow picture."""

Inputs: TypeAlias = ImageInput | Sequence[ImageInput]
"""One photo, folder or video, several of the first two, or an array (N, H, W, C) of pictures."""

# fmt: off
IMAGE_EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".tif",
     ".tiff", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".avif"}
)
VIDEO_EXTENSIONS = frozenset(
    {".mp4", ".m4v", ".mov", ".qt", ".avi", ".mkv", ".webm", ".mpg", ".mpeg",
     ".ts", ".mts", ".m2ts", ".flv", ".wmv", ".asf", ".3gp", ".3g2", ".ogv"}
)
# fmt: on


@dataclass(frozen=True)
class Source:
    """One picture to be read. `name` is unique among the sources of a call."""

    name: str
    content: Path | np.ndarray | Image.Image


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Either `photos` or a `video`, and what a user should know about how they were found."""

    photos: tuple[Source, ...] = ()
    video: Path | None = None
    warnings: tuple[str, ...] = ()


def find_sources(inputs: Inputs) -> Sources:
    """Sort out what `load_views` was given.

    Raises:
        InputError: a path does not exist, nothing was given, or an input is of a type that cannot be a picture.
        NoValidImagesError: a folder holds no photos.
    """
    contents = _listed(inputs)
    if not contents:
        raise InputError("no pictures were given", hint="Pass a folder, a video, photos, or a list of arrays.")
    _check_existing(contents)
    if len(contents) == 1 and isinstance(contents[0], Path) and _is_video(contents[0]):
        return Sources(video=contents[0])
    warnings: list[str] = []
    found: list[Path | np.ndarray | Image.Image] = []
    for content in contents:
        if isinstance(content, Path) and content.is_dir():
            found.extend(_photos_in(content, warnings))
        else:
            found.append(content)
    return Sources(photos=tuple(_named(found)), warnings=tuple(warnings))


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorts img2 before img10, whatever the case of the letters."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if part.isdecimal() else part.casefold() for part in parts], name


def _listed(inputs: Inputs) -> list[Path | np.ndarray | Image.Image]:
    if isinstance(inputs, np.ndarray) and inputs.ndim == 4:
        return list(inputs)
    if isinstance(inputs, (str, os.PathLike, np.ndarray, Image.Image)):
        inputs = [inputs]
    if not isinstance(inputs, Sequence) or isinstance(inputs, bytes):
        raise InputError(f"inputs: expected paths, arrays or Pillow pictures, got {type(inputs).__name__}")
    return [_content(item, position) for position, item in enumerate(inputs)]


def _content(item: ImageInput, position: int) -> Path | np.ndarray | Image.Image:
    if isinstance(item, (np.ndarray, Image.Image)):
        return item
    if isinstance(item, (str, os.PathLike)):
        return Path(item).expanduser()
    raise InputError(
        f"input {position}: expected a path, an array or a Pillow picture, got {type(item).__name__}",
        hint="Turn a tensor into an array first: tensor.permute(1, 2, 0).cpu().numpy().",
    )


def _check_existing(contents: Sequence[Path | np.ndarray | Image.Image]) -> None:
    missing = [str(path) for path in contents if isinstance(path, Path) and not path.exists()]
    if not missing:
        return
    shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    raise InputError(
        f"no such file or folder: {shown}", hint=f"Relative paths start at the current folder, {Path.cwd()}."
    )


def _is_video(path: Path) -> bool:
    """By content, and by name only where the content says nothing (a transport stream has no signature)."""
    if not path.is_file():
        return False
    try:
        kind = sniff(path).kind
    except OSError:  # reported with its reason when it is decoded
        return False
    return kind == "video" or (kind != "image" and path.suffix.lower() in VIDEO_EXTENSIONS)


def _photos_in(folder: Path, warnings: list[str]) -> list[Path]:
    """The photos of a folder, by extension, in natural order of their names; what else lies there is warned about."""
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be read: {error.strerror}") from error
    files = [entry for entry in entries if not entry.is_dir()]
    photos = [file for file in files if file.suffix.lower() in IMAGE_EXTENSIONS]
    videos = [file for file in files if file.suffix.lower() in VIDEO_EXTENSIONS]
    others = [file for file in files if file.suffix.lower() not in IMAGE_EXTENSIONS | VIDEO_EXTENSIONS]
    if not photos:
        raise _no_photos(folder, videos, others, folders=len(entries) - len(files))
    if videos:
        names = ", ".join(sorted(video.name for video in videos)[:3])
        warnings.append(f"videos in {folder} were not used: {len(videos)} ({names}); pass a video by itself")
    if others:
        kinds = ", ".join(sorted({other.suffix.lower() or "no extension" for other in others})[:5])
        warnings.append(f"files in {folder} that are no photos by their names were ignored: {len(others)} ({kinds})")
    return sorted(photos, key=lambda photo: natural_key(photo.name))


def _no_photos(folder: Path, videos: list[Path], others: list[Path], folders: int) -> InputError:
    if videos:
        first = min(videos, key=lambda video: natural_key(video.name))
        return NoValidImagesError(
            f"the folder {folder} holds {len(videos)} videos and no photos", hint=f"Pass the video itself: {first}"
        )
    if not others and not folders:
        return NoValidImagesError(f"the folder {folder} is empty", hint="Pass a folder with photos in it, or a video.")
    return NoValidImagesError(
        f"the folder {folder} holds no photos (but {len(others)} other files and {folders} folders, "
        "which are not searched)",
        hint=f"Photos are files that end in {' '.join(sorted(IMAGE_EXTENSIONS))}.",
    )


def _named(contents: Sequence[Path | np.ndarray | Image.Image]) -> list[Source]:
    """File names, with their folder where two are equal, and a number where that is not enough."""
    plain = Counter(content.name for content in contents if isinstance(content, Path))
    used: Counter[str] = Counter()
    sources = []
    for position, content in enumerate(contents):
        if isinstance(content, Path):
            name = content.name if plain[content.name] == 1 else f"{content.parent.name}/{content.name}".lstrip("/")
        else:
            name = f"{'array' if isinstance(content, np.ndarray) else 'image'}#{position}"
        used[name] += 1
        while used[name] > 1:
            name = f"{name}#{used[name]}"
            used[name] += 1
        sources.append(Source(name, content))
    return sources
