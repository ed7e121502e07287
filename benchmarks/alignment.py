"""Time, accuracy and peak memory of the global alignment: the default mode against the compatible (published) one.

    python benchmarks/alignment.py                            # all cases, writes benchmarks/results/alignment.json
    python benchmarks/alignment.py --cases 6x48x64 12x48x64 --repeats 1
    python benchmarks/alignment.py --cases 6x384x512 --iterations 30   # its time at 300 is then extrapolated
    python benchmarks/alignment.py --cases ga6 --reference ../shared/reference/dust3r

Pairs of procedural rooms with the errors of `manyview.evaluation.noisy_pairs`; all N (N - 1) ordered pairs. Each
measurement is a process of its own, and the modes take turns, so that a machine whose speed drifts is fair to both.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

MODES = ("fast", "compatible")
CASES = ("6x48x64", "12x48x64", "20x48x64", "3x384x512", "6x384x512")
PUBLISHED_ITERATIONS = 300
SEED = 100
# Pictures with more pixels than this are measured once: 300 iterations take minutes.
LARGE = 100_000
RESULTS = Path(__file__).resolve().parent / "results" / "alignment.json"


def write_case(case: str, folder: Path, reference: Path | None) -> dict[str, int]:
    """Make a case's pairs and true geometry and store them; returns how large it is."""
    import numpy as np

    if case == "ga6":
        if reference is None:
            raise SystemExit("the case ga6 needs --reference FOLDER")
        arrays = reference_case(reference)
    else:
        from manyview.evaluation.noisy_pairs import noisy_pairs

        views, height, width = (int(part) for part in case.split("x"))
        pairs, truth = noisy_pairs(SEED + views, views, (height, width))
        arrays = {"edges": pairs.edges, **dataclasses.asdict(truth)}
        for side in (0, 1):
            arrays[f"points_{side}"] = np.stack([maps[side].numpy() for maps in pairs.points])
            arrays[f"confidence_{side}"] = np.stack([maps[side].numpy() for maps in pairs.confidence])
    np.savez(folder / f"{case}.npz", **arrays)
    height, width = arrays["depth"].shape[1:]
    return {"views": len(arrays["depth"]), "edges": len(arrays["edges"]), "height": height, "width": width}


def reference_case(folder: Path) -> dict:
    """The six views of the reference data."""
    import numpy as np

    first, second = (np.load(folder / f"golden_ga6_inputs_view{side}.npz") for side in (1, 2))
    truth = np.load(folder / "golden_ga6_ground_truth.npz")
    K = np.tile(np.eye(3), (len(truth["gt_focals"]), 1, 1))
    K[:, 0, 0] = K[:, 1, 1] = truth["gt_focals"]
    return {
        "edges": first["edges"],
        "world_from_camera": truth["gt_poses"],
        "K": K,
        "depth": truth["gt_depth"],
        "points_0": first["pts3d_1"].astype(np.float32),
        "points_1": second["pts3d_2in1"].astype(np.float32),
        "confidence_0": first["conf_1"].astype(np.float32),
        "confidence_1": second["conf_2"].astype(np.float32),
    }


def measure(mode: Literal["fast", "compatible"], path: Path, iterations: int) -> dict[str, float]:
    """Seconds, result and memory of one alignment in this process, after a small one as a warm-up."""
    import numpy as np
    import torch

    from manyview.alignment import align_pairs
    from manyview.evaluation.noisy_pairs import TrueGeometry, alignment_errors

    torch.set_num_threads(1)
    stored = np.load(path)
    points, confidence = (
        list(zip(*(torch.from_numpy(stored[f"{name}_{side}"]) for side in (0, 1)), strict=True))
        for name in ("points", "confidence")
    )
    options: dict[str, Any] = {"iterations": iterations} if mode == "compatible" else {}
    warm_up(mode, points, confidence, stored["edges"])
    before = memory("VmRSS", reset_peak=True)
    start = time.perf_counter()
    aligned = align_pairs(stored["edges"], points, confidence, mode=mode, **options)
    seconds = time.perf_counter() - start
    beyond = memory("VmHWM") - before
    truth = TrueGeometry(**{name: stored[name] for name in ("world_from_camera", "K", "depth")})
    errors = dataclasses.asdict(alignment_errors(aligned, truth))
    pixels = sum(maps[0][..., 0].numel() for maps in points)
    inputs = sum(4 * (side.numel()) for maps in (*points, *confidence) for side in maps)
    return {
        "seconds": seconds,
        "objective": aligned.objective,
        **{f"{name}_error": value for name, value in errors.items()},
        "mib_beyond_inputs": beyond / 2**20,
        "bytes_an_edge_and_pixel": (inputs + beyond) / pixels,
    }


