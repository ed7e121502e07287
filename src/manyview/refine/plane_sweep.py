"""Photometric search for depth: how well the pictures agree if a surface lay a little nearer or farther.

The surface that is moved is the depth known so far, not a plane: where that is about right, windows have the slant of
the real surface. Moved by a step s, every pixel's inverse depth w becomes w * exp(s * step), so that the search is
relative and equally fine for near and for far things.

Letters in shapes: D hypotheses, J neighbour views, (H, W) the reference picture, (h, w) a neighbour's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from manyview.geometry import Camera

if TYPE_CHECKING:
    from torch import Tensor

SENSOR_NOISE = 1 / 255
"""Standard deviation of grey values below which a window counts as without texture: its score goes to 0."""

EDGE = 10 / 255
"""Step of grey between two pixels that halves the cost of a jump in depth between them."""

NO_SCORE = -1.0
"""Where a neighbour does not see a pixel. The worst that a real score can be."""


@dataclass(frozen=True)
class Transfer:
    """Where a pixel of the reference picture at inverse depth w is in a neighbour's: at `turn` @ (x, y, 1) + w `move`.

    Attributes:
        turn: (3, 3), the homography of infinitely far points.
        move: (3,), homogeneous pixels times length: the reference camera's centre as the neighbour sees it.
    """

    turn: np.ndarray
    move: np.ndarray

    @classmethod
    def between(cls, reference: Camera, neighbour: Camera) -> Transfer:
        relative = neighbour.camera_from_world @ reference.world_from_camera
        turn = neighbour.K @ relative[:3, :3] @ np.linalg.inv(reference.K)
        return cls(turn, neighbour.K @ relative[:3, 3])


@dataclass(frozen=True, eq=False)
class Sweep:
    """One reference picture, its neighbours, and what is searched.

    Attributes:
        grey: (H, W) float32, 0..1.
        neighbours: J of (h, w) float32; sizes may differ.
        transfers: J.
        inverse_depth: (H, W) float32, above 0: the surface that is moved.
        step: of log inverse depth between two hypotheses.
        reach: steps to either side: D = 2 * reach + 1.
        radius: of the square window, pixels.
        best: how many neighbours a score is the mean of, those that agree most; the others may see something else.
    """

    grey: Tensor
    neighbours: Sequence[Tensor]
    transfers: Sequence[Transfer]
    inverse_depth: Tensor
    step: float
    reach: int
    radius: int = 3
    best: int = 2

    @property
    def offsets(self) -> list[float]:
        """D offsets of log inverse depth, from far to near."""
        return [self.step * number for number in range(-self.reach, self.reach + 1)]


# ------------------------------------------------------------------ scores
def sweep_scores(sweep: Sweep) -> Tensor:
    """(D, H, W) float32: normalised cross-correlation (ZNCC) with the neighbours that agree most, -1..1.

    ZNCC compares windows after mean and contrast are removed, so exposure and white balance do not matter. Windows are
    cut off at the border of the reference picture and repeat the border pixels of a neighbour's; a neighbour counts for
    the pixels whose own place lies in its picture. `NO_SCORE` where none does.
    """
    reference = _Windows.of(sweep.grey, sweep.radius)
    pixels = _pixel_rays(sweep.grey)
    far = [_rotated(pixels, transfer.turn) for transfer in sweep.transfers]
    scores = []
    for offset in sweep.offsets:
        surface = sweep.inverse_depth * math.exp(offset)
        seen = [
            _neighbour_score(reference, grey, turned, transfer.move, surface)
            for grey, turned, transfer in zip(sweep.neighbours, far, sweep.transfers, strict=True)
        ]
        scores.append(best_mean(torch.stack(seen), sweep.best))
    return torch.stack(scores)


def best_mean(scores: Tensor, best: int) -> Tensor:
    """(J, H, W), `NO_SCORE` where there is none -> (H, W): mean of the `best` highest real ones."""
    if len(scores) == 1 or best == 1:
        return scores.amax(dim=0)
    highest = scores.topk(min(best, len(scores)), dim=0).values
    real = highest > NO_SCORE
    mean = (highest * real).sum(dim=0) / real.sum(dim=0).clamp_min(1)
    return torch.where(real[0], mean, NO_SCORE)


@dataclass(frozen=True, eq=False)
class _Windows:
    """A picture and the mean and variance of each window; (H, W) each, `count` the pixels of a window inside."""

    grey: Tensor
    mean: Tensor
    variance: Tensor
    count: Tensor
    radius: int

    @classmethod
    def of(cls, grey: Tensor, radius: int) -> _Windows:
        count = box_sums(torch.ones_like(grey)[None], radius)[0]
        mean, square = box_sums(torch.stack([grey, grey * grey]), radius) / count
        return cls(grey, mean, (square - mean * mean).clamp_min(0), count, radius)

    def correlation(self, other: Tensor) -> Tensor:
        """(H, W): ZNCC of each window with the same window of another picture."""
        mean, square, product = box_sums(torch.stack([other, other * other, other * self.grey]), self.radius)
        mean = mean / self.count
        variance = (square / self.count - mean * mean).clamp_min(0)
        covariance = product / self.count - mean * self.mean
        noise = SENSOR_NOISE**2
        return (covariance / ((self.variance + noise) * (variance + noise)).sqrt()).clamp(-1 + 1e-6, 1)


def _neighbour_score(reference: _Windows, grey: Tensor, turned: Tensor, move: np.ndarray, surface: Tensor) -> Tensor:
    """(H, W): ZNCC with one neighbour for one surface."""
    x, y, depth = (turned[axis] + surface * float(move[axis]) for axis in range(3))
    in_front = depth > 1e-6
    depth = depth.clamp_min(1e-6)
    x, y = x / depth, y / depth
    height, width = grey.shape
    inside = in_front & (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    return torch.where(inside, reference.correlation(sample(grey[None], x, y)[0]), NO_SCORE)


def sample(maps: Tensor, x: Tensor, y: Tensor, *, nearest: bool = False) -> Tensor:
    """Maps (C, h, w) at pixels x, y (H, W) -> (C, H, W), bilinear; border pixels repeat outside."""
    height, width = maps.shape[-2:]
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1).clamp(-2, 2)
    mode = "nearest" if nearest else "bilinear"
    return F.grid_sample(maps[None], grid[None], mode=mode, padding_mode="border", align_corners=False)[0]


def box_sums(maps: Tensor, radius: int) -> Tensor:
    """(C, H, W) -> (C, H, W): sums over windows of (2 * radius + 1)^2 pixels, cut off at the border.

    Added slice by slice, which is several times faster on a CPU than pooling, and loses less precision than differences
    of running sums.
    """
    if radius == 0:
        return maps
    height, width = maps.shape[-2:]
    padded = F.pad(maps, (radius, radius, radius, radius))
    rows = padded[..., :height, :].clone()
    for shift in range(1, 2 * radius + 1):
        rows += padded[..., shift : shift + height, :]
    sums = rows[..., :width].clone()
    for shift in range(1, 2 * radius + 1):
        sums += rows[..., shift : shift + width]
    return sums


def _pixel_rays(grey: Tensor) -> Tensor:
    """(3, H, W): (x, y, 1) of every pixel."""
    height, width = grey.shape
    y, x = torch.meshgrid(
        torch.arange(height, device=grey.device, dtype=torch.float32),
        torch.arange(width, device=grey.device, dtype=torch.float32),
        indexing="ij",
    )
    return torch.stack([x, y, torch.ones_like(x)])


def _rotated(pixels: Tensor, turn: np.ndarray) -> Tensor:
    matrix = torch.as_tensor(turn, dtype=torch.float32, device=pixels.device)
    # Written out: a matrix product may run in reduced precision on a GPU, and places need all of float32.
    return torch.stack([row[0] * pixels[0] + row[1] * pixels[1] + row[2] for row in matrix])


def step_for(
    reference: Camera, neighbours: Sequence[Camera], inverse_depth: np.ndarray, pixels: np.ndarray, shift: float
) -> float:
    """The step of log inverse depth that moves most pixels by at most `shift` pixels in the neighbours' pictures.

    Args:
        inverse_depth: (P,) at `pixels` (P, 2) of the reference picture.
    """
    moved = []
    for neighbour in neighbours:
        transfer = Transfer.between(reference, neighbour)
        homogeneous = np.concatenate([pixels, np.ones((len(pixels), 1))], axis=-1) @ transfer.turn.T
        small = 1e-3
        before = homogeneous + inverse_depth[:, None] * transfer.move
        after = homogeneous + inverse_depth[:, None] * math.exp(small) * transfer.move
        seen = (before[:, 2] > 0) & (after[:, 2] > 0)
        place = [points[seen, :2] / points[seen, 2:] for points in (before, after)]
        moved.append(np.linalg.norm(place[1] - place[0], axis=-1) / small)
    speeds = np.concatenate(moved) if moved else np.zeros(0)
    return shift / max(float(np.percentile(speeds, 75)), 1e-9) if speeds.size else math.inf


# ------------------------------------------------------------------ smoothness
def semi_global(costs: Tensor, grey: Tensor, *, small_jump: float, large_jump: float) -> Tensor:
    """Costs (D, H, W) plus what the neighbouring pixels say, along four directions (Hirschmüller 2008).

    Beside each other, pixels whose hypotheses differ by one step cost `small_jump`, by more `large_jump`; less where
    the picture has an edge, which is where surfaces end. Hypotheses are relative to the surface that is moved, so a
    slanted surface costs nothing.

    Returns:
        (D, H, W), the mean over the four directions.
    """
    total = torch.zeros_like(costs)
    for turned in (False, True):
        volume = costs.transpose(1, 2) if turned else costs
        picture = grey.T if turned else grey
        edges = (picture[1:] - picture[:-1]).abs()
        jumps = (large_jump / (1 + edges / EDGE)).clamp_min(small_jump)
        lines = volume.permute(1, 0, 2).contiguous()  # (rows, D, columns)
        both = _along(lines, jumps, small_jump) + _along(lines.flip(0), jumps.flip(0), small_jump).flip(0)
        total += both.permute(1, 2, 0) if turned else both.permute(1, 0, 2)
    return total / 4


def _along(lines: Tensor, jumps: Tensor, small_jump: float) -> Tensor:
    """Path costs from the first row to the last: (L, D, C), with (L - 1, C) penalties of a large jump -> (L, D, C)."""
    result = torch.empty_like(lines)
    result[0] = lines[0]
    for row in range(1, len(lines)):
        previous = result[row - 1]
        lowest = previous.amin(dim=0)
        reached = torch.minimum(previous, lowest + jumps[row - 1])
        reached[1:] = torch.minimum(reached[1:], previous[:-1] + small_jump)
        reached[:-1] = torch.minimum(reached[:-1], previous[1:] + small_jump)
        result[row] = lines[row] + reached - lowest
    return result


# ------------------------------------------------------------------ the winner
def winner(costs: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The best hypothesis of each pixel.

    Args:
        costs: (D, H, W); the lowest wins, and a parabola through it and its neighbours gives the place between steps.
        scores: (D, H, W) as from `sweep_scores`.

    Returns:
        (H, W) each: place in steps from the middle hypothesis; score there; how much higher that is than the mean
        score two steps to either side (0 for a winner at an end of the search, which may lie beyond it).
    """
    count = len(costs)
    index = costs.argmin(dim=0, keepdim=True)
    inner = index.clamp(1, count - 2)
    left, middle, right = (costs.gather(0, inner + shift)[0] for shift in (-1, 0, 1))
    curvature = (left - 2 * middle + right).clamp_min(1e-9)
    shift = (0.5 * (left - right) / curvature).clamp(-0.5, 0.5)
    at_end = index != inner
    place = (index[0] - count // 2).float() + torch.where(at_end[0], 0.0, shift)
    score = scores.gather(0, index)[0]
    around = [scores.gather(0, (index + two).clamp(0, count - 1))[0].clamp_min(0) for two in (-2, 2)]
    sharpness = torch.where(at_end[0], 0.0, score - (around[0] + around[1]) / 2)
    return place, score, sharpness
