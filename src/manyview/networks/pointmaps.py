"""`Pointmaps`: what a multi-view network says about N pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Pointmaps:
    """Dense predictions, one entry a view (sizes may differ). B scenes, OpenCV axes, scale arbitrary.

    Attributes:
        points: (B, H, W, 3) a view, in the frame of the first view's camera.
        confidence: (B, H, W) a view, of `points`; at least 1, larger is surer.
        local_points: (B, H, W, 3) a view, in that view's own camera frame, with a scale of its own.
        local_confidence: (B, H, W) a view, of `local_points`.
    """

    points: Sequence[Tensor]
    confidence: Sequence[Tensor]
    local_points: Sequence[Tensor] | None = None
    local_confidence: Sequence[Tensor] | None = None