def warm_up(mode: Literal["fast", "compatible"], points: list, confidence: list, edges) -> None:
    """One alignment of two pictures' top left corners."""
    from manyview.alignment import align_pairs

    options: dict[str, Any] = {"iterations": 2} if mode == "compatible" else {}
    corner = (slice(0, 24), slice(0, 32))
    few = [tuple(side[corner].clone() for side in maps[0]) for maps in (points, confidence)]
    align_pairs([[0, 1]], [few[0]], [few[1]], mode=mode, **options)


def memory(entry: str, *, reset_peak: bool = False) -> int:
    """Bytes of resident memory of this process, now (VmRSS) or at its highest (VmHWM)."""
    if reset_peak:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(entry))


def compare(case: str, arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Medians of both modes in turn, and what the default mode gains."""
    size = write_case(case, folder, arguments.reference)
    samples: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    repeats = 1 if size["height"] * size["width"] > LARGE else arguments.repeats
    for repeat in range(repeats):
        for mode in MODES:
            samples[mode].append(in_a_process(mode, folder / f"{case}.npz", arguments.iterations))
            print(f"{case} {mode} {repeat + 1}/{repeats}: {samples[mode][-1]}", file=sys.stderr)
    medians = {
        mode: {key: statistics.median(row[key] for row in rows) for key in rows[0]} for mode, rows in samples.items()
    }
    whole = arguments.iterations == PUBLISHED_ITERATIONS
    slow = medians["compatible"]["seconds"] * PUBLISHED_ITERATIONS / arguments.iterations
    report = {
        **size,
        "repeats": repeats,
        "compatible_iterations": arguments.iterations,
        "medians": {mode: {key: float(f"{value:.5g}") for key, value in row.items()} for mode, row in medians.items()},
        "compatible_seconds_at_300_iterations": round(slow, 2),
        "compatible_seconds_are_extrapolated": not whole,
        "times_faster": round(slow / medians["fast"]["seconds"], 1),
    }
    if whole:
        ratio = medians["fast"]["objective"] / medians["compatible"]["objective"]
        report["objective_against_compatible"] = round(ratio, 5)
    return report


def in_a_process(mode: Literal["fast", "compatible"], path: Path, iterations: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", mode, str(path), "--iterations", str(iterations)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    return json.loads(output.splitlines()[-1])


def hardware() -> dict[str, object]:
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": len(names),
        "threads": 1,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=CASES, help="views x height x width, or ga6")
    parser.add_argument("--repeats", type=int, default=3, help="processes a mode and case (1 for large pictures)")
    parser.add_argument("--iterations", type=int, default=PUBLISHED_ITERATIONS, help="of the compatible mode")
    parser.add_argument("--reference", type=Path, help="folder of the reference data, for the case ga6")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--measure", nargs=2, metavar=("MODE", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure[0], Path(args.measure[1]), args.iterations)))
        return
    report = {
        "command": "python " + " ".join(["benchmarks/alignment.py", *sys.argv[1:]]),
        "hardware": hardware(),
        "memory": "inputs are the float32 pointmaps and confidences of both pictures of an edge: 32 bytes a pixel",
        "cases": {},
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for case in args.cases:
            report["cases"][case] = compare(case, args, Path(folder))
            args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
