"""The model in the package: small, quick to load, described by its card, and better than guessing on unseen worlds."""

from __future__ import annotations

import time
from importlib.resources import files

import pytest

import manyview
from manyview.evaluation.held_out import evaluate_on_worlds, native_size, trivial_models
from manyview.training.data import FIRST_HELD_OUT_SEED

PACKAGED = files("manyview.networks.checkpoints") / "packaged"
CARD = PACKAGED / "manyview-small.md"


@pytest.fixture(scope="module")
def model():
    return manyview.load("manyview-small")


def test_it_is_small_and_loads_in_under_a_second(model):
    assert len((PACKAGED / "manyview-small.safetensors").read_bytes()) < 40e6
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        manyview.load("manyview-small")
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1.0


def test_its_card_names_its_file_and_has_no_gaps(model):
    text = CARD.read_text()
    assert model.info.weights_sha256 in text
    assert model.info.licence == "Apache-2.0"
    assert "@" not in text.replace("RRA@15", "").replace("RTA@15", "")


def test_unseen_worlds_are_placed_better_than_by_guessing(model):
    options = {"views": 4, "scenes": 6, "first_seed": FIRST_HELD_OUT_SEED + 500, "size": native_size(model)}
    report = evaluate_on_worlds(model, **options)
    for guess in trivial_models(model, seed=FIRST_HELD_OUT_SEED + 2_000_000):
        trivial = evaluate_on_worlds(guess, **options)
        assert report.depth_error < trivial.depth_error
        assert report.rra15 > trivial.rra15
        assert report.maa30 > trivial.maa30
