"""What a run writes down about itself: log.jsonl, and TensorBoard where it is installed."""

from __future__ import annotations

import importlib.util
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manyview.errors import InputError

if TYPE_CHECKING:
    import numpy as np

EXTRA = "extra manyview[train]"
LOG_FILE, TENSORBOARD_FOLDER = "log.jsonl", "tensorboard"
Line = Mapping[str, Any]
Report = Callable[[Line], None]


@dataclass
class Meter:
    """Running sums between two lines of the log."""

    sums: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    scenes: int = 0
    since: float = field(default_factory=time.monotonic)

    def add(self, values: Mapping[str, float], scenes: int) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.steps += 1
        self.scenes += scenes

    def means(self) -> dict[str, float]:
        return {name: value / self.steps for name, value in self.sums.items()}

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.since


class Journal:
    """Writes lines of numbers and pictures.

    Args:
        folder: of the run.
        step: the run goes on from here; lines of later steps, from before a kill, are dropped.
        tensorboard: True wants it, False does not, None takes it where it is installed.
        report: called with every line.

    Raises:
        InputError: TensorBoard is wanted and not installed.
    """

    def __init__(
        self, folder: Path, *, step: int = 0, tensorboard: bool | None = False, report: Report | None = None
    ) -> None:
        self.folder = folder
        self.report = report
        self.writer = _writer(folder, step) if use_tensorboard(tensorboard) else None
        keep_lines(folder, step)
        if tensorboard is None and self.writer is None:
            self.write({"step": step, "note": f"TensorBoard is not installed ({EXTRA}); all goes to {LOG_FILE} alone"})

    def write(self, line: Line, group: str = "training") -> None:
        """One line, with "step" in it; numbers to five digits, None for what is not finite."""
        rounded = {name: _rounded(value) for name, value in line.items()}
        with (self.folder / LOG_FILE).open("a") as file:
            file.write(json.dumps(rounded) + "\n")
        if self.writer is not None:
            for name, value in line.items():
                if name != "step" and isinstance(value, (int, float)):
                    self.writer.add_scalar(f"{group}/{name}", value, line["step"])
        if self.report is not None:
            self.report(rounded)

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """A picture (H, W, 3) uint8 for TensorBoard."""
        if self.writer is not None:
            self.writer.add_image(name, pixels, step, dataformats="HWC")

    @property
    def wants_pictures(self) -> bool:
        return self.writer is not None

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def use_tensorboard(wanted: bool | None) -> bool:
    """Whether to write for TensorBoard: if it is wanted, or nobody minds and it is installed."""
    installed = importlib.util.find_spec("tensorboard") is not None
    if wanted and not installed:
        raise InputError("TensorBoard is not installed", hint=f"Install the {EXTRA}.")
    return installed and wanted is not False


def _writer(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=step + 1)


def keep_lines(folder: Path, step: int) -> None:
    """Drop the lines of steps after `step`, and a last line that a kill cut short."""
    path = folder / LOG_FILE
    if not path.exists():
        return
    kept = [json.dumps(line) + "\n" for line in read_log(folder) if line["step"] <= step]
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text("".join(kept))
    temporary.replace(path)


def read_log(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run's log, without a last one that was cut short."""
    for text in (folder / LOG_FILE).read_text().splitlines(keepends=True):
        if text.endswith("\n"):
            yield json.loads(text)


def _rounded(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.5g}") if math.isfinite(value) else None
