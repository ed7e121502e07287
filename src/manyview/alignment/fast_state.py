"""Where the cameras and the pairs are, and how a step moves them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Cameras of N pictures and similarities of E pairs, all float64. World units.

    Attributes:
        camera_rotation: (N, 3, 3) world_from_camera. `camera_centre`: (N, 3). `log_focal`: (N,), of pixels.
        pair_rotation: (E, 3, 3), `pair_log_scale`: (E,), `pair_translation`: (E, 3): a pair's point y lies at
            exp(log_scale) rotation y + translation.
    """

    camera_rotation: Tensor
    camera_centre: Tensor
    log_focal: Tensor
    pair_rotation: Tensor
    pair_log_scale: Tensor
    pair_translation: Tensor

    @property
    def pair_linear(self) -> Tensor:
        """(E, 3, 3) scale times rotation."""
        return self.pair_rotation * self.pair_log_scale.exp()[:, None, None]

    def place(self, points: Tensor) -> Tensor:
        """(E, 3), a point of each pair -> (E, 3) in the world."""
        return (self.pair_linear @ points[..., None])[..., 0] + self.pair_translation

    def transformed(self, rotation: Tensor, log_scale: Tensor, shift: Tensor) -> Placement:
        """Everything after x -> exp(log_scale) rotation x + shift."""
        linear = log_scale.exp() * rotation
        return Placement(
            camera_rotation=rotation @ self.camera_rotation,
            camera_centre=self.camera_centre @ linear.T + shift,
            log_focal=self.log_focal,
            pair_rotation=rotation @ self.pair_rotation,
            pair_log_scale=self.pair_log_scale + log_scale,
            pair_translation=self.pair_translation @ linear.T + shift,
        )

    def moved(self, pairs: Tensor, cameras: Tensor, pivots: Tensor) -> Placement:
        """After motions of the pairs (E, 7), about `pivots` (E, 3), and of the cameras (N, 7), as in `fast_system`."""
        turn = rotation_from_vector(pairs[:, :3])
        lever = self.pair_translation - pivots
        return Placement(
            camera_rotation=rotation_from_vector(cameras[:, :3]) @ self.camera_rotation,
            camera_centre=self.camera_centre + cameras[:, 3:6],
            log_focal=self.log_focal + cameras[:, 6],
            pair_rotation=turn @ self.pair_rotation,
            pair_log_scale=self.pair_log_scale + pairs[:, 6],
            pair_translation=pivots + pairs[:, 3:6] + (turn @ lever[..., None])[..., 0] * pairs[:, 6:].exp(),
        )


def cross_matrix(vectors: Tensor) -> Tensor:
    """(..., 3) -> (..., 3, 3): the matrix of v x."""
    x, y, z = vectors.unbind(-1)
    nothing = torch.zeros_like(x)
    rows = [nothing, -z, y, z, nothing, -x, -y, x, nothing]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def rotation_from_vector(vectors: Tensor) -> Tensor:
    """(B, 3) axis times angle, radians -> (B, 3, 3)."""
    return torch.linalg.matrix_exp(cross_matrix(vectors))
