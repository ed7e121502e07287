"""Accuracy through pairs and global alignment (DUSt3R) beside one forward pass (Fast3R), with the packaged models.

    python benchmarks/pairs_accuracy.py --scenes 40

Worlds that neither model was trained on, and small real scenes. The pairwise model is also measured with the published
alignment and with what a user may know: intrinsics, or whole cameras. Writes JSON with hardware, versions and command.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

import manyview
from manyview.evaluation.folders import evaluate_on_folder
from manyview.evaluation.held_out import Truth, compare_with_truth, native_size, photograph_world, pool
from manyview.files import write_json
from manyview.methods.model import Model, versions
from manyview.scene import Scene
from manyview.training.data import FIRST_HELD_OUT_SEED
from model_card import (
    FOLDERS,
    MOST_REAL_VIEWS,
    REAL_COLUMNS,
    REAL_SCENES,
    ROOT,
    WORLD_COLUMNS,
    ProgressLine,
    finite,
    hardware,
    markdown,
    real_figures,
)

Predictor = Callable[[Sequence[np.ndarray], Truth], Scene]
VIEWS = (2, 4, 8)
MOST_VIEWS_COMPATIBLE = 4  # the published alignment takes too long for more


def main() -> None:
    options = parse()
    joint, pairs = manyview.load("manyview-small", device="cpu"), manyview.load(options.model, device="cpu")
    start = time.perf_counter()
    record = {
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": f"python benchmarks/pairs_accuracy.py --scenes {options.scenes}",
        "hardware": hardware(pairs),
        "versions": versions(),
        "models": [{"name": model.info.name, "weights_sha256": model.info.weights_sha256} for model in (joint, pairs)],
        "picture_size": list(native_size(pairs)),
        "first_seed": FIRST_HELD_OUT_SEED,
        "worlds": [row for views in VIEWS for row in measure_worlds(joint, pairs, views, options.scenes)],
        "real": measure_folders(joint, pairs, options.real) if options.real.is_dir() else [],
    }
    record["seconds"] = round(time.perf_counter() - start, 1)
    write_json(options.out, record)
    print(tables(record))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="manyview-small-pairs", help="a pairwise model, as manyview.load takes it")
    parser.add_argument("--scenes", type=int, default=40, help="worlds for each number of views")
    parser.add_argument("--real", type=Path, default=REAL_SCENES, help="folder of real scenes; left out if missing")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "pairs_accuracy.json")
    return parser.parse_args()


def predictors(joint: Model, pairs: Model, views: int) -> dict[str, Predictor]:
    """What is measured, by name: pictures and truth -> scene. Only what is said to be given looks at the truth."""
    compatible = manyview.Dust3ROptions(alignment="compatible")
    named: dict[str, Predictor] = {
        joint.info.name: lambda pictures, truth: joint.reconstruct(pictures, strict=True),
        pairs.info.name: lambda pictures, truth: pairs.reconstruct(pictures, strict=True),
        f"{pairs.info.name}, intrinsics given": lambda pictures, truth: pairs.reconstruct(
            pictures, strict=True, intrinsics=true_K(truth)
        ),
        f"{pairs.info.name}, cameras given": lambda pictures, truth: pairs.reconstruct(
            pictures, strict=True, intrinsics=true_K(truth), world_from_camera=true_cameras(truth)
        ),
    }
    if views <= MOST_VIEWS_COMPATIBLE:
        named[f"{pairs.info.name}, published alignment"] = lambda pictures, truth: pairs.reconstruct(
            pictures, strict=True, options=compatible
        )
    return named


def true_K(truth: Truth) -> np.ndarray:
    return np.stack([camera.K for camera in truth.cameras if camera is not None])


def true_cameras(truth: Truth) -> list[np.ndarray]:
    return [camera.world_from_camera for camera in truth.cameras if camera is not None]


def measure_worlds(joint: Model, pairs: Model, views: int, scenes: int) -> list[dict[str, Any]]:
    """A row for each predictor, all of the same worlds."""
    rows = []
    for name, predict in predictors(joint, pairs, views).items():
        line, errors, seconds = ProgressLine(name), [], []
        for scene in range(scenes):
            pictures, truth = photograph_world(FIRST_HELD_OUT_SEED + scene, views, native_size(pairs))
            start = time.perf_counter()
            errors.append(compare_with_truth(predict(pictures, truth), truth))
            seconds.append(time.perf_counter() - start)
            line(scene + 1, scenes, f"worlds of {views} views")
        figures = finite(asdict(pool(errors)))
        rows.append({"predictor": name, **figures, "median_seconds": round(float(np.median(seconds)), 2)})
    return rows


def measure_folders(joint: Model, pairs: Model, folder: Path) -> list[dict[str, Any]]:
    """A row for each real scene that is there and each model."""
    rows = []
    for scene in FOLDERS:
        if not (folder / scene).is_dir():
            print(f"{scene}: not there, left out", file=sys.stderr)
            continue
        for model in (joint, pairs):
            errors = evaluate_on_folder(model, folder / scene, max_views=MOST_REAL_VIEWS)
            rows.append({"predictor": model.info.name, "scene": scene, **finite(real_figures(errors))})
    return rows


def tables(record: dict[str, Any]) -> str:
    """Both tables in Markdown."""
    height, width = record["picture_size"]
    parts = [
        f"{record['worlds'][0]['scenes']} procedural worlds of unseen seeds, pictures of {width}x{height} pixels "
        f"(`{record['command']}`):",
        markdown((*WORLD_COLUMNS, ("median_seconds", "seconds a scene", "d")), record["worlds"]),
    ]
    if record["real"]:
        parts += ["Real scenes (depth after one median scale for all views):", markdown(REAL_COLUMNS, record["real"])]
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
