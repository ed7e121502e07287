"""Training: it learns, resumes where it stopped, and never sees what is kept for evaluation."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from manyview.errors import InputError, ManyviewError, WeightsError
from manyview.networks.checkpoints.find import find_network
from manyview.training.cameras import CameraLoss, true_cameras
from manyview.training.data import FIRST_HELD_OUT_SEED, step_batch, step_seeds, targets
from manyview.training.loop import Pace, forward_with_tokens, read_log, start, train, train_and_save, train_step
from manyview.training.matching import NOT_SEEN, MatchingLoss, PlaceLoss, token_matches
from manyview.training.recipes import Recipe, Stage, named_recipe
from manyview.worlds import WorldSettings, render_worlds
from test_fast3r_network import SMALLEST

TINY = Recipe(
    name="tiny", description="for tests", image_size=32, network=SMALLEST, steps=4, warmup_steps=1, decay_steps=2,
    learning_rate=2e-3, bf16=False,
    stages=[
        Stage(until=2, sizes=[(24, 32)], views=[2], images=4),
        Stage(until=4, sizes=[(32, 24)], views=[3], images=6),
    ],
)  # fmt: skip
PACE = Pace(log=1, save=1, evaluate=2)


def weights(network) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.fixture(scope="module")
def worlds():
    return render_worlds(range(3), 3, (32, 40), WorldSettings(spread=0.5))


def test_a_few_steps_on_one_batch_lower_the_loss():
    recipe = replace(TINY, steps=1000, decay_steps=0)
    run, batch = start(recipe, "cpu"), step_batch(recipe, 0)
    losses = [train_step(run, recipe, batch)["loss"] for _ in range(25)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_a_run_that_is_stopped_and_resumed_equals_one_that_was_not(tmp_path):
    whole = train(TINY, tmp_path / "whole", pace=PACE)
    part = start(TINY, "cpu")
    for step in range(2):
        train_step(part, TINY, step_batch(TINY, step))
    (tmp_path / "parts").mkdir()
    part.save(tmp_path / "parts" / "run.pt")
    resumed = train(TINY, tmp_path / "parts", pace=PACE)
    assert torch.equal(weights(whole), weights(resumed))


def test_log_evaluation_and_model_file_are_written(tmp_path):
    lines = []
    path = train_and_save(TINY, tmp_path, pace=PACE, report=lines.append)
    assert [line["step"] for line in read_log(tmp_path) if "loss" in line] == [1, 2, 3, 4]
    assert len(lines) == 4
    network, info = find_network(path)
    assert network.config == SMALLEST
    assert info.name == "manyview-tiny"
    assert json.loads((tmp_path / "recipe.json").read_text())["steps"] == 4


def test_evaluation_is_called_and_logged(tmp_path):
    train(TINY, tmp_path, pace=PACE, evaluate=lambda network: {"score": 0.5})
    assert [line["step"] for line in read_log(tmp_path) if "score" in line] == [2, 4]


def test_a_state_of_another_network_is_refused(tmp_path):
    start(replace(TINY, network=replace(SMALLEST, fusion_dim=64)), "cpu").save(tmp_path / "run.pt")
    with pytest.raises(WeightsError, match="does not fit"):
        train(TINY, tmp_path, pace=PACE)


def test_a_loss_that_is_not_finite_stops_the_run():
    run, batch = start(TINY, "cpu"), step_batch(TINY, 0)
    with torch.no_grad():
        run.network.encoder.norm.weight.fill_(float("nan"))
    with pytest.raises(ManyviewError, match="loss of step 0 is nan"):
        train_step(run, TINY, batch)


def test_learning_rate_rises_stays_and_falls_to_zero():
    recipe = replace(TINY, steps=100, warmup_steps=10, decay_steps=20)
    assert recipe.rate(0) == pytest.approx(recipe.learning_rate / 10)
    assert recipe.rate(50) == recipe.learning_rate
    assert recipe.rate(90) == pytest.approx(recipe.learning_rate / 2)
    assert recipe.rate(100) == 0


def test_steps_share_no_seed_and_none_is_held_out():
    seeds = [seed for step in range(4) for seed in step_seeds(TINY, TINY.stage(step), step, 2)]
    assert len(set(seeds)) == len(seeds)
    assert max(seeds) < FIRST_HELD_OUT_SEED
    with pytest.raises(ValueError, match="runs out of seeds"):
        step_seeds(replace(TINY, seed=1000), TINY.stages[0], 0, 2)


def test_recipes_are_found_by_name():
    assert named_recipe("small", steps=7).steps == 7
    with pytest.raises(InputError, match="no recipe"):
        named_recipe("huge")


def test_packaged_recipe_is_a_fast3r_of_the_promised_size():
    run = start(named_recipe("small"), "cpu")
    assert sum(p.numel() for p in run.network.parameters()) < 30e6


def test_matches_point_to_the_token_that_sees_the_same_surface(worlds):
    patch = 8
    matches = token_matches(worlds, patch)
    rows, columns = 32 // patch, 40 // patch
    assert matches.token.shape == (3, 3, 3, rows * columns)
    itself = matches.token[:, 1, 1]
    assert ((itself == torch.arange(rows * columns)) | (itself == NOT_SEEN)).all()
    other = ~torch.eye(3, dtype=torch.bool)[None, :, :, None]
    seen = (matches.seen & other).nonzero()
    assert len(seen) > 20
    size = worlds.points.norm(dim=-1).mean()
    for scene, i, j, token in seen[:: max(1, len(seen) // 50)].tolist():
        y, x = divmod(token, columns)
        point = worlds.points[scene, i, y * patch + patch // 2, x * patch + patch // 2]
        ty, tx = divmod(int(matches.token[scene, i, j, token]), columns)
        there = worlds.points[scene, j, ty * patch : (ty + 1) * patch, tx * patch : (tx + 1) * patch]
        assert (there - point).norm(dim=-1).min() < 0.1 * size


def test_matching_loss_is_low_for_matching_tokens_and_high_for_others(worlds):
    matches = token_matches(worlds, 8)
    loss = MatchingLoss(3, 3)
    with torch.no_grad():
        loss.project.weight.copy_(torch.eye(3))
        loss.project.bias.zero_()
    centres = worlds.points[:, :, 4::8, 4::8].flatten(2, 3)
    unit = torch.nn.functional.normalize(centres - centres.mean(dim=(1, 2), keepdim=True), dim=-1)
    shuffled = unit[:, :, torch.randperm(unit.shape[2], generator=torch.Generator().manual_seed(0))]
    assert loss(unit, matches) < 0.7 * loss(shuffled, matches)


def test_place_loss_is_zero_where_every_token_says_the_truth_and_ignores_hidden_ones(worlds):
    matches = token_matches(worlds, 8)
    loss = PlaceLoss(2)
    loss.say = torch.nn.Identity()
    truth = torch.where(matches.seen[:, :, 0, :, None], matches.place[:, :, 0], 99.0)
    assert loss(truth, matches).item() == pytest.approx(0, abs=1e-5)
    assert loss(truth + 0.1, matches).item() == pytest.approx(0.1 * 2**0.5, abs=1e-4)


def test_places_span_the_picture(worlds):
    matches = token_matches(worlds, 8)
    own = matches.place[:, 0, 0][matches.seen[:, 0, 0]]
    assert own.abs().max() < 1
    assert own[:, 0].max() > 0.5


def test_true_cameras_place_each_view_in_the_first_ones_frame(worlds):
    cameras = true_cameras(worlds)
    torch.testing.assert_close(cameras[:, 0, :, :3], torch.eye(3).expand(3, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(cameras[:, 0, :, 3], torch.zeros(3, 3), atol=1e-5, rtol=0)
    first = torch.linalg.inv(worlds.world_from_camera[:, 0])
    torch.testing.assert_close(cameras[:, 2, :, :3], (first @ worlds.world_from_camera[:, 2])[:, :3, :3])


def test_camera_loss_is_zero_for_a_perfect_vote(worlds):
    truth = true_cameras(worlds)[:, :, :, :].clone()
    truth[:, 1:] = truth[:1, 1:2]
    loss = CameraLoss(8)
    with torch.no_grad():
        loss.vote[3].weight.zero_()
        loss.vote[3].bias.copy_(truth[0, 1].flatten())
    assert loss(torch.randn(3, 3, 5, 8), truth).item() == pytest.approx(0, abs=1e-5)


def test_the_training_pass_gives_the_networks_own_results(worlds):
    network = start(TINY, "cpu").network.eval()
    with torch.no_grad():
        trained, hooked = forward_with_tokens(network, worlds.images * 2 - 1, seed=3)
        plain = network(worlds.images * 2 - 1, seed=3)
    torch.testing.assert_close(trained.points[2], plain.points[2], rtol=1e-4, atol=1e-5)
    assert [tuple(t.shape[:3]) for t in hooked] == [(3, 3, 20)] * 4


def test_targets_keep_the_truth(worlds):
    truth = targets(worlds)
    assert torch.equal(truth.points[1], worlds.points[:, 1])
    assert torch.equal(truth.valid[2], worlds.valid[:, 2])
