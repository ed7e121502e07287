"""Where the pointmaps of pairs live: in memory, or in one temporary file from which they are read as they are needed.

All maps are float32 in one long row, a pair after another: points of its first picture, points of the second,
confidence of the first, confidence of the second.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

import numpy as np
import torch
from torch import Tensor

from manyview.alignment.problem import Maps, PairMaps
from manyview.errors import DeviceError

Where = Literal["memory", "disk", "auto"]
MEMORY_SHARE = 0.25  # of the free memory: "auto" puts more than this on disk; aligning pairs needs memory, too
ASSUMED_FREE_MEMORY = 4 * 2**30  # bytes, on systems that do not say how much there is
FLOATS = 4  # a pixel: x, y, z, confidence
FEWER_PAIRS = "Use fewer pairs (--pairs) or smaller pictures (--image-size)"


class PairStore:
    """Room for the pointmaps of E pairs, written once and then read as `PairMaps`.

    A file on disk has no name where the system allows that, and else one that goes with its last handle: it vanishes
    with the last tensor that is read from it, or with the process, however that ends.

    Args:
        edges: (E, 2), indices of pictures.
        sizes: (height, width) of each picture.
        where: "memory", "disk", or "auto": on disk if more than a quarter of the free memory would be taken.
        folder: for the file; the system's place for large temporary files by default (`TMPDIR` says another).

    Raises:
        DeviceError: neither memory nor disk suffices.
    """

    def __init__(
        self,
        edges: np.ndarray,
        sizes: Sequence[tuple[int, int]],
        where: Where = "auto",
        *,
        folder: str | Path | None = None,
    ) -> None:
        self.edges = edges
        self.sizes = tuple(sizes)
        areas = np.array([height * width for height, width in sizes], dtype=np.int64)
        self._areas = areas[edges]
        self._starts = np.concatenate([[0], np.cumsum(FLOATS * self._areas.sum(1))])
        self.is_on_disk = where == "disk" or (where == "auto" and self.bytes > MEMORY_SHARE * free_memory())
        self._file: IO[bytes] | None = None
        self._memory: Tensor | None = None
        if self.is_on_disk:
            self._file = _temporary_file(self.bytes, folder)
        else:
            self._memory = _room(int(self._starts[-1]))

    @property
    def bytes(self) -> int:
        """Of all maps together."""
        return int(self._starts[-1]) * 4

    def write(self, row: int, points: Maps, confidence: Maps) -> None:
        """Keep the maps of one edge: (H_i, W_i, 3) and (H_j, W_j, 3), (H_i, W_i) and (H_j, W_j).

        Raises:
            DeviceError: the disk is full.
        """
        maps = (*points, *confidence)
        if self._memory is not None:
            for room, given in zip(self._cut(self._memory, row), maps, strict=True):
                room.copy_(given)
            return
        assert self._file is not None, "the store is closed"
        with _disk_is_needed(self.bytes):
            self._file.seek(4 * int(self._starts[row]))
            for given in maps:
                self._file.write(given.to(device="cpu", dtype=torch.float32).contiguous().numpy().data)

    def maps(self) -> PairMaps:
        """What was written. Tensors of a file are read when they are touched; writing to them does not change it.

        Raises:
            DeviceError: the disk is full.
        """
        kept = self._memory if self._memory is not None else self._mapped()
        parts = [self._cut(kept, row) for row in range(len(self.edges))]
        return PairMaps(
            edges=self.edges,
            points=[(first, second) for first, second, _, _ in parts],
            confidence=[(first, second) for _, _, first, second in parts],
            sizes=self.sizes,
        )

    def close(self) -> None:
        """Let go of memory or file; tensors that were read stay valid as long as somebody holds them."""
        if self._file is not None:
            self._file.close()
        self._file = self._memory = None

    def __enter__(self) -> PairStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _cut(self, kept: Tensor, row: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four maps of an edge, as views."""
        first, second = self._areas[row].tolist()
        lengths = [3 * first, 3 * second, first, second]
        parts = kept[int(self._starts[row]) : int(self._starts[row + 1])].split(lengths)
        shapes = [self.sizes[view] for view in self.edges[row].tolist()]
        points = [part.view(*shape, 3) for part, shape in zip(parts[:2], shapes, strict=True)]
        confidence = [part.view(*shape) for part, shape in zip(parts[2:], shapes, strict=True)]
        return points[0], points[1], confidence[0], confidence[1]

    def _mapped(self) -> Tensor:
        assert self._file is not None, "the store is closed"
        with _disk_is_needed(self.bytes):
            self._file.flush()
        # Copy on write: PyTorch wants arrays that it may write to.
        return torch.from_numpy(np.memmap(self._file, dtype=np.float32, mode="c", shape=(int(self._starts[-1]),)))


def free_memory() -> int:
    """Bytes that can be taken without swapping, within the limit of the container if there is one."""
    group = Path("/sys/fs/cgroup")
    limit, used = _number(group / "memory.max"), _number(group / "memory.current")
    if limit is None or used is None:
        return _available_memory()
    return min(_available_memory(), max(0, limit - used + _droppable(group / "memory.stat")))


def _available_memory() -> int:
    try:
        with Path("/proc/meminfo").open() as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return ASSUMED_FREE_MEMORY


def _droppable(path: Path) -> int:
    """Bytes that a container uses for files that it has read, and can let go of."""
    try:
        fields = dict(line.split() for line in path.read_text().splitlines())
        return int(fields.get("inactive_file", 0))
    except (OSError, ValueError):
        return 0


def _number(path: Path) -> int | None:
    """The number in a file; None where there is no file or no number ("max")."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _room(floats: int) -> Tensor:
    try:
        return torch.empty(floats)
    except RuntimeError as error:  # PyTorch's allocator has no type of its own for this
        raise DeviceError(
            f"the pointmaps of all pairs take {_gib(4 * floats)}, more than there is memory", hint=f"{FEWER_PAIRS}."
        ) from error


def _temporary_file(size: int, folder: str | Path | None) -> IO[bytes]:
    place = _temporary_folder() if folder is None else Path(folder)
    with _disk_is_needed(size):
        free = shutil.disk_usage(place).free
        if free < size:
            raise _disk_error(size, f"{place} has {_gib(free)} left")
        file = tempfile.TemporaryFile(dir=place, prefix="manyview-pairs-")  # noqa: SIM115 (the store closes it)
        file.truncate(size)  # so that it can be mapped; takes no room yet
        return file


def _temporary_folder() -> Path:
    """What the user says, or where large files belong: /tmp is often memory itself."""
    large = Path("/var/tmp")
    if "TMPDIR" not in os.environ and large.is_dir() and os.access(large, os.W_OK | os.X_OK):
        return large
    return Path(tempfile.gettempdir())


@contextmanager
def _disk_is_needed(size: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _disk_error(size, str(error)) from error


def _disk_error(size: int, reason: str) -> DeviceError:
    return DeviceError(
        f"the pointmaps of all pairs take {_gib(size)} on disk: {reason}",
        hint=f"{FEWER_PAIRS}, or set TMPDIR to a folder on a larger disk.",
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
