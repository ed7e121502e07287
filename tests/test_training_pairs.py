"""Training of pairwise networks: both orders of a pair, where the first weights come from, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from manyview.errors import WeightsError
from manyview.geometry.posed_views import PosedViews
from manyview.networks.checkpoints.find import find_network
from manyview.networks.checkpoints.model_file import save_model
from manyview.networks.dust3r import Dust3R, Dust3RConfig
from manyview.networks.fast3r import Fast3R
from manyview.networks.pointmaps import Pointmaps
from manyview.training import loop
from manyview.training.blocks import blocks
from manyview.training.data import posed, step_batch, targets
from manyview.training.dust3r_losses import dust3r_loss
from manyview.training.forward import in_the_order_predicted, predict, tokens_on_the_way
from manyview.training.initial import take_over_fast3r
from manyview.training.journal import read_log
from manyview.training.loop import Pace, train, train_and_save, train_step
from manyview.training.matching import token_matches
from manyview.training.model_info import info_of
from manyview.training.objective import Objective
from manyview.training.optimisers import MuonWithAdamW
from manyview.training.overrides import to_json
from manyview.training.pictures import contact_sheet
from manyview.training.recipes import named_recipe, set_options
from manyview.training.state import start
from manyview.worlds import WorldSettings, render_worlds
from toys import (
    INFO,
    PAIRS_INFO,
    SMALLEST,
    SMALLEST_PAIRS,
    disturbed,
    random_images,
    random_network,
    random_pair_network,
)
from training_toys import SHARED_PAIRS, weights
from training_toys import TINY_PAIRS as TINY

PACE = Pace(log=1, save=1, evaluate=2, workers=0)
NO_ROWS = torch.zeros(3, 2, dtype=torch.int64)


@pytest.fixture(scope="module")
def worlds() -> PosedViews:
    return posed(render_worlds(range(3), 2, (24, 32), WorldSettings(spread=0.5)))


# ---------------------------------------------------------------- both orders
class Oracle(Dust3R):
    """Knows the truth, and says it of whatever pair it is given: tokens are numbers of scene and view."""

    def __init__(self, truth: PosedViews) -> None:
        super().__init__(SMALLEST_PAIRS)
        self.truth = truth

    def encode_both(self, first, second):
        scenes = torch.arange(len(first))
        return torch.stack([scenes, torch.zeros_like(scenes)], 1), torch.stack([scenes, torch.ones_like(scenes)], 1)

    def decode(self, first, second, first_grid, second_grid, economy=None):
        home = self.truth.world_from_camera[first[:, 0], first[:, 1]].double()
        points = []
        for ids in (first, second):
            world = self.truth.points[ids[:, 0], ids[:, 1]].double()
            moved = torch.einsum(
                "bij,bhwj->bhwi", torch.linalg.inv(home)[:, :3, :3], world - home[:, None, None, :3, 3]
            )
            points.append(3.0 * moved.float())
        return Pointmaps(points=points, confidence=[torch.ones(p.shape[:3]) for p in points])


def test_a_network_that_says_the_truth_of_either_order_has_no_error(worlds):
    recipe = replace(TINY, matching_weight=0.0, place_weight=0.0, camera_weight=0.0)
    figures = Objective(Oracle(worlds), recipe)(**vars(worlds), view_ids=NO_ROWS)
    assert figures["global_error"] < 1e-5
    wrong = Oracle(replace(worlds, world_from_camera=worlds.world_from_camera.flip(1)))
    assert Objective(wrong, recipe)(**vars(worlds), view_ids=NO_ROWS)["global_error"] > 0.05


def test_the_prediction_has_each_pair_as_it_is_and_then_turned_round(worlds):
    network = random_pair_network(TINY.network)
    with torch.no_grad():
        got, depths = predict(network, worlds.images, NO_ROWS, local=False)
        first, second = (worlds.images * 2 - 1).unbind(1)
        one, other = network([first, second]), network([second, first])
    for view in (0, 1):
        want = torch.cat([one.points[view], other.points[view]])
        torch.testing.assert_close(got.points[view], want, rtol=1e-4, atol=1e-5)
    assert [tuple(tokens.shape) for tokens in depths] == [(6, 2, 12, 32)] * 4
    assert not network.decoder._forward_hooks


def test_each_picture_is_encoded_once(worlds):
    network, seen = random_pair_network(), []
    network.encoder.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    with torch.no_grad():
        predict(network, worlds.images, NO_ROWS, local=False)
    assert seen == [6]


def test_the_truth_is_arranged_as_the_prediction_and_the_loss_is_that_of_the_pairs_turned_by_hand(worlds):
    turned = PosedViews(**{name: value[:, [1, 0]] for name, value in vars(worlds).items()})
    both = in_the_order_predicted(random_pair_network(), worlds)
    for name, value in vars(both).items():
        assert torch.equal(value, torch.cat([getattr(worlds, name), getattr(turned, name)])), name
    assert in_the_order_predicted(random_network(), worlds) is worlds

    network = random_pair_network(TINY.network)
    recipe = replace(TINY, matching_weight=0.0, place_weight=0.0, camera_weight=0.0)
    with torch.no_grad():
        loss = Objective(network, recipe)(**vars(worlds), view_ids=NO_ROWS)["total"]
        parts = []
        for batch in (worlds, turned):
            predicted = network((batch.images * 2 - 1).unbind(1))
            one = dust3r_loss(predicted, targets(batch))
            parts.append((one.confident, torch.stack([v.sum() for v in targets(batch).valid])))
    pooled = sum(mean * count for mean, count in parts) / sum(count for _, count in parts)
    assert loss.item() == pytest.approx(pooled.sum().item(), rel=1e-5)


# ---------------------------------------------------------------- steps
@pytest.mark.parametrize("head", ["dpt", "linear"])
def test_a_few_steps_on_one_batch_lower_the_loss(head):
    recipe = replace(TINY, steps=1000, decay_steps=0, network=replace(TINY.network, head=head))
    run, batch = start(recipe), step_batch(recipe, 0)
    losses = [train_step(run, batch)["loss"] for _ in range(15)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert (run.step, run.scenes) == (15, 30)


@pytest.mark.parametrize("head", ["dpt", "linear"])
def test_every_weight_that_is_not_frozen_gets_a_gradient(head):
    """Processes that average gradients wait for each of them."""
    run = start(replace(TINY, network=replace(TINY.network, head=head)))
    train_step(run, step_batch(TINY, 0))
    assert all((p.grad is not None) == p.requires_grad for p in run.objective.parameters())
    frozen = {name for name, p in run.network.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in run.network.named_parameters() if ".refine.3.join." in name}
    trained = {id(p) for group in run.optimiser.param_groups for p in group["params"]}
    assert trained == {id(p) for part in (run.network, run.helpers) for p in part.parameters()}


def test_bfloat16_gives_nearly_the_same():
    figures = [train_step(start(r), step_batch(r, 0)) for r in (TINY, replace(TINY, bf16=True))]
    assert figures[1]["loss"] != figures[0]["loss"]
    assert figures[1]["loss"] == pytest.approx(figures[0]["loss"], rel=0.05)


def test_recomputing_blocks_changes_no_gradient():
    plain, saving = start(TINY), start(replace(TINY, activation_checkpointing=True))
    assert len(list(blocks(plain.network))) == 1 + 2 * 4
    calls = []
    saving.network.decoder.second_blocks[0].norm1.register_forward_hook(lambda *_: calls.append(None))
    batch = step_batch(TINY, 0)
    assert train_step(plain, batch) == train_step(saving, batch)
    assert len(calls) == 2  # forward, and again for the gradient
    assert torch.equal(weights(plain.network), weights(saving.network))


def test_muon_takes_the_matrices_of_the_decoders_and_leaves_the_rest():
    run = start(replace(TINY, optimiser="muon"))
    assert isinstance(run.optimiser, MuonWithAdamW)
    taken = {id(p) for group in run.optimiser.muon.param_groups for p in group["params"]}
    names = {name for name, p in run.network.named_parameters() if id(p) in taken}
    for part in ("first_blocks.0.attention.qkv", "second_blocks.3.cross_attention.value", "second_blocks.1.mlp.expand"):
        assert f"decoder.{part}.weight" in names
    assert all(".blocks." in name or "_blocks." in name for name in names)
    assert {p.ndim for p in run.network.parameters() if id(p) in taken} == {2}
    assert "decoder.sides" not in names


class Helper(torch.nn.Module):
    """A helper loss of 7 that keeps what it was given; its gradient shows the weight it counts with."""

    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones(()))

    def forward(self, tokens, truth, share):
        self.tokens, self.truth = tokens, truth
        return 7 * self.one


@pytest.mark.parametrize(("name", "level"), [("matching", 1), ("place", 2), ("camera", 3)])
def test_each_helper_loss_sees_its_depth_in_both_orders_and_counts_with_its_weight(name, level):
    recipe = replace(TINY, clip=0.0, **{f"{name}_weight": 1.5})
    run, batch = start(recipe), step_batch(recipe, 0)
    helper = run.helpers[name] = Helper()
    with torch.no_grad():
        _, depths = predict(run.network, batch.images, NO_ROWS, local=False)
    assert train_step(run, batch)[name] == 7
    assert helper.one.grad.item() == pytest.approx(7 * 1.5)
    torch.testing.assert_close(helper.tokens, depths[level])
    assert len(helper.tokens) == 4
    if name != "camera":
        turned = PosedViews(**{key: value.flip(1) for key, value in vars(batch).items()})
        want = torch.cat([token_matches(part, 8).token for part in (batch, turned)])
        assert torch.equal(helper.truth.token, want)


def test_real_helper_losses_are_learnt_too():
    recipe = replace(TINY, steps=1000, decay_steps=0)
    run, batch = start(recipe), step_batch(recipe, 0)
    lines = [train_step(run, batch) for _ in range(15)]
    for name in ("matching", "place", "camera"):
        assert lines[-1][name] < lines[0][name]


# ---------------------------------------------------------------- runs
@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_run_that_is_stopped_and_resumed_equals_one_that_was_not(tmp_path, optimiser):
    recipe = replace(TINY, ema_decay=0.9, optimiser=optimiser)
    whole = train(recipe, tmp_path / "whole", pace=PACE)
    part = start(recipe)
    for step in range(2):
        train_step(part, step_batch(recipe, step))
    (tmp_path / "parts").mkdir()
    part.save(tmp_path / "parts")
    resumed = train(recipe, tmp_path / "parts", pace=PACE)
    assert isinstance(resumed, Dust3R)
    assert torch.equal(weights(whole), weights(resumed))


def test_a_run_writes_a_pairwise_model_that_loads(tmp_path):
    path = train_and_save(TINY, tmp_path, pace=PACE)
    assert path is not None
    network, info = find_network(path)
    assert network.config == TINY.network
    assert (info.name, info.family, info.licence) == ("manyview-tiny-pairs", "dust3r", "Apache-2.0")
    assert json.loads((tmp_path / "recipe.json").read_text()) == to_json(TINY)


def test_the_state_of_another_network_is_refused(tmp_path):
    start(TINY).save(tmp_path)
    with pytest.raises(WeightsError, match=r"network\.decoder_depth was 4 and is 8"):
        train(replace(TINY, network=replace(TINY.network, decoder_depth=8)), tmp_path, pace=PACE)


def test_pictures_of_a_pairwise_network_show_two_views(worlds, tmp_path, monkeypatch):
    assert contact_sheet(random_pair_network(), worlds, local=False).shape == (4 * 26, 2 * 34, 3)
    shown = []
    monkeypatch.setattr(
        loop, "contact_sheet", lambda _, world, local: shown.append(world.images.shape[1]) or np.zeros((4, 4, 3), "u1")
    )
    pytest.importorskip("tensorboard")
    train(TINY, tmp_path, pace=replace(PACE, tensorboard=True))
    assert shown == [2, 2]


PROCESS = """
import sys
from dataclasses import replace
from pathlib import Path
from manyview.training.loop import Pace, train
from training_toys import SHARED_PAIRS
train(replace(SHARED_PAIRS, strategy=sys.argv[2]), Path(sys.argv[1]), pace=Pace(log=1, save=2, evaluate=2, workers=0))
"""


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_give_the_weights_of_one(tmp_path, strategy):
    (tmp_path / "process.py").write_text(PROCESS)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*launcher, str(tmp_path / "process.py"), str(tmp_path / "run"), strategy],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    one, run = train(SHARED_PAIRS, tmp_path / "one", pace=PACE), start(SHARED_PAIRS)
    run.restore(tmp_path / "run")
    torch.testing.assert_close(weights(run.model()), weights(one), rtol=0, atol=1e-5)
    assert (weights(start(SHARED_PAIRS).network) - weights(one)).abs().max() > 1e-3
    assert run.scenes == 9
    lines = [[line for line in read_log(tmp_path / name) if "loss" in line] for name in ("run", "one")]
    for both, alone in zip(*lines, strict=True):
        for name in ("scenes", "total", "loss", "global_error", "matching", "place", "camera", "gradient_norm"):
            assert both[name] == pytest.approx(alone[name], rel=1e-3, abs=1e-4), name


# ---------------------------------------------------------------- from a Fast3R
KNOWING = replace(SMALLEST, fusion_positions=True, fusion_coordinates=True, fusion_qk_norm=True)
ROWS = torch.tensor([[0, 500]])  # the rows whose vectors the sides start with


def taken_over(fast3r: Fast3R) -> Dust3R:
    network = random_pair_network(TINY.network, seed=5)
    take_over_fast3r(network, fast3r)
    return network


def depths_of(network, images: list[torch.Tensor]) -> list[torch.Tensor]:
    """Tokens (1, 2, T, dim) of every depth from 1 on."""
    with torch.no_grad(), tokens_on_the_way(network) as kept:
        network(images, view_ids=ROWS) if isinstance(network, Fast3R) else network(images)
    return [tokens.unflatten(1, (2, -1)) for tokens in kept]


def test_blocks_within_a_view_are_taken_over_exactly():
    """The first block of an alternating fusion; the norms' epsilons are 1e-5 there and 1e-6 here."""
    fast3r = disturbed(random_network(replace(KNOWING, fusion_attention="alternating")))
    images = random_images([(16, 24)] * 2)
    network = taken_over(fast3r)
    got, want = depths_of(network, images), depths_of(fast3r, images)
    torch.testing.assert_close(got[0], want[0], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(got[1], want[1], rtol=1e-3, atol=1e-4)
    for stack in (network.decoder.first_blocks, network.decoder.second_blocks):
        for number, (block, source) in enumerate(zip(stack, fast3r.fusion.blocks, strict=True)):
            across, own = block.cross_attention.project, block.attention.project
            share = 0.5 * (number % 2)
            assert torch.equal(across.weight, share * source.attention.project.weight)
            assert torch.equal(own.weight, (1 - share) * source.attention.project.weight)


@pytest.mark.parametrize("attention", ["joint", "alternating"])
def test_where_all_tokens_weigh_alike_the_whole_network_is_taken_over_exactly(attention):
    """Then half of a view's own mean and half of the other's is the mean of both."""
    fast3r = disturbed(random_network(replace(KNOWING, fusion_attention=attention)))
    images = random_images([(16, 24)] * 2)
    with torch.no_grad():
        for block in fast3r.fusion.blocks:
            block.attention.q_norm.weight.zero_()
            block.attention.q_norm.bias.zero_()
    network = taken_over(fast3r)
    with torch.no_grad():
        got, want = network(images), fast3r(images, view_ids=ROWS)
    for g, w in zip((*got.points, *got.confidence), (*want.points, *want.confidence), strict=True):
        torch.testing.assert_close(g, w, rtol=1e-3, atol=1e-3 * float(w.abs().max()))


@pytest.mark.parametrize("attention", ["joint", "alternating"])
def test_a_network_taken_over_says_nearly_what_the_fast3r_says(attention):
    """Far nearer than a random one."""
    images = random_images([(16, 24)] * 2)
    fast3r = random_network(replace(KNOWING, fusion_attention=attention), seed=3)
    with torch.no_grad():
        want = fast3r(images, view_ids=ROWS)
        away = [
            sum(float((g - w).abs().mean()) for g, w in zip(network(images).points, want.points, strict=True))
            for network in (taken_over(fast3r), random_pair_network(TINY.network, seed=5))
        ]
    assert away[0] < 0.2 * away[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder_heads": 4}, "its encoder_heads is 2, encoder_heads here is 4"),
        ({"encoder_depth": 2}, "its encoder_depth is 1, encoder_depth here is 2"),
        ({"decoder_depth": 8}, "its fusion_depth is 4, decoder_depth here is 8"),
        ({"decoder_heads": 4}, "its fusion_heads is 2, decoder_heads here is 4"),
        ({"decoder_qk_norm": False}, "its fusion_qk_norm is True, decoder_qk_norm here is False"),
        ({"decoder_coordinates": False}, "its fusion_coordinates is True"),
        ({"mlp_ratio": 2.0}, "its mlp_ratio is 4.0"),
        ({"rope_base": 50.0}, "its rope_base is 100.0"),
        ({"patch_size": 16}, "its patch_size is 8"),
        ({"head": "linear"}, "does not fit the network"),
        ({"head_features": 16}, "does not fit the network"),
    ],
)
def test_a_fast3r_of_other_sizes_or_options_is_refused(changes, words):
    network = random_pair_network(replace(TINY.network, **changes))
    with pytest.raises(WeightsError, match="initial model does not fit") as error:
        take_over_fast3r(network, random_network(KNOWING))
    assert words in str(error.value)


