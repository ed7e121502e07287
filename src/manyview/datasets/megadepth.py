"""MegaDepth as DUSt3R's preprocessing writes it: tourists' photographs of landmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from manyview.datasets.base import Augmentation, Split, WindowedDataset
from manyview.datasets.depth_files import read_exr
from manyview.datasets.frames import Frame, make_frame, read_arrays, read_picture, reading
from manyview.datasets.tables import grouped_by_name

HELD_OUT = ("0015", "0022")
_BY_SCENE, _BY_PAIR = "all_metadata_for_multiview.npz", "all_metadata.npz"


class MegaDepth(WindowedDataset):
    """Depth has another scale in each scene. "Time" is the order of names; pictures of a scene are of many cameras.

    The published table of scenes was never released with the program that makes it. Without one, scenes are those of
    the table of pairs, which is public. K is taken as published; the convention of its half pixel is not known.
    """

    layout = f"{_BY_PAIR} or {_BY_SCENE} beside <scene>/<part>/*.jpg.{{jpg,exr,npz}} (MegaDepth after preprocessing)"
    window = 2
    shift = 2

    def __init__(self, folder: Path, *, split: Split, augmentation: Augmentation) -> None:
        super().__init__(folder, split=split, augmentation=augmentation)
        by_scene = (folder / _BY_SCENE).is_file()
        path = folder / (_BY_SCENE if by_scene else _BY_PAIR)
        columns = read_arrays(path, "scenes", "images", "sceneids" if by_scene else "pairs")
        with reading(path):
            scenes, names, last = columns
            scene_of, rows = (last, np.arange(len(names))) if by_scene else _pictures_of_pairs(last)
            groups = grouped_by_name(scene_of, names[rows])
            self._scenes = [(_part(str(scenes[scene_of[group[0]]])), names[rows[group]]) for group in groups]
        is_test = split == "test"
        self._scenes = [scene for scene in self._scenes if scene[0].startswith(HELD_OUT) == is_test]

    def __len__(self) -> int:
        return len(self._scenes)

    @property
    def weights(self) -> np.ndarray:
        return np.array([len(names) for _, names in self._scenes], dtype=np.float64)

    def name(self, index: int) -> str:
        return self._scenes[index][0]

    def count(self, index: int) -> int:
        return len(self._scenes[index][1])

    def _frame(self, index: int, place: int) -> Frame:
        scene, names = self._scenes[index]
        base = self.folder / scene / str(names[place])  # ends in .jpg already, and gets another suffix
        path = base.with_name(f"{base.name}.jpg")
        K, world_from_camera = read_arrays(base.with_name(f"{base.name}.npz"), "intrinsics", "cam2world")
        depth = read_exr(base.with_name(f"{base.name}.exr"))
        return make_frame(path, read_picture(path), depth, K, world_from_camera)


def _pictures_of_pairs(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs, structured (scene, picture, picture, score) -> (N,) scene and (N,) number of each picture, once."""
    scene, first, second = (pairs[field].astype(np.int64) for field in (pairs.dtype.names or ())[:3])
    both = np.stack([np.concatenate([scene, scene]), np.concatenate([first, second])], axis=1)
    return tuple(np.unique(both, axis=0).T)


def _part(scene: str) -> str:
    """ "0015 0" of the table of pairs, or "0015/0" of the table of scenes, as a path."""
    return "/".join(scene.replace("/", " ").split())
