"""The progress of a run on the screen: how far, how fast, how long yet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from manyview.training.loop import Tick


@contextmanager
def training_progress(
    *, quiet: bool = False
) -> Iterator[tuple[Callable[[Tick], None], Callable[[Mapping[str, Any]], None]]]:
    """What to give to `train` as `progress` and `report`: a bar on a terminal, lines elsewhere; all on stderr.

    Args:
        quiet: show nothing.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("training"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("training", total=None, facts="")

        def tick(now: Tick) -> None:
            facts = f"{now.scenes_per_second:.1f} scenes/s  loss {now.loss:.3f}"
            bar.update(task, completed=now.step, total=now.steps, facts=facts)

        def line(figures: Mapping[str, Any]) -> None:
            if not quiet:
                console.print(escape(in_words(figures)), highlight=False, soft_wrap=True)

        yield tick, line


def print_line(figures: Mapping[str, Any]) -> None:
    """A line of the log as JSON, alone on a line of stdout."""
    Console(soft_wrap=True).out(json.dumps(dict(figures)), highlight=False)


def in_words(figures: Mapping[str, Any]) -> str:
    """A line of the log for people."""
    if "loss" not in figures:
        rest = ", ".join(f"{name} {value}" for name, value in figures.items() if name != "step")
        return f"step {figures['step']}: {rest}"
    return (
        f"step {figures['step']}: loss {figures['loss']:.3f}, points of other views off by "
        f"{figures['other_views_global_error']:.3f}, {figures['scenes_per_second']:.1f} scenes/s, "
        f"{figures['hours_left']:.2f} h left"
    )
