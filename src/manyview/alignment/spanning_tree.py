"""The published start of global alignment: pairs are put together along the best spanning tree of the graph.

DUSt3R (arXiv 2312.14132), section 3.4 and its published implementation's "mst" initialisation.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from manyview.alignment.cleaning import fused_confidence
from manyview.alignment.problem import KnownCameras, PairMaps
from manyview.errors import InputError
from manyview.geometry import (
    PnpResult,
    Similarity,
    depth_from_points,
    estimate_focal,
    fit_similarity,
    intrinsics,
    invert_rigid,
    solve_pnp,
    solve_pnp_unknown_focal,
)

# The published scale of a pair: the geometric mean over all pairs, where no known cameras say otherwise.
BASE_SCALE = 0.5
FOCAL_ITERATIONS = 10
PNP_ITERATIONS = 10
PNP_CONFIDENCE_LIMIT = 3.0
PNP_REPROJECTION_ERROR = 5.0
PNP_FOCAL_CANDIDATES = 21
# Known centres nearer to each other than this share of their distance from the origin are one place.
SAME_PLACE = 1e-6
# Depth of pixels whose point is not in front of the camera, as published (log depth 0).
DEPTH_WITHOUT_POINT = 1.0


@dataclass(frozen=True, kw_only=True)
class InitialState:
    """Where global alignment starts.

    Attributes:
        world_from_camera: (N, 4, 4) float64, rigid.
        camera_found: (N,) bool; False where no camera could be found: the origin of the tree stands for it, as
            published.
        focal: (N,) float64, pixels.
        depth: N times (H, W) float32 z-depth, above 0.
        world_from_pair: E similarities: from the frame of each edge's first camera to the world.
        tree: (N - 1, 2) the edges of the spanning tree, best first.
        fixes_scale: the known cameras fix the world's scale. Otherwise the geometric mean of the pairs' scales is 0.5.
    """

    world_from_camera: np.ndarray
    camera_found: np.ndarray
    focal: np.ndarray
    depth: list[np.ndarray]
    world_from_pair: list[Similarity]
    tree: np.ndarray
    fixes_scale: bool


def spanning_tree_state(
    pairs: PairMaps, known: KnownCameras | None = None, *, published_focals: bool = False
) -> InitialState:
    """Cameras, depth and pair similarities of a connected graph, from its best spanning tree.

    Args:
        pairs: of a connected graph.
        known: cameras that are known: what is found moves to where they are, and they are taken as they are. One alone
            fixes the frame (the published code refuses that), two or more at different places fix its scale too.
        published_focals: reproduce the published mix-up of focal lengths (see `_published_focals`), and find cameras
            with estimated focal lengths even where they are known.

    Raises:
        InputError: the graph falls apart, or an edge has too few pixels to be placed.
    """
    known = KnownCameras() if known is None else known
    tree = best_tree(pairs)
    placed = _place_along(pairs, tree)
    focal = _focals(pairs, known, placed, published_focals)
    _find_missing_cameras(pairs, known, placed, focal)
    found = np.array([camera is not None for camera in placed.cameras])
    cameras = np.stack([np.eye(4) if camera is None else camera for camera in placed.cameras])
    world_from_pair = [_place_pair(pairs, row, placed.points) for row in range(len(pairs.edges))]
    world = _world_from_tree(known, cameras, found, world_from_pair)
    cameras = world.apply_to_camera(cameras)
    depth = [_depth(world.apply(points), camera) for points, camera in zip(placed.points, cameras, strict=True)]
    for view in range(pairs.views):
        cameras[view] = cameras[view] if known.camera_of(view) is None else known.camera_of(view)
        focal[view] = known.focal_of(view) or focal[view]
    return InitialState(
        world_from_camera=cameras,
        camera_found=found | np.array([known.camera_of(view) is not None for view in range(pairs.views)]),
        focal=focal,
        depth=depth,
        world_from_pair=[world.compose(pair) for pair in world_from_pair],
        tree=pairs.edges[[row for row, _ in placed.order]],
        fixes_scale=fixes_scale(known, pairs.views),
    )


def best_tree(pairs: PairMaps) -> list[int]:
    """Rows of the N - 1 edges of the spanning tree with the highest sum of scores, best edge first.

    Of two edges in opposite directions the one with the better score counts.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    scores = pairs.scores
    # Sorted from worst to best, so that among repeated edges the best one stays.
    best = {tuple(pairs.edges[row].tolist()): int(row) for row in np.argsort(scores, kind="stable")}
    rows = np.array(list(best.values()))
    # A sparse matrix has no edge where its weight is 0.
    weights = -np.maximum(scores[rows], np.finfo(np.float64).tiny)
    first, second = pairs.edges[rows].T
    tree = minimum_spanning_tree(coo_array((weights, (first, second)), shape=(pairs.views, pairs.views)).tocsr())
    chosen = [best[int(i), int(j)] for i, j in zip(*tree.nonzero(), strict=True)]
    if len(chosen) != pairs.views - 1:
        raise InputError(
            f"{pairs.views} pictures are not all joined by the pairs", hint="Align each connected part alone."
        )
    return sorted(chosen, key=lambda row: -scores[row])


