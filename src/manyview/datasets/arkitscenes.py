"""ARKitScenes as DUSt3R's preprocessing writes it: indoor videos by a tablet, turned upright."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from manyview.datasets.base import Augmentation, Split, WindowedDataset
from manyview.datasets.frames import Frame, make_frame, read_arrays, read_grey, read_picture, reading
from manyview.datasets.tables import grouped_by_name

METRES = 1e-3  # per count of the depth maps
_FOLDERS: dict[Split, str] = {"train": "Training", "test": "Test"}


class ArkitScenes(WindowedDataset):
    """Units are metres. QUIRK: scenes that were turned have their principal point off by up to twice its offset."""

    layout = (
        "Training/all_metadata.npz beside Training/<video>/{vga_wide/*.jpg,lowres_depth/*.png} "
        "(ARKitScenes after preprocessing; Test/ likewise)"
    )
    crop_jitter = 256
    window = 5

    def __init__(self, folder: Path, *, split: Split, augmentation: Augmentation) -> None:
        super().__init__(folder / _FOLDERS[split], split=split, augmentation=augmentation)
        path = self.folder / "all_metadata.npz"
        self._scenes, self._scene_of, self._names, intrinsics, self._poses = read_arrays(
            path, "scenes", "sceneids", "images", "intrinsics", "trajectories"
        )
        with reading(path):
            self._K = intrinsics if intrinsics.ndim == 3 else _matrices(intrinsics)
            self._groups = grouped_by_name(self._scene_of, self._names)

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def weights(self) -> np.ndarray:
        return np.array([len(group) for group in self._groups], dtype=np.float64)

    def name(self, index: int) -> str:
        return str(self._scenes[self._scene_of[self._groups[index][0]]])

    def count(self, index: int) -> int:
        return len(self._groups[index])

    def _frame(self, index: int, place: int) -> Frame:
        row = self._groups[index][place]
        # The table says .png, which is how pictures were downloaded; they are stored as .jpg.
        folder, stem = self.folder / self.name(index), Path(str(self._names[row])).stem
        path = folder / "vga_wide" / f"{stem}.jpg"
        depth = read_grey(folder / "lowres_depth" / f"{stem}.png", np.uint16) * METRES
        return make_frame(path, read_picture(path), depth, self._K[row], self._poses[row])


def _matrices(rows: np.ndarray) -> np.ndarray:
    """(N, 6) width, height, fx, fy, cx, cy -> (N, 3, 3)."""
    K = np.zeros((len(rows), 3, 3))
    K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2], K[:, 2, 2] = *rows[:, 2:6].T, 1
    return K
