"""Pictures with their exact cameras and depth: what worlds and data sets give and training and evaluation take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PosedViews:
    """B scenes of N views with their geometry. Frames are OpenCV's; pixels have integers at their centres.

    Attributes:
        images: (B, N, 3, H, W) float32 RGB in [0, 1].
        depth: (B, N, H, W) float32 z-depth, scene units; 0 where not `valid`.
        points: (B, N, H, W, 3) float32, world frame; 0 where not `valid`. Where things move: at the view's own moment.
        valid: (B, N, H, W) bool; False for the sky and where nothing was measured.
        K: (B, N, 3, 3) float32, pixels.
        world_from_camera: (B, N, 4, 4) float32, rigid.
    """

    images: Tensor
    depth: Tensor
    points: Tensor
    valid: Tensor
    K: Tensor
    world_from_camera: Tensor
