"""Pair graphs, and the global alignment of pairwise pointmaps (DUSt3R, arXiv 2312.14132, section 3.4)."""

from manyview.alignment.align import align_pairs
from manyview.alignment.problem import Alignment, KnownCameras, PairMaps

__all__ = ["Alignment", "KnownCameras", "PairMaps", "align_pairs"]
