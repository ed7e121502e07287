"""Put the measured figures of `benchmarks/results/` into README, model card and docs, between their markers.

python benchmarks/tables.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pair_inference
import pairs_accuracy
import refinement
from model_card import tables as card_tables

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
CARD = ROOT / "src/manyview/networks/checkpoints/packaged/manyview-small.md"


def main() -> None:
    speed = json.loads((RESULTS / "network_speed.json").read_text())
    insert(ROOT / "README.md", "speed", speed_section(speed))
    card = json.loads((RESULTS / "model_card.json").read_text())
    insert(CARD, "tables", card_tables(card))
    for name, tables in (
        ("pair_inference", pair_inference.tables),
        ("alignment", alignment_section),
        ("pairs_accuracy", pairs_accuracy.tables),
    ):
        insert(ROOT / "docs" / "dust3r.md", name, tables(json.loads((RESULTS / f"{name}.json").read_text())))
    refined = json.loads((RESULTS / "refinement.json").read_text())
    insert(ROOT / "docs" / "refinement.md", "refinement", refinement.tables(refined))


def insert(path: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- name -->` and `<!-- /name -->`."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    content = path.read_text()
    if not pattern.search(content):
        raise SystemExit(f"{path} has no markers <!-- {name} --> and <!-- /{name} -->")
    path.write_text(pattern.sub(lambda match: f"{match[1]}{text.strip()}\n{match[2]}", content))


ALIGNMENT_HEAD = """\
Both modes on the same pairs with noise; in each cell fast / compatible. Errors are after a similarity that fits the
camera centres; memory is the peak in bytes an edge and pixel, 32 bytes of input included (published: 186). Single
scenes scatter both ways where the objectives are equal. With few small pictures memory is mostly a constant of 7 to
9 MiB.

| pictures | seconds | faster | objective of compatible's | centres (of spread) | rotation | depth | focal | memory |
|---|---|---:|---:|---|---|---|---|---|
"""


def alignment_section(report: dict) -> str:
    """The default alignment against the published one: time, objective, errors, memory."""
    facts = report["hardware"]
    rows = [alignment_row(case, result) for case, result in report["cases"].items()]
    how = (
        f"{facts['processor']}, {facts['threads']} thread, {facts['instructions']}, torch {facts['torch']}, "
        f"Python {facts['python']}, on a shared machine; `{report['command']}`."
    )
    return "\n".join([ALIGNMENT_HEAD + rows[0], *rows[1:], "", how])


def alignment_row(case: str, result: dict) -> str:
    fast, slow = result["medians"]["fast"], result["medians"]["compatible"]
    name = f"{result['views']} of {result['width']}x{result['height']}{' (reference ga6)' if case == 'ga6' else ''}"
    centres, depth, focal = (
        f"{100 * fast[key]:.2g} / {100 * slow[key]:.2g} %"
        for key in ("relative_centre_error", "depth_error", "focal_error")
    )
    cells = [
        name,
        f"{fast['seconds']:.2f} / {result['compatible_seconds_at_300_iterations']:.1f}",
        f"{result['times_faster']:.0f} x",
        f"{result['objective_against_compatible']:.4f}",
        centres,
        f"{fast['rotation_error']:.2f} / {slow['rotation_error']:.2f}°",
        depth,
        focal,
        f"{fast['bytes_an_edge_and_pixel']:.0f} / {slow['bytes_an_edge_and_pixel']:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def speed_section(report: dict) -> str:
    """The speed table with hardware, versions and command."""
    hardware = report["hardware"]
    lines = [
        "The released configuration (648 M parameters) with random weights, against the simple float32 path (naive",
        "attention, everything kept, `manyview.networks.reference`); processes that took turns.",
        "",
        "| views | simple | ours, float32 | ours, bfloat16 | float32 peak memory | bfloat16 peak memory |",
        "|---|---|---|---|---|---|",
    ]
    for case, result in report["cases"].items():
        views, height, width = case.split("x")
        medians, ratios = result["medians"], result["against_simple"]
        lines.append(
            f"| {views} at {width}x{height} | {medians['simple']['seconds']:.1f} s "
            f"| {medians['fast']['seconds']:.1f} s ({ratios['fast']['times_faster']:.1f} x faster) "
            f"| {medians['bf16']['seconds']:.1f} s ({ratios['bf16']['times_faster']:.1f} x faster) "
            f"| {ratios['fast']['of_its_peak']:.0%} of the simple path's "
            f"({ratios['fast']['of_its_memory_beyond_weights']:.0%} beyond the weights) "
            f"| {ratios['bf16']['of_its_peak']:.0%} |"
        )
    worst = max(report["largest_relative_difference"].values())
    lines += [
        "",
        f"Float32 results differ by at most {worst:.0e} of the largest value. The weights alone take 2.6 GB, so the",
        "peak can hardly fall with few views. "
        f"{hardware['processor']}, {hardware['cores']} cores, {hardware['instructions']}, "
        f"torch {hardware['torch']}, Python {hardware['python']}; `{report['command']}`.",
        f"{report.get('note', '')[:1].upper()}{report.get('note', '')[1:]}.",
        "No figure has been measured on a GPU yet.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
