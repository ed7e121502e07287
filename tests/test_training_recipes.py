"""Recipes: what they say, how they are changed by text, and what is refused."""

from __future__ import annotations

import itertools
import json
import math
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyview.errors import InputError, WeightsError
from manyview.networks.fast3r import Fast3RConfig
from manyview.training.overrides import flat, override, to_json
from manyview.training.recipe import Recipe, Source, Stage, usual_sizes
from manyview.training.recipes import RECIPES, missing_data, named_recipe, set_options
from manyview.worlds import WorldSettings
from training_toys import TINY


@dataclass(frozen=True)
class Toy:
    """Every kind of field that a recipe has."""

    whole: int = 1
    number: float = 0.5
    word: str = "a"
    flag: bool = False
    choice: Literal["x", "y"] = "x"
    limits: tuple[float, float] = (1.0, float("inf"))
    optional: int | None = None


# ---------------------------------------------------------------- by name
def test_recipes_are_found_by_name():
    assert named_recipe("small", steps=7).steps == 7
    with pytest.raises(InputError, match="no recipe 'huge'"):
        named_recipe("huge")


def test_the_published_recipe_is_the_published_one():
    recipe = named_recipe("fast3r")
    (stage,) = recipe.stages
    assert recipe.network == Fast3RConfig()
    assert (recipe.learning_rate, recipe.smallest_rate, recipe.betas, recipe.weight_decay) == (
        1e-4,
        1e-6,
        (0.9, 0.95),
        0.05,
    )
    assert recipe.decay_vectors
    assert (recipe.clip, recipe.ema_decay, recipe.objective, recipe.schedule) == (0, 0, "fast3r", "cosine")
    assert (stage.views, stage.scenes(20)) == ((20,), 128)
    assert recipe.warmup_steps / recipe.steps == pytest.approx(10 / 500)
    assert {source.kind for source in stage.sources} == {
        "co3d", "scannetpp", "arkitscenes", "habitat", "blendedmvs", "megadepth",
    }  # fmt: skip
    assert len({source.share for source in stage.sources}) == 1
    assert {size[0] for size in stage.sizes} == {384, 336, 288, 256, 160}
    assert recipe.matching_weight == recipe.place_weight == recipe.camera_weight == 0


def test_a_missing_data_folder_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="no co3d data: there is no folder") as caught:
        missing_data(named_recipe("fast3r", settings=[f"data={tmp_path}"]))
    assert str(tmp_path / "co3d") in str(caught.value)
    assert "--set data=FOLDER" in caught.value.hint
    for source in named_recipe("fast3r").stages[0].sources:
        (tmp_path / source.folder).mkdir()
    missing_data(named_recipe("fast3r", settings=[f"data={tmp_path}"]))
    missing_data(TINY)


def test_fine_tuning_takes_network_and_size_from_the_model_and_lets_other_settings_stand():
    recipe = named_recipe("finetune", settings=["learning_rate=1e-5"])
    small = named_recipe("small")
    assert (recipe.network, recipe.image_size, recipe.learning_rate) == (small.network, small.image_size, 1e-5)
    assert recipe.learning_rate < small.learning_rate
    with pytest.raises(WeightsError, match="no model 'nowhere'"):
        named_recipe("finetune", settings=["initial=nowhere"])


# ---------------------------------------------------------------- changed by text
@pytest.mark.parametrize(
    ("setting", "read"),
    [
        ("learning_rate=1e-3", lambda r: r.learning_rate == 1e-3),
        ("network.fusion_depth=4", lambda r: r.network.fusion_depth == 4),
        ("stages.0.images=16", lambda r: r.stages[0].images == 16 and r.stages[1].images == 32),
        ("stages.1.sources.0.worlds.spread=0.25", lambda r: r.stages[1].sources[0].worlds.spread == 0.25),
        ("stages.0.sizes=[[64, 80], [72, 72]]", lambda r: r.stages[0].sizes == ((64, 80), (72, 72))),
        ("betas=[0.8, 0.9]", lambda r: r.betas == (0.8, 0.9)),
        ("bf16=no", lambda r: r.bf16 is False),
        ("network.fusion_attention=joint", lambda r: r.network.fusion_attention == "joint"),
        ("network.confidence_range=[1, \"inf\"]", lambda r: r.network.confidence_range == (1.0, math.inf)),
        ("dust3r.invariance=shift", lambda r: r.dust3r.invariance == "shift"),
        (
            'stages=[{"until": 9, "views": [3], "images": 6}]',
            lambda r: r.stages == (Stage(until=9, views=(3,), images=6),),
        ),
        (
            'stages.0.sources=[{"kind": "co3d", "folder": "a=b", "share": 2}, {}]',
            lambda r: r.stages[0].sources == (Source(kind="co3d", folder="a=b", share=2.0), Source()),
        ),
    ],
)  # fmt: skip
def test_settings_are_read_by_the_type_of_their_field(setting, read):
    assert read(named_recipe("small", settings=[setting]))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("learning_rat=1", "Nearest: learning_rate"),
        ("network.fusion_deep=4", "Nearest: network.fusion_depth"),
        ("fusion_depth=4", "network.fusion_depth"),
        ("stages.9.images=4", "Nearest: stages."),
        ("zzz=1", "Known: name, description"),
        ("learning_rate=fast", "expected a number, got 'fast'"),
        ("learning_rate=nan", "expected a number, got 'nan'"),
        ("steps=1.5", "expected a whole number, got '1.5'"),
        ("bf16=perhaps", "expected true or false, got 'perhaps'"),
        ("schedule=linear", "expected one of constant-then-linear, cosine"),
        ("stages.0.views=[2, true]", "expected a whole number, got True"),
        ("stages.0.views=__import__('os')", "as JSON"),
        ("betas=[0.9]", "tuple[float, float], got [0.9]"),
        ('stages.0.sources=[{"kinds": "co3d"}]', "expected Source with kind, folder, share, worlds"),
        ('stages=[{"until": 3}]', "missing"),
        ("network=1", "expected Fast3RConfig"),
        ("learning_rate=-1", "learning_rate is above 0"),
        ("steps=0", "steps is at least 1"),
        ("ema_decay=1", "ema_decay is from 0 to below 1"),
        ("network.fusion_depth=6", "multiple of 4, got 6"),
        ("network.fusion_heads=5", "network.fusion_dim is a multiple of"),
        ("stages.0.sizes=[[60, 80]]", "multiples of the network's patches of 8 pixels, got (60, 80)"),
        ("stages.0.images=1000", "at most 256 scenes"),
        ("stages.0.views=[]", "views are numbers from 1 on"),
        ("stages.0.sources.0.share=0", "share is above 0"),
        ("stages.0.sources.0.worlds.spread=-1", "spread is at least 0"),
        ("dust3r.plain_weight=-1", "plain_weight is at least 0"),
        ("learning_rate", "is not key=value"),
    ],
)  # fmt: skip
def test_bad_settings_are_one_line_that_says_what_would_do(setting, words):
    with pytest.raises(InputError) as caught:
        named_recipe("small", settings=[setting])
    assert words in str(caught.value)
    assert "\n" not in Exception.__str__(caught.value)


