"""Which pixels to trust: the confidence of all pairs together, masks, and points that stand in another view's way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from manyview.alignment.problem import Alignment, PairMaps
from manyview.errors import InputError
from manyview.geometry import invert_rigid, project_points, transform_points

# The published limit below which a pixel is not shown.
SHOWN_CONFIDENCE = 3.0


def fused_confidence(pairs: PairMaps) -> list[np.ndarray]:
    """N times (H, W) float32: the highest confidence that any pair gives each pixel of a picture; 0 without any."""
    fused = [torch.zeros(size) for size in pairs.sizes]
    for edge, sides in zip(pairs.edges.tolist(), pairs.confidence, strict=True):
        for view, confidence in zip(edge, sides, strict=True):
            torch.maximum(fused[view], confidence.cpu(), out=fused[view])
    return [confidence.numpy() for confidence in fused]


def apply_masks(pairs: PairMaps, masks: Sequence[np.ndarray | None]) -> PairMaps:
    """The same pairs with confidence 0, which is no part in anything, where a mask is False.

    Args:
        masks: for each of the N pictures (H, W) bool, True where pixels may be used; None leaves a picture as it is.

    Raises:
        InputError: not one mask a picture, or a mask of another size than its picture.
    """
    if len(masks) != pairs.views:
        raise InputError(f"got {len(masks)} masks for {pairs.views} pictures", hint="Give None where there is no mask.")
    usable = [_checked_mask(mask, size, view) for view, (mask, size) in enumerate(zip(masks, pairs.sizes, strict=True))]
    confidence = []
    for edge, sides in zip(pairs.edges.tolist(), pairs.confidence, strict=True):
        first, second = (
            side if usable[view] is None else torch.where(usable[view].to(side.device), side, 0.0)
            for view, side in zip(edge, sides, strict=True)
        )
        confidence.append((first, second))
    return PairMaps(edges=pairs.edges, points=pairs.points, confidence=confidence, sizes=pairs.sizes)


def confident_masks(confidence: Sequence[np.ndarray], threshold: float = SHOWN_CONFIDENCE) -> list[np.ndarray]:
    """N times (H, W) bool: above the published threshold of the raw confidence."""
    return [np.asarray(given) > threshold for given in confidence]


def clean_confidence(aligned: Alignment, *, tolerance: float = 0.001, bad_confidence: float = 0.0) -> list[np.ndarray]:
    """Confidence lowered to `bad_confidence` where a point stands between another camera and what that camera sees.

    A point of picture i that falls into picture j in front of j's own surface, and is trusted less than that surface,
    is wrong. Pictures are compared one after the other, and what is lowered counts as lowered from then on, as
    published. Pictures of different groups, which share no frame, are not compared.

    Args:
        aligned: is left as it is.
        tolerance: share of the depth by which a point must be nearer than the surface.

    Returns:
        N times (H, W) float32.
    """
    cleaned = [np.array(given, dtype=np.float32) for given in aligned.confidence]
    for part in aligned.groups:
        for i in part:
            world = aligned.points(i)
            for j in part:
                if i != j:
                    in_camera = transform_points(invert_rigid(aligned.world_from_camera[j]), world)
                    obstructs = _obstructs(in_camera, cleaned[i], cleaned[j], aligned.depth[j], aligned.K[j], tolerance)
                    cleaned[i][obstructs] = np.minimum(cleaned[i][obstructs], bad_confidence)
    return cleaned


def _obstructs(
    in_camera: np.ndarray,
    confidence: np.ndarray,
    seen_confidence: np.ndarray,
    seen_depth: np.ndarray,
    K: np.ndarray,
    tolerance: float,
) -> np.ndarray:
    """(H, W) bool: points (H, W, 3), in a camera's frame, that lie in front of the surface which that camera sees."""
    height, width = seen_depth.shape
    pixels, nearness = project_points(in_camera, K)
    with np.errstate(invalid="ignore"):
        x, y = np.round(pixels[..., 0]), np.round(pixels[..., 1])
        inside = (nearness > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    rows, columns = y[inside].astype(np.int64), x[inside].astype(np.int64)
    result = np.zeros(confidence.shape, dtype=bool)
    result[inside] = (nearness[inside] < (1 - tolerance) * seen_depth[rows, columns]) & (
        confidence[inside] < seen_confidence[rows, columns]
    )
    return result


def _checked_mask(mask: np.ndarray | None, size: tuple[int, int], view: int) -> torch.Tensor | None:
    if mask is None:
        return None
    usable = torch.as_tensor(mask, dtype=torch.bool)
    if tuple(usable.shape) != size:
        raise InputError(f"the mask of picture {view} is {tuple(usable.shape)}; its pointmaps are {size}")
    return usable