def test_a_recipe_starts_from_a_fast3r_file_and_keeps_its_own_network(tmp_path):
    save_model(random_network(KNOWING, seed=3), tmp_path / "m.safetensors", INFO)
    recipe = replace(TINY, initial=str(tmp_path / "m.safetensors"))
    run = start(recipe)
    assert torch.equal(weights(run.network), weights(taken_over(random_network(KNOWING, seed=3))))
    train_step(run, step_batch(recipe, 0))
    assert info_of(recipe).licence == "none (of toy, which it was trained from)"


def test_the_packaged_pairs_start_from_the_packaged_model():
    recipe = named_recipe("small-pairs")
    assert isinstance(recipe.network, Dust3RConfig)
    assert (recipe.initial, recipe.objective) == ("manyview-small", "dust3r")
    run, model = start(recipe), find_network("manyview-small")[0]
    assert isinstance(model, Fast3R)
    assert torch.equal(run.network.encoder.norm.weight, model.encoder.norm.weight)
    assert run.network.encoder.norm.weight.requires_grad


# ---------------------------------------------------------------- from another pairwise network
@pytest.fixture
def linear_model(tmp_path):
    network = random_pair_network(replace(SMALLEST_PAIRS, head="linear"), seed=3)
    save_model(network, tmp_path / "linear.safetensors", replace(PAIRS_INFO, image_size=24))
    return tmp_path / "linear.safetensors", network


