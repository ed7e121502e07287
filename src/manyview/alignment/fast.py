"""The default global alignment: the published objective by Gauss-Newton steps on few pixels, finished on all.

Some hundreds of well-spread pixels of each picture determine cameras and pairs nearly as well as all of them, and steps
of second order with every pixel's depth eliminated (`fast_system`) need about five rounds where Adam needs hundreds.
Two rounds and a last search for the depth then take in all pixels, picture by picture.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from manyview.alignment.fast_samples import Observations, Observed
from manyview.alignment.fast_solve import Freedom, solve
from manyview.alignment.fast_state import Placement
from manyview.alignment.fast_system import Block, Limits, distances, linearise
from manyview.alignment.initial import at_base_scale, initial_placement, scale_is_known
from manyview.alignment.problem import Alignment, KnownCameras, PairMaps
from manyview.geometry import intrinsics

Progress = Callable[[int, int, str], None]

SAMPLED_PIXELS = 400
"""Of each picture. Twice as many change the final objective by less than 0.02 %."""

MOST_SAMPLED_ROUNDS = 20
FULL_ROUNDS = 2
CONVERGED = 1e-3
"""The rounds on sampled pixels end once the objective falls by less than this share."""

RELAXATION = 1.5
"""How much further than its minimum a re-weighted quadratic form is followed. The form exaggerates the curvature of a
distance in three dimensions: along the residual, one direction in three, the distance has none."""

FIRST_DAMPING, SMALLEST_DAMPING, LARGEST_DAMPING = 1e-4, 1e-6, 100.0
SAMPLED_DEPTH_STEPS, FULL_DEPTH_STEPS, LAST_DEPTH_STEPS = 2, 4, 8
TURN, GROWTH = slice(0, 3), slice(6, 7)
LARGEST_TURN, LARGEST_GROWTH = 0.5, 0.7
"""Radians, and logarithms of scales and focal lengths: beyond them in one step, a linear model means nothing."""

FLOOR = 0.01
"""Distances below this share of the mean distance count as equally small in the re-weighting."""

SMALLEST_FLOOR = 1e-7
"""The same, as a share of the usual depth, for pairs that agree exactly, and where depths are finished."""

FIRST_DISTANCE = 0.1
"""Mean distance at the initial placement, as a share of the usual depth: a guess, for the first re-weighting."""

NEAREST = 1e-4
"""Smallest depth, as a share of the usual depth."""

ALL_ROUNDS = 1 + MOST_SAMPLED_ROUNDS + 1 + FULL_ROUNDS


@dataclass(frozen=True, kw_only=True)
class Round:
    """A placement, the depths (P,) that fit it best, the quadratic forms there, and the objective."""

    placement: Placement
    depth: list[Tensor]
    blocks: list[Block]
    loss: float


def align_fast(
    pairs: PairMaps,
    known: KnownCameras,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    device: str | torch.device = "cpu",
) -> Alignment:
    """Cameras, depth and pairs that nearly minimise the published objective, for one connected graph.

    Args:
        pairs: its tensors may be on any device; at most the maps of one picture are copied to `device` at a time.
        known: cameras and focal lengths that stay as they are.
        seed: of the choice of pixels.
        progress: called as progress(done, total, "aligning"); `done` jumps where rounds are saved.
        device: where to compute.

    Returns:
        The world is that of the known cameras, or else the camera of the first picture. With fewer than two known
        cameras (or with all of them in one place) the geometric mean of the pairs' scales is 0.5. Pixels without weight
        in any pair lie where the pairs place them on the average; pictures that have no others stay where the chain of
        best pairs puts them.
    """
    started = time.perf_counter()
    with torch.no_grad():
        search = Search(pairs, known, seed, device, progress)
        sampled = search.on_sample()
        full, losses = search.on_all(sampled.placement, sampled.loss)
        placement = seen_from_first(full.placement) if search.anchor is None else full.placement
    return Alignment(
        world_from_camera=camera_matrices(placement),
        K=camera_intrinsics(placement, search.observations.principal_points),
        depth=[depth.view(size).cpu().numpy() for depth, size in zip(full.depth, pairs.sizes, strict=True)],
        confidence=[search.observations.best_confidence(view).cpu().numpy() for view in range(pairs.views)],
        world_from_pair=pair_matrices(placement),
        objective=full.loss,
        seconds=time.perf_counter() - started,
        mode="fast",
        steps=search.rounds,
        groups=(tuple(range(pairs.views)),),
        losses=np.array(losses),
    )


class Search:
    """The rounds of one alignment."""

    def __init__(
        self, pairs: PairMaps, known: KnownCameras, seed: int, device: str | torch.device, progress: Progress | None
    ) -> None:
        self.observations = Observations(pairs, known, device)
        self.samples = [self.observations.sample(view, SAMPLED_PIXELS, seed) for view in range(pairs.views)]
        self.placement, self.depth = initial_placement(self.samples, pairs.edges, pairs.scores, known)
        self.middles = pair_middles(self.samples, len(pairs.edges))
        self.usual_depth = float(torch.cat(self.depth).median())
        self.weight = sum(float(observed.weights.sum()) for observed in self.samples)
        self.freedom = freedom_of(known, pairs.views, device)
        fixed = [view for view in range(pairs.views) if known.camera_of(view) is not None]
        self.can_collapse = scale_is_known(known) and any(known.focal_of(view) is None for view in fixed)
        self.anchor = self.placement.camera_centre[fixed[0]] if fixed else None
        self.progress = progress
        self.rounds = self.done = 0

    def on_sample(self) -> Round:
        """Levenberg-Marquardt on the sampled pixels, from the initial placement."""
        floor = self._floor(FIRST_DISTANCE * self.usual_depth * self.weight)
        current = self._sampled_round(self.placement, self.depth, floor)
        damping = FIRST_DAMPING
        for _ in range(MOST_SAMPLED_ROUNDS):
            floor = self._floor(current.loss)
            candidate = self._sampled_round(self._step(current, damping), current.depth, floor)
            ratio = self._loss_to_scale(candidate) / max(self._loss_to_scale(current), 1e-300)
            if ratio < 1:
                fall = 1 - ratio
                current, damping = candidate, max(damping / 5, SMALLEST_DAMPING)
                if fall < CONVERGED:
                    break
            else:
                damping *= 10
                if damping > LARGEST_DAMPING:
                    break
        return current

    def on_all(self, placement: Placement, loss: float) -> tuple[Round, list[float]]:
        """Rounds over all pixels, the last one for the depths alone. Returns the best one, and each one's objective.

        Args:
            loss: of the sampled pixels at the placement.
        """
        self.done = ALL_ROUNDS - FULL_ROUNDS - 1
        best = self._full_round(placement, None, self._floor(loss), FULL_DEPTH_STEPS)
        losses, damping = [best.loss], SMALLEST_DAMPING
        for left in reversed(range(FULL_ROUNDS)):
            steps, floor = (FULL_DEPTH_STEPS, self._floor(best.loss)) if left else (LAST_DEPTH_STEPS, self._floor(0.0))
            candidate = self._full_round(self._step(best, damping), best.depth, floor, steps, forms=left > 0)
            losses.append(candidate.loss)
            if self._loss_to_scale(candidate) < self._loss_to_scale(best):
                best = candidate
            else:
                damping = 100 * damping
        return best, losses

    def _sampled_round(self, placement: Placement, depth: Sequence[Tensor], floor: float) -> Round:
        pivots = placement.place(self.middles)
        nearest = NEAREST * self.usual_depth
        found = [
            distances(observed, placement, pivots, start, Limits(floor, nearest, SAMPLED_DEPTH_STEPS))
            for observed, start in zip(self.samples, depth, strict=True)
        ]
        blocks = [linearise(observed, at) for observed, at in zip(self.samples, found, strict=True)]
        loss = float(torch.stack([at.loss for at in found]).double().sum())
        self._report()
        return Round(placement=placement, depth=[at.depth for at in found], blocks=blocks, loss=loss)

    def _full_round(
        self, placement: Placement, depth: Sequence[Tensor] | None, floor: float, steps: int, *, forms: bool = True
    ) -> Round:
        pivots = placement.place(self.middles)
        limits = Limits(floor, NEAREST * self.usual_depth, steps)
        depths, blocks, losses = [], [], []
        for view in range(len(self.samples)):
            parts = []
            for observed in self.observations.chunks(view):
                start = None if depth is None else depth[view][observed.pixels]
                found = distances(observed, placement, pivots, start, limits)
                parts.append(torch.where(observed.weights.amax(0) > 0, found.depth, torch.nan))
                losses.append(found.loss)
                if forms:
                    block = linearise(observed, found)
                    blocks.append(block) if len(parts) == 1 else blocks[-1].add(block)
            depths.append(without_gaps(torch.cat(parts), self.usual_depth))
        self._report()
        return Round(placement=placement, depth=depths, blocks=blocks, loss=float(torch.stack(losses).double().sum()))

    def _floor(self, loss: float) -> float:
        """Distances that count as equally small, where the mean distance is that of an objective."""
        return max(FLOOR * loss / max(self.weight, 1e-30), SMALLEST_FLOOR * self.usual_depth)

    def _loss_to_scale(self, found: Round) -> float:
        """The objective; relative to the mean scale of the pairs where known cameras alone hold the scale.

        The plain objective, a sum of lengths, falls as everything but these cameras shrinks. Where their focal lengths
        are known too, parallax stops that; where they are not, scenes end flat, with cameras of any focal length.
        """
        return found.loss / float(found.placement.pair_log_scale.mean().exp()) if self.can_collapse else found.loss

    def _step(self, current: Round, damping: float) -> Placement:
        gain = current.loss if self.can_collapse else 0.0  # of the logarithm of `_loss_to_scale`, times the loss
        motions = solve(current.blocks, len(self.middles), self.freedom, damping, gain)
        pairs, cameras = (RELAXATION * motion for motion in motions)
        for motion in (pairs, cameras):
            motion[:, TURN].clamp_(-LARGEST_TURN, LARGEST_TURN)
            motion[:, GROWTH].clamp_(-LARGEST_GROWTH, LARGEST_GROWTH)
        moved = current.placement.moved(pairs, cameras, current.placement.place(self.middles))
        return at_base_scale(moved, self.anchor)[0] if self.freedom.keep_scale else moved

    def _report(self) -> None:
        self.rounds += 1
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, ALL_ROUNDS, "aligning")


def freedom_of(known: KnownCameras, views: int, device: str | torch.device) -> Freedom:
    """What is not known may move."""
    cameras = torch.ones(views, 7, dtype=torch.bool)
    cameras[[view for view in range(views) if known.camera_of(view) is not None], :6] = False
    cameras[[view for view in range(views) if known.focal_of(view) is not None], 6] = False
    return Freedom(cameras=cameras.to(device), keep_scale=not scale_is_known(known))


def pair_middles(samples: Sequence[Observed], pairs: int) -> Tensor:
    """(E, 3) float64: the weighted mean of each pair's sampled points, in its own frame."""
    sums = torch.zeros(pairs, 4, dtype=torch.float64, device=samples[0].points.device)
    for observed in samples:
        weights = (observed.weights + 1e-30)[..., None]
        moments = torch.cat([(observed.points * weights).sum(1), weights.sum(1)], dim=1)
        sums.index_add_(0, observed.edges, moments.double())
    return sums[:, :3] / sums[:, 3:]


