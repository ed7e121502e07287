"""Training: it learns, resumes where it stopped, and never sees what is kept for evaluation."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from manyview.errors import InputError, ManyviewError, WeightsError
from manyview.networks.checkpoints.find import find_network
from manyview.training import loop
from manyview.training.cameras import CameraLoss, true_cameras
from manyview.training.data import FIRST_HELD_OUT_SEED, WorldStream, step_batch, step_seeds, targets
from manyview.training.loop import Pace, forward_with_tokens, read_log, start, train, train_and_save, train_step
from manyview.training.matching import NOT_SEEN, MatchingLoss, PlaceLoss, token_matches
from manyview.training.recipes import Recipe, Stage, named_recipe
from manyview.worlds import WorldSettings, render_worlds
from toys import SMALLEST

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


def test_a_run_that_is_interrupted_keeps_the_last_saved_state(tmp_path):
    def interrupt(network):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(TINY, tmp_path, pace=Pace(log=1, save=1, evaluate=3), evaluate=interrupt)
    saved = start(TINY, "cpu")
    saved.restore(tmp_path / "run.pt")
    assert (saved.step, saved.scenes) == (2, 4)
    assert torch.equal(weights(train(TINY, tmp_path, pace=PACE)), weights(train(TINY, tmp_path / "whole", pace=PACE)))


def test_weights_come_from_the_seed_of_the_recipe_alone():
    first, other = (weights(start(replace(TINY, seed=seed), "cpu").network) for seed in (0, 1))
    with torch.random.fork_rng():
        torch.manual_seed(5)
        assert torch.equal(weights(start(TINY, "cpu").network), first)
    assert not torch.equal(first, other)


def test_all_weights_are_trained_and_vectors_do_not_decay():
    run = start(replace(TINY, weight_decay=0.1), "cpu")
    decaying, staying = run.optimiser.param_groups
    assert (decaying["weight_decay"], staying["weight_decay"]) == (0.1, 0)
    assert {p.ndim for p in staying["params"]} == {1}
    assert min(p.ndim for p in decaying["params"]) == 2
    trained = {id(p) for group in run.optimiser.param_groups for p in group["params"]}
    assert trained == {id(p) for part in (run.network, run.helpers) for p in part.parameters()}


def test_a_step_obeys_the_recipe(monkeypatch):
    """Learning rate, clipping, rows of the views and range of the pictures; and it counts."""
    recipe, given = replace(TINY, warmup_steps=10, clip=1e-3), []

    def spy(network, images, seed):
        given.append((images.min().item(), images.max().item(), seed, torch.is_autocast_enabled("cpu")))
        return forward_with_tokens(network, images, seed)

    monkeypatch.setattr(loop, "forward_with_tokens", spy)
    run, batch = start(recipe, "cpu"), step_batch(recipe, 0)
    for step in range(2):
        figures = train_step(run, recipe, batch)
        assert {group["lr"] for group in run.optimiser.param_groups} == {recipe.rate(step)}
        gradients = [
            p.grad.norm() for part in (run.network, run.helpers) for p in part.parameters() if p.grad is not None
        ]
        assert torch.stack(gradients).norm().item() == pytest.approx(1e-3, rel=1e-3)
        assert figures["gradient_norm"] > 0.1
    assert [seed for _, _, seed, _ in given] == [0, 1]
    low, high, _, autocast = given[0]
    assert (low, high) == (2 * batch.images.min() - 1, 2 * batch.images.max() - 1)
    assert not autocast
    assert (run.step, run.scenes) == (2, 4)
    assert recipe.rate(0) < recipe.rate(1)


def test_bfloat16_is_used_where_the_recipe_says_so_and_gives_nearly_the_same():
    figures = [train_step(start(r, "cpu"), r, step_batch(r, 0)) for r in (TINY, replace(TINY, bf16=True))]
    assert figures[1]["loss"] != figures[0]["loss"]
    assert figures[1]["loss"] == pytest.approx(figures[0]["loss"], rel=0.05)


def test_gradients_of_an_earlier_step_are_forgotten():
    run, other, batch = start(TINY, "cpu"), start(TINY, "cpu"), step_batch(TINY, 0)
    for p in run.network.parameters():
        p.grad = torch.full_like(p, 1e3)
    assert train_step(run, TINY, batch) == train_step(other, TINY, batch)


class Helper(torch.nn.Module):
    """A helper loss of 7 that keeps what it was given; its gradient shows the weight it counts with."""

    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones(()))

    def forward(self, tokens, truth):
        self.tokens, self.truth = tokens, truth
        return 7 * self.one


@pytest.mark.parametrize(("name", "level"), [("matching", 1), ("place", 2), ("camera", 3)])
def test_each_helper_loss_sees_its_depth_and_counts_with_its_weight(name, level):
    recipe = replace(TINY, clip=1e9, **{f"{name}_weight": 1.5})
    run, batch = start(recipe, "cpu"), step_batch(recipe, 0)
    helper = run.helpers[name] = Helper()
    with torch.no_grad():
        _, hooked = forward_with_tokens(run.network, batch.images * 2 - 1, seed=0)
    assert train_step(run, recipe, batch)[name] == 7
    assert helper.one.grad.item() == pytest.approx(7 * 1.5)
    torch.testing.assert_close(helper.tokens, hooked[level])
    if name == "camera":
        assert torch.equal(helper.truth, true_cameras(batch))
    else:
        assert torch.equal(helper.truth.token, token_matches(batch, 8).token)


def test_log_holds_means_since_the_last_line(tmp_path, monkeypatch):
    def fake_step(run, recipe, batch):
        run.step += 1
        return {"loss": float(run.step)}

    monkeypatch.setattr(loop, "train_step", fake_step)
    train(TINY, tmp_path, pace=Pace(log=2, save=9, evaluate=9))
    assert [(line["step"], line["loss"]) for line in read_log(tmp_path)] == [(2, 1.5), (4, 3.5)]


def test_log_evaluation_and_model_file_are_written(tmp_path):
    lines = []
    path = train_and_save(TINY, tmp_path, pace=PACE, report=lines.append)
    assert [line["step"] for line in read_log(tmp_path) if "loss" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all(line["seconds_per_step"] > 0 and line["rate"] == TINY.rate(line["step"]) for line in lines)
    network, info = find_network(path)
    assert network.config == SMALLEST
    assert (info.name, info.image_size, info.description) == ("manyview-tiny", 32, "for tests")
    with safe_open(path, "pt") as file:
        assert file.get_tensor("encoder.norm.weight").dtype == torch.float16
    assert json.loads((tmp_path / "recipe.json").read_text())["steps"] == 4


def test_evaluation_is_called_and_logged(tmp_path):
    modes = []

    def evaluate(network):
        modes.append(network.training)
        return {"score": 0.5}

    assert not train(TINY, tmp_path, pace=PACE, evaluate=evaluate).training
    assert [line for line in read_log(tmp_path) if "score" in line] == [{"step": s, "score": 0.5} for s in (2, 4)]
    assert modes == [False, False]


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
    assert recipe.rate(80) == recipe.learning_rate > recipe.rate(81)
    assert recipe.rate(9) == recipe.learning_rate > recipe.rate(8)


def test_a_stage_ends_before_its_last_step_and_the_last_one_goes_on():
    assert [TINY.stage(step) for step in (0, 1, 2, 3, 99)] == [TINY.stages[i] for i in (0, 0, 1, 1, 1)]


def test_batches_are_those_of_their_stage_and_of_their_step():
    lit = replace(TINY.stages[1], views=[2, 3], sizes=[(32, 24), (24, 24)], worlds=WorldSettings(spread=0.1))
    recipe = replace(TINY, stages=[TINY.stages[0], lit], steps=14)
    first, again = step_batch(recipe, 0), step_batch(recipe, 0)
    assert torch.equal(first.images, again.images)
    assert first.images.shape == (2, 2, 3, 24, 32)
    drawn = {tuple(step_batch(recipe, step).images.shape[1:]) for step in range(2, 14)}
    assert drawn == {(n, 3, *size) for n in (2, 3) for size in lit.sizes}
    near = step_batch(recipe, 2)
    seeds = step_seeds(recipe, lit, 2, near.images.shape[1])
    want = render_worlds(seeds, near.images.shape[1], tuple(near.images.shape[-2:]), lit.worlds)
    assert torch.equal(near.images, want.images)


def test_a_stream_goes_on_at_the_step_it_is_asked_for():
    threads = torch.get_num_threads()
    batches = list(WorldStream(TINY, 2))
    torch.set_num_threads(threads)
    assert [torch.equal(b.images, step_batch(TINY, 2 + i).images) for i, b in enumerate(batches)] == [True, True]


def test_steps_share_no_seed_and_none_is_held_out():
    seeds = [seed for step in range(4) for seed in step_seeds(TINY, TINY.stage(step), step, 2)]
    assert len(set(seeds)) == len(seeds)
    assert max(seeds) < FIRST_HELD_OUT_SEED
    last_of_run = step_seeds(TINY, TINY.stages[0], 9_999_999, 1)
    assert not set(last_of_run) & set(step_seeds(replace(TINY, seed=1), TINY.stages[0], 0, 1))
    with pytest.raises(ValueError, match="runs out of seeds"):
        step_seeds(replace(TINY, seed=1000), TINY.stages[0], 0, 2)


def test_recipes_are_found_by_name():
    assert named_recipe("small", steps=7).steps == 7
    with pytest.raises(InputError, match="no recipe"):
        named_recipe("huge")


def test_packaged_recipe_is_a_fast3r_of_the_promised_size():
    run = start(named_recipe("small"), "cpu")
    assert sum(p.numel() for p in run.network.parameters()) < 30e6


def match_by_hand(batch, scene: int, i: int, j: int, y: int, x: int) -> tuple[int, np.ndarray] | None:
    """(token of view j, place in it) that sees what pixel (x, y) of view i sees; pictures of 32 x 40, patches of 8."""
    if not batch.valid[scene, i, y, x]:
        return None
    point = np.append(batch.points[scene, i, y, x].double().numpy(), 1)
    in_camera = (np.linalg.inv(batch.world_from_camera[scene, j].double().numpy()) @ point)[:3]
    if in_camera[2] <= 0:
        return None
    px, py = (batch.K[scene, j].double().numpy() @ in_camera)[:2] / in_camera[2]
    column, row = round(px), round(py)
    if not (0 <= column < 40 and 0 <= row < 32):
        return None
    if abs(float(batch.depth[scene, j, row, column]) - in_camera[2]) >= 0.05 * in_camera[2]:
        return None
    return (row // 8) * 5 + column // 8, np.array([px - 19.5, py - 15.5]) / 20


def test_matches_are_all_tokens_that_see_the_same_surface_and_no_others(worlds):
    valid = worlds.valid & (torch.rand(worlds.valid.shape, generator=torch.Generator().manual_seed(0)) < 0.9)
    batch = replace(worlds, valid=valid)
    matches = token_matches(batch, 8)
    assert matches.token.shape == (3, 3, 3, 20)
    hidden, seen = 0, 0
    for scene, i, j, token in np.ndindex(3, 3, 3, 20):
        want = match_by_hand(batch, scene, i, j, token // 5 * 8 + 4, token % 5 * 8 + 4)
        got = int(matches.token[scene, i, j, token])
        assert got == (NOT_SEEN if want is None else want[0])
        assert bool(matches.seen[scene, i, j, token]) == (want is not None)
        if want is not None:
            np.testing.assert_allclose(matches.place[scene, i, j, token], want[1], atol=1e-3)
        seen, hidden = seen + (want is not None and i != j), hidden + (want is None)
    assert min(seen, hidden) > 50


def test_matching_loss_is_the_cross_entropy_of_scaled_cosines(worlds):
    matches, loss = token_matches(worlds, 8), MatchingLoss(6, 4)
    tokens = torch.randn(3, 3, 20, 6, generator=torch.Generator().manual_seed(0))
    terms = []
    with torch.no_grad():
        features = torch.nn.functional.normalize(loss.project(tokens), dim=-1).double()
        for scene, i, j, token in matches.seen.nonzero().tolist():
            if i != j:
                logits = features[scene, j] @ features[scene, i, token] / 0.07
                terms.append(logits.logsumexp(0) - logits[matches.token[scene, i, j, token]])
        assert loss(tokens, matches).item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-4)


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


def test_true_cameras_place_each_view_in_the_first_ones_frame(worlds):
    cameras = true_cameras(worlds)
    torch.testing.assert_close(cameras[:, 0, :, :3], torch.eye(3).expand(3, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(cameras[:, 0, :, 3], torch.zeros(3, 3), atol=1e-5, rtol=0)
    first = torch.linalg.inv(worlds.world_from_camera[:, 0])
    torch.testing.assert_close(cameras[:, 2, :, :3], (first @ worlds.world_from_camera[:, 2])[:, :3, :3])


def test_true_cameras_are_measured_in_mean_distances_of_what_is_seen(worlds):
    batch = replace(worlds, valid=worlds.valid & (torch.arange(40) < 11))
    cameras = true_cameras(batch)
    for scene in range(3):
        centres = batch.world_from_camera[scene, :, :3, 3]
        seen = batch.points[scene][batch.valid[scene]]
        unit = (seen - centres[0]).norm(dim=-1).mean()
        got = cameras[scene, 1:, :, 3].norm(dim=-1)
        torch.testing.assert_close(got, (centres[1:] - centres[0]).norm(dim=-1) / unit, rtol=1e-4, atol=1e-5)


def test_camera_loss_adds_rotation_and_translation_of_all_but_the_first():
    loss = CameraLoss(8)
    with torch.no_grad():
        loss.vote[3].weight.zero_()
        loss.vote[3].bias.copy_(torch.eye(3, 4).flatten())
    truth = torch.eye(3, 4).repeat(1, 3, 1, 1)
    truth[:, 0] += 100
    truth[:, 1, 0, 1] += 0.3  # norms: rotation 0.5 and 0, translation 0 and 2
    truth[:, 1, 2, 0] -= 0.4
    truth[:, 2, 2, 3] += 2
    assert loss(torch.randn(1, 3, 5, 8), truth).item() == pytest.approx(0.25 + 1.0)


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
    assert torch.equal(truth.world_from_camera[1], worlds.world_from_camera[:, 1])
    assert torch.equal(truth.points[1], worlds.points[:, 1])
    assert torch.equal(truth.valid[2], worlds.valid[:, 2])
