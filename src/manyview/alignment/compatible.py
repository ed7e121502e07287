"""Global alignment as published: Adam on every depth, camera, focal length and pair similarity, over all pixels.

DUSt3R (arXiv 2312.14132), section 3.4 and its published implementation. The pairs are taken block by block, so that
only one block's residuals are in memory at a time; the sums are the published ones.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from manyview.alignment.cleaning import fused_confidence
from manyview.alignment.known_cameras import is_all_known, known_cameras_state
from manyview.alignment.objective import confidence_weights
from manyview.alignment.problem import Alignment, KnownCameras, PairMaps
from manyview.alignment.spanning_tree import BASE_SCALE, InitialState, spanning_tree_state
from manyview.errors import InputError
from manyview.geometry import intrinsics

Schedule = Literal["cosine", "linear"]
Device = str | torch.device
ADAM_BETAS = (0.9, 0.9)
LOWEST_LEARNING_RATE = 1e-6
# Log focal lengths are multiplied by this, so that they adapt more slowly.
FOCAL_SLOWNESS = 20.0
# Pixels of one side of a block of pairs; a single pair may have more. Such pairs are never copied.
BLOCK_PIXELS = 2**17


def align_compatible(
    pairs: PairMaps,
    known: KnownCameras | None = None,
    *,
    iterations: int = 300,
    learning_rate: float = 0.01,
    schedule: str = "cosine",
    steps: int | None = None,
    initial: InitialState | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    device: Device = "cpu",
) -> Alignment:
    """The published alignment of a connected graph, its focal mix-up at the start included.

    Args:
        pairs: of a connected graph.
        known: cameras and intrinsics that stay as they are, of all pictures or of some. One known camera fixes the
            frame alone, two or more at different places the scale too.
        iterations: steps of Adam, and the length of the schedule; 0 gives the initial state.
        learning_rate: of the first step, falling to 1e-6.
        schedule: how it falls, "cosine" or "linear".
        steps: stop after so many of the iterations; None takes them all.
        initial: where to start; None is the published start.
        progress: called after each step as progress(done, steps, "aligning").
        device: as PyTorch names it.

    Raises:
        InputError: an unknown schedule, a negative number of iterations, a learning rate not above 0; or a graph
            that cannot be placed.
    """
    started = time.perf_counter()
    _check_options(iterations, learning_rate, schedule)
    known = KnownCameras() if known is None else known
    initial = _initial_state(pairs, known) if initial is None else initial
    world = _World(pairs, known, initial).to(device)
    blocks = _blocks(pairs, world, device)
    steps = iterations if steps is None else min(steps, iterations)
    rates = [learning_rate_at(step / iterations, learning_rate, schedule) for step in range(steps)]
    losses = _descend(world, blocks, rates, progress)
    with torch.no_grad():
        objective = _loss_and_gradients(world, blocks, gradients=False)
    return Alignment(
        world_from_camera=world.world_from_camera(known),
        K=world.K(pairs, known),
        depth=world.depth(),
        confidence=fused_confidence(pairs),
        world_from_pair=world.world_from_pair(),
        objective=objective,
        seconds=time.perf_counter() - started,
        mode="compatible",
        steps=steps,
        groups=(tuple(range(pairs.views)),),
        losses=losses,
        cameras_not_found=tuple(np.flatnonzero(~initial.camera_found).tolist()),
    )


def _check_options(iterations: int, learning_rate: float, schedule: str) -> None:
    if schedule not in get_args(Schedule):
        raise InputError(f"unknown schedule {schedule!r}", hint=f"Known are {', '.join(get_args(Schedule))}.")
    if iterations < 0:
        raise InputError(f"got {iterations} iterations; expected 0 or more")
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise InputError(f"got learning rate {learning_rate}; expected a number above 0, such as 0.01")


def _initial_state(pairs: PairMaps, known: KnownCameras) -> InitialState:
    if is_all_known(known, pairs.views):
        return known_cameras_state(pairs, known)
    return spanning_tree_state(pairs, known, published_focals=True)


class _World(nn.Module):
    """What is adjusted, in the published parameters.

    Pictures of one size form a class and share one tensor. Parameters of known cameras and focal lengths exist, but
    nothing depends on them: their fixed values are used instead.
    """

    camera_known: Tensor
    focal_known: Tensor
    fixed_camera: Tensor
    fixed_focal: Tensor
    principal_point: Tensor

    def __init__(self, pairs: PairMaps, known: KnownCameras, initial: InitialState) -> None:
        super().__init__()
        views = range(pairs.views)
        self.sizes = sorted(set(pairs.sizes))
        self.members = [[view for view in views if pairs.sizes[view] == size] for size in self.sizes]
        self.normalises_scale = not initial.fixes_scale
        cameras = np.stack([_camera_parameters(matrix) for matrix in initial.world_from_camera])
        scales = np.array([pair.scale for pair in initial.world_from_pair])
        similarities = [(pair.rotation, pair.translation / pair.scale) for pair in initial.world_from_pair]
        edges = np.column_stack([np.stack([_rigid_parameters(*given) for given in similarities]), np.log(scales)])
        self.log_depth = nn.ParameterList(
            nn.Parameter(torch.stack([torch.as_tensor(initial.depth[view]).reshape(-1) for view in members]).log())
            for members in self.members
        )
        self.camera = nn.Parameter(_float32(cameras))
        self.slow_log_focal = nn.Parameter(_float32(FOCAL_SLOWNESS * np.log(initial.focal)))
        self.pair = nn.Parameter(_float32(edges))
        self.register_buffer("camera_known", torch.tensor([known.camera_of(view) is not None for view in views]))
        self.register_buffer("focal_known", torch.tensor([known.focal_of(view) is not None for view in views]))
        self.register_buffer("fixed_camera", self.camera.detach().clone())
        self.register_buffer("fixed_focal", _float32(initial.focal))
        centres = np.array([known.principal_point_of(view, pairs.sizes[view]) for view in views])
        self.register_buffer("principal_point", _float32(centres))

    def cameras(self) -> tuple[Tensor, Tensor]:
        """Rotations (N, 3, 3) and translations (N, 3) of world_from_camera."""
        used = torch.where(self.camera_known[:, None], self.fixed_camera, self.camera)
        return _rotation(used[:, :4]), _from_signed_log(used[:, 4:7])

    def focals(self) -> Tensor:
        """(N,) pixels."""
        return torch.where(self.focal_known, self.fixed_focal, (self.slow_log_focal / FOCAL_SLOWNESS).exp())

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Scaled rotations (E, 3, 3) and translations (E, 3) of the pair similarities; the scale multiplies both."""
        log_scale = self.pair[:, 7]
        if self.normalises_scale:
            log_scale = log_scale + (math.log(BASE_SCALE) - log_scale.mean())
        scale = log_scale.exp()[:, None]
        return scale[:, :, None] * _rotation(self.pair[:, :4]), scale * _from_signed_log(self.pair[:, 4:7])

    def points(self, size_class: int) -> Tensor:
        """(members, H * W, 3) world points of the pictures of one size."""
        members = self.members[size_class]
        rotation, translation = self.cameras()
        depth = self.log_depth[size_class].exp()
        centred = _grid(self.sizes[size_class], depth.device) - self.principal_point[members, None]
        in_camera = torch.cat([centred * (depth / self.focals()[members, None])[..., None], depth[..., None]], dim=-1)
        return torch.baddbmm(translation[members, None], in_camera, rotation[members].transpose(1, 2))

    def world_from_camera(self, known: KnownCameras) -> np.ndarray:
        """(N, 4, 4) float64, known ones as they were given."""
        found = _matrices(*(given.detach().double() for given in self.cameras()))
        for view in torch.nonzero(self.camera_known).flatten().tolist():
            found[view] = known.camera_of(view)
        return found

    def K(self, pairs: PairMaps, known: KnownCameras) -> np.ndarray:
        """(N, 3, 3) float64 pixels, known values as they were given."""
        focals = self.focals().tolist()
        centres = [known.principal_point_of(view, size) for view, size in enumerate(pairs.sizes)]
        given = [known.focal_of(view) or focals[view] for view in range(pairs.views)]
        return np.stack([intrinsics(float(focal), centre) for focal, centre in zip(given, centres, strict=True)])

    def depth(self) -> list[np.ndarray]:
        """N times (H, W) float32."""
        found = {}
        for size, members, log_depth in zip(self.sizes, self.members, self.log_depth, strict=True):
            maps = log_depth.detach().exp().cpu().numpy().reshape(-1, *size)
            found.update(zip(members, maps, strict=True))
        return [found[view] for view in range(len(found))]

    def world_from_pair(self) -> np.ndarray:
        """(E, 4, 4) float64, the scale within."""
        return _matrices(*(given.detach().double() for given in self.pairs()))


