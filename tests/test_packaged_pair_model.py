"""The packaged pairwise model: the whole way from photos through pairs and alignment on real, trained weights."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest

import manyview
from manyview.evaluation.held_out import (
    compare_with_truth,
    evaluate_on_worlds,
    native_size,
    photograph_world,
    pool,
    trivial_models,
)
from manyview.training.data import FIRST_HELD_OUT_SEED

PACKAGED = files("manyview.networks.checkpoints") / "packaged"
SEED = FIRST_HELD_OUT_SEED + 500
WORLDS, VIEWS = 5, 4


@pytest.fixture(scope="module")
def model():
    return manyview.load("manyview-small-pairs")


@pytest.fixture(scope="module")
def worlds(model):
    return [photograph_world(SEED + world, VIEWS, native_size(model)) for world in range(WORLDS)]


@pytest.fixture(scope="module")
def report(model, worlds):
    return pool([compare_with_truth(model.reconstruct(pictures), truth) for pictures, truth in worlds])


def test_its_card_names_its_file_and_has_no_gaps(model):
    text = (PACKAGED / "manyview-small-pairs.md").read_text()
    assert model.info.weights_sha256 in text
    assert model.info.licence == "Apache-2.0"
    assert f"{model.info.least_link}" in text
    assert "@" not in text.replace("RRA@15", "").replace("RTA@15", "")


def test_unseen_worlds_are_placed_better_than_by_guessing(model, report):
    for guess in trivial_models(model, seed=FIRST_HELD_OUT_SEED + 2_000_000):
        trivial = evaluate_on_worlds(guess, views=VIEWS, scenes=WORLDS, first_seed=SEED, size=native_size(model))
        assert report.depth_error < trivial.depth_error
        assert report.point_error < trivial.point_error
        assert report.rra15 > trivial.rra15
        assert report.maa30 > trivial.maa30


def test_known_cameras_make_depth_and_points_better(model, worlds, report):
    errors = []
    for pictures, truth in worlds:
        K = np.stack([camera.K for camera in truth.cameras])
        cameras = [camera.world_from_camera for camera in truth.cameras]
        scene = model.reconstruct(pictures, intrinsics=K, world_from_camera=cameras)
        errors.append(compare_with_truth(scene, truth))
    known = pool(errors)
    assert known.point_error < report.point_error
    assert known.depth_error < report.depth_error
    assert known.maa30 == 1.0


def test_pictures_of_another_world_are_told_apart(model, worlds):
    """Not always, but far more often than pictures of the same one."""
    apart = together = 0
    for (pictures, _), (others, _) in zip(worlds, worlds[1:] + worlds[:1], strict=True):
        scene = model.reconstruct([*pictures[:3], others[0]])
        apart += scene.views[3].status != "used"
        together += sum(view.status == "used" for view in scene.views[:3])
    assert apart / WORLDS > 1 - together / (3 * WORLDS)
    assert together >= 2 * WORLDS
