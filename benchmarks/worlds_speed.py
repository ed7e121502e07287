"""How many views of procedural worlds are rendered a second, for each composition and for all of them together.

    python benchmarks/worlds_speed.py --size 64x80 --views 4

Writes JSON with hardware, versions and command. One thread: several processes with one thread each beat one with many.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import torch

from manyview.files import write_json
from manyview.methods.model import versions
from manyview.worlds import WorldSettings, render_worlds
from manyview.worlds.settings import COMPOSITIONS
from model_card import processor

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="64x80", help="HEIGHTxWIDTH")
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--scenes", type=int, default=8, help="scenes of a batch")
    parser.add_argument("--repeats", type=int, default=5, help="batches; the median is reported")
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "worlds_speed.json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    height, width = (int(side) for side in options.size.split("x"))
    kinds = {name: (name,) for name in COMPOSITIONS}
    rates = {name: views_per_second(shown, (height, width), options) for name, shown in kinds.items()}
    rates["all"] = views_per_second(COMPOSITIONS, (height, width), options)
    command = f"python benchmarks/worlds_speed.py --size {options.size} --views {options.views}"
    record = {
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": f"{command} --scenes {options.scenes} --samples {options.samples} --device {options.device}",
        "hardware": {"processor": processor(), "threads": 1, "device": options.device},
        "versions": versions(),
        "views_per_second": {name: round(rate, 1) for name, rate in rates.items()},
    }
    write_json(options.out, record)
    for name, rate in rates.items():
        print(f"{name:<12} {rate:7.1f} views/s")


def views_per_second(shown: Sequence, size: tuple[int, int], options: argparse.Namespace) -> float:
    """Median over the repeats, each with other scenes."""
    settings = WorldSettings(compositions=tuple(shown), samples=options.samples)
    seconds = []
    for repeat in range(options.repeats + 1):
        start = time.perf_counter()
        seeds = range(repeat * options.scenes, (repeat + 1) * options.scenes)
        render_worlds(seeds, options.views, size, settings, options.device)
        if options.device.startswith("cuda"):
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return options.scenes * options.views / statistics.median(seconds[1:])  # the first one builds the textures


if __name__ == "__main__":
    main()
