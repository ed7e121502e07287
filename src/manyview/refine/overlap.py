"""Which views share what, in the network's eyes: the pairs that are worth matching."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from manyview.geometry import Camera, spread_sample
from manyview.scene import SceneView

SAMPLES = 400  # points of a view that are looked for in the others: shares are known to about 2 %
LEAST_PERCENTILE = 25  # of the confidence: the least sure quarter of a view's points is not asked
OCCLUSION = 0.25  # a point this share farther than what the other view sees there is hidden from it
NEIGHBOURS_IN_SEQUENCE = 2  # frames of a video are matched with those that follow, whatever the network says


def overlap(views: Sequence[SceneView]) -> np.ndarray:
    """(N, N) share, 0..1, of the confident points of view i that view j sees; 0 where the network gave no camera.

    A point is seen if it projects into the picture and does not lie far behind the other view's own depth there.
    """
    cameras = [camera_in_group(view) for view in views]
    shares = np.eye(len(views))
    for first, view in enumerate(views):
        points = _confident_points(view)
        for second, camera in enumerate(cameras):
            linked = first != second and view.group == views[second].group
            if linked and camera is not None and len(points):
                shares[first, second] = _share_seen(points, camera, views[second])
    return shares


def choose_pairs(
    shared: np.ndarray, views: Sequence[SceneView], *, all_up_to: int, per_view: int
) -> list[tuple[int, int]]:
    """The pairs (i < j) to match, in order.

    Args:
        shared: (N, N) of `overlap`.
        views: N of them. Those of which the network says nothing are paired with all others.
        all_up_to: with as many views or fewer, all pairs.
        per_view: pairs of each view with those that share most with it.
    """
    count = len(views)
    if count <= all_up_to:
        return [(i, j) for i in range(count) for j in range(i + 1, count)]
    both = np.minimum(shared, shared.T)
    np.fill_diagonal(both, -1)
    chosen = set()
    for view in range(count):
        best = np.argsort(-both[view], kind="stable")[:per_view]
        chosen |= {(view, int(other)) for other in best if both[view, other] > 0}
        if camera_in_group(views[view]) is None or not both[view].max() > 0:
            chosen |= {(view, other) for other in range(count) if other != view}
        if views[view].timestamp is not None:
            chosen |= {(view, view + step) for step in range(1, NEIGHBOURS_IN_SEQUENCE + 1) if view + step < count}
    return sorted({(min(pair), max(pair)) for pair in chosen})


def bridging_pairs(
    parts: Sequence[Sequence[int]], tried: Sequence[tuple[int, int]], most: int
) -> list[tuple[int, int]]:
    """Pairs (i < j) of views of different parts that were not tried, at most about `most`, spread over all views."""
    part_of = {view: number for number, members in enumerate(parts) for view in members}
    views, done = sorted(part_of), set(tried)
    left = [(i, j) for i in views for j in views if i < j and part_of[i] != part_of[j] and (i, j) not in done]
    return left[:: max(1, -(-len(left) // most))]


def camera_in_group(view: SceneView) -> Camera | None:
    """The camera in the frame that the view's points are in."""
    return view.group_camera if view.group else view.camera


def _confident_points(view: SceneView) -> np.ndarray:
    if not view.valid.any():
        return np.zeros((0, 3))
    sure = view.valid & (view.confidence >= np.percentile(view.confidence[view.valid], LEAST_PERCENTILE))
    return view.points.reshape(-1, 3)[spread_sample(sure, SAMPLES)].astype(np.float64)


def _share_seen(points: np.ndarray, camera: Camera, view: SceneView) -> float:
    pixels, depth = camera.project(points)
    homogeneous = np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(view.original_from_network).T
    height, width = view.size
    x, y = np.nan_to_num(np.rint(homogeneous[:, :2]), nan=-1, posinf=-1, neginf=-1).T
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    x, y = np.where(inside, x, 0).astype(int), np.where(inside, y, 0).astype(int)
    hidden = view.valid[y, x] & (depth > (1 + OCCLUSION) * view.depth[y, x])
    return float(np.mean(inside & ~hidden))
