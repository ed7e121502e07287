"""What is aligned, what is known beforehand, and what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from manyview.errors import InputError
from manyview.geometry import points_from_depth

Mode = Literal["fast", "compatible"]
Maps = tuple[Tensor, Tensor]
# A focal length more than this many times the longer side, or less than its 1 / FOCAL_RANGE, is a mistake in its unit.
FOCAL_RANGE = 20.0
# How far outside the picture a principal point may lie, in sides of the picture: crops move it out, but not farther.
PRINCIPAL_POINT_MARGIN = 0.5
OTHER_PIXELS = "Give intrinsics in pixels of the pointmaps: scale those of the original photo to the size in use."


@dataclass(frozen=True, kw_only=True)
class PairMaps:
    """What a pairwise network says of N pictures along E edges. Edge e = (i, j) is a run with picture i first.

    Attributes:
        edges: (E, 2) int64, indices of the two pictures; every picture from 0 to N - 1 is in some edge.
        points: for each edge (H_i, W_i, 3) and (H_j, W_j, 3) float32, both in camera i's frame, with a scale of their
            own a pair.
        confidence: for each edge (H_i, W_i) and (H_j, W_j) float32, at least 1; 0 marks pixels that must not be used
            (padding, numbers that are not finite).
        sizes: (height, width) of each of the N pictures.
    """

    edges: np.ndarray
    points: Sequence[Maps]
    confidence: Sequence[Maps]
    sizes: tuple[tuple[int, int], ...]

    @property
    def views(self) -> int:
        """N."""
        return len(self.sizes)

    @property
    def scores(self) -> np.ndarray:
        """(E,) mean confidence of the first picture times that of the second: how good an edge is."""
        return np.array([float(first.mean()) * float(second.mean()) for first, second in self.confidence])

    def part(self, views: Sequence[int]) -> PairMaps:
        """The pairs within some of the pictures, which are renumbered in the order given; nothing is copied."""
        number = {view: row for row, view in enumerate(views)}
        kept = [row for row, edge in enumerate(self.edges.tolist()) if edge[0] in number and edge[1] in number]
        return PairMaps(
            edges=np.array([[number[view] for view in self.edges[row].tolist()] for row in kept]).reshape(-1, 2),
            points=[self.points[row] for row in kept],
            confidence=[self.confidence[row] for row in kept],
            sizes=tuple(self.sizes[view] for view in views),
        )

    def rows(self, kept: Sequence[int]) -> PairMaps:
        """Some of the edges; a picture may be left without any. Nothing is copied."""
        return PairMaps(
            edges=self.edges[list(kept)].reshape(-1, 2),
            points=[self.points[row] for row in kept],
            confidence=[self.confidence[row] for row in kept],
            sizes=self.sizes,
        )

    @classmethod
    def checked(
        cls, edges: np.ndarray | Sequence, points: Sequence, confidence: Sequence, *, views: int | None = None
    ) -> PairMaps:
        """From arrays or tensors, after a check of shapes and indices.

        Pixels whose point or confidence is not finite get confidence 0 and the point 0.

        Raises:
            InputError: shapes or numbers do not fit each other, or a picture is in no edge.
        """
        edges = np.asarray(edges, dtype=np.int64)
        _check_edges(edges, len(points), len(confidence))
        sizes: dict[int, tuple[int, int]] = {}
        cleaned = []
        for edge, pair_points, pair_confidence in zip(edges.tolist(), points, confidence, strict=True):
            sides = [
                _clean(*given, f"edge {tuple(edge)}, picture {view}")
                for view, given in zip(edge, zip(pair_points, pair_confidence, strict=True), strict=True)
            ]
            for view, (_, side_confidence) in zip(edge, sides, strict=True):
                _agree(sizes, view, (side_confidence.shape[0], side_confidence.shape[1]))
            cleaned.append(sides)
        count = 1 + int(edges.max()) if views is None else views
        if missing := [view for view in range(count) if view not in sizes]:
            raise InputError(
                f"pictures {missing} of {count} are in no edge", hint="Number the pictures 0, 1, 2, ... without gaps."
            )
        return cls(
            edges=edges,
            points=[(first[0], second[0]) for first, second in cleaned],
            confidence=[(first[1], second[1]) for first, second in cleaned],
            sizes=tuple(sizes[view] for view in range(count)),
        )


@dataclass(frozen=True, kw_only=True)
class KnownCameras:
    """What is known of the cameras of N pictures; None where nothing is.

    Attributes:
        world_from_camera: N rigid (4, 4), in one world frame.
        focal: N focal lengths, pixels of the pointmaps (not of the original photos).
        principal_point: N (x, y), pixels of the pointmaps; (W / 2, H / 2) is assumed where it is not known, as
            published.
    """

    world_from_camera: Sequence[np.ndarray | None] | None = None
    focal: Sequence[float | None] | None = None
    principal_point: Sequence[tuple[float, float] | None] | None = None

    def part(self, views: Sequence[int]) -> KnownCameras:
        """What is known of some of the pictures, in the order given."""

        def chosen(given: Sequence | None) -> list | None:
            return None if given is None else [given[view] for view in views]

        return KnownCameras(
            world_from_camera=chosen(self.world_from_camera),
            focal=chosen(self.focal),
            principal_point=chosen(self.principal_point),
        )

    def check(self, views: int) -> None:
        """Raises InputError if there is not an entry for each of the pictures, or if one makes no sense."""
        for name in ("world_from_camera", "focal", "principal_point"):
            given = getattr(self, name)
            if given is not None and len(given) != views:
                raise InputError(
                    f"known {name} has {len(given)} entries for {views} pictures",
                    hint="Give an entry for each picture; None where it is not known.",
                )
        for view in range(views):
            _check_known(self.camera_of(view), self.focal_of(view), view)

    def check_fits(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Raises InputError if there is not an entry for each picture, or intrinsics belong to other pixels.

        Args:
            sizes: (height, width) of the pointmaps of each picture.
        """
        self.check(len(sizes))
        for view, size in enumerate(sizes):
            _check_focal_fits(self.focal_of(view), size, view)
            _check_principal_point_fits(self.principal_point_of(view, size), size, view)

    def camera_of(self, view: int) -> np.ndarray | None:
        """world_from_camera of a picture, if it is known."""
        return None if self.world_from_camera is None else self.world_from_camera[view]

    def focal_of(self, view: int) -> float | None:
        """Focal length of a picture, if it is known."""
        return None if self.focal is None else self.focal[view]

    def principal_point_of(self, view: int, size: tuple[int, int]) -> tuple[float, float]:
        """(x, y): as it is known, or the published assumption."""
        known = None if self.principal_point is None else self.principal_point[view]
        return (size[1] / 2, size[0] / 2) if known is None else (float(known[0]), float(known[1]))


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """N cameras and depth maps in one world, and how well the pairs agree with them.

    Attributes:
        world_from_camera: (N, 4, 4) float64, rigid.
        K: (N, 3, 3) float64, pixels of the pointmaps.
        depth: N times (H, W) float32 z-depth, world units, above 0.
        confidence: N times (H, W) float32: the highest that any pair gives a pixel.
        world_from_pair: (E, 4, 4) float64: where each edge's pointmaps lie; the upper left block carries the scale.
        objective: the published loss over all pixels of all edges, at the result.
        seconds: of wall time.
        mode: how it was found; `steps` is the number of iterations.
        groups: the connected parts of the graph, each in increasing order, largest first. With more than one, each has
            a world frame and a scale of its own.
        losses: the objective before each step, where it is computed.
        cameras_not_found: pictures that the pairs' points give no camera at the start. Alignment goes on from a guess;
            what comes out for them is not to be trusted.
    """

    world_from_camera: np.ndarray
    K: np.ndarray
    depth: Sequence[np.ndarray]
    confidence: Sequence[np.ndarray]
    world_from_pair: np.ndarray
    objective: float
    seconds: float
    mode: Mode
    steps: int
    groups: tuple[tuple[int, ...], ...]
    losses: np.ndarray = field(default_factory=lambda: np.zeros(0))
    cameras_not_found: tuple[int, ...] = ()

    def points(self, view: int) -> np.ndarray:
        """(H, W, 3) float64 of one picture, world frame."""
        return points_from_depth(self.depth[view], self.K[view], self.world_from_camera[view])


