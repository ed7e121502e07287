"""The wheel holds everything: it works outside the checkout, the packaged model included."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

USE = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import manyview
assert manyview.__file__.startswith(sys.argv[1]), manyview.__file__
photos = [np.random.default_rng(i).integers(0, 255, (96, 128, 3), dtype=np.uint8) for i in range(2)]
scene = manyview.reconstruct(photos, model="manyview-small")
files = scene.export(sys.argv[2], formats=["ply", "glb"])
assert len(scene.views) == 2 and all(file.is_file() for file in files)
print(scene.provenance.weights_sha256)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_reconstructs_with_the_packaged_model_outside_the_checkout(wheel, tmp_path):
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, "-c", USE, str(site), str(tmp_path / "out")], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) == 64


@pytest.mark.slow
def test_the_wheel_holds_types_licence_and_model_and_stays_small(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for ending in (
        "manyview/py.typed",
        "LICENSE",
        "packaged/manyview-small.safetensors",
        "packaged/manyview-small-pairs.safetensors",
        "packaged/manyview-small.md",
    ):
        assert any(name.endswith(ending) for name in names), ending
    assert not [name for name in names if name.startswith("tests")]
    assert wheel.stat().st_size < 40 * 2**20
