"""Time and peak memory of the released Fast3R configuration with random weights: our path against the simple one.

    python benchmarks/network_speed.py                       # all cases, writes benchmarks/results/network_speed.json
    python benchmarks/network_speed.py --cases 2x224x224 --repeats 5

Every measurement is a process of its own, so that its peak memory is its own; the variants take turns, so that a
machine whose speed drifts is fair to all. "simple" is `manyview.networks.reference` in float32: naive attention, all
depths kept, one head call a view.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

VARIANTS = ("simple", "fast", "bf16")
CASES = ("2x224x224", "4x224x224", "8x224x224", "2x384x512")
RESULTS = Path(__file__).resolve().parent / "results" / "network_speed.json"


def random_network(dtype: str = "float32"):
    """The released sizes with weights of the usual magnitude; a few seconds."""
    import torch

    from manyview.networks.families import empty_network
    from manyview.networks.fast3r import Fast3RConfig

    network = empty_network(Fast3RConfig()).to(getattr(torch, dtype))
    network = network.to_empty(device="cpu").eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        if parameter.ndim >= 2:
            bound = (3 / parameter[0].numel()) ** 0.5 * (0.2 if "output.4" in name else 1)
            parameter.uniform_(-bound, bound, generator=generator)
        else:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    return network


def images_of(case: str):
    import torch

    views, height, width = (int(part) for part in case.split("x"))
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(1, 3, height, width, generator=generator) * 2 - 1 for _ in range(views)]


def runner(variant: str, network):
    """A function images -> Pointmaps for one variant."""
    import torch

    from manyview.networks.fast3r import Economy
    from manyview.networks.layers.view_index import draw_ids
    from manyview.networks.reference import fast3r_reference

    if variant == "simple":
        return lambda images: fast3r_reference(network, images, draw_ids(1, len(images), 0))
    for head in (network.global_head, network.local_head):
        head.to(memory_format=torch.channels_last)
    return lambda images: network(images, economy=Economy(head_images=1))


def measure(variant: str, case: str, runs: int) -> dict[str, float]:
    """Seconds (best of `runs` after a warm-up) and memory of this process."""
    import torch

    network = random_network("bfloat16" if variant == "bf16" else "float32")
    run, images = runner(variant, network), images_of(case)
    before = resident()
    seconds = []
    with torch.inference_mode():
        for _ in range(runs + 1):
            start = time.perf_counter()
            result = run(images)
            seconds.append(time.perf_counter() - start)
    assert all(bool(torch.isfinite(points).all()) for points in result.points)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": min(seconds[1:]), "peak_mib": peak, "beyond_weights_mib": peak - before}


def resident() -> float:
    """MiB of memory in use now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def difference(case: str) -> float:
    """Largest |fast - simple| over the largest |simple|, in float32, over all outputs."""
    import torch

    network, images = random_network(), images_of(case)
    with torch.inference_mode():
        simple = runner("simple", network)(images)
        fast = runner("fast", network)(images)
    kinds = ("points", "confidence", "local_points", "local_confidence")
    pairs = [(f, s) for kind in kinds for f, s in zip(getattr(fast, kind), getattr(simple, kind), strict=True)]
    return max(float((f - s).abs().max() / s.abs().max()) for f, s in pairs)


def in_a_process(*arguments: str):
    output = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def compare(case: str, repeats: int, runs: int) -> dict[str, object]:
    """Medians of all variants in turn, and their ratios to the simple path."""
    samples: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    for repeat in range(repeats):
        for variant in VARIANTS:
            samples[variant].append(in_a_process("--measure", variant, case, "--runs", str(runs)))
            print(f"{case} {variant} {repeat + 1}/{repeats}: {samples[variant][-1]}", file=sys.stderr)
    medians = {
        variant: {key: round(statistics.median(sample[key] for sample in rows), 3) for key in rows[0]}
        for variant, rows in samples.items()
    }
    simple = medians["simple"]
    ratios = {
        variant: {
            "times_faster": round(simple["seconds"] / medians[variant]["seconds"], 2),
            "of_its_peak": round(medians[variant]["peak_mib"] / simple["peak_mib"], 3),
            "of_its_memory_beyond_weights": round(
                medians[variant]["beyond_weights_mib"] / simple["beyond_weights_mib"], 3
            ),
        }
        for variant in ("fast", "bf16")
    }
    return {"medians": medians, "against_simple": ratios}


def hardware() -> dict[str, object]:
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": len(names),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=CASES, help="views x height x width")
    parser.add_argument("--repeats", type=int, default=3, help="processes a variant and case")
    parser.add_argument("--runs", type=int, default=2, help="timed runs in a process; the best counts")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--measure", nargs=2, metavar=("VARIANT", "CASE"), help=argparse.SUPPRESS)
    parser.add_argument("--difference", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(*args.measure, args.runs)))
        return
    if args.difference:
        print(json.dumps(difference(args.difference)))
        return
    report = {
        "command": "python " + " ".join(["benchmarks/network_speed.py", *sys.argv[1:]]),
        "hardware": hardware(),
        "largest_relative_difference": {case: in_a_process("--difference", case) for case in args.cases},
        "cases": {case: compare(case, args.repeats, args.runs) for case in args.cases},
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
