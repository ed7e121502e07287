"""One Gauss-Newton step of the re-weighted least squares, with the depth of every pixel eliminated.

For one pixel, let z_m be where its observation m places it, x = c + d a its point (camera centre c, ray a), and
w_m = weight / |z_m - x| the re-weighting that makes squares of distances. The step minimises, over the pixels,

    sum_m w_m |z_m + J_m u_m - x - C v - a s|^2

in the motions u of the pairs, v of the camera and s of the depth. Minimising over s subtracts one rank from the
quadratic form: with r the unit ray, the term (sum_m w_m r.(z_m + J_m u_m - x - C v))^2 / sum_m w_m. A motion of the
camera along the ray changes nothing then, so that C is taken perpendicular to it.

Unknowns: for each pair the seven (rotation vector about its pivot, translation, log scale), then for each camera the
seven (rotation vector about its centre, translation of the centre, log focal length), in world axes. What a picture
contributes concerns its own camera and the pairs that it is in: one dense block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from manyview.alignment.fast_samples import Observed
from manyview.alignment.fast_state import Placement, cross_matrix

SMALLEST = 1e-30


@dataclass(kw_only=True)
class Block:
    """The quadratic form of one picture, in the motions of its M pairs and of its camera.

    Attributes:
        loss: (), float64, the weighted distances' sum.
        pairs: (7 M, 7 M) float32. `coupling`: (7 M, 7), `camera`: (7, 7), both float64.
        pair_gradient: (7 M,) float64. `camera_gradient`: (7,).
    """

    view: int
    edges: Tensor
    loss: Tensor
    pairs: Tensor
    coupling: Tensor
    camera: Tensor
    pair_gradient: Tensor
    camera_gradient: Tensor

    def add(self, other: Block) -> None:
        """Add what other pixels of the same picture contribute."""
        for name in ("loss", "pairs", "coupling", "camera", "pair_gradient", "camera_gradient"):
            getattr(self, name).add_(getattr(other, name))


@dataclass(frozen=True, kw_only=True)
class Rays:
    """The rays of P pixels at a placement, in world axes.

    Attributes:
        forward: (3,), the camera's z axis.
        toward: (3, P), from the centre to z-depth 1. `unit`: its direction, `length`: (P,) its length.
    """

    forward: Tensor
    toward: Tensor
    unit: Tensor
    length: Tensor


@dataclass(frozen=True, kw_only=True)
class Distances:
    """How far M observations of P pixels are from the picture's points, at the depths that fit best.

    Attributes:
        rays: of the pixels.
        lever: (M, 4, P): x, y, z from the pair's pivot to z, then 1.
        weights: (M, P), w. `pull`: (M, 3, P), w (z - x).
        depth: (P,).
        loss: (), the sum of the weighted distances.
    """

    rays: Rays
    lever: Tensor
    weights: Tensor
    pull: Tensor
    depth: Tensor
    loss: Tensor


@dataclass(frozen=True)
class Limits:
    """How depths are sought: distances below `floor` count as equally small, depths below `nearest` do not occur, and
    `steps` are the re-weightings."""

    floor: float
    nearest: float
    steps: int


def rays_of(observed: Observed, placement: Placement) -> Rays:
    """The rays of the pixels at a placement."""
    rotation = placement.camera_rotation[observed.view]
    across = (rotation[:, :2] / placement.log_focal[observed.view].exp()).float()
    forward = rotation[:, 2].float()
    toward = torch.addmm(forward[:, None], across, observed.offsets.T)
    length = toward.square().sum(0).sqrt()
    return Rays(
        forward=forward,
        toward=toward,
        unit=toward / length,
        length=length,
    )


def distances(
    observed: Observed, placement: Placement, pivots: Tensor, depth: Tensor | None, limits: Limits
) -> Distances:
    """Move every depth to where its weighted distances are least, and measure.

    Args:
        pivots: (E, 3) float64, world frame: what the pairs turn about.
        depth: (P,) z-depth to start from; None starts from the weighted mean.
    """
    rays = rays_of(observed, placement)
    about = pivots[observed.edges]
    linear = placement.pair_linear[observed.edges].float()
    offset = (placement.pair_translation[observed.edges] - about).float()
    lever = observed.points.new_ones(len(linear), 4, len(rays.length))
    torch.baddbmm(offset[:, :, None], linear, observed.points.mT, out=lever[:, :3])
    from_camera = (about - placement.camera_centre[observed.view]).float()[:, :, None]
    start = mean_depth(lever[:, :3] + from_camera, rays, observed.weights) if depth is None else depth
    residual = lever[:, :3] - (rays.toward * start - from_camera)
    along = (residual * rays.unit).sum(1)
    aside = residual.square().sum(1).sub_(along.square()).clamp_min_(limits.floor**2)
    shift = depth_shift(along, aside, observed.weights, limits.steps)
    moved = (start + shift / rays.length).clamp_min_(limits.nearest)
    shift = (moved - start) * rays.length
    residual -= shift * rays.unit
    length = along.sub_(shift).square_().add_(aside).sqrt_()
    weights = observed.weights / length
    return Distances(
        rays=rays,
        lever=lever,
        weights=weights,
        pull=residual.mul_(weights[:, None]),
        depth=moved,
        loss=torch.dot(length.flatten(), observed.weights.flatten()),
    )


def mean_depth(from_camera: Tensor, rays: Rays, weights: Tensor) -> Tensor:
    """Weighted mean depth (P,) of M observations (M, 3, P), given from the camera's centre."""
    along = (from_camera * rays.unit).sum(1)
    return (weights * along).sum(0) / weights.sum(0).clamp_min(SMALLEST) / rays.length


