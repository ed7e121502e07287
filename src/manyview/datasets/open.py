"""Data sets by name."""

from __future__ import annotations

from pathlib import Path

from manyview.datasets.arkitscenes import ArkitScenes
from manyview.datasets.base import Augmentation, PosedDataset, Split
from manyview.datasets.blendedmvs import BlendedMvs
from manyview.datasets.co3d import Co3d
from manyview.datasets.habitat import Habitat
from manyview.datasets.megadepth import MegaDepth
from manyview.datasets.scannetpp import ScanNetPP
from manyview.datasets.worlds_folder import WorldsFolder
from manyview.errors import InputError

_READERS: dict[str, type[PosedDataset]] = {
    "worlds-folder": WorldsFolder,
    "co3d": Co3d,
    "scannetpp": ScanNetPP,
    "arkitscenes": ArkitScenes,
    "habitat": Habitat,
    "blendedmvs": BlendedMvs,
    "megadepth": MegaDepth,
}

KINDS: tuple[str, ...] = tuple(_READERS)
"""Names that `open_dataset` takes."""


def open_dataset(
    kind: str, folder: Path, *, split: Split = "train", augmentation: Augmentation | None = None
) -> PosedDataset:
    """Index a data set that lies in `folder` in the layout of docs/datasets.md.

    Args:
        kind: one of `KINDS`.
        folder: of the data set as its published preparation wrote it; nothing is written there.
        split: "train", or what the set holds out as "test".
        augmentation: what is drawn at random in every sample; None for the published augmentation.

    Raises:
        InputError: the kind is not known, it has no such split, or the folder is missing, damaged or without a scene.
    """
    if kind not in _READERS:
        raise InputError(f"no data set of kind {kind!r}, expected one of {', '.join(KINDS)}")
    reader, folder = _READERS[kind], Path(folder)
    expected = f"A folder of kind {kind!r} holds {reader.layout}."
    if split not in reader.splits:
        raise InputError(f"{kind} has no split {split!r}, expected one of {', '.join(reader.splits)}")
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", hint=expected)
    try:
        dataset = reader(folder, split=split, augmentation=augmentation or Augmentation())
    except InputError as error:
        error.hint = error.hint or expected
        raise
    if len(dataset) == 0:
        raise InputError(f"{folder} holds no scene (split {split!r})", hint=expected)
    return dataset
