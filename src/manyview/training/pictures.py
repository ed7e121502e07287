"""What a network makes of a few views, as one picture: the views, their depth, the truth, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from manyview.geometry.posed_views import PosedViews
from manyview.images.colourmaps import coloured
from manyview.networks.families import Network
from manyview.networks.fast3r import Fast3R
from manyview.networks.pointmaps import Pointmaps
from manyview.training.data import targets
from manyview.training.losses import in_first_frame

GAP = 2  # pixels between pictures
SURE_AT = 10.0  # confidence that gets the brightest colour


def contact_sheet(network: Network, batch: PosedViews, *, local: bool = True) -> np.ndarray:
    """The first scene of a batch, (height, width, 3) uint8: a column a view.

    Rows: the picture, the predicted depth in the truth's scale, the true depth, the confidence. Without `local`, for
    networks whose local points are not trained, depth is that in front of the first camera.
    """
    with torch.no_grad():
        pictures = batch.images[:1] * 2 - 1
        predicted = network(pictures, local=local) if isinstance(network, Fast3R) else network(pictures)
    depth, truth, confidence = _of_first_scene(predicted, batch, local)
    valid = batch.valid[0].cpu().numpy()
    aligned = depth * _ratio_of_medians(truth, depth, valid)
    low, high = np.percentile(truth[valid], [2, 98]) if valid.any() else (0.0, 1.0)
    shares = [(d - low) / max(high - low, 1e-6) for d in (aligned, truth)]
    rows = [
        np.rint(255 * batch.images[0].permute(0, 2, 3, 1).cpu().numpy().clip(0, 1)).astype(np.uint8),
        coloured(1 - shares[0], "turbo"),
        np.where(valid[..., None], coloured(1 - shares[1], "turbo"), 0).astype(np.uint8),
        coloured(np.log(confidence.clip(1, SURE_AT)) / np.log(SURE_AT), "viridis"),
    ]
    return np.concatenate([np.concatenate([_framed(cell) for cell in row], axis=1) for row in rows])


def _of_first_scene(predicted: Pointmaps, batch: PosedViews, local: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, H, W) each: predicted depth, true depth, confidence."""
    if local and predicted.local_points is not None and predicted.local_confidence is not None:
        return _stack(predicted.local_points, 2), batch.depth[0].cpu().numpy(), _stack(predicted.local_confidence)
    return _stack(predicted.points, 2), _stack(in_first_frame(targets(batch)), 2), _stack(predicted.confidence)


def _stack(maps: Sequence[Tensor], channel: int | None = None) -> np.ndarray:
    stacked = torch.stack([view[0] for view in maps]).float()
    return (stacked if channel is None else stacked[..., channel]).nan_to_num().cpu().numpy()


def _ratio_of_medians(truth: np.ndarray, depth: np.ndarray, valid: np.ndarray) -> float:
    middle = float(np.median(depth[valid])) if valid.any() else 0.0
    return float(np.median(truth[valid])) / middle if middle > 0 else 1.0


def _framed(pixels: np.ndarray) -> np.ndarray:
    return np.pad(pixels, ((0, GAP), (0, GAP), (0, 0)))