def test_new_heads_are_put_on_the_encoder_and_decoders_of_a_pairwise_model(linear_model):
    path, network = linear_model
    recipe = replace(TINY, network=SMALLEST_PAIRS, initial=str(path))
    run = start(recipe)
    for part in ("encoder", "decoder"):
        assert torch.equal(weights(getattr(run.network, part)), weights(getattr(network, part)))
    assert torch.equal(weights(run.network.first_head), weights(start(replace(recipe, initial="")).network.first_head))
    same = start(replace(recipe, network=network.config))
    assert torch.equal(weights(same.network), weights(network))


def test_a_pairwise_model_with_another_decoder_is_refused(linear_model):
    for changes in ({"decoder_depth": 2}, {"decoder_qk_norm": True}, {"head": "dpt", "decoder_sides": True}):
        network = replace(linear_model[1].config, **changes)
        with pytest.raises(WeightsError, match="is not of the recipe's network"):
            start(replace(TINY, network=network, initial=str(linear_model[0])))
    network = replace(linear_model[1].config, decoder_heads=4)  # which no shape shows
    with pytest.raises(WeightsError, match="decoder_heads differs"):
        start(replace(TINY, network=network, initial=str(linear_model[0])))


def test_fine_tuning_a_pairwise_model_is_pairwise(linear_model):
    path, network = linear_model
    recipe = named_recipe("finetune", settings=[f"initial={path}", "bf16=false", "learning_rate=1e-5"])
    assert (recipe.network, recipe.image_size, recipe.objective) == (network.config, 24, "dust3r")
    assert [tuple(stage.views) for stage in recipe.stages] == [(2,)]
    assert named_recipe("finetune", settings=set_options(recipe)) == recipe
    run = start(recipe)
    assert torch.equal(weights(run.network), weights(network))
    train_step(run, step_batch(recipe, 0))


def test_a_pairwise_recipe_takes_the_network_of_a_model_that_is_built_otherwise(linear_model):
    recipe = named_recipe("dust3r-512-dpt", settings=[f"initial={linear_model[0]}"])
    assert (recipe.network, recipe.image_size) == (linear_model[1].config, 24)
