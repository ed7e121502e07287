"""Depth maps that confirm each other, and one cloud from all of them.

Two views agree on a pixel if the depth that the second has where it sees the first one's point is the point's depth,
and the second one's point falls back on the pixel. Depth of either that is not confident proves nothing: where nothing
was measured, all views may share one wrong guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from manyview.errors import InputError
from manyview.geometry import Camera, pixel_grid
from manyview.refine.plane_sweep import sample
from manyview.scene_points import FusedPoints

if TYPE_CHECKING:
    from torch import Tensor

SAME_SURFACE = 0.02  # relative difference of bilinear and nearest depth above which a pixel is on an edge
NOT_CONFIRMED = 32000  # a level that no depth has


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """When two views agree.

    Attributes:
        depth: largest relative difference of depth.
        pixels: largest distance between a pixel and where the other view's point falls in its picture.
        confidence: least confidence (0..1) that depth needs to count at all.
    """

    depth: float = 0.01
    pixels: float = 1.0
    confidence: float = 0.05

    def __post_init__(self) -> None:
        if not (self.depth > 0 and self.pixels > 0 and 0 <= self.confidence <= 1):
            raise InputError(
                f"got tolerances of {self.depth} of depth, {self.pixels} pixels and a least confidence of "
                f"{self.confidence}",
                hint="Give tolerances above 0 and a confidence from 0 to 1.",
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class DepthView:
    """A depth map in its camera.

    Attributes:
        camera: of the map's pixels.
        depth: (H, W) float32, 0 where it is not known.
        confidence: (H, W) float32, 0..1.
    """

    camera: Camera
    depth: Tensor
    confidence: Tensor

    def trusted(self, tolerance: Tolerance) -> Tensor:
        """(H, W) bool: where depth is known and confident."""
        return (self.depth > 0) & (self.confidence >= tolerance.confidence)


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """What another view says about each pixel (H, W) of a first one.

    Attributes:
        agrees: bool.
        depth: float32, the depth in the first camera of the other view's point; 0 where it does not agree.
        x, y: float32, where the first view's point is in the other picture.
    """

    agrees: Tensor
    depth: Tensor
    x: Tensor
    y: Tensor


def compare(first: DepthView, other: DepthView, tolerance: Tolerance) -> Comparison:
    """Look up every point of the first depth map in the other one, and carry what is there back."""
    known = first.trusted(tolerance)
    depth = torch.where(known, first.depth, 1.0)
    own_x, own_y = _pixels(depth)
    x, y, expected = _carried(first.camera, other.camera, own_x, own_y, depth)
    height, width = other.depth.shape
    seen = known & (expected > 0) & (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    there = _depth_at(other, x, y, tolerance)
    seen &= there > 0
    back_x, back_y, back = _carried(other.camera, first.camera, x, y, torch.where(seen, there, 1.0))
    distance = ((back_x - own_x) ** 2 + (back_y - own_y) ** 2).sqrt()
    agrees = seen & (back > 0) & ((there - expected).abs() <= tolerance.depth * expected)
    agrees &= distance < tolerance.pixels
    return Comparison(agrees=agrees, depth=torch.where(agrees, back, 0.0), x=x, y=y)


def _pixels(like: Tensor) -> tuple[Tensor, Tensor]:
    grid = torch.as_tensor(pixel_grid(*like.shape), dtype=torch.float32, device=like.device)
    return grid[..., 0], grid[..., 1]


def _carried(source: Camera, target: Camera, x: Tensor, y: Tensor, depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels of one picture at z-depth -> pixels of another and z-depth there; all (H, W)."""
    relative = target.camera_from_world @ source.world_from_camera
    turn = (target.K @ relative[:3, :3] @ np.linalg.inv(source.K)).tolist()
    move = (target.K @ relative[:3, 3]).tolist()
    parts = [(row[0] * x + row[1] * y + row[2]) * depth + shift for row, shift in zip(turn, move, strict=True)]
    behind = parts[2] <= 1e-9
    safe = torch.where(behind, 1.0, parts[2])
    outside = torch.full_like(x, -1e6)
    return (
        torch.where(behind, outside, parts[0] / safe),
        torch.where(behind, outside, parts[1] / safe),
        torch.where(behind, 0.0, parts[2]),
    )


def _depth_at(view: DepthView, x: Tensor, y: Tensor, tolerance: Tolerance) -> Tensor:
    """(H, W) trusted depth at pixels x, y; 0 where there is none. At edges that of the nearest pixel."""
    known = view.trusted(tolerance)
    nearest = sample(torch.where(known, view.depth, 0.0)[None], x, y, nearest=True)[0]
    # Inverse depth is linear on planes. Unknown pixels keep their unsure depth here; the next line judges it.
    between = 1 / sample(1 / view.depth.clamp_min(1e-12)[None], x, y)[0]
    smooth = (between - nearest).abs() <= SAME_SURFACE * nearest
    return torch.where(smooth & (nearest > 0), between, nearest)


# ------------------------------------------------------------------ the filter
@dataclass(frozen=True, kw_only=True, eq=False)
class Consistency:
    """How far a view's depth is confirmed.

    Attributes:
        views: (H, W) int32, how many other views agree.
        depth: (H, W) float32, the mean of this view's depth and that of all which agree.
    """

    views: Tensor
    depth: Tensor


