"""Which points of two sets are each other's nearest: the matches that two pointmaps in one frame give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from manyview.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Search = Literal["auto", "tree", "brute"]

DISTANCES_AT_ONCE = 1 << 25
"""The brute-force search holds about this many distances at a time (128 MB in float32)."""


def reciprocal_matches(
    points_a: np.ndarray | Tensor, points_b: np.ndarray | Tensor, *, search: Search = "auto"
) -> np.ndarray:
    """Pairs of points that are each other's nearest neighbour (DUSt3R, section 3.3 of the paper).

    Args:
        points_a, points_b: (P, 3) and (Q, 3), arrays or tensors, in one frame. Non-finite points match nothing.
        search: "tree", a k-d tree on the CPU in float64; "brute", all distances on the tensors' device and in their
            precision, a block at a time; "auto", brute force for tensors on an accelerator and the tree otherwise.
            Both give the same pairs, but for distances that are equal within rounding.

    Returns:
        (M, 2) int64 row numbers in `points_a` and `points_b`, increasing in the second; each row occurs once at most.

    Raises:
        InputError: a set is not (P, 3), or the search is unknown.
    """
    for points in (points_a, points_b):
        if points.ndim != 2 or points.shape[1] != 3:
            raise InputError(
                f"got points of shape {tuple(points.shape)}, expected (P, 3)", hint="Give the maps flattened."
            )
    brute = _is_brute(search, points_a, points_b)
    rows_a, rows_b = _finite_rows(points_a), _finite_rows(points_b)
    if not rows_a.size or not rows_b.size:
        return np.zeros((0, 2), dtype=np.int64)
    neighbours = _mutual_by_distances if brute else _mutual_by_trees
    nearest_a, nearest_b = neighbours(points_a[rows_a], points_b[rows_b])  # a's nearest in b, and b's nearest in a
    chosen_b = np.flatnonzero(nearest_a[nearest_b] == np.arange(len(nearest_b)))
    return np.stack([rows_a[nearest_b[chosen_b]], rows_b[chosen_b]], axis=-1)


def nearest_neighbours(queries: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(Q, 3) finite points, (P, 3) finite points -> (Q,) int64: the row of the nearest target, by a k-d tree."""
    from scipy.spatial import KDTree

    # Neither balance nor tight boxes change the result, and pointmaps build several times faster without them.
    tree = KDTree(targets, balanced_tree=False, compact_nodes=False)
    return np.asarray(tree.query(queries, workers=-1)[1], dtype=np.int64)


def _is_brute(search: Search, *sets: np.ndarray | Tensor) -> bool:
    if search not in ("auto", "tree", "brute"):
        raise InputError(f'search: expected "auto", "tree" or "brute", got {search!r}')
    if search != "auto":
        return search == "brute"
    return any(not isinstance(points, np.ndarray) and points.device.type != "cpu" for points in sets)


def _host(points: np.ndarray | Tensor) -> np.ndarray:
    return points if isinstance(points, np.ndarray) else points.detach().cpu().numpy()


def _finite_rows(points: np.ndarray | Tensor) -> np.ndarray:
    if isinstance(points, np.ndarray):
        return np.flatnonzero(np.isfinite(points).all(axis=1))
    return points.isfinite().all(dim=1).nonzero()[:, 0].cpu().numpy()


def _mutual_by_trees(points_a: np.ndarray | Tensor, points_b: np.ndarray | Tensor) -> tuple[np.ndarray, np.ndarray]:
    host_a, host_b = _host(points_a), _host(points_b)
    return nearest_neighbours(host_a, host_b), nearest_neighbours(host_b, host_a)


def _mutual_by_distances(points_a: np.ndarray | Tensor, points_b: np.ndarray | Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Both directions from one pass over all distances: a block of b's rows against all of a."""
    import torch

    all_a = torch.as_tensor(points_a)
    all_b = torch.as_tensor(points_b).to(all_a)
    best = torch.full((len(all_a),), torch.inf, dtype=all_a.dtype, device=all_a.device)
    nearest_a = torch.zeros(len(all_a), dtype=torch.int64, device=all_a.device)
    nearest_b = torch.empty(len(all_b), dtype=torch.int64, device=all_a.device)
    step = max(1, DISTANCES_AT_ONCE // len(all_a))
    for start in range(0, len(all_b), step):
        # Without matrix products, whose rounding would decide between neighbours far from the origin.
        block = torch.cdist(all_b[start : start + step], all_a, compute_mode="donot_use_mm_for_euclid_dist")
        nearest_b[start : start + step] = block.argmin(dim=1)
        shortest, rows = block.min(dim=0)
        nearer = shortest < best
        best = torch.where(nearer, shortest, best)
        nearest_a = torch.where(nearer, rows + start, nearest_a)
    return nearest_a.cpu().numpy(), nearest_b.cpu().numpy()
