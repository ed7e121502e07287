"""Pixels of one picture with everything that the pairs say of them: a spread sample, or all of them in chunks.

Letters in shapes: N pictures, E edges, M observations of one picture (an edge and a side of it), P pixels of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from manyview.alignment.objective import confidence_weights, observations, pixels_of_sides
from manyview.alignment.problem import KnownCameras, PairMaps
from manyview.geometry import spread_sample

CHUNK = 100_000
"""At full resolution, pixels times observations that are worked on at once: temporaries stay in the cache."""

NEGLIGIBLE = 1e-12
"""Weight of pixels that the published objective leaves out: without any better one, it places the pixel."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """P pixels of one picture in its M observations.

    Attributes:
        view: which picture.
        edges: (M,) int64, on the device. `sides`: the side of each of them.
        size: (height, width) of the picture, and its `principal_point` (x, y).
        pixels: (P,) int64, indices into the flattened picture.
        offsets: (P, 2) float32, (x, y) from the principal point, pixels.
        points: (M, P, 3) float32, each observation in its pair's own frame.
        weights: (M, P) float32: what a distance counts in the published objective. In a sample, each pixel counts for
            all those that it stands for.
    """

    view: int
    edges: Tensor
    sides: tuple[int, ...]
    size: tuple[int, int]
    principal_point: tuple[float, float]
    pixels: Tensor
    offsets: Tensor
    points: Tensor
    weights: Tensor


class Observations:
    """Gives the observations of a picture out of `PairMaps`, on a device."""

    def __init__(self, pairs: PairMaps, known: KnownCameras, device: str | torch.device) -> None:
        self.pairs = pairs
        self.device = torch.device(device)
        self.sides = [observations(pairs, view) for view in range(pairs.views)]
        self.principal_points = [known.principal_point_of(view, size) for view, size in enumerate(pairs.sizes)]
        self._best: dict[int, Tensor] = {}
        self.areas = pixels_of_sides(pairs)

    def sample(self, view: int, count: int, seed: int) -> Observed:
        """About `count` well-spread pixels of a picture, of those with weight in any observation if there are some."""
        best = self.best_confidence(view).cpu()
        mask = next(best > least for least in (1, 0, -1) if bool((best > least).any()))
        pixels = spread_sample(mask.numpy(), count, seed=seed)
        return self._observed(view, torch.from_numpy(pixels), float(mask.sum()) / len(pixels))

    def best_confidence(self, view: int) -> Tensor:
        """(H, W): the highest that any pair gives each pixel of a picture."""
        if view not in self._best:
            maps = [self.pairs.confidence[edge][side] for edge, side in self.sides[view]]
            self._best[view] = reduce(torch.maximum, maps)
        return self._best[view]

    def chunks(self, view: int) -> Iterator[Observed]:
        """All pixels of a picture, some rows at a time."""
        height, width = self.pairs.sizes[view]
        step = max(1, CHUNK // len(self.sides[view]))
        for first in range(0, height * width, step):
            yield self._observed(view, slice(first, min(first + step, height * width)), 1.0)

    def _observed(self, view: int, pixels: Tensor | slice, stands_for: float) -> Observed:
        points = [self.pairs.points[edge][side].reshape(-1, 3)[pixels] for edge, side in self.sides[view]]
        sure = [self.pairs.confidence[edge][side].reshape(-1)[pixels] for edge, side in self.sides[view]]
        sides = tuple(side for _, side in self.sides[view])
        shares = torch.tensor([stands_for / self.areas[side] for side in sides], dtype=torch.float32)
        indices = torch.arange(pixels.start, pixels.stop) if isinstance(pixels, slice) else pixels
        width = self.pairs.sizes[view][1]
        offsets = torch.stack([indices % width, indices // width], dim=-1).float()
        return Observed(
            view=view,
            edges=torch.tensor([edge for edge, _ in self.sides[view]], device=self.device),
            sides=sides,
            size=self.pairs.sizes[view],
            principal_point=self.principal_points[view],
            pixels=indices,
            offsets=(offsets - torch.tensor(self.principal_points[view], dtype=torch.float32)).to(self.device),
            points=torch.stack(points).to(self.device),
            weights=_weights(torch.stack(sure).to(self.device)).mul_(shares.to(self.device)[:, None]),
        )


def _weights(confidence: Tensor) -> Tensor:
    """The published weights; those of 0 that have a point are made too small to matter where there is any other."""
    return confidence_weights(confidence).add_(confidence > 0, alpha=NEGLIGIBLE)
