"""The picture files that COLMAP and nerfstudio folders refer to, and the camera that fits each of them."""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from manyview.files import SHARED_FOLDER, unique_file_names
from manyview.formats.describe import views_with_camera
from manyview.geometry.cameras import Camera
from manyview.images.decode import DecodeError, DecodeLimits, decode_photo, pillow_pixel_limit
from manyview.images.frames import WantedFrame, decode_frames, is_of_video
from manyview.images.sniff import sniff
from manyview.scene import ExportOptions, Scene, SceneView

logger = logging.getLogger(__name__)

# Formats that COLMAP and nerfstudio read themselves, with the file name endings they know them by.
_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
}
_LOSSY = ("JPEG", "HEIF", "AVIF")
_JPEG_QUALITY = 95
_ORIENTATION_TAG = 0x0112


@dataclass(frozen=True)
class PlacedPicture:
    """A picture file of an export.

    Attributes:
        index: of the view in the scene.
        path: relative to the export's folder, with forward slashes.
        camera: in pixels of this file (integers at pixel centres).
        picture_from_original: (3, 3) affine from original pixels to pixels of this file.
        note: why this is not the photo itself; empty if it is.
    """

    index: int
    path: str
    camera: Camera
    picture_from_original: np.ndarray
    note: str = ""


@dataclass(frozen=True)
class _Plan:
    """How a view's picture comes about: the photo as it is or decoded, a video's frame, or the network's picture."""

    how: Literal["as it is", "decoded", "frame", "network"]
    image_format: str
    note: str = ""


def place_pictures(scene: Scene, folder: Path, options: ExportOptions) -> list[PlacedPicture]:
    """Put one upright picture for each view with a camera into `folder/images`.

    Photos that are stored upright are linked or copied. Photos that are turned by a flag, or of a format that few
    programs read, are decoded and written at their original size, and so are frames of videos. Arrays, and photos and
    videos that are no longer what they were, have only the picture that the network saw; their camera is then given in
    its pixels.
    """
    chosen = views_with_camera(scene, "the folder of pictures", options)
    plans = [_plan(view) for _, view, _ in chosen]
    names = unique_file_names(_with_suffix(view, plan) for (_, view, _), plan in zip(chosen, plans, strict=True))
    (folder / SHARED_FOLDER).mkdir(exist_ok=True)
    paths = [folder / SHARED_FOLDER / name for name in names]
    plans = _place_all([view for _, view, _ in chosen], plans, paths, options)
    for (_, view, _), plan in zip(chosen, plans, strict=True):
        if plan.note:
            logger.warning("%s: %s", view.name, plan.note)
    return [
        _placed(index, view, camera, plan, f"{SHARED_FOLDER}/{name}")
        for (index, view, camera), plan, name in zip(chosen, plans, names, strict=True)
    ]


def frame_of(view: SceneView) -> WantedFrame:
    """The frame of a video that a view was made of."""
    assert view.source is not None and view.timestamp is not None
    return WantedFrame(
        video=view.source,
        timestamp=view.timestamp,
        original_size=view.original_size,
        pixels=view.image,
        original_from_pixels=view.original_from_network,
    )


def _plan(view: SceneView) -> _Plan:
    if view.source is None:
        return _network_plan("not from a photo")
    if is_of_video(view.source, view.timestamp):
        return _Plan("frame", "PNG")
    path = Path(view.source)
    try:
        content = sniff(path)
        if content.kind != "image":
            return _network_plan(f"{view.source} is not a photo")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            is_upright, size = _orientation_and_size(path, content.detail)
    except (OSError, Image.DecompressionBombError) as error:
        return _network_plan(f"{view.source} cannot be read ({error})")
    if size is not None and size != tuple(view.original_size):
        return _network_plan(f"{view.source} has changed its size since")
    if is_upright and view.upright_in_file and content.detail in _SUFFIXES:
        return _Plan("as it is", content.detail)
    why = "turned upright" if not (is_upright and view.upright_in_file) else f"converted from {content.detail}"
    return _Plan("decoded", "JPEG" if content.detail in _LOSSY else "PNG", why)


