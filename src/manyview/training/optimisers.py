"""AdamW for everything, or Muon for the matrices of the blocks and AdamW for the rest."""

from __future__ import annotations

import re
from typing import Any, Literal

import torch
from torch import nn

OptimiserName = Literal["adamw", "muon"]


def make_optimiser(
    module: nn.Module,
    name: OptimiserName,
    *,
    learning_rate: float,
    betas: tuple[float, float],
    epsilon: float,
    weight_decay: float,
    decay_vectors: bool,
) -> torch.optim.AdamW | MuonWithAdamW:
    """The optimiser of a module's parameters; matrices decay, vectors (biases, norms) only with `decay_vectors`."""
    parameters = dict(module.named_parameters())
    chosen = [n for n, p in parameters.items() if name == "muon" and is_block_matrix(n, p)]
    rest = [parameter for n, parameter in parameters.items() if n not in set(chosen)]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": weight_decay if decay_vectors else 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=epsilon, fused=True)
    if not chosen:
        return adamw
    # Scaled so that a step is as long as one of AdamW: both take one learning rate (Liu et al. 2025, arXiv 2502.16982).
    matrices = [parameters[n] for n in chosen]
    muon = torch.optim.Muon(
        matrices, lr=learning_rate, weight_decay=weight_decay, momentum=betas[1], adjust_lr_fn="match_rms_adamw"
    )
    return MuonWithAdamW(muon, adamw)


def is_block_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a matrix inside a transformer block."""
    return parameter.ndim == 2 and re.search(r"blocks\.\d+\.", name) is not None


class MuonWithAdamW:
    """Two optimisers that step together; one state, in which the parameters of Muon come first.

    Muon (Jordan et al. 2024) moves a matrix along its momentum with all singular values made equal.
    """

    def __init__(self, muon: torch.optim.Muon, adamw: torch.optim.AdamW) -> None:
        self.muon = muon
        self.adamw = adamw

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [*self.muon.param_groups, *self.adamw.param_groups]

    def zero_grad(self) -> None:
        self.muon.zero_grad()
        self.adamw.zero_grad()

    def step(self) -> None:
        self.muon.step()
        self.adamw.step()

    def state_dict(self) -> dict[str, Any]:
        """As that of one optimiser with the groups of both."""
        first, second = self.muon.state_dict(), self.adamw.state_dict()
        shift = self._matrices
        groups = [{**group, "params": [index + shift for index in group["params"]]} for group in second["param_groups"]]
        return {
            "state": {**first["state"], **{index + shift: state for index, state in second["state"].items()}},
            "param_groups": [*first["param_groups"], *groups],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` gave."""
        shift, groups = self._matrices, state["param_groups"]
        own = len(self.muon.param_groups)
        later = [{**group, "params": [index - shift for index in group["params"]]} for group in groups[own:]]
        moments = state["state"]
        self.muon.load_state_dict(
            {"state": {i: s for i, s in moments.items() if i < shift}, "param_groups": groups[:own]}
        )
        self.adamw.load_state_dict(
            {"state": {i - shift: s for i, s in moments.items() if i >= shift}, "param_groups": later}
        )

    @property
    def _matrices(self) -> int:
        return sum(len(group["params"]) for group in self.muon.param_groups)
