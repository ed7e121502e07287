"""The published start of global alignment where every camera and every focal length is known."""

from __future__ import annotations

import numpy as np

from manyview.alignment.problem import KnownCameras, PairMaps
from manyview.alignment.spanning_tree import (
    DEPTH_WITHOUT_POINT,
    PNP_ITERATIONS,
    PNP_REPROJECTION_ERROR,
    InitialState,
    align_cameras,
    best_tree,
    fixes_scale,
)
from manyview.errors import InputError
from manyview.geometry import Similarity, depth_from_points, intrinsics, invert_rigid, solve_pnp, transform_points


def is_all_known(known: KnownCameras, views: int) -> bool:
    """Every camera and every focal length is known, and the cameras do not all stand in one place."""
    complete = all(known.camera_of(view) is not None and known.focal_of(view) for view in range(views))
    return complete and fixes_scale(known, views)


def known_cameras_state(pairs: PairMaps, known: KnownCameras) -> InitialState:
    """Pair similarities and depth for cameras and focal lengths that are all known, as published.

    The second camera of each edge is found from its points, which gives the edge's own two cameras; these are laid onto
    the known ones. Depth is that of the most confident edge of each picture.

    Where that fails for an edge (no camera is found, or its two known cameras stand in one place) its scale is the
    one that the others give its first picture. The published code stops there.

    Raises:
        InputError: no edge gives a scale.
    """
    cameras = np.stack([np.asarray(known.camera_of(view), dtype=np.float64) for view in range(pairs.views)])
    placed = [_place_edge(pairs, known, cameras, row) for row in range(len(pairs.edges))]
    sure = [row for row, found in enumerate(placed) if found is not None]
    if not sure:
        raise InputError(
            "no pair fits its two known cameras", hint="Check that the cameras are world_from_camera, in this order."
        )
    middle = float(np.median([found.scale for found in placed if found is not None]))
    best = [_best_edge(pairs, view, sure) for view in range(pairs.views)]
    world_from_pair = [
        _place_by_first(pairs, cameras, placed, best, row, middle) if found is None else found
        for row, found in enumerate(placed)
    ]
    return InitialState(
        world_from_camera=cameras,
        camera_found=np.ones(pairs.views, dtype=bool),
        focal=np.array([known.focal_of(view) for view in range(pairs.views)], dtype=np.float64),
        depth=[_depth(pairs, cameras, world_from_pair, best[view], view) for view in range(pairs.views)],
        world_from_pair=world_from_pair,
        tree=pairs.edges[best_tree(pairs)],
        fixes_scale=True,
    )


def _place_edge(pairs: PairMaps, known: KnownCameras, cameras: np.ndarray, row: int) -> Similarity | None:
    """From an edge's frame to the world; None where it cannot be told."""
    first, second = pairs.edges[row].tolist()
    # QUIRK: the published code sees the second picture with the first one's focal length and principal point. That
    # is possible for pictures of one size only.
    lens = first if pairs.sizes[first] == pairs.sizes[second] else second
    K = intrinsics(float(known.focal_of(lens) or 0), known.principal_point_of(lens, pairs.sizes[lens]))
    points, confidence = pairs.points[row][1].cpu().numpy(), pairs.confidence[row][1].cpu().numpy()
    found = solve_pnp(
        points,
        K,
        confidence > 0,
        iterations=PNP_ITERATIONS,
        reprojection_error=PNP_REPROJECTION_ERROR,
        refine=False,
    )
    if found is None:
        return None
    try:
        return align_cameras(np.stack([np.eye(4), found.world_from_camera]), cameras[[first, second]])
    except InputError:
        return None


def _best_edge(pairs: PairMaps, view: int, rows: list[int]) -> tuple[int, int] | None:
    """(row, side) of the most confident map of a picture; where it is first, if it ever is."""
    for side in (0, 1):
        candidates = [row for row in rows if pairs.edges[row, side] == view]
        if candidates:
            return max(candidates, key=lambda row: float(pairs.confidence[row][side].mean())), side
    return None


def _place_by_first(
    pairs: PairMaps,
    cameras: np.ndarray,
    placed: list[Similarity | None],
    best: list[tuple[int, int] | None],
    row: int,
    scale: float,
) -> Similarity:
    """An edge's own first camera goes to the known one; the scale is the best edge's, or else the one given."""
    first = int(pairs.edges[row, 0])
    if (chosen := best[first]) is not None and (reference := placed[chosen[0]]) is not None:
        own = pairs.points[row][0][..., 2].cpu().numpy()
        seen = _z_depth(pairs, cameras, reference, chosen, first)
        usable = (own > 0) & (seen > 0) & (pairs.confidence[row][0].cpu().numpy() > 0)
        scale = float(np.median(seen[usable] / own[usable])) if usable.any() else scale
    return Similarity(scale=scale, rotation=cameras[first, :3, :3], translation=cameras[first, :3, 3])


def _depth(
    pairs: PairMaps,
    cameras: np.ndarray,
    world_from_pair: list[Similarity],
    chosen: tuple[int, int] | None,
    view: int,
) -> np.ndarray:
    """(H, W) float32, above 0."""
    if chosen is None:
        chosen = _best_edge(pairs, view, list(range(len(pairs.edges))))
    assert chosen is not None
    depth = _z_depth(pairs, cameras, world_from_pair[chosen[0]], chosen, view)
    return np.where(depth > 0, depth, DEPTH_WITHOUT_POINT).astype(np.float32)


def _z_depth(
    pairs: PairMaps, cameras: np.ndarray, world_from_pair: Similarity, chosen: tuple[int, int], view: int
) -> np.ndarray:
    """(H, W) of the map at (row, side): of a first picture scaled only, as published; of a second one in the world."""
    row, side = chosen
    points = pairs.points[row][side].cpu().numpy()
    if side == 0:
        return world_from_pair.scale * depth_from_points(points)
    return depth_from_points(transform_points(world_from_pair.matrix, points), invert_rigid(cameras[view]))