def check_consistency(first: DepthView, others: Sequence[DepthView], tolerance: Tolerance) -> Consistency:
    """Compare a view with others."""
    count = torch.zeros_like(first.depth, dtype=torch.int32)
    total = first.depth.clone()
    for other in others:
        comparison = compare(first, other, tolerance)
        count += comparison.agrees
        total += comparison.depth
    return Consistency(views=count, depth=total / (count + 1))


def without_speckles(view: DepthView, confirmed: Tensor, tolerance: Tolerance, *, least: int) -> Tensor:
    """(H, W) bool: `confirmed` without its small patches, which agree by chance more often than large ones.

    Neighbouring pixels are of one patch if their depth differs by less than twice the tolerance.

    Args:
        confirmed: (H, W) bool.
        least: pixels of a patch that stays.
    """
    import cv2

    steps = torch.where(confirmed, view.depth, 1.0).log() / tolerance.depth
    levels = (8 * (steps - steps.median())).clamp(-16000, 16000).round().cpu().numpy().astype(np.int16)
    levels[~confirmed.cpu().numpy()] = NOT_CONFIRMED
    cv2.filterSpeckles(levels, NOT_CONFIRMED, least - 1, 16)
    return torch.as_tensor(levels != NOT_CONFIRMED, device=confirmed.device)


# ------------------------------------------------------------------ the cloud
def fuse(
    views: Sequence[DepthView],
    images: Sequence[np.ndarray],
    others: Sequence[Sequence[int]],
    *,
    min_views: int = 2,
    tolerance: Tolerance = Tolerance(),
) -> FusedPoints:
    """One cloud of all depth maps, without the repetition of what several views saw.

    Views are gone through in order. A pixel that at least `min_views` other views confirm becomes a point: the mean
    depth and colour of all of them. Their own pixels that it came from are then used up, so that no pixel makes two
    points; where a later view shows a surface more finely than an earlier one, its pixels between those remain.

    Args:
        views: N depth maps.
        images: N pictures (H, W, 3) uint8 RGB of the same sizes.
        others: for each view, the indices of those it is compared with.
        min_views: at least 1; for a view with fewer others, all of them suffice.

    Raises:
        InputError: the numbers of views differ, or `min_views` is below 1.
    """
    if not len(views) == len(images) == len(others) or min_views < 1:
        raise InputError(
            f"got {len(views)} depth maps, {len(images)} pictures, {len(others)} lists of other views, {min_views=}",
            hint="Give one of each for every view, and min_views of at least 1.",
        )
    used = [torch.zeros_like(view.depth, dtype=torch.bool) for view in views]
    parts = [_empty()]
    for index, view in enumerate(views):
        comparisons = {other: compare(view, views[other], tolerance) for other in others[index]}
        count = torch.zeros_like(view.depth, dtype=torch.int32)
        depth, colour = view.depth.clone(), _colour_map(images[index], view.depth)
        for other, comparison in comparisons.items():
            seen = _colour_map(images[other], views[other].depth)
            count += comparison.agrees
            depth += comparison.depth
            colour += torch.where(comparison.agrees, sample(seen, comparison.x, comparison.y), 0.0)
        taken = (count >= needed(min_views, others[index])) & ~used[index]
        for other, comparison in comparisons.items():
            _use_up(used[other], comparison, taken)
        parts.append(_points(index, view, depth / (count + 1), colour / (count + 1), count + 1, taken))
    return FusedPoints(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def needed(min_views: int, others: Sequence[int]) -> int:
    """How many other views have to confirm a view's depth: `min_views`, or all where it is compared with fewer."""
    return max(1, min(min_views, len(others)))


def _colour_map(image: np.ndarray, depth: Tensor) -> Tensor:
    if image.shape != (*depth.shape, 3):
        raise InputError(f"got a picture of shape {image.shape} for a depth map of shape {tuple(depth.shape)}")
    return torch.tensor(image, device=depth.device).permute(2, 0, 1).float()


def _use_up(used: Tensor, comparison: Comparison, taken: Tensor) -> None:
    """Mark the pixels of the other view that points were made of."""
    both = comparison.agrees & taken
    height, width = used.shape
    column = comparison.x[both].round().long().clamp(0, width - 1)
    row = comparison.y[both].round().long().clamp(0, height - 1)
    used[row, column] = True


def _points(
    index: int, view: DepthView, depth: Tensor, colour: Tensor, count: Tensor, taken: Tensor
) -> dict[str, np.ndarray]:
    """The fields of a `FusedPoints` for the pixels (H, W) of one view that are taken."""
    row, column = np.nonzero(taken.cpu().numpy())
    pixel = np.stack([column, row], axis=-1)
    points = view.camera.unproject(pixel.astype(np.float64), depth.cpu().double().numpy()[row, column])
    return {
        "points": points.astype(np.float32),
        "colours": colour.round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()[row, column],
        "confidence": view.confidence.float().cpu().numpy()[row, column],
        "view": np.full(len(row), index, dtype=np.int32),
        "pixel": pixel.astype(np.int32),
        "view_counts": count.cpu().numpy()[row, column].astype(np.int32),
    }


def _empty() -> dict[str, np.ndarray]:
    return {
        "points": np.zeros((0, 3), np.float32),
        "colours": np.zeros((0, 3), np.uint8),
        "confidence": np.zeros(0, np.float32),
        "view": np.zeros(0, np.int32),
        "pixel": np.zeros((0, 2), np.int32),
        "view_counts": np.zeros(0, np.int32),
    }