@given(
    st.builds(
        Toy, whole=st.integers(), number=st.floats(allow_nan=False), flag=st.booleans(),
        word=st.text().map(str.strip), choice=st.sampled_from(["x", "y"]),
        limits=st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False)), optional=st.none() | st.integers(),
    )
)  # fmt: skip
def test_what_is_written_as_text_is_read_back(toy):
    texts = {key: value if isinstance(value, str) else json.dumps(to_json(value)) for key, value in flat(toy)}
    texts = {key: text.strip('"') if key == "number" else text for key, text in texts.items()}
    texts["optional"] = "none" if toy.optional is None else str(toy.optional)
    assert override(Toy(), [f"{key}={text}" for key, text in texts.items()]) == toy


def test_every_key_of_every_recipe_can_be_set_to_what_it_is():
    for name in RECIPES:
        recipe = RECIPES[name]()
        for key, value in flat(recipe):
            text = value if isinstance(value, str) else json.dumps(to_json(value))
            assert to_json(override(recipe, [f"{key}={text}"])) == to_json(recipe), key


def test_the_command_that_makes_a_recipe_makes_it():
    settings = ["learning_rate=2e-3", "network.fusion_depth=4", "stages.1.sources.0.worlds.spread=0.25", "bf16=false"]
    recipe = named_recipe("small", steps=11, settings=settings)
    options = set_options(recipe)
    assert len(options) == 5
    assert named_recipe("small", settings=options) == recipe
    shorter = replace(recipe, stages=recipe.stages[:2])
    assert named_recipe("small", settings=set_options(shorter)) == shorter
    assert set_options(named_recipe("small")) == []
    assert set_options(TINY) == []


# ---------------------------------------------------------------- learning rates and stages
def test_learning_rate_rises_stays_and_falls_to_zero():
    recipe = replace(TINY, steps=100, warmup_steps=10, decay_steps=20)
    assert recipe.rate(0) == pytest.approx(recipe.learning_rate / 10)
    assert recipe.rate(50) == recipe.learning_rate
    assert recipe.rate(90) == pytest.approx(recipe.learning_rate / 2)
    assert recipe.rate(100) == 0
    assert recipe.rate(80) == recipe.learning_rate > recipe.rate(81)
    assert recipe.rate(9) == recipe.learning_rate > recipe.rate(8)


def test_cosine_rises_from_zero_and_falls_to_the_smallest_rate():
    recipe = replace(TINY, schedule="cosine", steps=110, warmup_steps=10, learning_rate=1.0, smallest_rate=0.1)
    assert [recipe.rate(step) for step in (0, 5, 10)] == pytest.approx([0, 0.5, 1])
    assert recipe.rate(60) == pytest.approx(0.55)
    assert recipe.rate(35) == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi / 4)))
    assert [recipe.rate(110), recipe.rate(500)] == pytest.approx([0.1, 0.1])


def test_a_stage_ends_before_its_last_step_and_the_last_one_goes_on():
    assert [TINY.stage(step) for step in (0, 1, 2, 3, 99)] == [TINY.stages[i] for i in (0, 0, 1, 1, 1)]


@given(st.integers(8, 600), st.sampled_from([4, 8, 14, 16]))
def test_usual_sizes_are_whole_patches_and_not_larger_than_asked_for(image_size, patch):
    for height, width in usual_sizes(image_size, patch):
        assert height % patch == width % patch == 0
        assert patch <= max(height, width) <= max(image_size, patch)


def test_a_stage_without_sizes_has_usual_ones():
    recipe = replace(TINY, stages=(Stage(until=1, views=(2,), images=2),))
    assert recipe.sizes(recipe.stages[0]) == usual_sizes(32, 8)
    assert isinstance(recipe, Recipe)
    assert Source().worlds == WorldSettings()


def test_every_command_of_the_docs_makes_a_recipe(tmp_path):
    text = (Path(__file__).parents[1] / "docs" / "training.md").read_text()
    commands = [shlex.split(line, comments=True) for line in text.splitlines() if "manyview train " in line]
    seen = 0
    for words in commands:
        words = words[words.index("train") + 1 :]
        settings = [value for option, value in itertools.pairwise(words) if option == "--set"]
        if "initial=" in " ".join(settings):
            continue
        assert named_recipe(words[0], settings=settings).name == words[0]
        seen += 1
    assert seen >= 5
