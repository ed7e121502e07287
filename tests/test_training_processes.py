"""Several processes train the same model as one with the same batches."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from manyview.training.data import step_batch
from manyview.training.journal import read_log
from manyview.training.loop import Pace, train
from manyview.training.state import start
from training_toys import SHARED, weights

SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
from manyview.training.loop import Pace, train
from training_toys import SHARED
recipe = replace(SHARED, strategy=sys.argv[2], objective=sys.argv[3])
train(recipe, Path(sys.argv[1]), pace=Pace(log=1, save=2, evaluate=2, workers=0))
"""


def torchrun(folder: Path, *arguments: str, processes: int = 2) -> None:
    """Run `SCRIPT` in several processes that talk by gloo."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*command, str(script), str(folder / "run"), *arguments],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_scenes_of_the_processes_differ_in_what_is_counted():
    """Or dividing by the wrong counts would not show."""
    counts = [step_batch(SHARED, 0, rank=rank, processes=2).valid.sum() for rank in range(2)]
    assert counts[0] != counts[1]


@pytest.mark.parametrize(
    ("strategy", "objective"),
    [
        ("auto", "fast3r"),
        pytest.param("fsdp", "fast3r", marks=pytest.mark.slow),
        pytest.param("ddp", "dust3r", marks=pytest.mark.slow),
    ],
)
def test_two_processes_give_the_weights_of_one(tmp_path, strategy, objective):
    recipe = replace(SHARED, objective=objective)
    one = train(recipe, tmp_path / "one", pace=Pace(log=1, save=2, evaluate=2, workers=0))
    torchrun(tmp_path, strategy, objective)
    run = start(recipe)
    assert run.restore(tmp_path / "run") == ([] if strategy == "auto" else [f"strategy was {strategy!r} and is 'auto'"])
    torch.testing.assert_close(weights(run.model()), weights(one), rtol=0, atol=1e-5)
    assert (weights(start(recipe).network) - weights(run.network)).abs().max() > 1e-3
    assert run.scenes == 9
    for both, alone in zip(read_log(tmp_path / "run"), read_log(tmp_path / "one"), strict=True):
        for name in ("step", "scenes", "total", "loss", "global_error", "matching", "camera", "gradient_norm"):
            assert both[name] == pytest.approx(alone[name], rel=1e-3, abs=1e-4), name


@pytest.mark.slow
def test_a_run_of_one_process_goes_on_with_two_and_sharded_weights(tmp_path):
    whole = train(SHARED, tmp_path / "whole", pace=Pace(workers=0))
    train(replace(SHARED, steps=1, stages=SHARED.stages), tmp_path / "run", pace=Pace(workers=0))
    torchrun(tmp_path, "fsdp", "fast3r")
    run = start(SHARED)
    run.restore(tmp_path / "run")
    assert run.step == SHARED.steps
    torch.testing.assert_close(weights(run.model()), weights(whole), rtol=0, atol=2e-5)
