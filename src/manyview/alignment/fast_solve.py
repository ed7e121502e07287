"""The step that minimises the pictures' quadratic forms: cameras eliminated, pairs by conjugate gradients.

A camera occurs in the form of its own picture alone, so that it is eliminated there. What remains concerns the pairs,
each of which is in the forms of its two pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from manyview.alignment.fast_system import Block

ACCURACY = 1e-3
"""Conjugate gradients stop at this share of the first residual; the next re-weighting changes more than that."""

MOST_STEPS = 300
TINY, LEAST = 1e-10, 1e-30
"""Added to the diagonal: a share of the largest entry of its kind, and a number above zero where all are zero."""


@dataclass(frozen=True, kw_only=True)
class Freedom:
    """What a step may change.

    Attributes:
        cameras: (N, 7) bool, of the unknowns of each camera.
        keep_scale: the mean log scale of the pairs stays as it is.
    """

    cameras: Tensor
    keep_scale: bool


@dataclass(frozen=True, kw_only=True)
class Reduced:
    """The form of one picture without its camera; the camera's motion is `camera_at_rest - camera_by_pairs @ pairs`."""

    unknowns: Tensor
    matrix: Tensor
    gradient: Tensor
    camera_at_rest: Tensor
    camera_by_pairs: Tensor


def solve(
    blocks: Sequence[Block], pairs: int, freedom: Freedom, damping: float, scale_gain: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The motions of the pairs (E, 7) and of the cameras (N, 7) that minimise the damped sum of all forms.

    Args:
        blocks: of all N pictures, in order.
        pairs: E.
        damping: share of its diagonal that is added to the matrix.
        scale_gain: how much is gained as the mean log scale of the pairs grows by 1.
    """
    pair_floor = TINY * torch.cat([block.pairs.diagonal().view(-1, 7) for block in blocks]).amax(0) + LEAST
    camera_floor = TINY * torch.stack([block.camera.diagonal() for block in blocks]).amax(0) + LEAST
    reduced = [
        without_camera(block, freedom.cameras[block.view], damping, pair_floor, camera_floor) for block in blocks
    ]
    gradient = -scale_gain / pairs * scale_direction(blocks[0].pair_gradient.new_zeros(7 * pairs))
    for part in reduced:
        gradient[part.unknowns] += part.gradient
    motion = by_conjugate_gradients(reduced, gradient, freedom.keep_scale)
    cameras = [part.camera_at_rest - part.camera_by_pairs @ motion[part.unknowns] for part in reduced]
    return motion.view(pairs, 7), torch.stack(cameras)


def without_camera(block: Block, free: Tensor, damping: float, pair_floor: Tensor, camera_floor: Tensor) -> Reduced:
    """Minimise a picture's damped form over those unknowns of its camera that are free (7,), for any pairs.

    Both floors, (7,), are added to the diagonal, so that what no pixel determines does not move.
    """
    camera = block.camera * (free[:, None] & free)
    camera.diagonal().mul_(1 + damping).add_(camera_floor)
    coupling = block.coupling * free
    solved = torch.linalg.solve(camera, torch.cat([coupling.T, (block.camera_gradient * free)[:, None]], dim=1))
    by_pairs, at_rest = solved[:, :-1], -solved[:, -1]
    matrix = torch.addmm(block.pairs, coupling.to(block.pairs), by_pairs.to(block.pairs), alpha=-1)
    matrix.diagonal().add_(block.pairs.diagonal(), alpha=damping).view(-1, 7).add_(pair_floor)
    sevens = torch.arange(7, device=block.edges.device)
    return Reduced(
        unknowns=(7 * block.edges[:, None] + sevens).flatten(),
        matrix=matrix,
        gradient=block.pair_gradient + coupling @ at_rest,
        camera_at_rest=at_rest,
        camera_by_pairs=by_pairs,
    )


def by_conjugate_gradients(parts: Sequence[Reduced], gradient: Tensor, keep_scale: bool) -> Tensor:
    """Minimise the sum of the forms without making the whole matrix; preconditioned by the pairs' own (7, 7) blocks."""
    own = gradient.new_zeros(len(gradient) // 7, 7, 7)
    for part in parts:
        count = len(part.unknowns) // 7
        blocks = part.matrix.view(count, 7, count, 7).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        own[part.unknowns[::7] // 7] += blocks
    inverse = torch.linalg.inv(own)
    scale = scale_direction(gradient)
    scale_response = (inverse @ scale.view(-1, 7, 1)).flatten()

    def precondition(residual: Tensor) -> Tensor:
        answer = (inverse @ residual.view(-1, 7, 1)).flatten()
        if keep_scale:
            answer = answer - scale_response * (scale @ answer) / (scale @ scale_response)
        return answer

    motion, residual = torch.zeros_like(gradient), -gradient
    preconditioned = precondition(residual)
    direction, size = preconditioned, residual @ preconditioned
    enough = ACCURACY**2 * size
    for _ in range(MOST_STEPS):
        if not size > enough:
            break
        response = product(parts, direction)
        length = size / (direction @ response)
        motion = motion + length * direction
        residual = residual - length * response
        preconditioned = precondition(residual)
        previous, size = size, residual @ preconditioned
        direction = preconditioned + direction * (size / previous)
    return motion


def product(parts: Sequence[Reduced], motion: Tensor) -> Tensor:
    """The whole matrix times a motion of the pairs (7 E,)."""
    result = torch.zeros_like(motion)
    single = motion.float()
    for part in parts:
        result[part.unknowns] += part.matrix @ single[part.unknowns]
    return result


def scale_direction(like: Tensor) -> Tensor:
    """(7 E,): 1 at the log scale of every pair."""
    direction = torch.zeros_like(like)
    direction[6::7] = 1
    return direction
