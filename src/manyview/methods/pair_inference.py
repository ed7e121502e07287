"""Many pairs through a pairwise network: each picture is encoded once, whatever the number of pairs it is in.

pictures -> encoder, in batches of equal shape -> tokens (from which pairs may be chosen)
tokens   -> what each side's head makes of a picture alone, kept while pairs need it and there is room
pairs    -> decoders and heads, in batches of equal shapes -> points and confidence, on the host, a batch at a time
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from manyview.alignment.problem import PairMaps
from manyview.errors import InputError
from manyview.images import Progress
from manyview.methods.devices import Rung, climb_down, in_precision
from manyview.methods.pair_store import PairStore, Where, free_memory
from manyview.networks.dust3r import Dust3R, Grid
from manyview.networks.economy import Economy, finish_transfers
from manyview.networks.pointmaps import Pointmaps

Size = tuple[int, int]
Shape = TypeVar("Shape", bound=Hashable)
# Pixels of pictures that go through the network together. A GPU is busy with eight pairs of 512x384; on a CPU more than
# one pair of 224x224 is hardly faster, but small pictures are.
PIXELS_AT_ONCE = {"cpu": 200_000}
PIXELS_AT_ONCE_ON_GPU = 8 * 2 * 384 * 512
TOKEN_SHARE = 0.25  # of the free memory of a GPU; more tokens than that stay on the host
PREPARED_SHARE = 0.25  # of the free memory of the device, for what heads make of single pictures


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedPictures:
    """What the encoder says of N pictures.

    Attributes:
        tokens: N times (T_k, C), on the device if they fit there, else on the host.
        sizes: (height, width) of each picture.
        dtype: precision they were computed in.
        changes: what was done to fit into memory, in words.
    """

    tokens: tuple[Tensor, ...]
    sizes: tuple[Size, ...]
    dtype: torch.dtype
    changes: tuple[str, ...] = ()


@dataclass(kw_only=True, eq=False)
class PairInference:
    """What a network says of all pairs. A context manager: at its end the maps are let go, and with them their file.

    Attributes:
        pairs: points and confidence of each edge, float32, on the host. Confidence is 0 where a pixel is padding or a
            number is not finite (its point is 0 then).
        dtype: precision in which the pairs were decoded.
        changes: what was done to fit into memory, in words.
        masked_pixels: how many pixels, of all pairs, were not finite.
        is_on_disk: the maps are in a temporary file and read as they are needed.
    """

    pairs: PairMaps
    dtype: torch.dtype
    changes: tuple[str, ...]
    masked_pixels: int
    is_on_disk: bool

    def close(self) -> None:
        """Let go of the maps; a temporary file vanishes with the last of its tensors. `pairs` is gone afterwards."""
        if hasattr(self, "pairs"):
            del self.pairs

    def __enter__(self) -> PairInference:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def encode_pictures(
    network: Dust3R,
    images: Sequence[Tensor],
    *,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress | None = None,
) -> EncodedPictures:
    """Run the encoder once a picture.

    Args:
        network: on `device`.
        images: N times (1, 3, H, W) in [-1, 1]; sizes may differ.
        device: where the network is.
        dtype: precision to begin with.
        progress: called as (done, total, what).

    Raises:
        InputError: no pictures, or one of a shape that the network does not take.
        DeviceError: not even small batches in half precision fit into memory.
    """
    sizes = _checked_sizes(images, network.config.patch_size)

    def attempt(rung: Rung) -> tuple[Tensor, ...]:
        with torch.inference_mode(), in_precision(network, rung.dtype) as ready:
            keep = _place_of_tokens(ready, sizes, device, rung)
            return _encode(ready, images, device, keep, rung.economy, progress)

    tokens, rung, changes = climb_down(attempt, dtype)
    return EncodedPictures(tokens=tokens, sizes=sizes, dtype=rung.dtype, changes=changes)


def infer_pairs(
    network: Dust3R,
    images: Sequence[Tensor],
    edges: np.ndarray,
    *,
    device: torch.device,
    dtype: torch.dtype,
    valid: Sequence[np.ndarray | None] | None = None,
    store: Where = "auto",
    progress: Progress | None = None,
    encoded: EncodedPictures | None = None,
) -> PairInference:
    """Run a pairwise network along edges, with the same results as pair by pair (beyond rounding).

    Args:
        network: on `device`.
        images: N times (1, 3, H, W) in [-1, 1]; sizes may differ.
        edges: (E, 2): the network sees picture `edges[e, 0]` first. Every picture is in some edge; (i, i) shows it one
            picture twice.
        device: where the network is.
        dtype: precision to begin with; that of `encoded` if it is given.
        valid: for each picture (H, W) bool, False where it is padding; None if nothing is.
        store: where results go: "memory", "disk" (a temporary file), or "auto": on disk if they would take more than
            a quarter of the free memory.
        progress: called as (done, total, what).
        encoded: what `encode_pictures` made of these images.

    Raises:
        InputError: edges, images or masks that do not fit each other.
        DeviceError: memory or disk do not suffice.
    """
    sizes = _checked_sizes(images, network.config.patch_size)
    if encoded is not None and encoded.sizes != sizes:
        raise InputError(f"the tokens are of pictures of {list(encoded.sizes)}, but the pictures are {list(sizes)}")
    edges, masks = _checked_edges(edges, len(sizes)), _checked_masks(valid, sizes)
    if encoded is None:
        encoded = encode_pictures(network, images, device=device, dtype=dtype, progress=progress)
    with PairStore(edges, sizes, store) as kept:
        job = _Job(encoded, edges, masks, kept, device, progress)
        _, rung, changes = climb_down(lambda rung: job.run(network, rung), encoded.dtype)
        return PairInference(
            pairs=kept.maps(),
            dtype=rung.dtype,
            changes=tuple(dict.fromkeys(encoded.changes + changes)),
            masked_pixels=int(job.masked.sum()),
            is_on_disk=kept.is_on_disk,
        )


class _Job:
    """The pairs that are to be decoded, and those that are done, so that a smaller batch size goes on from there."""

    def __init__(
        self,
        encoded: EncodedPictures,
        edges: np.ndarray,
        masks: Sequence[Tensor | None],
        store: PairStore,
        device: torch.device,
        progress: Progress | None,
    ) -> None:
        self.encoded, self.edges, self.masks = encoded, edges, masks
        self.store, self.device, self.progress = store, device, progress
        self.done = np.zeros(len(edges), dtype=bool)
        self.masked = np.zeros(len(edges), dtype=np.int64)
        self.dtype = encoded.dtype

    def run(self, network: Dust3R, rung: Rung) -> None:
        """Decode what is not done; all of it if the precision is another than before."""
        if rung.dtype != self.dtype:
            self.done[:] = False
            self.dtype = rung.dtype
        with torch.inference_mode(), in_precision(network, rung.dtype) as ready:
            prepared = PreparedPictures(ready, self._room_for_prepared(rung))
            for rows in self._batches(rung.economy):
                self._keep(rows, self._decode(ready, rows, rung, prepared))
                _report(self.progress, int(self.done.sum()), len(self.edges), "pairs")

    def _room_for_prepared(self, rung: Rung) -> int:
        """Bytes; none once memory has run out."""
        if rung.words != "normal":
            return 0
        if self.device.type == "cuda":
            return int(PREPARED_SHARE * torch.cuda.mem_get_info(self.device)[0])
        spoken_for = 0 if self.store.is_on_disk else self.store.bytes  # the system counts it once it is written to
        return max(0, int(PREPARED_SHARE * (free_memory() - spoken_for)))

    def _batches(self, economy: Economy) -> Iterator[list[int]]:
        """Rows of pairs that are not done, of equal shapes each."""
        sizes, rows = self.encoded.sizes, np.flatnonzero(~self.done).tolist()
        share = economy.head_images / Economy().head_images
        shapes = [(sizes[first], sizes[second]) for first, second in self.edges[rows].tolist()]
        for batch in _batches(shapes, lambda shape: _at_once(shape, self.device, share)):
            yield [rows[index] for index in batch]

    def _decode(self, network: Dust3R, rows: Sequence[int], rung: Rung, prepared: PreparedPictures) -> Pointmaps:
        """Of pairs of one shape, on the host."""
        sides = self.edges[rows].T.tolist()
        patch = network.config.patch_size
        grids = [(height // patch, width // patch) for height, width in (self.encoded.sizes[side[0]] for side in sides)]
        tokens = [
            torch.stack([self.encoded.tokens[view] for view in side]).to(device=self.device, dtype=rung.dtype)
            for side in sides
        ]
        first, second = (prepared.of(side, sides[side], tokens[side], grids[side]) for side in (0, 1))
        result = network.decode(tokens[0], tokens[1], grids[0], grids[1], rung.economy, (first, second))
        finish_transfers(rung.economy)
        return result

    def _keep(self, rows: Sequence[int], result: Pointmaps) -> None:
        """Into the store, without numbers that are not finite, and without padding."""
        for index, row in enumerate(rows):
            sides = [
                _clean(points[index], confidence[index], self.masks[view])
                for points, confidence, view in zip(result.points, result.confidence, self.edges[row], strict=True)
            ]
            self.store.write(row, (sides[0][0], sides[1][0]), (sides[0][1], sides[1][1]))
            self.masked[row] = sides[0][2] + sides[1][2]
            self.done[row] = True


class PreparedPictures:
    """What each side's head makes of a picture alone, once for all pairs that have the picture on this side.

    The first ones that there is room for are kept, to the end; what comes later is made anew for every batch. So memory
    grows with the pictures only, up to the room, and a graph too large for it costs no more than keeping nothing.

    Args:
        network: in the precision of the tokens.
        room: bytes that may be kept; with 0 nothing is prepared.
    """

    def __init__(self, network: Dust3R, room: int) -> None:
        self.network, self.room = network, room
        self.kept: dict[tuple[int, int], Tensor] = {}  # of a side and a picture

    def of(self, side: int, views: Sequence[int], tokens: Tensor, grid: Grid) -> Tensor | None:
        """Of B pictures of one grid on one side, tokens (B, T, C): `prepared` of `Dust3R.decode`."""
        if not (self.room or self.kept):
            return None
        own = dict(zip(views, tokens.split(1), strict=True))  # a picture may be in several pairs of a batch
        made = {view: self._of_one(side, view, alone, grid) for view, alone in own.items()}
        maps = [one for one in (made[view] for view in views) if one is not None]
        return torch.cat(maps) if maps else None

    def _of_one(self, side: int, view: int, tokens: Tensor, grid: Grid) -> Tensor | None:
        if (side, view) in self.kept:
            return self.kept[side, view]
        made = self.network.prepare(tokens, grid, side=side)
        if made is not None and made.nbytes <= self.room:
            self.kept[side, view] = made
            self.room -= made.nbytes
        return made


def _encode(
    network: Dust3R,
    images: Sequence[Tensor],
    device: torch.device,
    keep: torch.device,
    economy: Economy,
    progress: Progress | None,
) -> tuple[Tensor, ...]:
    """(T_k, C) for each picture, on `keep`."""
    tokens: dict[int, Tensor] = {}
    share = economy.encoder_images / Economy().encoder_images
    shapes = [(image.shape[-2], image.shape[-1]) for image in images]
    for rows in _batches(shapes, lambda shape: _at_once((shape,), device, share)):
        batch = network.encode(torch.cat([images[row] for row in rows]).to(device)).to(keep)
        tokens.update(zip(rows, batch.unbind(0), strict=True))
        _report(progress, len(tokens), len(images), "encoding pictures")
    return tuple(tokens[row] for row in range(len(images)))


def _batches(shapes: Sequence[Shape], most: Callable[[Shape], int]) -> Iterator[list[int]]:
    """Indices of equal shapes together, at most `most(shape)` of them."""
    groups: dict[Shape, list[int]] = {}
    for index, shape in enumerate(shapes):
        groups.setdefault(shape, []).append(index)
    for shape, indices in groups.items():
        step = most(shape)
        yield from (indices[start : start + step] for start in range(0, len(indices), step))


def _at_once(sizes: Sequence[Size], device: torch.device, share: float) -> int:
    """How many times pictures of these sizes go through the network together."""
    budget = PIXELS_AT_ONCE.get(device.type, PIXELS_AT_ONCE_ON_GPU) * share
    return max(1, int(budget) // sum(height * width for height, width in sizes))


def _place_of_tokens(network: Dust3R, sizes: Sequence[Size], device: torch.device, rung: Rung) -> torch.device:
    """The device while there is plenty of memory, else the host."""
    if device.type != "cuda":
        return device
    patch = network.config.patch_size
    count = sum((height // patch) * (width // patch) for height, width in sizes)
    size = count * network.config.encoder_dim * rung.dtype.itemsize
    fits = rung.words == "normal" and size <= TOKEN_SHARE * torch.cuda.mem_get_info(device)[0]
    return device if fits else torch.device("cpu")


def _clean(points: Tensor, confidence: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, int]:
    """Points (H, W, 3), confidence (H, W), and how many pixels that are no padding were not finite."""
    finite = torch.isfinite(points.sum(-1)) & torch.isfinite(confidence)
    used = finite if mask is None else finite & mask
    masked = (finite.numel() if mask is None else int(mask.sum())) - int(used.sum())
    if bool(used.all()):
        return points, confidence, masked
    return torch.where(finite[..., None], points, 0.0), torch.where(used, confidence, 0.0), masked


def _report(progress: Progress | None, done: int, total: int, what: str) -> None:
    if progress is not None:
        progress(done, total, what)


# ------------------------------------------------------------------ checks
def _checked_sizes(images: Sequence[Tensor], patch: int) -> tuple[Size, ...]:
    if not images:
        raise InputError("got no pictures; expected at least one")
    for view, image in enumerate(images):
        if image.ndim != 4 or image.shape[:2] != (1, 3) or any(side % patch or not side for side in image.shape[2:]):
            raise InputError(
                f"picture {view} is {tuple(image.shape)}; expected (1, 3, H, W), with H and W multiples of {patch}"
            )
    return tuple((image.shape[-2], image.shape[-1]) for image in images)


def _checked_edges(edges: np.ndarray, views: int) -> np.ndarray:
    edges = np.asarray(edges, dtype=np.int64)
    if edges.ndim != 2 or edges.shape[1] != 2 or not len(edges):
        raise InputError(f"got edges of shape {edges.shape}; expected (E, 2) with at least one edge")
    if edges.min() < 0 or edges.max() >= views:
        raise InputError(f"an edge names picture {int(edges.max())} or {int(edges.min())}; there are {views} (from 0)")
    if alone := sorted(set(range(views)) - set(edges.reshape(-1).tolist())):
        raise InputError(f"pictures {alone} of {views} are in no edge", hint="Join each with another one.")
    return edges


def _checked_masks(valid: Sequence[np.ndarray | None] | None, sizes: Sequence[Size]) -> list[Tensor | None]:
    if valid is None:
        return [None] * len(sizes)
    shapes = [None if mask is None else np.shape(mask) for mask in valid]
    if len(valid) != len(sizes) or any(s is not None and s != size for s, size in zip(shapes, sizes, strict=True)):
        raise InputError(f"got masks of shapes {shapes} for pictures of {list(sizes)}")
    return [None if mask is None or mask.all() else torch.from_numpy(np.asarray(mask, dtype=bool)) for mask in valid]
