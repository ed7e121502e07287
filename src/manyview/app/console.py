"""What the command line shows: progress, the closing summary, errors. Everything for people goes to stderr."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from manyview.errors import ManyviewError
from manyview.images import Progress as ProgressCallback
from manyview.scene import Scene


@contextmanager
def progress_bars(*, quiet: bool = False) -> Iterator[ProgressCallback]:
    """A callback (done, total, what) that keeps one bar for each kind of work: how far, how fast, how long yet."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        RateColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def report(done: int, total: int | None, what: str) -> None:
            kind = what.split(":")[0]
            if kind not in tasks:
                tasks[kind] = bars.add_task(escape(kind), total=total, rate="")
            speed = bars.tasks[tasks[kind]].speed
            bars.update(tasks[kind], completed=done, total=total, rate=f"{speed:.1f}/s" if speed else "")

        yield report


class RateColumn(TextColumn):
    """Finished steps a second."""


def summary(scene: Scene, files: Sequence[Path], seconds: float) -> dict[str, Any]:
    """The figures of a finished reconstruction, ready for JSON."""
    found = [view for view in scene.views if view.camera is not None]
    focals = [view.camera.K[0, 0] for view in found if view.camera is not None]
    return {
        "views": len(scene.views),
        "used": sum(view.status == "used" for view in scene.views),
        "cameras_found": len(found),
        "skipped": [{"name": name, "reason": reason} for name, reason in scene.skipped],
        "not_used": [
            {"name": view.name, "status": view.status, "reason": view.status_reason}
            for view in scene.views
            if view.status != "used"
        ],
        "focal_pixels": round(float(np.median(focals)), 1) if focals else None,
        "points": int(sum(view.valid.sum() for view in scene.views if view.status == "used")),
        "seconds": round(seconds, 2),
        "seconds_by_part": scene.provenance.seconds,
        "units": scene.units,
        "model": scene.provenance.model,
        "weights_sha256": scene.provenance.weights_sha256,
        "weights_licence": scene.provenance.weights_licence,
        "warnings": list(scene.warnings),
        "changes": list(scene.provenance.changes),
        "files": [str(path) for path in files],
    }


def show_summary(figures: dict[str, Any]) -> None:
    """The summary as a table, with everything that was left out or changed."""
    console = Console(stderr=True)
    table = Table(show_header=False, box=None, padding=(0, 2))
    focal = figures["focal_pixels"]
    rows = {
        "views": f"{figures['used']} of {figures['views']} used, {figures['cameras_found']} cameras found",
        "focal length": f"{focal} pixels of the originals (median)" if focal else "none",
        "points": f"{figures['points']:,} in {figures['units']}",
        "time": f"{figures['seconds']:.1f} s "
        + escape("(" + ", ".join(f"{part} {t:.1f}" for part, t in figures["seconds_by_part"].items()) + ")"),
        "model": f"{figures['model']} ({figures['weights_sha256'][:12]}; weights: {figures['weights_licence']})",
    }
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/bold]", escape(value) if name != "time" else value)
    console.print(table)
    for entry in figures["skipped"]:
        text = f"[yellow]skipped[/yellow] {escape(entry['name'])}: {escape(entry['reason'])}"
        console.print(text, highlight=False, soft_wrap=True)
    show_few(console, "view", [f"{v['name']}: {v['status']}, {v['reason']}" for v in figures["not_used"]])
    show_few(console, "warning", figures["warnings"])
    show_few(console, "changed", figures["changes"], most=2)
    show_files(figures["files"])


def show_few(console: Console, kind: str, lines: Sequence[str], most: int = 6) -> None:
    for line in lines[:most]:
        console.print(f"[yellow]{kind}[/yellow] {escape(line)}", highlight=False, soft_wrap=True)
    if len(lines) > most:
        console.print(f"[yellow]{kind}[/yellow] ... and {len(lines) - most} more (all in scene.json)")


def show_files(files: Sequence[str | Path], most: int = 4) -> None:
    """Paths of what was written; folders with many files in one line."""
    console = Console(stderr=True)
    groups: dict[Path, list[Path]] = {}
    for file in map(Path, files):
        groups.setdefault(file.parent, []).append(file)
    for folder, members in groups.items():
        if len(members) > most:
            console.print(f"[green]wrote[/green] {len(members)} files in {escape(str(folder))}/", soft_wrap=True)
        else:
            for member in members:
                console.print(f"[green]wrote[/green] {escape(str(member))}", soft_wrap=True)


def print_json(figures: Any) -> None:
    """Machine-readable output, alone on stdout."""
    Console(soft_wrap=True).out(json.dumps(figures, indent=1), highlight=False)


def show_error(error: ManyviewError) -> None:
    """One line and a hint; with --verbose the traceback, too."""
    console = Console(stderr=True)
    message = Exception.__str__(error)
    console.print(f"[bold red]error[/bold red] {escape(message)}", soft_wrap=True, highlight=False)
    if error.hint:
        console.print(f"[bold]hint[/bold]  {escape(error.hint)}", soft_wrap=True, highlight=False)
    if logging.getLogger("manyview").isEnabledFor(logging.DEBUG):
        console.print_exception()


def show_demo(figures: dict[str, float | None], files: Sequence[Path], seconds: float) -> None:
    """The demonstration's errors against the exact truth, what was written, and what to do next."""
    console = Console(stderr=True)
    console.print("\nA made-up world that the model has never seen, from its photos alone; errors against the truth:")
    table = Table(show_header=False, box=None, padding=(0, 2))
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), "none" if value is None else f"{value:.3g}")
    console.print(table)
    console.print(f"[bold]{seconds:.1f} s[/bold] in all, loading included")
    show_files(files)
    folder = files[0].parent.parent if files else Path()
    picture = next((file for file in files if file.name == "picture.png"), None)
    console.print(f"\nLook at the picture:      {escape(str(picture))}", soft_wrap=True, highlight=False)
    console.print(f"Turn it in the browser:   manyview view {escape(str(folder))}", soft_wrap=True, highlight=False)
    console.print("Your own photos or video: manyview reconstruct PHOTOS -o out", highlight=False)
