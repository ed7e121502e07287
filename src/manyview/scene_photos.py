"""The photos that a scene's views come from."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from manyview.images.frames import is_of_video
from manyview.scene import Scene, SceneView

UNDISTORTED = "undistorted"  # folder in a result: photos of lenses with distortion, drawn anew


def photo_of(view: SceneView) -> Path | None:
    """The file of a view's photo; None for frames of videos and arrays, and for photos that are no longer there."""
    if view.source is None or is_of_video(view.source, view.timestamp):
        return None
    path = Path(view.source)
    return path if path.is_file() else None


def bring_photos(scene: Scene, drawn: Path | None, staging: Path, folder: Path) -> tuple[Scene, Scene]:
    """Copy photos that were drawn for a scene to where its result is made; on one disk that takes no room.

    Args:
        scene: some of its views come from photos below `drawn`.
        drawn: a folder that may be missing; None where no photo was drawn.
        staging: where the result is made, and
        folder: where it will be.

    Returns:
        The scene with these photos below `folder`, as it is to be saved, and below `staging`, where they are so far.
    """
    if drawn is None or not drawn.is_dir():
        return scene, scene
    shutil.copytree(drawn, staging / drawn.name, copy_function=_link_or_copy)
    said, shown = (_with_photos_in(scene, drawn.absolute(), place / drawn.name) for place in (folder, staging))
    return said, shown


def _with_photos_in(scene: Scene, old: Path, new: Path) -> Scene:
    return replace(scene, views=tuple(_moved(view, old, new.absolute()) for view in scene.views))


def _moved(view: SceneView, old: Path, new: Path) -> SceneView:
    if view.source is None or not Path(view.source).is_relative_to(old):
        return view
    return replace(view, source=str(new / Path(view.source).relative_to(old)))


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without hard links
        shutil.copy2(source, target)
