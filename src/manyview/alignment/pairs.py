"""Which pictures a pairwise network sees together: the published pair graphs and their filters."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from manyview.alignment.problem import PairMaps
from manyview.errors import InputError

Pair = tuple[int, int]
DEFAULT_WINDOW = 3
KNOWN_GRAPHS = "complete, swin[-WINDOW][-noncyclic], logwin[-WINDOW][-noncyclic], oneref[-PICTURE]"


def make_pairs(
    views: int,
    graph: str = "complete",
    *,
    prefilter: str | None = None,
    symmetric: bool = True,
    self_pairs: bool = False,
) -> np.ndarray:
    """The pairs (first picture, second picture) of a graph, as DUSt3R builds them.

    The pairs are the published ones. Their order is too where it is defined (`complete`, `oneref`); the published order
    of window graphs is that of a Python set, here they are sorted.

    Args:
        views: number of pictures N. One picture has no pair: the caller may duplicate it and ask for two.
        graph: `complete` (every pair); `swin-W` (each picture with the next W, default 3, cyclically unless
            `-noncyclic` is appended); `logwin-W` (with those 1, 2, 4, ..., 2^(W-1) before and after); `oneref-K` (with
            picture K, default 0).
        prefilter: `seqK` keeps pairs at most K pictures apart, `cycK` the same along a closed loop.
        symmetric: append each pair in the other direction, after all the others.
        self_pairs: keep the pairs (i, i) that the published cyclic `swin` has where its window is as long as the loop.
            Nothing is gained from them.

    Returns:
        (E, 2) int64.

    Raises:
        InputError: a graph or a prefilter that is not known, or a reference picture that is not there.
    """
    if views < 1:
        raise InputError(f"got {views} pictures; expected at least one")
    base = [pair for pair in _base_pairs(views, graph) if self_pairs or pair[0] != pair[1]]
    edges = np.array(base, dtype=np.int64).reshape(-1, 2)
    if symmetric:
        edges = np.concatenate([edges, edges[:, ::-1]])
    return edges if prefilter is None else edges[prefilter_mask(edges, prefilter)]


def prefilter_mask(edges: np.ndarray, prefilter: str) -> np.ndarray:
    """(E,) bool: which of the edges (E, 2) a prefilter, `seqK` or `cycK`, keeps."""
    matched = re.fullmatch(r"(seq|cyc)(\d+)", prefilter)
    if matched is None:
        raise InputError(f"unknown prefilter {prefilter!r}", hint="Known are seqK and cycK, such as seq3.")
    kind, limit = matched[1], int(matched[2])
    difference = edges[:, 0] - edges[:, 1]
    distance = np.abs(difference)
    if kind == "cyc" and len(edges):
        loop = 1 + int(edges.max())
        distance = np.minimum(distance, np.minimum(np.abs(difference + loop), np.abs(difference - loop)))
    return distance <= limit


def filter_pairs(pairs: PairMaps, prefilter: str) -> PairMaps:
    """Those of already computed pairs that a prefilter, `seqK` or `cycK`, keeps.

    Raises:
        InputError: the prefilter is not known, or leaves a picture without any edge.
    """
    kept = np.flatnonzero(prefilter_mask(pairs.edges, prefilter)).tolist()
    edges = pairs.edges[kept]
    if alone := sorted(set(range(pairs.views)) - set(edges.reshape(-1).tolist())):
        raise InputError(f"prefilter {prefilter!r} leaves pictures {alone} without any pair", hint="Use a larger K.")
    return pairs.rows(kept)


def _base_pairs(views: int, graph: str) -> list[Pair]:
    """Before the pairs of the other direction are appended."""
    name, *options = graph.split("-")
    if name == "complete" and not options:
        return [(i, j) for i in range(views) for j in range(i)]
    if name == "oneref" and len(options) <= 1:
        reference = _number(options, default=0, graph=graph)
        if reference >= views:
            raise InputError(f"pair graph {graph!r} names picture {reference}, but there are {views} (from 0)")
        return [(reference, j) for j in range(views) if j != reference]
    if name in ("swin", "logwin"):
        cyclic = options[-1:] != ["noncyclic"]
        options = options if cyclic else options[:-1]
        if len(options) <= 1:
            window = _number(options, default=DEFAULT_WINDOW, graph=graph)
            if window < 1:
                raise _unknown(graph)
            neighbours = _swin_neighbours if name == "swin" else _logwin_neighbours
            return sorted({(min(pair), max(pair)) for pair in neighbours(views, window, cyclic)})
    raise _unknown(graph)


def _number(options: list[str], *, default: int, graph: str) -> int:
    if not options:
        return default
    if not re.fullmatch(r"\d+", options[0]):
        raise _unknown(graph)
    return int(options[0])


def _unknown(graph: str) -> InputError:
    return InputError(f"unknown pair graph {graph!r}", hint=f"Known are {KNOWN_GRAPHS}.")


def _swin_neighbours(views: int, window: int, cyclic: bool) -> Iterator[Pair]:
    # Once round the loop is enough: farther neighbours repeat the same pairs.
    for i in range(views):
        for j in range(i + 1, i + min(window, views) + 1):
            if cyclic or j < views:
                yield i, j % views


def _logwin_neighbours(views: int, window: int, cyclic: bool) -> Iterator[Pair]:
    # In a loop, long offsets still lead to new neighbours (2^k modulo N), until the remainders repeat.
    offsets = {2**power % views if cyclic else 2**power for power in range(window)}
    for i in range(views):
        for j in (i + signed for offset in offsets for signed in (-offset, offset)):
            if cyclic and j % views != i:
                yield i, j % views
            elif not cyclic and 0 <= j < views:
                yield i, j
