"""Two pictures need no optimisation: one camera is the world, PnP gives the other (DUSt3R's pair viewer)."""

from __future__ import annotations

import time

import numpy as np

from manyview.alignment.cleaning import SHOWN_CONFIDENCE, fused_confidence
from manyview.alignment.objective import published_objective
from manyview.alignment.problem import Alignment, PairMaps
from manyview.alignment.spanning_tree import fit_pixels, published_focal
from manyview.errors import InputError
from manyview.geometry import (
    Similarity,
    depth_from_points,
    intrinsics,
    invert_rigid,
    points_from_depth,
    solve_pnp,
)

PNP_ITERATIONS = 100
PNP_REPROJECTION_ERROR = 5.0


def align_two_views(pairs: PairMaps) -> Alignment:
    """Cameras and depth of two pictures from both of their pairs, (0, 1) and (1, 0), as published.

    The pair with the better score rules: its first camera is the world, its points are those of both pictures. The
    other pair gives the second picture's focal length only. Depth is z-depth in each picture's own camera; where a
    point lies behind it depth is 0, and points made from depth differ a little from the network's. Where the second
    camera cannot be found it is put where the first one is and named in `cameras_not_found`.

    Raises:
        InputError: not exactly the pairs (0, 1) and (1, 0) of two pictures.
    """
    started = time.perf_counter()
    world, ruling_row, other_row = _ruling(pairs)
    other = 1 - world
    ruling = pairs.points[ruling_row]
    points = {world: ruling[0].cpu().numpy(), other: ruling[1].cpu().numpy()}
    confidence = fused_confidence(pairs)
    own_row = {world: ruling_row, other: other_row}
    K = np.stack([_own_intrinsics(pairs, own_row[view]) for view in (0, 1)])
    camera = _second_camera(points[other], confidence[other], K[other])
    cameras = np.tile(np.eye(4), (2, 1, 1))
    cameras[other] = cameras[other] if camera is None else camera
    depth = [depth_from_points(points[view], invert_rigid(cameras[view])).astype(np.float32) for view in (0, 1)]
    world_from_pair = _place_pairs(pairs, K, cameras, depth, other_row)
    return Alignment(
        world_from_camera=cameras,
        K=K,
        depth=depth,
        confidence=confidence,
        world_from_pair=world_from_pair,
        objective=published_objective(
            pairs, world_from_camera=cameras, K=K, depth=depth, world_from_pair=world_from_pair
        ),
        seconds=time.perf_counter() - started,
        mode="fast",
        steps=0,
        groups=((0, 1),),
        cameras_not_found=(other,) if camera is None else (),
    )


def _ruling(pairs: PairMaps) -> tuple[int, int, int]:
    """The picture whose camera is the world, the row of the edge where it is first, and the other row."""
    rows = {tuple(edge): row for row, edge in enumerate(pairs.edges.tolist())}
    if pairs.views != 2 or len(pairs.edges) != 2 or len(rows) != 2:
        raise InputError(
            f"got edges {pairs.edges.tolist()} of {pairs.views} pictures; expected (0, 1) and (1, 0)",
            hint="More pictures, or one direction alone, are for align_pairs.",
        )
    forward, backward = rows[0, 1], rows[1, 0]
    scores = pairs.scores
    return (0, forward, backward) if scores[forward] > scores[backward] else (1, backward, forward)


def _second_camera(points: np.ndarray, confidence: np.ndarray, K: np.ndarray) -> np.ndarray | None:
    """world_from_camera (4, 4) of the picture whose points (H, W, 3) these are in the world."""
    found = solve_pnp(
        points,
        K,
        confidence > SHOWN_CONFIDENCE,
        iterations=PNP_ITERATIONS,
        reprojection_error=PNP_REPROJECTION_ERROR,
        refine=False,
    )
    return None if found is None else found.world_from_camera


def _own_intrinsics(pairs: PairMaps, row: int) -> np.ndarray:
    height, width = pairs.sizes[int(pairs.edges[row, 0])]
    centre = (width / 2, height / 2)
    points, confidence = pairs.points[row][0].cpu().numpy(), pairs.confidence[row][0].cpu().numpy()
    return intrinsics(published_focal(points, confidence, centre), centre)


def _place_pairs(pairs: PairMaps, K: np.ndarray, cameras: np.ndarray, depth: list[np.ndarray], row: int) -> np.ndarray:
    """(2, 4, 4): the ruling pair is the world; the one at `row` is laid onto its first picture's points."""
    first = int(pairs.edges[row, 0])
    target = points_from_depth(depth[first], K[first], cameras[first])
    own, confidence = pairs.points[row][0].cpu().numpy(), pairs.confidence[row][0].cpu().numpy()
    try:
        fitted = fit_pixels(own, target, confidence)
    except InputError:
        # Too few pixels take part to fit it: its first camera is all that is known of this pair.
        fitted = Similarity(scale=1.0, rotation=cameras[first, :3, :3], translation=cameras[first, :3, 3])
    world_from_pair = np.tile(np.eye(4), (2, 1, 1))
    world_from_pair[row] = fitted.matrix
    return world_from_pair
