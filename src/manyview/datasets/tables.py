"""Index files of ScanNet++, ARKitScenes and MegaDepth: one table of pictures, each with its scene."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def grouped_by_name(scenes: np.ndarray, names: np.ndarray, *further: np.ndarray) -> list[np.ndarray]:
    """Rows of a table by scene (and by further columns, if any), each group ordered by the pictures' names.

    Args:
        scenes: (N,) number of each picture's scene.
        names: (N,) text.
        further: (N,) each; pictures that differ in one of them are never in one group.

    Returns:
        (n,) int64 row numbers for each group.
    """
    keys: Sequence[np.ndarray] = (scenes, *further)
    order = np.lexsort((names, *reversed(keys)))
    new_group = np.zeros(max(len(order) - 1, 0), dtype=bool)
    for key in keys:
        new_group |= np.diff(np.asarray(key)[order].astype(np.int64)) != 0
    return np.split(order, np.flatnonzero(new_group) + 1) if len(order) else []