def seen_from_first(placement: Placement) -> Placement:
    """The same with the first camera as the world."""
    turn = placement.camera_rotation[0].T
    return placement.transformed(turn, torch.zeros_like(turn[0, 0]), -turn @ placement.camera_centre[0])


def without_gaps(depth: Tensor, usual: float) -> Tensor:
    """Depths (P,), nan where no pair has a point: those get the median of the others, or `usual` if there are none."""
    missing = depth.isnan()
    if not bool(missing.any()):
        return depth
    present = depth[~missing]
    return torch.where(missing, present.median() if len(present) else usual, depth)


def camera_matrices(placement: Placement) -> np.ndarray:
    """(N, 4, 4) world_from_camera."""
    return _matrices(placement.camera_rotation, placement.camera_centre)


def pair_matrices(placement: Placement) -> np.ndarray:
    """(E, 4, 4) world_from_pair; the upper left block carries the scale."""
    return _matrices(placement.pair_linear, placement.pair_translation)


def camera_intrinsics(placement: Placement, principal_points: Sequence[tuple[float, float]]) -> np.ndarray:
    """(N, 3, 3) K."""
    focals = placement.log_focal.exp().tolist()
    return np.stack([intrinsics(focal, point) for focal, point in zip(focals, principal_points, strict=True)])


def _matrices(linear: Tensor, offset: Tensor) -> np.ndarray:
    matrices = np.tile(np.eye(4), (len(linear), 1, 1))
    matrices[:, :3, :3] = linear.cpu().numpy()
    matrices[:, :3, 3] = offset.cpu().numpy()
    return matrices
