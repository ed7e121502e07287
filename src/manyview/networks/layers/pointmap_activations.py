"""From a head's raw channels to points and confidence (DUSt3R, arXiv 2312.14132, and its descendants)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

DepthActivation = Literal["exp", "linear", "square"]
ConfidenceActivation = Literal["exp", "sigmoid"]


def activate_points(raw: Tensor, kind: DepthActivation) -> Tensor:
    """Raw xyz (..., 3) -> points (..., 3). "exp": the raw length d becomes expm1(d), in the same direction."""
    if kind == "linear":
        return raw
    length = raw.norm(dim=-1, keepdim=True)
    direction = raw / length.clamp(min=1e-8)
    return direction * (torch.expm1(length) if kind == "exp" else length.square())


def activate_confidence(raw: Tensor, kind: ConfidenceActivation, low: float, high: float) -> Tensor:
    """Raw (...) -> confidence in [low, high]. "exp": low + exp(raw), cut at `high`."""
    if kind == "exp":
        confidence = low + torch.exp(raw)
        return confidence if high == float("inf") else confidence.clamp(max=high)
    return (high - low) * torch.sigmoid(raw) + low