def depth_shift(along: Tensor, aside: Tensor, weights: Tensor, steps: int) -> Tensor:
    """Minimise, for each pixel, sum_m w_m sqrt((s - along_m)^2 + aside_m) over s. All (M, P) -> (P,).

    A convex problem in one unknown, by re-weighted least squares from s = 0.
    """
    shift = torch.zeros_like(along[0])
    for _ in range(steps):
        pull = torch.sub(along, shift).square_().add_(aside).rsqrt_().mul_(weights)
        total = pull.sum(0).clamp_min_(SMALLEST)
        shift = pull.mul_(along).sum(0).div_(total)
    return shift


def linearise(observed: Observed, found: Distances) -> Block:
    """The quadratic form of some pixels of a picture."""
    count, rays = len(observed.edges), found.rays
    weighted = found.lever * found.weights[:, None]  # (M, 4, P)
    total = found.weights.sum(0).clamp_min_(SMALLEST)  # (P,)
    pull = found.pull.sum(0)  # (3, P)
    ahead = (pull * rays.unit).sum(0)
    camera = camera_motions(rays, found.depth).flatten(0, 1)  # (21, P)

    along = along_ray(weighted, rays.unit * total.rsqrt()).flatten(0, 1)  # (7 M, P)
    pairs = (along @ along.T).neg_()
    squares = pair_squares(weighted @ found.lever.mT)
    pairs.view(count, 7, count, 7).diagonal(dim1=0, dim2=2).add_(squares.permute(1, 2, 0))
    coupling = (weighted.flatten(0, 1) @ camera.T).double().view(count, 4, 3, 7)
    torque = (found.lever @ found.pull.mT).double()  # (M, 4, 3)
    motions = camera.view(3, 7, -1)
    return Block(
        view=observed.view,
        edges=observed.edges,
        loss=found.loss.double(),
        pairs=pairs,
        coupling=pair_moments(coupling).flatten(0, 1).neg_(),
        camera=((motions * total) @ motions.mT).sum(0).double(),
        pair_gradient=pair_moments(torque[..., None]).flatten() - (along @ (ahead * total.rsqrt())).double(),
        camera_gradient=-(motions * pull[:, None]).sum((0, 2)).double(),
    )


def camera_motions(rays: Rays, depth: Tensor) -> Tensor:
    """(3, 7, P): how the seven unknowns of a camera move the points, perpendicular to the ray."""
    motions = depth.new_zeros(3, 7, len(depth))
    arm = rays.toward * depth
    for axis in range(3):
        after, last = (axis + 1) % 3, (axis + 2) % 3
        motions[last, axis] = arm[after]  # e_axis x arm
        torch.neg(arm[last], out=motions[after, axis])
        motions[axis, 3 + axis] = 1
    motions[:, 3:6] -= rays.unit[:, None] * rays.unit
    torch.sum(motions[:, 3:6] * rays.forward[:, None], dim=1, out=motions[:, 6])
    motions[:, 6] *= depth
    return motions


def pair_moments(moments: Tensor) -> Tensor:
    """sum of (y, 1) v' (M, 4, 3, ...) -> sum of J' v (M, 7, ...), where J are the motions of a pair's points."""
    turn = [moments[:, (i + 1) % 3, (i + 2) % 3] - moments[:, (i + 2) % 3, (i + 1) % 3] for i in range(3)]
    grow = moments[:, 0, 0] + moments[:, 1, 1] + moments[:, 2, 2]
    return torch.cat([torch.stack(turn, dim=1), moments[:, 3], grow[:, None]], dim=1)


def along_ray(weighted: Tensor, rays: Tensor) -> Tensor:
    """Weighted levers w (y, 1) (M, 4, P) and rays r (3, P) -> w J' r (M, 7, P)."""
    result = weighted.new_empty(len(weighted), 7, weighted.shape[2])
    for axis in range(3):
        after, last = (axis + 1) % 3, (axis + 2) % 3
        torch.mul(weighted[:, after], rays[last], out=result[:, axis])
        result[:, axis].addcmul_(weighted[:, last], rays[after], value=-1)
    torch.mul(weighted[:, 3:], rays, out=result[:, 3:6])
    torch.mul(weighted[:, 0], rays[0], out=result[:, 6])
    result[:, 6].addcmul_(weighted[:, 1], rays[1]).addcmul_(weighted[:, 2], rays[2])
    return result


def pair_squares(moments: Tensor) -> Tensor:
    """sum of w (y, 1)(y, 1)' over pixels (M, 4, 4) -> sum of w J' J (M, 7, 7)."""
    weight, mean, square = moments[:, 3, 3], moments[:, 3, :3], moments[:, :3, :3]
    eye = torch.eye(3, dtype=moments.dtype, device=moments.device)
    trace = square.diagonal(dim1=1, dim2=2).sum(-1)
    result = moments.new_zeros(len(moments), 7, 7)
    result[:, :3, :3] = trace[:, None, None] * eye - square
    result[:, :3, 3:6] = cross_matrix(mean)
    result[:, 3:6, :3] = cross_matrix(mean).mT
    result[:, 3:6, 3:6] = weight[:, None, None] * eye
    result[:, 3:6, 6] = result[:, 6, 3:6] = mean
    result[:, 6, 6] = trace
    return result
