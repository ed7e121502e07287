"""The one call that aligns pairs: it checks them, takes connected parts one by one, and puts the results together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from manyview.alignment.cleaning import apply_masks
from manyview.alignment.groups import groups
from manyview.alignment.objective import published_objective
from manyview.alignment.problem import Alignment, KnownCameras, Mode, PairMaps
from manyview.errors import InputError

Progress = Callable[[int, int, str], None]
Solver = Callable[[PairMaps, KnownCameras, Progress | None], Alignment]
DEFAULT_ITERATIONS = 300
DEFAULT_LEARNING_RATE = 0.01
DEFAULT_SCHEDULE = "cosine"


def align_pairs(
    edges: np.ndarray | Sequence,
    points: Sequence,
    confidence: Sequence,
    mode: Mode = "fast",
    seed: int = 0,
    known: KnownCameras | None = None,
    *,
    iterations: int | None = None,
    learning_rate: float | None = None,
    schedule: str | None = None,
    masks: Sequence | None = None,
    progress: Progress | None = None,
    device: str | torch.device = "cpu",
) -> Alignment:
    """Cameras and depth of N pictures that agree best with the pointmaps of E pairs (DUSt3R, section 3.4).

    Pictures that no chain of pairs joins share no frame: each connected part of the graph is aligned alone and keeps a
    world frame and a scale of its own (`Alignment.groups`). A part with known cameras lies in their frame.

    Args:
        edges: (E, 2) ints; edge (i, j) is a run with picture i first. Pictures are numbered 0 to N - 1 without gaps.
        points: for each edge (H_i, W_i, 3) and (H_j, W_j, 3), arrays or tensors, both in the frame of camera i; each
            edge has a scale of its own. Pixels that are not finite take no part.
        confidence: for each edge (H_i, W_i) and (H_j, W_j), at least 1; 0 marks pixels that take no part.
        mode: "fast", or "compatible" for the published procedure step by step (Adam over all pixels).
        seed: of the choice of pixels in fast mode. The same input and seed give the same result.
        known: what is known of the cameras, of all pictures or of some, in pixels of the pointmaps.
        iterations: of compatible mode, 300 if None.
        learning_rate: of compatible mode, 0.01 if None.
        schedule: of compatible mode's learning rate, "cosine" (if None) or "linear".
        masks: N (H, W) bool, False where pixels take no part, such as the sky; None for a picture without a mask.
        progress: called as progress(done, total, "aligning").
        device: where the pixels are worked on, as PyTorch names it.

    Returns:
        The published loss over all pixels at the result is its `objective`, in both modes.

    Raises:
        InputError: shapes, indices or numbers that do not fit; known intrinsics of other pixels; options of compatible
            mode given to fast mode.
    """
    started = time.perf_counter()
    options = {"iterations": iterations, "learning_rate": learning_rate, "schedule": schedule}
    solve = _solver(mode, seed, {name: given for name, given in options.items() if given is not None}, device)
    pairs = PairMaps.checked(edges, points, confidence)
    known = KnownCameras() if known is None else known
    known.check_fits(pairs.sizes)
    if masks is not None:
        pairs = apply_masks(pairs, masks)
    parts = groups(pairs.edges, pairs.views)
    if len(parts) == 1:
        result = solve(pairs, known, progress)
    else:
        results = [
            solve(pairs.part(part), known.part(part), _shared_progress(progress, number, len(parts)))
            for number, part in enumerate(parts)
        ]
        result = merged(pairs, parts, results)
    return replace(result, seconds=time.perf_counter() - started)


def _solver(mode: str, seed: int, options: dict, device: str | torch.device) -> Solver:
    """What aligns one connected part."""
    if mode == "fast":
        if options:
            raise InputError(
                f"{', '.join(options)} given to mode 'fast', which chooses its own steps",
                hint="They belong to mode='compatible'.",
            )
        from manyview.alignment.fast import align_fast

        return lambda pairs, known, progress: align_fast(pairs, known, seed=seed, progress=progress, device=device)
    if mode == "compatible":
        from manyview.alignment.compatible import align_compatible

        settings = {
            "iterations": DEFAULT_ITERATIONS,
            "learning_rate": DEFAULT_LEARNING_RATE,
            "schedule": DEFAULT_SCHEDULE,
            **options,
        }
        return lambda pairs, known, progress: align_compatible(
            pairs, known, progress=progress, device=device, **settings
        )
    raise InputError(f"unknown mode {mode!r}", hint="Known are 'fast' and 'compatible'.")


def _shared_progress(progress: Progress | None, number: int, count: int) -> Progress | None:
    """The progress of one of several parts, as a share of the whole; all parts count alike."""
    if progress is None:
        return None
    return lambda done, total, what: progress(number * total + done, count * total, what)


def merged(pairs: PairMaps, parts: Sequence[Sequence[int]], results: Sequence[Alignment]) -> Alignment:
    """One result of parts that were aligned by themselves.

    Args:
        pairs: of all pictures.
        parts: the pictures of each part; no edge joins two of them.
        results: of each part, its pictures in that order.
    """
    views = {view: (result, row) for part, result in zip(parts, results, strict=True) for row, view in enumerate(part)}
    ordered = [views[view] for view in range(pairs.views)]
    world_from_pair = np.zeros((len(pairs.edges), 4, 4))
    for part, result in zip(parts, results, strict=True):
        world_from_pair[np.isin(pairs.edges[:, 0], part)] = result.world_from_pair
    K = np.stack([result.K[row] for result, row in ordered])
    world_from_camera = np.stack([result.world_from_camera[row] for result, row in ordered])
    depth = [result.depth[row] for result, row in ordered]
    return Alignment(
        world_from_camera=world_from_camera,
        K=K,
        depth=depth,
        confidence=[result.confidence[row] for result, row in ordered],
        world_from_pair=world_from_pair,
        objective=published_objective(
            pairs, world_from_camera=world_from_camera, K=K, depth=depth, world_from_pair=world_from_pair
        ),
        seconds=0.0,
        mode=results[0].mode,
        steps=max(result.steps for result in results),
        groups=tuple(tuple(part) for part in parts),
        cameras_not_found=tuple(view for view, (result, row) in enumerate(ordered) if row in result.cameras_not_found),
    )
