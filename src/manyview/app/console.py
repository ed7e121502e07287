"""What the command line shows: progress, the closing summary, errors. Everything for people goes to stderr."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from manyview.errors import ManyviewError
from manyview.images import Progress as ProgressCallback
from manyview.scene import ExportOptions, Scene


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
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def report(done: int, total: int | None, what: str) -> None:
            kind = what.split(":")[0]
            if kind not in tasks:
                tasks[kind] = bars.add_task(escape(kind), total=total, rate="")
            speed = bars.tasks[tasks[kind]].speed
            bars.update(tasks[kind], completed=done, total=total, rate=f"{speed:.1f}/s" if speed else "")

        yield report


class WarningLines(logging.Handler):
    """What the library logs as a warning, as lines on stderr; none twice."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        words = record.getMessage()
        if words not in self.shown:
            self.shown.add(words)
            show_few(Console(stderr=True), "warning", [words])


class RateColumn(TextColumn):
    """Finished steps a second."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The figures of a finished reconstruction; as JSON with --json.

    Attributes:
        views, used, cameras_found: counts; a camera of low confidence counts as found but not as used.
        cameras: where they are from, in words.
        skipped, not_used: what was left out, in words.
        focal_pixels: median over the cameras found, in pixels of the originals.
        points: how many are exported.
        seconds, seconds_by_part: wall time.
        files: all that were written.
    """

    views: int
    used: int
    cameras_found: int
    cameras: str
    skipped: list[str]
    not_used: list[str]
    focal_pixels: float | None
    points: int
    units: str
    seconds: float
    seconds_by_part: dict[str, float]
    model: str
    weights_sha256: str
    weights_licence: str
    warnings: list[str]
    changes: list[str]
    files: list[str]


def summarise(
    scene: Scene,
    options: ExportOptions,
    files: Sequence[Path],
    seconds: float,
    *,
    cameras: str = "the network's",
    before: Scene | None = None,
) -> Summary:
    """The figures of `scene` as it was exported with `options`; of its timings those that it had not `before`."""
    earlier = {} if before is None else before.provenance.seconds
    focals = [view.camera.K[0, 0] for view in scene.views if view.camera is not None]
    cloud = scene.point_cloud(
        percentile=options.percentile,
        min_confidence=options.min_confidence,
        include_low_confidence=options.include_low_confidence,
        max_points=options.max_points,
        seed=options.seed,
    )
    return Summary(
        views=len(scene.views),
        used=sum(view.status == "used" for view in scene.views),
        cameras_found=len(focals),
        cameras=cameras,
        skipped=[f"{name}: {reason}" for name, reason in scene.skipped],
        not_used=[f"{v.name}: {v.status}, {v.status_reason}" for v in scene.views if v.status != "used"],
        focal_pixels=round(float(np.median(focals)), 1) if focals else None,
        points=len(cloud.points),
        units=scene.units,
        seconds=round(seconds, 2),
        seconds_by_part={part: spent for part, spent in scene.provenance.seconds.items() if earlier.get(part) != spent},
        model=scene.provenance.model,
        weights_sha256=scene.provenance.weights_sha256,
        weights_licence=scene.provenance.weights_licence,
        warnings=list(scene.warnings),
        changes=list(scene.provenance.changes),
        files=[str(path) for path in files],
    )


def show_summary(figures: Summary) -> None:
    """The summary as a table, with everything that was left out or changed."""
    console = Console(stderr=True)
    table = Table(show_header=False, box=None, padding=(0, 2))
    focal = f"{figures.focal_pixels} pixels of the originals (median)" if figures.focal_pixels else "none"
    parts = ", ".join(f"{part} {seconds:.1f}" for part, seconds in figures.seconds_by_part.items())
    spent = f"{figures.seconds:.1f} s" + (f" ({parts})" if parts else "")
    for name, value in (
        ("views", f"{figures.used} of {figures.views} used, {figures.cameras_found} cameras found"),
        ("cameras", figures.cameras),
        ("focal length", focal),
        ("points", f"{figures.points:,} exported, in {figures.units}"),
        ("time", spent),
        ("model", f"{figures.model} ({figures.weights_sha256[:12]}; weights: {figures.weights_licence})"),
    ):
        table.add_row(f"[bold]{name}[/bold]", escape(value))
    console.print(table)
    show_few(console, "skipped", figures.skipped)
    show_few(console, "view", figures.not_used)
    show_few(console, "warning", figures.warnings)
    show_few(console, "changed", figures.changes[::-1], most=3)  # the last change is what was asked for last
    show_files(figures.files)
    if figures.used < figures.views:
        console.print(
            "[bold]hint[/bold]  Views that are not used are left out of the exports; --include-low-confidence keeps "
            "those with a camera.",
            soft_wrap=True,
        )


def show_lines(kind: str, lines: Sequence[str]) -> None:
    """Some lines of a kind on stderr, and how many more there are."""
    show_few(Console(stderr=True), kind, lines, most=12)


def show_few(console: Console, kind: str, lines: Sequence[str], most: int = 6) -> None:
    for line in lines[:most]:
        console.print(f"[yellow]{kind}[/yellow] {escape(line)}", highlight=False, soft_wrap=True)
    if len(lines) > most:
        console.print(f"[yellow]{kind}[/yellow] ... and {len(lines) - most} more (all are in the files)")


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
    plain = asdict(figures) if is_dataclass(figures) and not isinstance(figures, type) else figures
    Console(soft_wrap=True).out(json.dumps(plain, indent=1), highlight=False)


def show_error(error: ManyviewError) -> None:
    """One line and a hint; with --verbose the traceback, too."""
    console = Console(stderr=True)
    message = Exception.__str__(error)
    console.print(f"[bold red]error[/bold red] {escape(message)}", soft_wrap=True, highlight=False)
    if error.hint:
        console.print(f"[bold]hint[/bold]  {escape(error.hint)}", soft_wrap=True, highlight=False)
    if logging.getLogger("manyview").isEnabledFor(logging.DEBUG):
        console.print_exception()


def show_figures(figures: Mapping[str, str | int | float | None]) -> None:
    """Names and values as a table; what is empty is left out."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    for name, value in figures.items():
        if value not in (None, ""):
            table.add_row(f"[bold]{escape(name.replace('_', ' '))}[/bold]", escape(str(value)))
    Console(stderr=True).print(table)


def show_demo(figures: dict[str, float | None], files: Sequence[Path], seconds: float) -> None:
    """The demonstration's errors against the exact truth, what was written, and what to do next."""
    console = Console(stderr=True)
    console.print("\nA made-up world that the model has never seen, from its photos alone; errors against the truth:")
    table = Table(show_header=False, box=None, padding=(0, 2))
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), _with_unit(name, value))
    console.print(table)
    console.print(f"[bold]{seconds:.1f} s[/bold] in all, loading included")
    show_files(files)
    folder = files[0].parent.parent if files else Path()
    picture = next((file for file in files if file.name == "picture.png"), None)
    console.print(f"\nLook at the picture:      {escape(str(picture))}", soft_wrap=True, highlight=False)
    console.print(f"Turn it in the browser:   manyview view {escape(str(folder))}", soft_wrap=True, highlight=False)
    console.print("Your own photos or video: manyview reconstruct PHOTOS -o out", highlight=False)


def _with_unit(name: str, value: float | None) -> str:
    """Angles in degrees, everything else as a percentage."""
    if value is None:
        return "none"
    is_angle = name in ("median_rotation_error", "median_translation_direction_error")
    return f"{value:.1f} degrees" if is_angle else f"{value:.1%}"
