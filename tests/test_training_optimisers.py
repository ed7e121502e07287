"""Muon for the matrices of the blocks, AdamW for the rest: who moves what, and how far."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn

from manyview.errors import InputError
from manyview.networks.fast3r import Fast3R
from manyview.training.data import step_batch
from manyview.training.loop import train_step
from manyview.training.optimisers import MuonWithAdamW, is_block_matrix, make_optimiser
from manyview.training.state import start
from toys import SMALLEST
from training_toys import TINY, weights

OPTIONS = {
    "learning_rate": 1e-3, "betas": (0.9, 0.95), "epsilon": 1e-8, "weight_decay": 0.05, "decay_vectors": False,
}  # fmt: skip


def test_every_parameter_is_moved_by_exactly_one_of_the_two():
    network = Fast3R(SMALLEST)
    optimiser = make_optimiser(network, "muon", **OPTIONS)
    assert isinstance(optimiser, MuonWithAdamW)
    moved = [id(parameter) for group in optimiser.param_groups for parameter in group["params"]]
    assert sorted(moved) == sorted(id(parameter) for parameter in network.parameters())
    muon = {id(parameter) for group in optimiser.muon.param_groups for parameter in group["params"]}
    names = {name for name, parameter in network.named_parameters() if id(parameter) in muon}
    assert names == {name for name, parameter in network.named_parameters() if is_block_matrix(name, parameter)}
    assert any("fusion.blocks" in name for name in names)
    assert any("encoder.blocks" in name for name in names)
    assert not any("head" in name or "embedding" in name for name in names)


class OneMatrix(nn.Module):
    """A block whose gradient can be set."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(24, 16)])


def test_a_matrix_moves_by_equal_singular_values_as_far_as_adamw_would():
    module = OneMatrix()
    optimiser = make_optimiser(module, "muon", **{**OPTIONS, "weight_decay": 0.0})
    matrix = module.blocks[0].weight
    before = matrix.detach().clone()
    gradient = torch.randn(16, 24, generator=torch.Generator().manual_seed(0))
    matrix.grad, module.blocks[0].bias.grad = gradient, torch.ones(16)
    optimiser.step()
    change = before - matrix.detach()
    values = torch.linalg.svdvals(change)
    assert values.max() / values.min() < 2.0, "the gradient's own differ by far more"
    assert torch.linalg.svdvals(gradient).max() / torch.linalg.svdvals(gradient).min() > 4
    assert float(change.square().mean().sqrt()) == pytest.approx(0.2e-3, rel=0.25)
    assert (change * gradient).sum() > 0


def test_a_run_with_muon_learns_and_keeps_its_state():
    recipe = replace(TINY, optimiser="muon", steps=200, learning_rate=1e-3)
    run = start(recipe)
    batch = step_batch(recipe, 0)
    first = train_step(run, batch)["loss"]
    for _ in range(12):
        last = train_step(run, batch)["loss"]
    assert last < 0.8 * first
    again = start(recipe)
    again.network.load_state_dict(run.network.state_dict())
    again.helpers.load_state_dict(run.helpers.state_dict())
    again.optimiser.load_state_dict(deepcopy(run.optimiser.state_dict()))
    again.step = run.step
    train_step(run, batch)
    train_step(again, batch)
    assert torch.equal(weights(run.network), weights(again.network))


def test_sharded_matrices_are_refused():
    with pytest.raises(InputError, match="muon needs whole matrices"):
        replace(TINY, optimiser="muon", strategy="fsdp")
