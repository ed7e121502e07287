"""Evaluation while training: worlds that no training has seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import torch

from manyview.errors import ManyviewError
from manyview.methods.model import Model
from manyview.networks.checkpoints.model_file import ModelInfo
from manyview.networks.families import Network
from manyview.training.data import FIRST_HELD_OUT_SEED
from manyview.training.recipe import usual_sizes

# Worlds that runs look at again and again; final figures are measured on others.
FIRST_WATCHED_SEED = FIRST_HELD_OUT_SEED + 3_000_000
FIGURES = ("depth_error", "point_error", "rra15", "rta15", "maa30", "rotation_error")

Evaluate = Callable[[Network], dict[str, Any]]


class Measure(Protocol):
    """`manyview.evaluation.held_out.evaluate_on_worlds`, or something like it: returns a dataclass of figures."""

    def __call__(
        self, model: Model, *, views: int, scenes: int, first_seed: int, size: tuple[int, int] | None
    ) -> Any: ...


def held_out_worlds(measure: Measure, info: ModelInfo, *, views: Sequence[int] = (2, 4), scenes: int = 8) -> Evaluate:
    """What `train` calls now and then: accuracy on made-up worlds from held-out seeds.

    Args:
        measure: how.
        info: of the model that is trained; its `image_size` is that of the pictures.
        views, scenes: worlds of so many views, and how many of each.

    Returns:
        A function of a network; its figures are named "rra15_2_views" and so on. A network that cannot be measured
        (nothing it says makes sense yet) gives "not_measured" with the reason.
    """

    def evaluate(network: Network) -> dict[str, Any]:
        device = next(network.parameters()).device
        model = Model(network, info, device, torch.float32)
        size = usual_sizes(info.image_size, network.config.patch_size)[0]
        figures: dict[str, Any] = {}
        for count in views:
            try:
                report = asdict(measure(model, views=count, scenes=scenes, first_seed=FIRST_WATCHED_SEED, size=size))
            except ManyviewError as error:
                return {**figures, "not_measured": Exception.__str__(error)}
            figures |= {f"{name}_{count}_views": _finite(report[name]) for name in FIGURES}
        return figures

    return evaluate


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
