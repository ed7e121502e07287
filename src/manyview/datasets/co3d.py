"""CO3Dv2 as DUSt3R's preprocessing writes it: turntable-like videos of objects."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from manyview.datasets.base import Augmentation, PosedDataset, Split, UnusableSceneError
from manyview.datasets.choose import distinct, filled, jittered
from manyview.datasets.frames import Frame, make_frame, read_arrays, read_grey, read_json, read_picture, reading
from manyview.errors import InputError

TURN = 100  # entries of a sequence's list that are taken for a full turn
SHIFT = 4
MASK_THRESHOLD = 0.1  # foreground probability
_LARGEST = 65535  # depth maps are stored as shares of the frame's largest depth


class _Sequence(NamedTuple):
    category: str
    name: str
    numbers: list[int]  # of files


class Co3d(PosedDataset):
    """Depth is that of the object alone: elsewhere it is removed, in every sample, while pictures are left whole.

    The published loader draws every sample of a sequence from one fixed combination of frames, by an oversight; here
    frames of the full turn are drawn anew. As published, they are in order of time, the last one first.
    K is taken as published; the convention of its half pixel is not known.
    """

    layout = "selected_seqs_train.json beside <category>/<sequence>/{images,depths,masks}/ (CO3D after preprocessing)"

    def __init__(self, folder: Path, *, split: Split, augmentation: Augmentation) -> None:
        super().__init__(folder, split=split, augmentation=augmentation)
        path = folder / f"selected_seqs_{split}.json"
        selected = read_json(path)
        with reading(path):
            self._sequences = [
                _Sequence(category, name, [int(number) for number in numbers])
                for category, sequences in sorted(selected.items())
                for name, numbers in sorted(sequences.items())
                if numbers
            ]

    def __len__(self) -> int:
        return len(self._sequences)

    def name(self, index: int) -> str:
        return f"{self._sequences[index].category}/{self._sequences[index].name}"

    def _frames(self, index: int, views: int, generator: np.random.Generator) -> list[Frame]:
        sequence = self._sequences[index]
        places = sorted(distinct(min(TURN, len(sequence.numbers)), views, generator))
        places = jittered(places, SHIFT, len(sequence.numbers), generator)[::-1]
        frames = [self._frame(sequence, sequence.numbers[place]) for place in places]
        usable = [frame for frame in frames if frame.depth.any()]
        if not usable:
            raise UnusableSceneError("no frame with depth")
        return filled(usable, views, generator)

    def _frame(self, sequence: _Sequence, number: int) -> Frame:
        folder, stem = self.folder / sequence.category / sequence.name, f"frame{number:06d}"
        path = folder / "images" / f"{stem}.jpg"
        K, world_from_camera, largest = read_arrays(
            path.with_suffix(".npz"), "camera_intrinsics", "camera_pose", "maximum_depth"
        )
        shares = read_grey(folder / "depths" / f"{stem}.jpg.geometric.png", np.uint16) / _LARGEST
        foreground = read_grey(folder / "masks" / f"{stem}.png", np.uint8) / 255 > MASK_THRESHOLD
        if foreground.shape != shares.shape:
            raise InputError(f"{path}: mask of shape {foreground.shape} and depth of {shares.shape}, expected the same")
        scale = float(largest) if np.isfinite(largest) else 0.0
        return make_frame(path, read_picture(path), np.where(foreground, shares * scale, 0), K, world_from_camera)
