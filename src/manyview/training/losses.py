"""The training objective of Fast3R (arXiv 2501.13928, section 3.3; after DUSt3R's, arXiv 2312.14132)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from manyview.networks.pointmaps import Pointmaps
from manyview.training.batch_share import Share, divided, whole

CONFIDENCE_WEIGHT = 0.2  # alpha: how much a high confidence is rewarded
SMALLEST_SCALE = 1e-8


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The truth about N views, an entry a view.

    Attributes:
        points: (B, H, W, 3), world frame.
        valid: (B, H, W) bool.
        world_from_camera: (B, 4, 4).
    """

    points: Sequence[Tensor]
    valid: Sequence[Tensor]
    world_from_camera: Sequence[Tensor]


@dataclass(frozen=True, kw_only=True)
class PointmapLoss:
    """The loss and what it is made of.

    Attributes:
        total: scalar; the mean of all confidence terms.
        global_error, local_error: (N,), mean distance of normalised points to the truth, a value a view.
        global_confident, local_confident: (N,), the same weighted by confidence, minus its reward.
    """

    total: Tensor
    global_error: Tensor
    local_error: Tensor
    global_confident: Tensor
    local_confident: Tensor


def fast3r_loss(
    predicted: Pointmaps, targets: Targets, *, local_scale_consistent: bool = False, share: Share = whole
) -> PointmapLoss:
    """Confidence-weighted distances of global and local points, each up to scale.

    Prediction and truth are divided by their own mean distance from the origin: global points by that over all views
    of a scene, local points a view at a time (or, with `local_scale_consistent`, by the global factors). A pixel's term
    is C * distance - 0.2 ln C, averaged over the valid pixels of the batch; the loss is the mean over views of both
    kinds. Computed in float32.

    Args:
        predicted: N views, with local points.
        targets: the truth of the same views.
        local_scale_consistent: measure local points in the scale of the global ones.
        share: of a batch that is split over processes.

    Raises:
        ValueError: the prediction has no local points.
    """
    if predicted.local_points is None or predicted.local_confidence is None:
        raise ValueError("the Fast3R loss needs local points; this prediction has none")
    truth_global = in_first_frame(targets)
    truth_local = [
        _move(torch.linalg.inv(motion.float()), points)
        for motion, points in zip(targets.world_from_camera, targets.points, strict=True)
    ]
    got_global = [points.float() for points in predicted.points]
    got_local = [points.float() for points in predicted.local_points]

    got_scale, truth_scale = _scene_scale(got_global, targets.valid), _scene_scale(truth_global, targets.valid)
    global_distance = _distances(
        got_global, truth_global, [got_scale] * len(got_global), [truth_scale] * len(got_global)
    )
    if local_scale_consistent:
        got_scales, truth_scales = [got_scale] * len(got_local), [truth_scale] * len(got_local)
    else:
        got_scales = [_scene_scale([p], [v]) for p, v in zip(got_local, targets.valid, strict=True)]
        truth_scales = [_scene_scale([p], [v]) for p, v in zip(truth_local, targets.valid, strict=True)]
    local_distance = _distances(got_local, truth_local, got_scales, truth_scales)

    counts = share(torch.stack([valid.sum() for valid in targets.valid]))
    global_error, global_confident = _per_view(global_distance, predicted.confidence, targets.valid, counts)
    local_error, local_confident = _per_view(local_distance, predicted.local_confidence, targets.valid, counts)
    return PointmapLoss(
        total=(global_confident.sum() + local_confident.sum()) / (2 * len(predicted.points)),
        global_error=global_error,
        local_error=local_error,
        global_confident=global_confident,
        local_confident=local_confident,
    )


def in_first_frame(targets: Targets) -> list[Tensor]:
    """The true points of each view in the first camera's frame, float32."""
    first_from_world = torch.linalg.inv(targets.world_from_camera[0].float())
    return [_move(first_from_world, points) for points in targets.points]


def _move(motion: Tensor, points: Tensor) -> Tensor:
    """Rigid motions (B, 4, 4) applied to points (B, H, W, 3)."""
    return torch.einsum("bij,bhwj->bhwi", motion[:, :3, :3], points.float()) + motion[:, None, None, :3, 3]


def _scene_scale(points: Sequence[Tensor], valid: Sequence[Tensor]) -> Tensor:
    """(B,): mean distance from the origin over the valid pixels of all given views."""
    total = sum((p.norm(dim=-1) * v).flatten(1).sum(1) for p, v in zip(points, valid, strict=True))
    count = sum(v.flatten(1).sum(1) for v in valid)
    return (total / count.clamp(min=1)).clamp(min=SMALLEST_SCALE)  # pyright: ignore


def _distances(
    got: Sequence[Tensor], truth: Sequence[Tensor], got_scales: Sequence[Tensor], truth_scales: Sequence[Tensor]
) -> list[Tensor]:
    """(B, H, W) a view: distance between normalised points."""
    return [
        (g / gs[:, None, None, None] - t / ts[:, None, None, None]).norm(dim=-1)
        for g, t, gs, ts in zip(got, truth, got_scales, truth_scales, strict=True)
    ]


def _per_view(
    distance: Sequence[Tensor], confidence: Sequence[Tensor], valid: Sequence[Tensor], counts: Tensor
) -> tuple[Tensor, Tensor]:
    """(N,) mean distance and (N,) mean confidence term; a view without valid pixels gives 0."""
    errors, terms = [], []
    for d, c, v in zip(distance, confidence, valid, strict=True):
        sure = c.float()
        errors.append((d * v).sum())
        terms.append(((sure * d - CONFIDENCE_WEIGHT * sure.log()) * v).sum())
    return divided(torch.stack(errors), counts), divided(torch.stack(terms), counts)
