"""BlendedMVS and BlendedMVG in their own form, that of MVSNet: outdoor scenes and objects, rendered and blended."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from manyview.datasets.base import Augmentation, PosedDataset, Split, UnusableSceneError
from manyview.datasets.choose import breadth_first, filled
from manyview.datasets.crop import principal_point_is_central
from manyview.datasets.depth_files import read_pfm
from manyview.datasets.frames import Frame, make_frame, read_picture, reading
from manyview.errors import InputError
from manyview.geometry.cameras import invert_rigid

WALKS = 5  # tried in a scene before it is given up
LARGEST_DEPTH_DIFFERENCE = 100.0  # between the views' largest depths, units of the scene
LARGEST_DEPTH_RATIO = 10.0  # of any view's largest depth to the first view's


class BlendedMvs(PosedDataset):
    """Views are a breadth-first walk through the pairs of a scene from a random one, backwards half of the time.

    As published, walks are rejected that have a view without depth or without finite camera, a principal point near the
    border, or very unequal depths; and colours are left alone. Each scene has a scale of its own.
    """

    layout = (
        "<scene>/{blended_images/*.jpg,cams/*_cam.txt,cams/pair.txt,rendered_depth_maps/*.pfm}, {train,test}_list.txt"
    )
    colour_jitter = False

    def __init__(self, folder: Path, *, split: Split, augmentation: Augmentation) -> None:
        super().__init__(folder, split=split, augmentation=augmentation)
        listed = folder / f"{split}_list.txt"
        if listed.is_file() or split == "test":
            with reading(listed):
                self._scenes = listed.read_text(encoding="utf-8").split()
        else:  # the archives do not have this list: all that is there, then
            self._scenes = sorted(path.parent.parent.name for path in folder.glob("*/cams/pair.txt"))

    def __len__(self) -> int:
        return len(self._scenes)

    def name(self, index: int) -> str:
        return self._scenes[index]

    def _frames(self, index: int, views: int, generator: np.random.Generator) -> list[Frame]:
        folder = self.folder / self._scenes[index]
        neighbours = read_pairs(folder / "cams" / "pair.txt")
        problem = "pair.txt lists no view"
        for _ in range(WALKS if neighbours else 0):
            start = list(neighbours)[int(generator.integers(len(neighbours)))]
            walk = filled(breadth_first(neighbours, start, views, generator), views, generator)
            if generator.integers(2):
                walk.reverse()
            frames = {view: _frame(folder, view) for view in walk}
            problem = _problem([frames[view] for view in walk])
            if not problem:
                return [frame for view in walk if (frame := frames[view])]
        raise UnusableSceneError(f"{WALKS} walks were rejected, the last since {problem}")


def read_pairs(path: Path) -> dict[int, list[int]]:
    """Neighbours of each view, best first, from: a count, then a view, its `n`, `n` times a number and a score, ...

    Raises:
        InputError: the file is missing or ends early.
    """
    with reading(path):
        words = iter(path.read_text(encoding="utf-8").split())
        neighbours = {}
        for _ in range(int(next(words))):
            view, count = int(next(words)), int(next(words))
            numbers_and_scores = [next(words) for _ in range(2 * count)]
            neighbours[view] = [int(number) for number in numbers_and_scores[::2]]
        return neighbours


def read_camera(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """K and world_from_camera of an MVSNet camera file: words, whatever its lines; what follows K is not needed.

    Raises:
        InputError: the file is missing or has another form.
    """
    with reading(path):
        words = path.read_text(encoding="utf-8").split()
        if words[:1] != ["extrinsic"] or words[17:18] != ["intrinsic"]:
            raise ValueError("expected `extrinsic`, 16 numbers, `intrinsic`, 9 numbers")
        camera_from_world = np.array(words[1:17], dtype=np.float64).reshape(4, 4)
        return np.array(words[18:27], dtype=np.float64).reshape(3, 3), invert_rigid(camera_from_world)


def _frame(folder: Path, view: int) -> Frame | None:
    """None if the view is rejected by itself: an empty picture or map, or a camera that is not finite."""
    path = folder / "blended_images" / f"{view:08d}.jpg"
    depth_path = folder / "rendered_depth_maps" / f"{view:08d}.pfm"
    K, world_from_camera = read_camera(folder / "cams" / f"{view:08d}_cam.txt")
    if not (np.isfinite(K).all() and np.isfinite(world_from_camera).all()):
        return None
    for needed in (path, depth_path):
        if not needed.is_file():
            raise InputError(f"{needed} is missing")
        if needed.stat().st_size == 0:  # a few are, as published
            return None
    return make_frame(path, read_picture(path), read_pfm(depth_path), K, world_from_camera)


def _problem(frames: list[Frame | None]) -> str:
    """Why the published loader rejects a walk; empty if it does not."""
    if any(frame is None or not frame.depth.any() for frame in frames):
        return "a view has no depth or no camera"
    usable = [frame for frame in frames if frame is not None]
    if not all(principal_point_is_central(frame.K, frame.size) for frame in usable):
        return "a principal point is near the border"
    largest = np.array([frame.depth.max() for frame in usable])
    if np.ptp(largest) > LARGEST_DEPTH_DIFFERENCE or largest.max() > LARGEST_DEPTH_RATIO * largest[0]:
        return f"largest depths range from {largest.min():.4g} to {largest.max():.4g}"
    return ""