def published_focal(points: np.ndarray, confidence: np.ndarray, principal_point: tuple[float, float]) -> float:
    """Focal length in pixels of points (H, W, 3) in their own camera's frame: ten Weiszfeld steps.

    As published, confidence (H, W) has no influence, but for pixels of confidence 0, which take no part in anything.
    """
    usable = np.where((confidence > 0)[..., None], points, np.nan)
    return estimate_focal(usable, principal_point=principal_point, iterations=FOCAL_ITERATIONS)


def fit_pixels(source: np.ndarray, target: np.ndarray, confidence: np.ndarray) -> Similarity:
    """The similarity from points (H, W, 3) to points (H, W, 3), weighted by the raw confidence (H, W)."""
    return fit_similarity(source.reshape(-1, 3), target.reshape(-1, 3), confidence.reshape(-1))


def fixes_scale(known: KnownCameras, views: int) -> bool:
    """Whether the known cameras of N pictures say how large the world is: two of them stand at different places."""
    cameras = [camera for view in range(views) if (camera := known.camera_of(view)) is not None]
    return _are_apart(np.array(cameras, dtype=np.float64).reshape(-1, 4, 4))


def align_cameras(estimated: np.ndarray, target: np.ndarray) -> Similarity:
    """The similarity from estimated cameras (P, 4, 4) to target ones, as published.

    It is fitted to the centres and to points a little in front of them, so that two cameras are enough.

    Raises:
        InputError: the centres of either set are all in one place.
    """
    last_error: InputError | None = None
    # Cameras that look along the line on which they stand need their other axes to fix the roll, too.
    for axes in ((2,), (0, 1, 2)):
        try:
            return fit_similarity(_camera_points(estimated, axes), _camera_points(target, axes))
        except InputError as error:
            last_error = error
    raise InputError("cameras that are all in one place do not fix a scale") from last_error


@dataclass
class _Placed:
    """What is placed so far, in the frame of the tree's first camera."""

    points: list[np.ndarray]
    cameras: list[np.ndarray | None]
    # (row of the edge handled, row of the edge handled before it), in the order of handling.
    order: list[tuple[int, int]] = field(default_factory=list)


def _place_along(pairs: PairMaps, tree: list[int]) -> _Placed:
    """Points of every picture, and the cameras of those that are first in an edge of the tree."""
    points: list[np.ndarray | None] = [None] * pairs.views
    placed = _Placed(points=[], cameras=[None] * pairs.views)
    queue = deque(tree)
    previous = queue[0]
    while queue:
        row = queue.popleft()
        first, second = pairs.edges[row].tolist()
        if placed.order and points[first] is None and points[second] is None:
            queue.append(row)
            continue
        _place_edge(pairs, row, points, placed.cameras)
        placed.order.append((row, previous))
        previous = row
    placed.points = [given for given in points if given is not None]
    return placed


def _place_edge(pairs: PairMaps, row: int, points: list[np.ndarray | None], cameras: list[np.ndarray | None]) -> None:
    """Place an edge's pictures by the one that has its place, or as the origin if neither has one."""
    first, second = pairs.edges[row].tolist()
    own = _arrays(pairs.points[row])
    confidence = _arrays(pairs.confidence[row])
    if points[first] is not None:
        fitted = _fit_edge(own[0], points[first], confidence[0], (first, second))
        points[second] = fitted.apply(own[1])
    elif points[second] is not None:
        fitted = _fit_edge(own[1], points[second], confidence[1], (first, second))
        points[first] = fitted.apply(own[0])
    else:
        fitted = Similarity.identity()
        points[first], points[second] = (given.astype(np.float64) for given in own)
    if cameras[first] is None:
        cameras[first] = _rigid(fitted)


def _fit_edge(
    source: np.ndarray, target: np.ndarray | None, confidence: np.ndarray, edge: tuple[int, int]
) -> Similarity:
    assert target is not None
    try:
        return fit_pixels(source, target, confidence)
    except InputError as error:
        raise InputError(
            f"edge {edge} cannot be placed: too few of its pixels have confidence and a place of their own",
            hint="Leave this edge out, or mask less.",
        ) from error


def _place_pair(pairs: PairMaps, row: int, points: list[np.ndarray]) -> Similarity:
    """From an edge's frame to the world, by the points of its first picture."""
    first, second = pairs.edges[row].tolist()
    own, confidence = pairs.points[row][0].cpu().numpy(), pairs.confidence[row][0].cpu().numpy()
    return _fit_edge(own, points[first], confidence, (first, second))


