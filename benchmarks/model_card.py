"""The figures of a model card: procedural worlds that were never trained on, and small real scenes.

    python benchmarks/model_card.py --model manyview-small --scenes 100

Writes JSON with hardware, versions and command, and prints the tables of the card (Markdown). Each figure stands beside
those of two models that look at nothing: a constant depth, and the mean depth map of other worlds.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

import manyview
from manyview.evaluation.folders import evaluate_on_folder
from manyview.evaluation.held_out import (
    Reconstructor,
    SceneErrors,
    evaluate_on_worlds,
    native_size,
    trivial_models,
)
from manyview.files import write_json
from manyview.methods.model import Model, versions
from manyview.training.data import FIRST_HELD_OUT_SEED

ROOT = Path(__file__).resolve().parents[1]
REAL_SCENES = ROOT.parent / "shared" / "data"
FOLDERS = ("fountain-p11", "box-rgbd", "motorcycle-stereo")
VIEWS = (2, 4, 8, 16)
MOST_REAL_VIEWS = 11
TRIVIAL_SEED = FIRST_HELD_OUT_SEED + 2_000_000  # of the mean depth map; not among the worlds that are measured


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    model = manyview.load(options.model, device=options.device)
    models = [("model", model), *((trivial.name, trivial) for trivial in trivial_models(model, seed=TRIVIAL_SEED))]
    start = time.perf_counter()
    worlds = measure_worlds(models, native_size(model), options.scenes)
    real = measure_folders(models, options.real) if options.real.is_dir() else []
    record = {
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command(options),
        "hardware": hardware(model),
        "versions": versions(),
        "seconds": round(time.perf_counter() - start, 1),
        "model": {"name": model.info.name, "weights_sha256": model.info.weights_sha256},
        "picture_size": list(native_size(model)),
        "first_seed": FIRST_HELD_OUT_SEED,
        "worlds": worlds,
        "real": real,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, record)
    print(tables(record))
    if not real:
        print(f"(no real scenes: {options.real} is not there)", file=sys.stderr)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="manyview-small", help="what manyview.load takes")
    parser.add_argument("--scenes", type=int, default=100, help="worlds for each number of views")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--real", type=Path, default=REAL_SCENES, help="folder of real scenes; left out if missing")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "model_card.json")
    return parser.parse_args(arguments)


def measure_worlds(
    models: Sequence[tuple[str, Reconstructor]], size: tuple[int, int], scenes: int
) -> list[dict[str, Any]]:
    """A row for each number of views and each model."""
    rows = []
    for views in VIEWS:
        for name, model in models:
            line = ProgressLine(name)
            report = evaluate_on_worlds(
                model, views=views, scenes=scenes, first_seed=FIRST_HELD_OUT_SEED, size=size, progress=line
            )
            rows.append({"predictor": name, **finite(asdict(report))})
    return rows


def measure_folders(models: Sequence[tuple[str, Reconstructor]], folder: Path) -> list[dict[str, Any]]:
    """A row for each real scene that is there and each model."""
    rows = []
    for scene in FOLDERS:
        if not (folder / scene).is_dir():
            print(f"{scene}: not there, left out", file=sys.stderr)
            continue
        for name, model in models:
            errors = evaluate_on_folder(model, folder / scene, max_views=MOST_REAL_VIEWS)
            rows.append({"predictor": name, "scene": scene, **finite(real_figures(errors))})
    return rows


def real_figures(errors: SceneErrors) -> dict[str, float | None]:
    poses, depth = errors.poses, errors.depth
    return {
        "views": errors.views,
        "cameras_found": errors.cameras_found / errors.views,
        "rra15": poses.rra[15] if poses else None,
        "rta15": poses.rta[15] if poses else None,
        "maa30": poses.maa30 if poses else None,
        "rotation_error": poses.median_rotation_error if poses else None,
        "focal_error": errors.focal_error,
        "abs_rel": depth.abs_rel if depth else None,
        "delta_125": depth.delta_125 if depth else None,
        "point_error": errors.point_error,
        "coverage": errors.coverage,
    }


def finite(figures: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: None stands for what could not be measured."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in figures.items()}


# ------------------------------------------------------------------ how it was measured
def command(options: argparse.Namespace) -> str:
    name = options.model if not Path(options.model).exists() else Path(options.model).name
    return f"python benchmarks/model_card.py --model {name} --scenes {options.scenes} --device {options.device}"


def hardware(model: Model) -> dict[str, str | int]:
    facts: dict[str, str | int] = {
        "processor": processor(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
    }
    if model.device.type == "cuda":
        facts["accelerator"] = torch.cuda.get_device_name(model.device)
    return facts


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


class ProgressLine:
    """One line on the terminal: what, how far, and how long it will take."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.start = time.perf_counter()

    def __call__(self, done: int, total: int | None, what: str) -> None:
        rate = done / max(time.perf_counter() - self.start, 1e-9)
        left = "" if total is None else f" of {total}, {(total - done) / rate:.0f} s left"
        end = "\n" if done == total else ""
        print(f"\r{self.name}, {what}: {done}{left}   ", end=end, file=sys.stderr, flush=True)


# ------------------------------------------------------------------ tables
WORLD_COLUMNS = (
    ("views", "views", "d"),
    ("predictor", "predictor", "s"),
    ("depth_error", "median relative depth error", "%"),
    ("point_error", "median relative point error", "%"),
    ("rotation_error", "median rotation error", "°"),
    ("rra15", "RRA@15", "%"),
    ("rta15", "RTA@15", "%"),
    ("maa30", "mAA(30)", "%"),
    ("focal_error", "focal error", "%"),
    ("cameras_found", "cameras found", "%"),
)
REAL_COLUMNS = (
    ("scene", "scene", "s"),
    ("views", "views", "d"),
    ("predictor", "predictor", "s"),
    ("rotation_error", "median rotation error", "°"),
    ("rra15", "RRA@15", "%"),
    ("rta15", "RTA@15", "%"),
    ("maa30", "mAA(30)", "%"),
    ("focal_error", "focal error", "%"),
    ("abs_rel", "depth abs-rel", "%"),
    ("delta_125", "depth δ < 1.25", "%"),
    ("cameras_found", "cameras found", "%"),
)


def tables(record: dict[str, Any]) -> str:
    """The card's tables in Markdown."""
    scenes = record["worlds"][0]["scenes"]
    height, width = record["picture_size"]
    parts = [
        f"{scenes} procedural worlds of unseen seeds, pictures of {width}x{height} pixels:",
        markdown(WORLD_COLUMNS, record["worlds"]),
    ]
    if record["real"]:
        parts += ["Real scenes (depth after one median scale for all views):", markdown(REAL_COLUMNS, record["real"])]
    return "\n\n".join(parts)


def markdown(columns: Sequence[tuple[str, str, str]], rows: Sequence[dict[str, Any]]) -> str:
    lines = [[title for _, title, _ in columns], ["---" if kind == "s" else "---:" for _, _, kind in columns]]
    lines += [[_cell(row[key], kind) for key, _, kind in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any, kind: str) -> str:
    if value is None:
        return "–"
    return {"%": f"{100 * value:.1f} %", "°": f"{value:.1f}°"}[kind] if kind in "%°" else str(value)


if __name__ == "__main__":
    main()
