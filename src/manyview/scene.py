"""`Scene`: the result of a reconstruction, the same for every model family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from manyview.geometry.cameras import Camera

ViewStatus = Literal["used", "low_confidence", "camera_not_found"]


@dataclass(frozen=True, kw_only=True)
class SceneView:
    """One view of a scene. (H, W) is the size the network worked at.

    Attributes:
        name, source, original_size, original_from_network, upright_in_file, timestamp: as in `images.View`.
        image: (H, W, 3) uint8 RGB.
        camera: in original pixels; None if it could not be found (never a silent identity).
        depth: (H, W) float32, z-depth in this view's camera in world units; 0 where not `valid`.
        points: (H, W, 3) float32, world frame; 0 where not `valid`.
        confidence: (H, W) float32, at least 1.
        valid: (H, W) bool, False for padding, non-finite numbers and points behind the camera.
        status: "used", or what is wrong with this view; `status_reason` says it in words.
    """

    name: str
    source: str | None
    original_size: tuple[int, int]
    original_from_network: np.ndarray
    image: np.ndarray
    camera: Camera | None
    depth: np.ndarray
    points: np.ndarray
    confidence: np.ndarray
    valid: np.ndarray
    status: ViewStatus = "used"
    status_reason: str = ""
    upright_in_file: bool = True
    timestamp: float | None = None


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a scene comes from: enough to repeat it."""

    model: str
    weights_sha256: str
    weights_licence: str
    settings: dict[str, str | int | float | bool | None] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PointCloud:
    """P coloured points of a scene and where each was seen.

    Attributes:
        points: (P, 3) float32, world frame.
        colours: (P, 3) uint8 RGB.
        confidence: (P,) float32.
        view: (P,) int32, index of the view.
        pixel: (P, 2) int32, (x, y) in that view's network picture.
    """

    points: np.ndarray
    colours: np.ndarray
    confidence: np.ndarray
    view: np.ndarray
    pixel: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Cameras, depth and points of N views in one world: the first camera's frame (OpenCV axes).

    Lengths are in scene units; they are metres only if `metric`.
    """

    views: Sequence[SceneView]
    provenance: Provenance
    skipped: Sequence[tuple[str, str]] = ()
    warnings: Sequence[str] = ()
    metric: bool = False