def _check_edges(edges: np.ndarray, points: int, confidence: int) -> None:
    if edges.ndim != 2 or edges.shape[1:] != (2,) or len(edges) == 0:
        raise InputError(f"got edges of shape {edges.shape}; expected (E, 2) with at least one edge")
    if not len(edges) == points == confidence:
        raise InputError(f"got {len(edges)} edges, points of {points} and confidence of {confidence} pairs")
    if edges.min() < 0 or (edges[:, 0] == edges[:, 1]).any():
        raise InputError("an edge has a negative index or joins a picture with itself")


def _clean(points: object, confidence: object, where: str) -> Maps:
    xyz, sure = (torch.as_tensor(given, dtype=torch.float32) for given in (points, confidence))
    if xyz.ndim != 3 or xyz.shape[-1] != 3 or xyz.shape[:2] != sure.shape:
        raise InputError(
            f"{where}: points {tuple(xyz.shape)} with confidence {tuple(sure.shape)}; expected (H, W, 3) and (H, W)"
        )
    usable = torch.isfinite(sure) & torch.isfinite(xyz.sum(-1))
    if bool(usable.all()):
        return xyz, sure
    return torch.where(usable[..., None], xyz, 0.0), torch.where(usable, sure, 0.0)


def _agree(sizes: dict[int, tuple[int, int]], view: int, size: tuple[int, int]) -> None:
    if sizes.setdefault(view, size) != size:
        raise InputError(f"picture {view} has {sizes[view]} pixels in one edge and {size} in another")


