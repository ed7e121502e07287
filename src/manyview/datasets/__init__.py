"""Readers for public data sets and for folders of posed RGB-D scenes: `open_dataset(kind, folder).sample(...)`.

What each kind expects in its folder, its licence and how views are chosen: docs/datasets.md.
"""

from manyview.datasets.base import Augmentation, PosedDataset, Split
from manyview.datasets.open import KINDS, open_dataset

__all__ = ["KINDS", "Augmentation", "PosedDataset", "Split", "open_dataset"]
