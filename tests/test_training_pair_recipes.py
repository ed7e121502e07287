"""Recipes of pairwise networks: what is refused, how they are changed by text, and the published stages."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from manyview.errors import InputError
from manyview.networks.dust3r import Dust3RConfig
from manyview.networks.fast3r import Fast3RConfig
from manyview.training.data import step_batch, step_plan
from manyview.training.dust3r_losses import Dust3rOptions
from manyview.training.loop import Pace, train, train_step
from manyview.training.model_info import info_of
from manyview.training.overrides import as_text
from manyview.training.recipe import Stage
from manyview.training.recipes import RECIPES, missing_data, named_recipe, set_options
from manyview.training.state import start
from toys import PAIRS_INFO, SMALLEST, SMALLEST_PAIRS
from training_toys import TINY_PAIRS

EIGHT = Fast3RConfig(fusion_depth=8, patch_size=8)
PUBLISHED = ("dust3r-224", "dust3r-512", "dust3r-512-dpt")


# ---------------------------------------------------------------- what is refused, and changed by text
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective": "fast3r"}, "a pairwise network is trained with objective=dust3r, not fast3r"),
        ({"stages": (replace(TINY_PAIRS.stages[0], views=(2, 3)),)}, r"trained on views=\[2\], got \[2, 3\]"),
        ({"stages": (replace(TINY_PAIRS.stages[0], views=(1,)),)}, r"trained on views=\[2\], got \[1\]"),
        ({"network": replace(SMALLEST_PAIRS, decoder_depth=3)}, "decoder_depth is at least 4, got 3"),
        ({"network": replace(SMALLEST_PAIRS, head="linear", decoder_depth=0)}, "decoder_depth is at least 1, got 0"),
        ({"network": replace(SMALLEST_PAIRS, decoder_heads=3)}, "network.decoder_dim is a multiple of"),
        ({"network": replace(SMALLEST_PAIRS, patch_size=16)}, "multiples of the network's patches of 16"),
    ],
)
def test_recipes_that_no_pairwise_network_can_be_trained_by_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        replace(TINY_PAIRS, **changes)


def test_a_fast3r_may_be_trained_on_pairs_with_the_pairwise_objective():
    recipe = replace(TINY_PAIRS, network=SMALLEST)
    assert np.isfinite(train_step(start(recipe), step_batch(recipe, 0))["loss"])


@pytest.mark.parametrize(
    ("setting", "read"),
    [
        ("network.decoder_depth=4", lambda r: r.network.decoder_depth == 4),
        ("network.head=linear", lambda r: r.network.head == "linear"),
        ("network.decoder_sides=no", lambda r: r.network.decoder_sides is False),
        (
            'network={"head": "linear", "patch_size": 8}',
            lambda r: r.network == Dust3RConfig(head="linear", patch_size=8),
        ),
        ('network={"patch_size": 8}', lambda r: r.network == Dust3RConfig(patch_size=8)),
        ("dust3r.confidence_reward=0.5", lambda r: r.dust3r.confidence_reward == 0.5),
        ('network={"fusion_depth": 8, "patch_size": 8}', lambda r: r.network == EIGHT),
    ],
)
def test_settings_are_read_by_the_family_of_the_network(setting, read):
    assert read(named_recipe("small-pairs", settings=[setting]))


def test_a_recipe_may_get_a_network_of_another_family():
    settings = ["objective=dust3r", *(f"stages.{i}.views=[2]" for i in range(3)), f"network={as_text(SMALLEST_PAIRS)}"]
    recipe = named_recipe("small", settings=settings)
    assert recipe.network == SMALLEST_PAIRS
    assert named_recipe("small", settings=set_options(recipe)) == recipe
    with pytest.raises(InputError, match="objective=dust3r"):
        named_recipe("small", settings=settings[-1:])


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("network.fusion_depth=4", "network.decoder_depth"),
        ("network.head=tree", "expected one of dpt, linear, got 'tree'"),
        ("network=dust3r", "as JSON, got 'dust3r'"),
        ('network={"wings": 2}', "expected Dust3RConfig with patch_size, encoder_dim"),
        ("network=3", "or expected Fast3RConfig with"),
        ("network.decoder_depth=2", "decoder_depth is at least 4, got 2"),
        ("objective=fast3r", "trained with objective=dust3r"),
        ("stages.0.views=[2, 3]", "trained on views=[2]"),
    ],
)
def test_bad_settings_are_one_line_that_says_what_would_do(setting, words):
    with pytest.raises(InputError) as caught:
        named_recipe("small-pairs", settings=[setting])
    assert words in str(caught.value)
    assert "\n" not in Exception.__str__(caught.value)


# ---------------------------------------------------------------- the published stages
@pytest.mark.parametrize(
    ("name", "head", "size", "epochs", "warmup", "pairs_of_an_epoch", "batch"),
    [
        ("dust3r-224", "linear", 224, 100, 10, 800_000, 16 * 1 * 8),
        ("dust3r-512", "linear", 512, 100, 20, 80_000, 4 * 2 * 8),
        ("dust3r-512-dpt", "dpt", 512, 90, 15, 80_000, 4 * 2 * 8),
    ],
)
def test_the_published_stages_are_the_published_ones(name, head, size, epochs, warmup, pairs_of_an_epoch, batch):
    recipe = named_recipe(name)
    (stage,) = recipe.stages
    assert (recipe.name, recipe.network, recipe.image_size) == (name, Dust3RConfig(head=head), size)
    assert (tuple(stage.views), stage.scenes(2)) == ((2,), batch)
    assert recipe.steps * batch == epochs * pairs_of_an_epoch
    assert recipe.warmup_steps * batch == warmup * pairs_of_an_epoch
    assert stage.until == recipe.steps
    heights = {384, 336, 288, 256, 160} if size == 512 else {224}
    assert set(stage.sizes) == {(height, size) for height in heights}


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_the_published_stages_have_in_common(name):
    recipe = named_recipe(name)
    assert (recipe.optimiser, recipe.betas, recipe.weight_decay, recipe.decay_vectors) == (
        "adamw",
        (0.9, 0.95),
        0.05,
        False,
    )
    assert (recipe.clip, recipe.ema_decay, recipe.bf16) == (0, 0, False)
    assert recipe.objective == "dust3r"
    assert recipe.dust3r == Dust3rOptions(normalisation="avg_dis", confidence_reward=0.2)
    assert recipe.matching_weight == recipe.place_weight == recipe.camera_weight == 0
    assert recipe.schedule == "cosine"
    assert recipe.rate(0) == 0
    assert recipe.rate(recipe.warmup_steps) == pytest.approx(1e-4)
    assert recipe.rate(recipe.steps) == pytest.approx(1e-6)
    assert {source.kind for source in recipe.stages[0].sources} == {
        "co3d", "scannetpp", "arkitscenes", "habitat", "blendedmvs", "megadepth",
    }  # fmt: skip
    assert len({source.share for source in recipe.stages[0].sources}) == 1
    assert len(step_plan(recipe, recipe.steps - 1).seeds) == recipe.stages[0].scenes(2)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_stages_need_their_data(name, tmp_path):
    recipe = named_recipe(name, settings=[f"data={tmp_path}"])
    with pytest.raises(InputError, match="no co3d data: there is no folder"):
        missing_data(recipe)
    for source in recipe.stages[0].sources:
        (tmp_path / source.folder).mkdir()
    missing_data(recipe)


def test_each_published_stage_starts_from_the_one_before(monkeypatch):
    """Their networks of 2 GB are played by their configurations."""
    before = replace(PAIRS_INFO, name="before", image_size=224, square_ok=True, licence="terms")
    played = SimpleNamespace(config=Dust3RConfig(head="linear"))
    monkeypatch.setattr("manyview.networks.checkpoints.find.find_network", lambda name: (played, before))
    for name in PUBLISHED[1:]:
        recipe = named_recipe(name, settings=["initial=before"])
        assert replace(recipe, initial="") == RECIPES[name]()
        info = info_of(recipe)
        assert (info.image_size, info.square_ok, info.family) == (512, False, "dust3r")
        assert info.licence.startswith("terms (of before")


def test_a_published_stage_in_small_trains(tmp_path):
    """All but the sizes and the data as published."""
    recipe = RECIPES["dust3r-512-dpt"]()
    stage = Stage(until=2, sizes=((24, 32),), views=(2,), images=4)
    small = replace(recipe, network=SMALLEST_PAIRS, steps=2, warmup_steps=1, stages=(stage,))
    assert not train(small, tmp_path, pace=Pace(workers=0)).training