def _check_known(camera: np.ndarray | None, focal: float | None, view: int) -> None:
    if camera is not None and not _is_rigid(np.asarray(camera, dtype=np.float64)):
        raise InputError(f"the known camera of picture {view} is not a rigid (4, 4) world_from_camera")
    if focal is not None and not (np.isfinite(focal) and focal > 0):
        raise InputError(f"the known focal length of picture {view} is {focal}; expected pixels above 0")


def _is_rigid(matrix: np.ndarray) -> bool:
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        return False
    rotation = matrix[:3, :3]
    orthogonal = np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3)
    return bool(orthogonal and np.linalg.det(rotation) > 0 and np.allclose(matrix[3], [0, 0, 0, 1], atol=1e-6))


def _check_focal_fits(focal: float | None, size: tuple[int, int], view: int) -> None:
    longer = max(size)
    if focal is not None and not longer / FOCAL_RANGE <= focal <= longer * FOCAL_RANGE:
        raise InputError(
            f"the known focal length of picture {view}, {focal:g} pixels, does not fit pointmaps of "
            f"{size[1]}x{size[0]}",
            hint=OTHER_PIXELS,
        )


def _check_principal_point_fits(point: tuple[float, float], size: tuple[int, int], view: int) -> None:
    for coordinate, side in zip(point, (size[1], size[0]), strict=True):
        if not -PRINCIPAL_POINT_MARGIN * side <= coordinate <= (1 + PRINCIPAL_POINT_MARGIN) * side:
            raise InputError(
                f"the known principal point of picture {view}, ({point[0]:g}, {point[1]:g}), is far outside its "
                f"pointmaps of {size[1]}x{size[0]}",
                hint=OTHER_PIXELS,
            )
