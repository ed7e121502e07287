"""Training: it learns, resumes where it stopped, also after a kill, and says what it did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from manyview.errors import InputError, ManyviewError, WeightsError
from manyview.evaluation.held_out import evaluate_on_worlds
from manyview.networks.checkpoints.find import find_network
from manyview.networks.checkpoints.model_file import save_model
from manyview.training import journal, loop
from manyview.training.blocks import blocks
from manyview.training.cameras import true_cameras
from manyview.training.data import FIRST_HELD_OUT_SEED, posed, step_batch, targets
from manyview.training.forward import predict
from manyview.training.held_out import held_out_worlds
from manyview.training.journal import read_log
from manyview.training.loop import NotFinite, Pace, train, train_and_save, train_step
from manyview.training.matching import token_matches
from manyview.training.model_info import info_of
from manyview.training.overrides import to_json
from manyview.training.pictures import contact_sheet
from manyview.training.recipes import Recipe, Source, Stage, named_recipe
from manyview.training.state import start
from manyview.worlds import WorldSettings, render_worlds
from toys import INFO, SMALLEST, random_network
from training_toys import TINY, weights

PACE = Pace(log=1, save=1, evaluate=2, workers=0)


@pytest.fixture(scope="module")
def worlds():
    return posed(render_worlds(range(3), 3, (32, 40), WorldSettings(spread=0.5)))


# ---------------------------------------------------------------- steps
def test_a_few_steps_on_one_batch_lower_the_loss():
    recipe = replace(TINY, steps=1000, decay_steps=0)
    run, batch = start(recipe), step_batch(recipe, 0)
    losses = [train_step(run, batch)["loss"] for _ in range(25)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_weights_come_from_the_seed_of_the_recipe_alone():
    first, other = (weights(start(replace(TINY, seed=seed)).network) for seed in (0, 1))
    with torch.random.fork_rng():
        torch.manual_seed(5)
        assert torch.equal(weights(start(TINY).network), first)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("decay_vectors", [False, True])
def test_all_weights_are_given_to_the_optimiser_and_vectors_decay_only_where_asked(decay_vectors):
    run = start(replace(TINY, weight_decay=0.1, decay_vectors=decay_vectors))
    decaying, vectors = run.optimiser.param_groups
    assert (decaying["weight_decay"], vectors["weight_decay"]) == (0.1, 0.1 if decay_vectors else 0)
    assert {p.ndim for p in vectors["params"]} == {1}
    assert min(p.ndim for p in decaying["params"]) == 2
    trained = {id(p) for group in run.optimiser.param_groups for p in group["params"]}
    assert trained == {id(p) for part in (run.network, run.helpers) for p in part.parameters()}


@pytest.mark.parametrize("objective", ["fast3r", "dust3r"])
def test_every_weight_that_is_not_frozen_gets_a_gradient(objective):
    """Processes that average gradients wait for each of them."""
    run = start(replace(TINY, objective=objective))
    train_step(run, step_batch(TINY, 0))
    assert all((p.grad is not None) == p.requires_grad for p in run.objective.parameters())
    frozen = [name for name, p in run.network.named_parameters() if not p.requires_grad]
    assert any(name.startswith("local_head.output") for name in frozen) == (objective == "dust3r")


def test_a_step_obeys_the_recipe(monkeypatch):
    """Learning rate, clipping, rows of the views and range of the pictures; and it counts."""
    recipe, given = replace(TINY, warmup_steps=10, clip=1e-3), []
    run, batch = start(recipe), step_batch(recipe, 0)
    forward = run.network.forward

    def spy(images, **options):
        given.append((images.min().item(), images.max().item(), options["view_ids"], torch.is_autocast_enabled("cpu")))
        return forward(images, **options)

    monkeypatch.setattr(run.network, "forward", spy)
    for step in range(2):
        figures = train_step(run, batch)
        assert {group["lr"] for group in run.optimiser.param_groups} == {recipe.rate(step)}
        gradients = [p.grad.norm() for p in run.objective.parameters() if p.grad is not None]
        assert torch.stack(gradients).norm().item() == pytest.approx(1e-3, rel=1e-3)
        assert figures["gradient_norm"] > 0.1
    for step in range(2):
        assert torch.equal(given[step][2], run.network.choose_ids(2, 2, seed=step))
    low, high, _, autocast = given[0]
    assert (low, high) == (2 * batch.images.min() - 1, 2 * batch.images.max() - 1)
    assert not autocast
    assert (run.step, run.scenes) == (2, 4)


def test_without_clipping_the_gradient_stays_as_it_is():
    norms = []
    for limit in (0.0, 1e9):
        run = start(replace(TINY, clip=limit))
        train_step(run, step_batch(TINY, 0))
        norms.append(torch.stack([p.grad.norm() for p in run.objective.parameters() if p.grad is not None]))
    assert torch.equal(*norms)


def test_bfloat16_is_used_where_the_recipe_says_so_and_gives_nearly_the_same():
    figures = [train_step(start(r), step_batch(r, 0)) for r in (TINY, replace(TINY, bf16=True))]
    assert figures[1]["loss"] != figures[0]["loss"]
    assert figures[1]["loss"] == pytest.approx(figures[0]["loss"], rel=0.05)


def test_gradients_of_an_earlier_step_are_forgotten():
    run, other, batch = start(TINY), start(TINY), step_batch(TINY, 0)
    for p in run.network.parameters():
        p.grad = torch.full_like(p, 1e3)
    assert train_step(run, batch) == train_step(other, batch)


def test_recomputing_blocks_changes_no_gradient():
    plain, saving = start(TINY), start(replace(TINY, activation_checkpointing=True))
    calls = []
    first = next(blocks(saving.network))
    first.norm1.register_forward_hook(lambda *_: calls.append(None))
    batch = step_batch(TINY, 0)
    assert train_step(plain, batch) == train_step(saving, batch)
    assert len(calls) == 2  # forward, and again for the gradient
    assert plain.network.state_dict().keys() == saving.network.state_dict().keys()
    assert torch.equal(weights(plain.network), weights(saving.network))


@pytest.mark.parametrize("recompute", [False, True])
def test_every_block_runs_compiled_where_the_recipe_says_so(monkeypatch, recompute):
    """The compiler itself is not what is tested: here it passes functions on and counts their calls."""
    called = []

    def compiler(function):
        return lambda *arguments: called.append(function) or function(*arguments)

    monkeypatch.setattr(torch, "compile", compiler)
    batch = step_batch(TINY, 0)
    plain, run = start(TINY), start(replace(TINY, compile=True, activation_checkpointing=recompute))
    assert train_step(plain, batch) == train_step(run, batch)
    assert len(called) == (2 if recompute else 1) * len(list(blocks(run.network)))


def test_without_lightning_fabric_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(InputError, match="needs Lightning Fabric") as caught:
        start(TINY)
    assert "manyview[train]" in caught.value.hint


def test_the_average_follows_the_weights_and_is_what_comes_out(tmp_path):
    recipe = replace(TINY, ema_decay=0.5)
    run = start(recipe)
    name = "encoder.norm.weight"
    want = run.network.state_dict()[name].clone()
    for step in range(3):
        train_step(run, step_batch(recipe, step))
        decay = min(0.5, (1 + step) / (10 + step))
        want = decay * want + (1 - decay) * run.network.state_dict()[name]
    torch.testing.assert_close(run.model().state_dict()[name], want)
    assert not torch.equal(run.network.state_dict()[name], want)
    plain, averaged = (train(r, tmp_path / str(r.ema_decay), pace=PACE) for r in (TINY, recipe))
    assert not torch.equal(weights(plain), weights(averaged))


class Helper(torch.nn.Module):
    """A helper loss of 7 that keeps what it was given; its gradient shows the weight it counts with."""

    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones(()))

    def forward(self, tokens, truth, share):
        self.tokens, self.truth = tokens, truth
        return 7 * self.one


@pytest.mark.parametrize(("name", "level"), [("matching", 1), ("place", 2), ("camera", 3)])
def test_each_helper_loss_sees_its_depth_and_counts_with_its_weight(name, level):
    recipe = replace(TINY, clip=0.0, **{f"{name}_weight": 1.5})
    run, batch = start(recipe), step_batch(recipe, 0)
    helper = run.helpers[name] = Helper()
    with torch.no_grad():
        _, hooked = predict(run.network, batch.images, run.network.choose_ids(2, 2, seed=0), local=True)
    assert train_step(run, batch)[name] == 7
    assert helper.one.grad.item() == pytest.approx(7 * 1.5)
    torch.testing.assert_close(helper.tokens, hooked[level])
    if name == "camera":
        assert torch.equal(helper.truth, true_cameras(batch))
    else:
        assert torch.equal(helper.truth.token, token_matches(batch, 8).token)


def test_a_helper_loss_without_weight_has_no_parameters_and_is_not_computed():
    run = start(replace(TINY, place_weight=0.0))
    assert set(run.helpers) == {"matching", "camera"}
    assert "place" not in train_step(run, step_batch(TINY, 0))


def test_the_training_pass_gives_the_networks_own_results(worlds):
    run = start(TINY)
    ids = run.network.choose_ids(3, 3, seed=3)
    with torch.no_grad():
        trained, hooked = predict(run.network, worlds.images, ids, local=True)
        plain = run.network.eval()(worlds.images * 2 - 1, view_ids=ids)
    torch.testing.assert_close(trained.points[2], plain.points[2], rtol=1e-4, atol=1e-5)
    assert [tuple(t.shape[:3]) for t in hooked] == [(3, 3, 20)] * 4
    assert not run.network.fusion._forward_hooks


def test_targets_keep_the_truth(worlds):
    truth = targets(worlds)
    assert torch.equal(truth.world_from_camera[1], worlds.world_from_camera[:, 1])
    assert torch.equal(truth.points[1], worlds.points[:, 1])
    assert torch.equal(truth.valid[2], worlds.valid[:, 2])


# ---------------------------------------------------------------- going on
@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_run_that_is_stopped_and_resumed_equals_one_that_was_not(tmp_path, optimiser):
    recipe = replace(TINY, ema_decay=0.9, optimiser=optimiser)
    whole = train(recipe, tmp_path / "whole", pace=PACE)
    part = start(recipe)
    for step in range(2):
        train_step(part, step_batch(recipe, step))
    (tmp_path / "parts").mkdir()
    part.save(tmp_path / "parts")
    resumed = train(recipe, tmp_path / "parts", pace=replace(PACE, workers=1))
    assert torch.equal(weights(whole), weights(resumed))


KILLED = """
import sys
from pathlib import Path
from manyview.training.loop import Pace, train
from training_toys import LONG
train(LONG, Path(sys.argv[1]), pace=Pace(log=1, save=2, evaluate=1000, workers=0))
"""


def test_a_run_that_is_killed_at_any_moment_ends_with_the_very_same_weights(tmp_path):
    from training_toys import LONG

    folder = tmp_path / "killed"
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], env=environment)
    deadline = time.monotonic() + 120
    while not (folder / "run.previous.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    saved = torch.load(folder / "run.pt", weights_only=True)["step"]
    assert 2 <= saved < LONG.steps
    pace = Pace(log=1, save=2, evaluate=1000, workers=0)
    resumed, whole = train(LONG, folder, pace=pace), train(LONG, tmp_path / "whole", pace=pace)
    assert torch.equal(weights(resumed), weights(whole))
    assert [line["step"] for line in read_log(folder)] == list(range(1, LONG.steps + 1))


def test_a_kill_between_the_two_renames_leaves_the_state_before(tmp_path):
    train(TINY, tmp_path, pace=PACE)
    (tmp_path / "run.pt").rename(tmp_path / "run.previous.pt")
    (tmp_path / "run.pt.tmp").write_bytes(b"half a file")
    run = start(TINY)
    run.restore(tmp_path)
    assert run.step == 4


def test_the_state_before_the_last_one_is_kept(tmp_path):
    train(TINY, tmp_path, pace=PACE)
    steps = [torch.load(tmp_path / name, weights_only=True)["step"] for name in ("run.previous.pt", "run.pt")]
    assert steps == [3, 4]
    train(replace(TINY, steps=6), tmp_path, pace=replace(PACE, save=9))
    steps = [torch.load(tmp_path / name, weights_only=True)["step"] for name in ("run.previous.pt", "run.pt")]
    assert steps == [4, 6]


def test_a_run_that_is_done_gives_its_model_again(tmp_path):
    first = train(TINY, tmp_path, pace=replace(PACE, workers=1))
    assert torch.equal(weights(first), weights(train(TINY, tmp_path, pace=replace(PACE, workers=1))))


def test_lines_of_steps_that_are_done_again_are_dropped_and_a_cut_one_too(tmp_path):
    train(TINY, tmp_path, pace=replace(PACE, save=9))
    part = start(TINY)
    part.step = 2
    part.save(tmp_path)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    train(TINY, tmp_path, pace=PACE)
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2, 3, 4]


def test_another_end_rate_or_stage_may_be_given_on_the_way_and_is_logged(tmp_path):
    train(TINY, tmp_path, pace=PACE)
    stages = (TINY.stages[0], replace(TINY.stages[1], images=9))
    train(replace(TINY, steps=5, learning_rate=1e-3, stages=stages), tmp_path, pace=PACE)
    changed = next(line["changed"] for line in read_log(tmp_path) if "changed" in line)
    assert {text.split()[0] for text in changed} == {"steps", "learning_rate", "stages.1.images"}
    assert json.loads((tmp_path / "recipe.json").read_text())["steps"] == 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"network": replace(SMALLEST, fusion_dim=64)}, "network.fusion_dim was 64 and is 32"),
        ({"seed": 7}, "seed was 7 and is 0"),
        ({"objective": "dust3r"}, "objective was 'dust3r' and is 'fast3r'"),
    ],
)
def test_a_state_of_another_network_or_recipe_is_refused(tmp_path, changes, words):
    start(replace(TINY, **changes)).save(tmp_path)
    with pytest.raises(WeightsError, match="does not fit this recipe") as caught:
        train(TINY, tmp_path, pace=PACE)
    assert words in str(caught.value)


def test_a_state_that_is_not_one_is_refused(tmp_path):
    (tmp_path / "run.pt").write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="not a readable state"):
        train(TINY, tmp_path, pace=PACE)
    torch.save({"step": 3}, tmp_path / "run.pt")
    with pytest.raises(WeightsError, match="format version None"):
        train(TINY, tmp_path, pace=PACE)


# ---------------------------------------------------------------- what is not finite
def test_a_loss_that_is_not_finite_stops_the_run_and_saves_its_batch(tmp_path, monkeypatch):
    def broken(recipe, step, **where):
        batch = step_batch(recipe, step)
        if step == 2:
            batch.images[0, 0, 0, 0, 0] = float("nan")
        return batch

    monkeypatch.setattr("manyview.training.data.step_batch", broken)
    with pytest.raises(ManyviewError, match="loss of step 2 is nan") as caught:
        train(TINY, tmp_path, pace=PACE)
    assert "worlds, seeds 512..513" in str(caught.value)
    with safe_open(tmp_path / "not-finite-step2-process0.safetensors", "pt") as file:
        assert torch.isnan(file.get_tensor("images")).sum() == 1
        assert torch.equal(file.get_tensor("depth"), step_batch(TINY, 2).depth)
    assert torch.load(tmp_path / "run.pt", weights_only=True)["step"] == 2


def test_a_gradient_that_is_not_finite_changes_no_weight():
    run, batch = start(TINY), step_batch(TINY, 0)
    before = weights(run.network).clone()
    run.network.encoder.norm.weight.register_hook(lambda grad: grad * float("inf"))
    with pytest.raises(NotFinite, match="gradient of step 0"):
        train_step(run, batch)
    assert torch.equal(weights(run.network), before)


# ---------------------------------------------------------------- what is written
def test_log_holds_means_since_the_last_line(tmp_path, monkeypatch):
    def fake_step(run, batch):
        run.step += 1
        run.scenes += 3
        return {"loss": float(run.step)}

    monkeypatch.setattr(loop, "train_step", fake_step)
    ticks = []
    train(TINY, tmp_path, pace=Pace(log=2, save=9, evaluate=9, workers=0), progress=ticks.append)
    lines = list(read_log(tmp_path))
    assert [(line["step"], line["loss"], line["scenes"]) for line in lines] == [(2, 1.5, 6), (4, 3.5, 12)]
    assert [(tick.step, tick.steps, tick.loss) for tick in ticks] == [(s, 4, float(s)) for s in (1, 2, 3, 4)]


def test_numbers_in_the_log_are_strict_json_and_steps_are_whole(tmp_path):
    writer = journal.Journal(tmp_path)
    writer.write({"step": 1234567, "loss": float("nan"), "rate": 0.123456789})
    assert list(read_log(tmp_path)) == [{"step": 1234567, "loss": None, "rate": 0.12346}]


def test_log_evaluation_and_model_file_are_written(tmp_path):
    lines = []
    path = train_and_save(TINY, tmp_path, pace=PACE, report=lines.append)
    assert [line["step"] for line in read_log(tmp_path) if "loss" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all(
        line["seconds_per_step"] > 0 and line["rate"] == pytest.approx(TINY.rate(line["step"])) for line in lines
    )
    network, info = find_network(path)
    assert network.config == SMALLEST
    assert (info.name, info.image_size, info.description) == ("manyview-tiny", 32, "for tests")
    with safe_open(path, "pt") as file:
        assert file.get_tensor("encoder.norm.weight").dtype == torch.float16
    assert json.loads((tmp_path / "recipe.json").read_text()) == to_json(TINY)


def test_evaluation_is_called_and_logged(tmp_path):
    modes = []

    def evaluate(network):
        modes.append(network.training)
        return {"score": 0.5}

    assert not train(TINY, tmp_path, pace=PACE, evaluate=evaluate).training
    assert [line for line in read_log(tmp_path) if "score" in line] == [{"step": s, "score": 0.5} for s in (2, 4)]
    assert modes == [False, False]


def test_held_out_worlds_give_pose_and_depth_figures():
    seeds = []

    def measure(model, **options):
        seeds.append(options["first_seed"])
        return evaluate_on_worlds(model, **options)

    figures = held_out_worlds(measure, replace(INFO, image_size=32), views=(2, 3), scenes=2)(random_network(seed=1))
    assert {"rra15_2_views", "maa30_3_views", "depth_error_3_views"} <= figures.keys() or "not_measured" in figures
    assert min(seeds) > FIRST_HELD_OUT_SEED


def test_worlds_that_cannot_be_measured_do_not_end_the_run():
    def measure(model, **options):
        raise InputError("nothing to compare")

    assert held_out_worlds(measure, INFO)(random_network()) == {"not_measured": "nothing to compare"}


def test_tensorboard_gets_numbers_and_pictures(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(TINY, tmp_path, pace=replace(PACE, tensorboard=True), evaluate=lambda network: {"score": 0.5})
    written = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in written.Scalars("training/loss")] == [1, 2, 3, 4]
    assert [event.value for event in written.Scalars("held out worlds/score")] == [0.5, 0.5]
    assert [event.step for event in written.Images(written.Tags()["images"][0])] == [2, 4]


def test_without_tensorboard_it_is_an_error_to_ask_for_it_and_a_note_not_to(tmp_path, monkeypatch):
    monkeypatch.setattr(journal.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="TensorBoard is not installed"):
        journal.Journal(tmp_path, tensorboard=True)
    assert not journal.Journal(tmp_path, tensorboard=None).wants_pictures
    (line,) = read_log(tmp_path)
    assert "log.jsonl alone" in line["note"]


def test_a_contact_sheet_shows_each_view_in_a_column(worlds):
    sheet = contact_sheet(random_network(), worlds)
    assert sheet.shape == (4 * (32 + 2), 3 * (40 + 2), 3)
    want = np.rint(255 * worlds.images[0, 1].permute(1, 2, 0).numpy())
    np.testing.assert_array_equal(sheet[:32, 42:82], want)
    sky = ~worlds.valid[0, 0].numpy()
    assert not sheet[68:100, :40][sky].any()
    assert contact_sheet(random_network(), worlds, local=False).shape == sheet.shape


# ---------------------------------------------------------------- where weights come from
def test_weights_are_free_if_only_made_up_worlds_were_seen_and_else_inherit_terms(tmp_path):
    assert info_of(TINY).licence == "Apache-2.0"
    folder = replace(TINY.stages[0], sources=(Source(kind="co3d", folder="x"),))
    assert info_of(replace(TINY, stages=(folder,))).licence == "terms of the training data (co3d)"
    save_model(random_network(), tmp_path / "m.safetensors", replace(INFO, licence="CC BY-NC 4.0"))
    assert info_of(replace(TINY, initial=str(tmp_path / "m.safetensors"))).licence.startswith("CC BY-NC 4.0 (of toy")


def test_fine_tuning_starts_from_the_weights_and_network_of_the_model(tmp_path):
    network = random_network(seed=3)
    save_model(network, tmp_path / "m.safetensors", replace(INFO, image_size=48))
    recipe = named_recipe("finetune", settings=[f"initial={tmp_path / 'm.safetensors'}", "bf16=false"])
    assert (recipe.network, recipe.image_size) == (SMALLEST, 48)
    run = start(recipe)
    assert torch.equal(weights(run.network), weights(network))
    train_step(run, step_batch(recipe, 0))  # step 0 of a warm-up from 0
    train_step(run, step_batch(recipe, 1))
    assert not torch.equal(weights(run.network), weights(network))


def test_an_initial_model_of_another_shape_is_refused(tmp_path):
    save_model(random_network(), tmp_path / "m.safetensors", INFO)
    settings = [f"initial={tmp_path / 'm.safetensors'}", "network.fusion_dim=64"]
    with pytest.raises(WeightsError, match="is not of the recipe's network"):
        start(named_recipe("finetune", settings=settings))


def test_packaged_recipe_is_a_fast3r_of_the_promised_size():
    run = start(named_recipe("small"))
    assert sum(p.numel() for p in run.network.parameters()) < 30e6


def test_a_recipe_may_be_written_in_lines(tmp_path):
    """The README's way: a recipe of one's own, trained by one call."""
    recipe = Recipe(
        name="mine", description="", image_size=32, network=SMALLEST, steps=1,
        stages=[Stage(until=1, views=[2], images=2)],
    )  # fmt: skip
    assert not train(recipe, tmp_path, pace=PACE).training