@dataclass(frozen=True)
class _Block:
    """One side of some edges whose pictures there have the same size."""

    size_class: int
    members: Tensor  # (C,) rows in the class
    edges: Tensor  # (C,) rows of the graph
    points: Tensor  # (C, P, 3) in the frame of each edge
    weights: Tensor  # (C, P), each divided by the number of pixels that this side has in all edges

    def loss(self, world: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
        """This block's share of the objective, from points (C, P, 3) and similarities (C, 3, 3) and (C, 3)."""
        shifted = world - translation[:, None]
        difference = torch.baddbmm(shifted, self.points, rotation.transpose(1, 2), alpha=-1)
        return torch.sum(self.weights * torch.linalg.vector_norm(difference, dim=-1))


def _blocks(pairs: PairMaps, world: _World, device: Device) -> list[_Block]:
    return [
        _block(pairs, world, side, size_class, rows, device)
        for side in (0, 1)
        for size_class, size in enumerate(world.sizes)
        for rows in _rows_by_block(pairs, side, size)
    ]


def _rows_by_block(pairs: PairMaps, side: int, size: tuple[int, int]) -> list[list[int]]:
    rows = [row for row, view in enumerate(pairs.edges[:, side].tolist()) if pairs.sizes[view] == size]
    length = max(1, BLOCK_PIXELS // (size[0] * size[1]))
    return [rows[start : start + length] for start in range(0, len(rows), length)]


def _block(pairs: PairMaps, world: _World, side: int, size_class: int, rows: list[int], device: Device) -> _Block:
    members = [world.members[size_class].index(view) for view in pairs.edges[rows, side].tolist()]
    pixels = sum(math.prod(pairs.sizes[view]) for view in pairs.edges[:, side].tolist())
    return _Block(
        size_class=size_class,
        members=torch.tensor(members, device=device),
        edges=torch.tensor(rows, device=device),
        points=_stacked([pairs.points[row][side].reshape(-1, 3) for row in rows]).to(device),
        weights=torch.stack([confidence_weights(pairs.confidence[row][side]).reshape(-1) for row in rows]).to(device)
        / pixels,
    )


def _stacked(maps: list[Tensor]) -> Tensor:
    """A single map is not copied."""
    return maps[0][None] if len(maps) == 1 else torch.stack(maps)


def _descend(
    world: _World, blocks: list[_Block], learning_rates: list[float], progress: Callable[[int, int, str], None] | None
) -> np.ndarray:
    """One step of Adam for each learning rate; the loss before each step."""
    optimiser = torch.optim.Adam(world.parameters(), betas=ADAM_BETAS)
    losses = np.zeros(len(learning_rates))
    for step, learning_rate in enumerate(learning_rates):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate
        optimiser.zero_grad()
        losses[step] = _loss_and_gradients(world, blocks)
        optimiser.step()
        if progress is not None:
            progress(step + 1, len(learning_rates), "aligning")
    return losses


def learning_rate_at(share: float, first: float, schedule: str) -> float:
    """Learning rate when a share (0..1) of the steps is done, falling from `first` to 1e-6."""
    fallen = share if schedule == "linear" else (1 - math.cos(math.pi * share)) / 2
    return first + (LOWEST_LEARNING_RATE - first) * fallen


def _loss_and_gradients(world: _World, blocks: list[_Block], *, gradients: bool = True) -> float:
    """The objective; its gradients are added to those of the parameters.

    Each block goes back to the points and similarities that it uses, and these go back to the parameters at the end.
    """
    points = [world.points(size_class) for size_class in range(len(world.sizes))]
    shared = [*points, *world.pairs()]
    sums = [torch.zeros_like(given) for given in shared]
    total = 0.0
    for block in blocks:
        used = [(block.size_class, block.members), (len(points), block.edges), (len(points) + 1, block.edges)]
        leaves = [shared[which].detach()[rows].requires_grad_(gradients) for which, rows in used]
        loss = block.loss(*leaves)
        total += float(loss.detach())
        if gradients:
            for (which, rows), gradient in zip(used, torch.autograd.grad(loss, leaves), strict=True):
                sums[which].index_add_(0, rows, gradient)
    if gradients:
        torch.autograd.backward(shared, sums)
    return total


def _grid(size: tuple[int, int], device: torch.device) -> Tensor:
    """(H * W, 2) float32 (x, y) of every pixel."""
    y, x = torch.meshgrid(*(torch.arange(side, dtype=torch.float32, device=device) for side in size), indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2)


def _rotation(quaternion: Tensor) -> Tensor:
    """(..., 4) x, y, z, w of any length -> (..., 3, 3)."""
    x, y, z, w = nn.functional.normalize(quaternion, dim=-1).unbind(-1)
    entries = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        *(2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        *(2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))


def _from_signed_log(logarithm: Tensor) -> Tensor:
    return logarithm.sign() * logarithm.abs().expm1()


def _camera_parameters(matrix: np.ndarray) -> np.ndarray:
    return _rigid_parameters(matrix[:3, :3], matrix[:3, 3])


def _rigid_parameters(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """(7,) quaternion x, y, z, w and signed log translation."""
    from scipy.spatial.transform import Rotation

    logarithm = np.sign(translation) * np.log1p(np.abs(translation))
    return np.concatenate([Rotation.from_matrix(rotation).as_quat(), logarithm])


def _matrices(rotation: Tensor, translation: Tensor) -> np.ndarray:
    matrices = np.tile(np.eye(4), (len(rotation), 1, 1))
    matrices[:, :3, :3] = rotation.cpu().numpy()
    matrices[:, :3, 3] = translation.cpu().numpy()
    return matrices


def _float32(values: np.ndarray) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)
