"""The training objectives of DUSt3R (Wang et al. 2024, arXiv 2312.14132): points of all views in the first's frame.

Written for two views; here for any number: the terms of the views are added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from manyview.errors import InputError
from manyview.networks.pointmaps import Pointmaps
from manyview.training.batch_share import Share, divided, whole
from manyview.training.losses import Targets, in_first_frame

Normalisation = Literal["avg_dis", "avg_log1p", "avg_warp-log1p", "median_dis", "sqrt_dis", "none"]
Invariance = Literal["none", "shift", "scale", "scale-shift"]

SMALLEST_SCALE = 1e-8
SCALE_INVARIANT_RANGE = (1e-3, 1e3)  # of a prediction's scale


@dataclass(frozen=True, kw_only=True)
class Dust3rOptions:
    """Variants of the objective. The defaults are those of all published trainings.

    Attributes:
        normalisation: what a scene's points are divided by, prediction and truth each by their own: the mean distance
            from the origin ("avg_dis"), the mean of log(1 + distance) ("avg_log1p"), the same after distances were
            replaced by log(1 + distance) ("avg_warp-log1p"), the median distance ("median_dis"), the squared mean of
            the distances' roots ("sqrt_dis"), or 1.
        invariance: "shift" subtracts the median depth, "scale" divides by the median distance from the median point.
        true_scale: leave the truth as it is: the prediction has to be metric (or, with "scale", is brought to the
            truth's scale).
        confidence_reward: alpha; how much a high confidence is rewarded.
        plain_weight: weight of the plain regression error beside the confidence-weighted one.
    """

    normalisation: Normalisation = "avg_dis"
    invariance: Invariance = "none"
    true_scale: bool = False
    confidence_reward: float = 0.2
    plain_weight: float = 0.0

    def __post_init__(self) -> None:
        for name in ("confidence_reward", "plain_weight"):
            if getattr(self, name) < 0:
                raise InputError(f"dust3r.{name} is at least 0, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Dust3rLoss:
    """The loss and what it is made of.

    Attributes:
        total: scalar, the sum over the views of the confident terms (and of the plain ones, with their weight).
        error: (N,), mean distance of points to the truth, a value a view ("Regr3D").
        confident: (N,), mean of C * distance - alpha ln C ("ConfLoss").
    """

    total: Tensor
    error: Tensor
    confident: Tensor


def dust3r_loss(
    predicted: Pointmaps, targets: Targets, options: Dust3rOptions = Dust3rOptions(), *, share: Share = whole
) -> Dust3rLoss:
    """ConfLoss(Regr3D(L21)) on the points in the first camera's frame; local points are not looked at. In float32.

    Args:
        predicted: N views; only `points` and `confidence` are used.
        targets: the truth of the same views.
        options: which variant.
        share: of a batch that is split over processes.
    """
    distances = regression_distances(predicted.points, targets, options)
    counts = share(torch.stack([valid.sum() for valid in targets.valid]))
    errors, terms = [], []
    for distance, confidence, valid in zip(distances, predicted.confidence, targets.valid, strict=True):
        sure = confidence.float()
        errors.append((distance * valid).sum())
        terms.append(((sure * distance - options.confidence_reward * sure.log()) * valid).sum())
    error, confident = divided(torch.stack(errors), counts), divided(torch.stack(terms), counts)
    total = confident.sum()
    if options.plain_weight:
        total = total + options.plain_weight * error.sum()
    return Dust3rLoss(total=total, error=error, confident=confident)


def regression_distances(points: Sequence[Tensor], targets: Targets, options: Dust3rOptions) -> list[Tensor]:
    """Regr3D(L21) and its variants: (B, H, W) a view, distances of points (B, H, W, 3) to the truth."""
    got, truth, valid = [p.float() for p in points], in_first_frame(targets), targets.valid
    got = normalised(got, valid, options.normalisation)
    if not options.true_scale:
        truth = normalised(truth, valid, options.normalisation)
    if options.invariance in ("shift", "scale-shift"):
        got, truth = without_shift(got, valid), without_shift(truth, valid)
    if options.invariance in ("scale", "scale-shift"):
        got, truth = in_one_scale(got, truth, valid, options.true_scale)
    return [(g - t).norm(dim=-1) for g, t in zip(got, truth, strict=True)]


def normalised(points: Sequence[Tensor], valid: Sequence[Tensor], how: Normalisation) -> list[Tensor]:
    """The points of each scene divided by one number, made from the valid ones of all views."""
    if how == "none":
        return list(points)
    distance = [p.norm(dim=-1) for p in points]
    if how == "avg_warp-log1p":
        warped = [d.log1p() / d.clamp(min=SMALLEST_SCALE) for d in distance]
        points = [p * w[..., None] for p, w in zip(points, warped, strict=True)]
    if how in ("avg_log1p", "avg_warp-log1p"):
        scale = _mean([d.log1p() for d in distance], valid)
    elif how == "median_dis":
        scale = _medians([d[..., None] for d in distance], valid)[:, 0]
    elif how == "sqrt_dis":
        scale = _mean([d.sqrt() for d in distance], valid).square()
    else:
        scale = _mean(distance, valid)
    return [p / scale.clamp(min=SMALLEST_SCALE)[:, None, None, None] for p in points]


def without_shift(points: Sequence[Tensor], valid: Sequence[Tensor]) -> list[Tensor]:
    """The median depth of all views subtracted from z; it passes no gradient."""
    shift = _medians([p[..., 2:] for p in points], valid)
    return [torch.cat([p[..., :2], p[..., 2:] - shift[:, None, None]], dim=-1) for p in points]


def in_one_scale(
    got: Sequence[Tensor], truth: Sequence[Tensor], valid: Sequence[Tensor], true_scale: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """Both divided by their median distance from their median point, or the prediction brought to the truth's."""
    got_scale = _spread(got, valid).clamp(*SCALE_INVARIANT_RANGE)
    truth_scale = _spread(truth, valid)
    if true_scale:
        return [p * (truth_scale / got_scale)[:, None, None, None] for p in got], list(truth)
    return (
        [p / got_scale[:, None, None, None] for p in got],
        [p / truth_scale.clamp(min=SMALLEST_SCALE)[:, None, None, None] for p in truth],
    )


def _spread(points: Sequence[Tensor], valid: Sequence[Tensor]) -> Tensor:
    """(B,): median distance of the points of all views from their coordinates' medians."""
    centre = _medians(points, valid)
    return _medians([(p - centre[:, None, None]).norm(dim=-1, keepdim=True) for p in points], valid)[:, 0]


def _mean(values: Sequence[Tensor], valid: Sequence[Tensor]) -> Tensor:
    """(B,): mean over the valid pixels of all views; 0 without any."""
    total = torch.stack([(v * mask).flatten(1).sum(1) for v, mask in zip(values, valid, strict=True)]).sum(0)
    return total / (torch.stack([mask.flatten(1).sum(1) for mask in valid]).sum(0) + SMALLEST_SCALE)


def _medians(values: Sequence[Tensor], valid: Sequence[Tensor]) -> Tensor:
    """Values (B, H, W, C) a view -> (B, C): lower medians over the valid pixels of all views; 1 without any.

    They pass no gradient.
    """
    masks = torch.cat([mask.flatten(1) for mask in valid], dim=1)
    flat = torch.cat([v.detach().flatten(1, 2) for v in values], dim=1).masked_fill(~masks[..., None], torch.nan)
    medians = flat.nanmedian(dim=1).values
    return torch.where(masks.any(dim=1)[:, None], medians, 1.0)