def _focals(pairs: PairMaps, known: KnownCameras, placed: _Placed, published: bool) -> np.ndarray:
    """(N,) pixels; nan where a picture is first in no edge and its focal length is not known."""
    focal = np.full(pairs.views, np.nan)
    if published:
        _published_focals(pairs, known, placed, focal)
    else:
        for view in range(pairs.views):
            focal[view] = known.focal_of(view) or np.nan
    for row in np.argsort(-pairs.scores, kind="stable"):
        first = int(pairs.edges[row, 0])
        if np.isnan(focal[first]):
            focal[first] = _focal_of_edge(pairs, known, int(row))
    return focal


def _published_focals(pairs: PairMaps, known: KnownCameras, placed: _Placed, focal: np.ndarray) -> None:
    """QUIRK: along the tree, a picture gets the focal length of the first picture of the edge handled before."""
    for row, previous in placed.order:
        first = int(pairs.edges[row, 0])
        if np.isnan(focal[first]):
            focal[first] = _focal_of_edge(pairs, known, previous)


def _focal_of_edge(pairs: PairMaps, known: KnownCameras, row: int) -> float:
    first = int(pairs.edges[row, 0])
    centre = known.principal_point_of(first, pairs.sizes[first])
    return published_focal(pairs.points[row][0].cpu().numpy(), pairs.confidence[row][0].cpu().numpy(), centre)


def _find_missing_cameras(pairs: PairMaps, known: KnownCameras, placed: _Placed, focal: np.ndarray) -> None:
    """By PnP from the placed points, for pictures that are first in no edge of the tree."""
    confidence = fused_confidence(pairs)
    for view in range(pairs.views):
        if placed.cameras[view] is None or np.isnan(focal[view]):
            centre = known.principal_point_of(view, pairs.sizes[view])
            mask = confidence[view] > PNP_CONFIDENCE_LIMIT
            found = _pnp(placed.points[view], mask, focal[view], centre)
            if placed.cameras[view] is None and found is not None:
                placed.cameras[view] = found.world_from_camera
            if np.isnan(focal[view]):
                focal[view] = max(pairs.sizes[view]) if found is None else found.K[0, 0]


def _pnp(points: np.ndarray, mask: np.ndarray, focal: float, centre: tuple[float, float]) -> PnpResult | None:
    limits = {"iterations": PNP_ITERATIONS, "reprojection_error": PNP_REPROJECTION_ERROR, "refine": False}
    if np.isnan(focal):
        return solve_pnp_unknown_focal(points, mask, principal_point=centre, candidates=PNP_FOCAL_CANDIDATES, **limits)
    return solve_pnp(points, intrinsics(focal, centre), mask, **limits)


def _world_from_tree(
    known: KnownCameras, cameras: np.ndarray, found: np.ndarray, world_from_pair: list[Similarity]
) -> Similarity:
    """From the tree's frame to the world: that of the known cameras, or else one in which pairs have BASE_SCALE."""
    # A camera that was not found says nothing of the frame, unless there is no other.
    views = [view for view in range(len(cameras)) if known.camera_of(view) is not None]
    views = [view for view in views if found[view]] or views
    target = np.array([known.camera_of(view) for view in views], dtype=np.float64).reshape(-1, 4, 4)
    if _are_apart(target) and _are_apart(cameras[views]):
        return align_cameras(cameras[views], target)
    scale = BASE_SCALE / float(np.exp(np.mean([np.log(pair.scale) for pair in world_from_pair])))
    if not views:
        return Similarity(scale=scale, rotation=np.eye(3), translation=np.zeros(3))
    # A single place fixes the frame round it: its first camera goes where it is known to be.
    rotation = target[0, :3, :3] @ cameras[views[0], :3, :3].T
    translation = target[0, :3, 3] - scale * rotation @ cameras[views[0], :3, 3]
    return Similarity(scale=scale, rotation=rotation, translation=translation)


def _are_apart(cameras: np.ndarray) -> bool:
    """Cameras (P, 4, 4) stand at two places or more."""
    centres = cameras[:, :3, 3]
    if len(centres) < 2:
        return False
    return bool(np.linalg.norm(centres - centres[0], axis=1).max() > SAME_PLACE * np.abs(centres).max())


def _camera_points(cameras: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Centres of cameras (P, 4, 4), then the points at a hundredth of their median distance along some axes."""
    centres = cameras[:, :3, 3]
    rows, columns = np.triu_indices(len(centres), 1)
    reach = np.median(np.linalg.norm(centres[rows] - centres[columns], axis=1)) / 100
    return np.concatenate([centres, *(centres + reach * cameras[:, :3, axis] for axis in axes)])


def _depth(points: np.ndarray, world_from_camera: np.ndarray) -> np.ndarray:
    depth = depth_from_points(points, invert_rigid(world_from_camera))
    return np.where(depth > 0, depth, DEPTH_WITHOUT_POINT).astype(np.float32)


def _rigid(similarity: Similarity) -> np.ndarray:
    """(4, 4) rotation and translation, without the scale."""
    matrix = similarity.matrix
    matrix[:3, :3] = similarity.rotation
    return matrix


def _arrays(maps: tuple) -> tuple[np.ndarray, np.ndarray]:
    return maps[0].cpu().numpy(), maps[1].cpu().numpy()
