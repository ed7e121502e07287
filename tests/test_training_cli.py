"""`manyview train`: settings, JSON lines, going on, and one clear line for bad input."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import manyview
from manyview import cli
from manyview.app.console import show_error
from manyview.errors import ManyviewError
from manyview.training import recipes
from manyview.training.journal import read_log
from training_toys import TINY

runner = CliRunner()


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "tiny", lambda: TINY)


def train(*arguments: object):
    return runner.invoke(cli.app, ["train", *map(str, arguments)])


def test_json_lines_alone_are_on_stdout_and_the_model_is_written(tmp_path):
    options = ["--set", "learning_rate=1e-4", "--log-every", 1, "--evaluate-every", 2, "--workers", 0, "--json"]
    result = train("tiny", "-o", tmp_path / "t", "--steps", 2, *options)
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines == list(read_log(tmp_path / "t"))
    assert [line["step"] for line in lines] == [1, 2, 2]
    assert "rra15_4_views" in lines[-1] or "not_measured" in lines[-1]
    assert json.loads((tmp_path / "t" / "recipe.json").read_text())["learning_rate"] == 1e-4
    info = manyview.load(tmp_path / "t" / "manyview-tiny.safetensors").info
    assert info.source.endswith("manyview train tiny --set steps=2 --set learning_rate=0.0001")


def test_without_json_people_read_stderr_and_a_run_goes_on(tmp_path):
    options = ["-o", tmp_path / "t", "--log-every", 1, "--workers", 0, "--no-tensorboard"]
    assert train("tiny", *options, "--steps", 1).exit_code == 0
    result = train("tiny", *options, "--steps", 2)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "steps was 1 and is 2" in result.stderr
    assert "step 2: loss" in result.stderr
    assert "scenes/s" in result.stderr
    assert not (tmp_path / "t" / "tensorboard").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words", "hint"),
    [
        (["huge"], 3, "no recipe 'huge'", "Recipes: small, small-pairs, fast3r, dust3r-224"),
        (["tiny", "--set", "learning_rat=1"], 3, "there is no 'learning_rat'", "Nearest: learning_rate"),
        (["tiny", "--set", "learning_rate=fast"], 3, "expected a number", "0.002 now"),
        (["fast3r", "--set", "data=nowhere"], 3, "no co3d data", "--set data=FOLDER"),
        (["finetune", "--set", "initial=nowhere"], 5, "no model 'nowhere'", "Packaged"),
        (["tiny", "--device", "abacus"], 6, "device 'abacus' cannot be used", "doctor"),
    ],
)
def test_bad_input_is_one_line_and_a_hint_and_leaves_nothing(tmp_path, capsys, arguments, code, words, hint):
    result = train(*arguments, "-o", tmp_path / "t")
    assert isinstance(result.exception, ManyviewError)
    assert result.exception.exit_code == code
    show_error(result.exception)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert words in lines[0]
    assert hint in lines[1]
    assert not (tmp_path / "t").exists()


def test_a_state_of_another_shape_is_one_line(tmp_path):
    options = ["-o", tmp_path / "t", "--steps", 1, "--workers", 0]
    assert train("tiny", *options).exit_code == 0
    result = train("tiny", *options, "--set", "network.fusion_dim=64")
    assert isinstance(result.exception, ManyviewError)
    assert result.exception.exit_code == 5
    assert "network.fusion_dim was 32 and is 64" in Exception.__str__(result.exception)