def _network_plan(reason: str) -> _Plan:
    return _Plan("network", "PNG", f"the network's picture at the network's size, since {reason}")


def _orientation_and_size(path: Path, image_format: str) -> tuple[bool, tuple[int, int] | None]:
    """Whether the header says the picture is stored upright, and its (height, width) once it is upright."""
    if image_format not in _SUFFIXES:
        return True, None  # it is decoded anyway, and its size looked at then
    with Image.open(path) as image:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
        width, height = image.size
    return orientation not in range(2, 9), (width, height) if orientation in (5, 6, 7, 8) else (height, width)


def _with_suffix(view: SceneView, plan: _Plan) -> str:
    """The view's name, ending as files of the format do."""
    suffixes = _SUFFIXES[plan.image_format]
    return view.name if view.name.lower().endswith(suffixes) else view.name + suffixes[0]


def _place_all(
    views: Sequence[SceneView], plans: Sequence[_Plan], paths: Sequence[Path], options: ExportOptions
) -> list[_Plan]:
    """Make the files that are not there yet, frames of videos in one pass; returns the plans that were carried out."""
    done, frames = list(plans), []
    for place, (view, plan, path) in enumerate(zip(views, plans, paths, strict=True)):
        if os.path.lexists(path):  # another format of the same export has put it there
            done[place] = _as_placed(view, plan, path)
        elif plan.how == "frame":
            frames.append(place)
        else:
            done[place] = _place(view, plan, path, options)
    with closing(decode_frames([frame_of(views[place]) for place in frames])) as decoded:
        for number, found in decoded:
            place = frames[number]
            if isinstance(found, str):
                done[place] = _network_plan(found)
                found = Image.fromarray(views[place].image)
            _save(found, paths[place], "PNG")
    return done


def _place(view: SceneView, plan: _Plan, path: Path, options: ExportOptions) -> _Plan:
    """Make the file; returns the plan that was carried out."""
    if plan.how == "as it is":
        _link_or_copy(Path(view.source or ""), path, options.link_images)
        return plan
    if plan.how == "decoded":
        limits = DecodeLimits(max_pixels=pillow_pixel_limit(), spare_resolution=lambda size: 1.0)
        try:
            decoded = decode_photo(Path(view.source or ""), limits)
            if decoded.original_size == tuple(view.original_size):
                _save(decoded.image, path, plan.image_format)
                return plan
            reason = f"{view.source} has changed its size since"
        except DecodeError as error:
            reason = f"{view.source} cannot be read ({error})"
        _save(Image.fromarray(view.image), path, plan.image_format)
        return _network_plan(reason)
    _save(Image.fromarray(view.image), path, plan.image_format)
    return plan


def _as_placed(view: SceneView, plan: _Plan, path: Path) -> _Plan:
    """The plan that was carried out for a file that is there: a photo that could not be decoded gave way."""
    if plan.how not in ("decoded", "frame"):
        return plan
    with Image.open(path) as image:
        is_photo = (image.height, image.width) == tuple(view.original_size)
    return plan if is_photo else _network_plan(f"{view.source} cannot be read any more")


def _link_or_copy(source: Path, target: Path, how: Literal["link", "copy"]) -> None:
    if how == "link":
        try:
            target.symlink_to(source.resolve())  # made relative where the export is moved into place
            return
        except OSError:  # file systems and accounts without symbolic links
            logger.info("%s: links are not possible here, the photo is copied", target.name)
    shutil.copyfile(source, target)


def _save(image: Image.Image, path: Path, image_format: str) -> None:
    if image_format == "JPEG":
        image.save(path, format="JPEG", quality=_JPEG_QUALITY, subsampling=0, icc_profile=image.info.get("icc_profile"))
    else:
        image.save(path, format=image_format)


def _placed(index: int, view: SceneView, camera: Camera, plan: _Plan, path: str) -> PlacedPicture:
    if plan.how != "network":
        return PlacedPicture(index, path, camera, np.eye(3), plan.note)
    network_camera = view.network_camera
    assert network_camera is not None  # as `camera` is not
    return PlacedPicture(index, path, network_camera, np.linalg.inv(view.original_from_network), plan.note)
