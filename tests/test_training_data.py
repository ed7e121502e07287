"""Batches: what a step sees depends on the recipe's seed and the step alone, and is never held out."""

from __future__ import annotations

import sys
import types
from collections import Counter
from dataclasses import fields, replace
from typing import ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from manyview.errors import InputError
from manyview.geometry.posed_views import PosedViews
from manyview.training.data import (
    FIRST_HELD_OUT_SEED,
    StepBatches,
    own_part,
    step_batch,
    step_plan,
    step_seeds,
    stream,
)
from manyview.training.loop import Pace, train
from manyview.training.processes import check_batches, launch
from manyview.training.recipes import Source, Stage
from manyview.worlds import WorldSettings, render_worlds
from training_toys import TINY

MIXED = replace(
    TINY,
    stages=(Stage(until=9, views=(2,), images=6, sources=(Source(kind="co3d", folder="shelf", share=3), Source())),),
)


def same(first: PosedViews, second: PosedViews) -> bool:
    return all(torch.equal(getattr(first, f.name), getattr(second, f.name)) for f in fields(PosedViews))


def test_batches_are_those_of_their_stage_and_of_their_step():
    lit = replace(
        TINY.stages[1], views=[2, 3], sizes=[(32, 24), (24, 24)], sources=[Source(worlds=WorldSettings(spread=0.1))]
    )
    recipe = replace(TINY, stages=[TINY.stages[0], lit], steps=14)
    first, again = step_batch(recipe, 0), step_batch(recipe, 0)
    assert same(first, again)
    assert first.images.shape == (2, 2, 3, 24, 32)
    drawn = {tuple(step_batch(recipe, step).images.shape[1:]) for step in range(2, 14)}
    assert drawn == {(n, 3, *size) for n in (2, 3) for size in lit.sizes}
    near = step_batch(recipe, 2)
    seeds = step_seeds(recipe, lit, 2, near.images.shape[1])
    want = render_worlds(seeds, near.images.shape[1], tuple(near.images.shape[-2:]), lit.sources[0].worlds)
    assert torch.equal(near.images, want.images)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_goes_on_at_the_step_it_is_asked_for(workers):
    batches = list(stream(StepBatches(recipe=replace(TINY, steps=5)), 2, workers))
    assert [same(b, step_batch(TINY, 2 + i)) for i, b in enumerate(batches)] == [True] * 3


def test_steps_share_no_seed_and_none_is_held_out():
    seeds = [seed for step in range(4) for seed in step_seeds(TINY, TINY.stage(step), step, 2)]
    assert len(set(seeds)) == len(seeds)
    assert max(seeds) < FIRST_HELD_OUT_SEED
    last_of_run = step_seeds(TINY, TINY.stages[0], 9_999_999, 1)
    assert not set(last_of_run) & set(step_seeds(replace(TINY, seed=1), TINY.stages[0], 0, 1))
    with pytest.raises(ValueError, match="runs out of seeds"):
        step_seeds(replace(TINY, seed=1000), TINY.stages[0], 0, 2)


@given(st.integers(0, 300), st.integers(1, 9))
def test_processes_share_all_scenes_and_no_scene_twice(scenes, processes):
    parts = [list(range(scenes))[own_part(scenes, rank, processes)] for rank in range(processes)]
    assert [scene for part in parts for scene in part] == list(range(scenes))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_parts_of_processes_are_the_scenes_of_one():
    whole = step_batch(TINY, 0)
    parts = [step_batch(TINY, 0, rank=rank, processes=2).images for rank in range(2)]
    assert torch.equal(torch.cat(parts), whole.images)


def test_fewer_scenes_than_processes_are_refused():
    check_batches(TINY, 2)
    with pytest.raises(InputError, match="stage 0 with 2 views have 2 scenes, fewer than the 3 processes") as caught:
        check_batches(TINY, 3)
    assert "--set stages.0.images=6" in caught.value.hint


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_processes_that_nobody_started_are_named(strategy):
    with pytest.raises(InputError, match=f"strategy={strategy} needs processes that torchrun started"):
        launch(strategy, "cpu")


# ---------------------------------------------------------------- sources
class Shelf:
    """A data set of seven scenes that keeps what it was asked for."""

    asked: ClassVar[list[tuple]] = []

    def __len__(self) -> int:
        return 7

    def sample(self, index, views, size, seed):
        Shelf.asked.append((index, views, size, seed))
        made = render_worlds([1000 + index], views, size)
        return PosedViews(**{f.name: getattr(made, f.name) for f in fields(PosedViews)})


@pytest.fixture
def shelf(monkeypatch):
    opened = []

    def open_dataset(kind, folder):
        opened.append((kind, folder))
        return Shelf()

    monkeypatch.setattr(Shelf, "asked", [])
    monkeypatch.setitem(sys.modules, "manyview.datasets", types.SimpleNamespace(open_dataset=open_dataset))
    from manyview.training import data

    data._opened.cache_clear()
    yield opened
    data._opened.cache_clear()


def test_sources_are_drawn_by_their_shares():
    recipe = replace(MIXED, steps=400, stages=(replace(MIXED.stages[0], until=400),))
    drawn = Counter(step_plan(recipe, step).source.kind for step in range(400))
    assert 260 < drawn["co3d"] < 340
    assert drawn["worlds"] == 400 - drawn["co3d"]
    assert step_plan(recipe, 7) == step_plan(recipe, 7)


def test_scenes_of_a_data_set_depend_on_seed_step_and_scene_alone(shelf, tmp_path):
    recipe = replace(MIXED, data=str(tmp_path))
    steps = [step for step in range(9) if step_plan(recipe, step).source.kind == "co3d"]
    batches = [step_batch(recipe, step) for step in steps]
    first, Shelf.asked = Shelf.asked, []
    assert batches[0].images.shape[:2] == (3, 2)
    for step, batch in zip(steps, batches, strict=True):
        parts = [step_batch(recipe, step, rank=rank, processes=3) for rank in range(3)]
        assert torch.equal(torch.cat([part.depth for part in parts]), batch.depth)
    assert Shelf.asked == first
    assert len({seed for *_, seed in first}) == len(first)
    assert {views for _, views, _, _ in first} == {2}
    assert len({index for index, *_ in first}) > 3
    assert shelf == [("co3d", tmp_path / "shelf")]  # opened once


def test_a_run_trains_on_a_data_set(shelf, tmp_path):
    with pytest.raises(InputError, match="no co3d data"):
        train(replace(MIXED, data=str(tmp_path)), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "shelf").mkdir()
    train(replace(MIXED, data=str(tmp_path)), tmp_path / "run", pace=Pace(workers=0))
    assert len(Shelf.asked) >= 3
