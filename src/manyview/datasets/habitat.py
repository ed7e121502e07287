"""Habitat renders of DUSt3R ("habitat_5views_v1_512x512"): five views of each place in scanned rooms."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from manyview.datasets.base import Augmentation, PosedDataset, Split, UnusableSceneError
from manyview.datasets.choose import distinct
from manyview.datasets.depth_files import read_exr
from manyview.datasets.frames import Frame, make_frame, read_json, read_picture, reading
from manyview.errors import InputError

VIEWS = 5
_LISTS: dict[Split, str] = {"train": "train", "test": "val"}


class Habitat(PosedDataset):
    """View 1 of an instance overlaps all others and always comes first. Units are metres.

    As published, the further views of a sample of more than five are drawn with replacement from views 2 to 5, so that
    large samples hold the same picture several times. The list with the fewest scenes is read (published: 1000).
    """

    layout = "Habitat_<n>_scenes_train.txt beside <scene>/<key>_{1..5}{.jpeg,_depth.exr,_camera_params.json}"

    def __init__(self, folder: Path, *, split: Split, augmentation: Augmentation) -> None:
        super().__init__(folder, split=split, augmentation=augmentation)
        pattern = re.compile(rf"Habitat_(\d+)_scenes_{_LISTS[split]}\.txt")
        lists = {int(match[1]): path for path in folder.iterdir() if (match := pattern.fullmatch(path.name))}
        if not lists:
            expected = f"Habitat_1000_scenes_{_LISTS[split]}.txt"
            raise InputError(f"{folder} has no list of instances such as {expected}")
        with reading(path := lists[min(lists)]):
            lines = path.read_text(encoding="utf-8").splitlines()
            self._instances = [line.strip() for line in lines if line.strip()]

    def __len__(self) -> int:
        return len(self._instances)

    def name(self, index: int) -> str:
        return self._instances[index]

    def _frames(self, index: int, views: int, generator: np.random.Generator) -> list[Frame]:
        if views <= VIEWS:
            others = distinct(VIEWS - 1, views - 1, generator)
        else:
            others = generator.integers(VIEWS - 1, size=views - 1).tolist()
        return [self._next_frame(index, view) for view in (0, *(other + 1 for other in others))]

    def _next_frame(self, index: int, first: int) -> Frame:
        """View `first` (0 to 4), or the next one whose camera is finite."""
        for view in range(first, first + VIEWS):
            base = f"{self.folder / self._instances[index]}_{view % VIEWS + 1}"
            K, world_from_camera = _camera(Path(f"{base}_camera_params.json"))
            if np.isfinite(K).all() and np.isfinite(world_from_camera).all():
                path = Path(f"{base}.jpeg")
                return make_frame(path, read_picture(path), read_exr(Path(f"{base}_depth.exr")), K, world_from_camera)
        raise UnusableSceneError("no view with a finite camera")


def _camera(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """K and world_from_camera."""
    values = read_json(path)
    with reading(path):
        world_from_camera = np.eye(4)
        world_from_camera[:3, :3] = values["R_cam2world"]
        world_from_camera[:3, 3] = values["t_cam2world"]
        return np.array(values["camera_intrinsics"], dtype=np.float64), world_from_camera
