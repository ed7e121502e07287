"""The connected parts of a pair graph: pictures in different parts share no frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def groups(edges: np.ndarray | Sequence, views: int) -> tuple[tuple[int, ...], ...]:
    """The connected parts of a graph, whatever the direction of its edges.

    Args:
        edges: (E, 2) indices of pictures, each below `views`.
        views: number of pictures; one without an edge is a part of its own.

    Returns:
        The pictures of each part in increasing order; the largest part first, on ties the one with the lowest picture.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if views == 0:
        return ()
    pairs = np.asarray(edges, dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(views, views))
    count, label = connected_components(graph, directed=False)
    parts = [tuple(np.flatnonzero(label == part).tolist()) for part in range(count)]
    return tuple(sorted(parts, key=lambda part: (-len(part), part)))
