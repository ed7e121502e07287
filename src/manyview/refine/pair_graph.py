"""The graph of photos that see the same: its parts, its weak spots, and where a new photo would help most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from manyview.errors import InputError
from manyview.geometry import Camera
from manyview.refine.matching import connected
from manyview.refine.photo_report import Finding

Strength = Literal["overlap", "matches"]

# The least strength at which photos count as linked, and the one from which a link is solid. 30 verified matches are
# what COLMAP asks for to place a photo, 100 what it asks of the pair it starts from. Of 360 pairs of made-up photos
# (SIFT, epipolar check), half of those with an overlap of 0.1 to 0.2 had 30 matches; from 0.3 on more than half had 60,
# from 0.4 on the median was 100. Unrelated pairs had up to 30, too: fewer prove nothing.
THRESHOLDS: dict[Strength, tuple[float, float]] = {"overlap": (0.1, 0.3), "matches": (30.0, 100.0)}

WIDE_ANGLE = 30.0  # degrees between views; feature matching finds fewer than half of its matches beyond about that
PARALLEL = 0.05  # smallest to largest eigenvalue: axes that are this parallel do not meet at any certain place


@dataclass(frozen=True, kw_only=True)
class Link:
    """Two photos (indices, first < second) that see the same, and how much."""

    first: int
    second: int
    strength: float


@dataclass(frozen=True, kw_only=True)
class LinkedPhoto:
    """One photo in the graph.

    Attributes:
        component: 0 for the largest connected part.
        links: with how many others it is linked.
        strongest, strongest_with: its best link; None without a link.
        holds: names of the photos that would be cut off from the largest part without it.
        findings: what to know and to do.
    """

    name: str
    component: int
    links: int
    strongest: float | None
    strongest_with: str | None
    holds: tuple[str, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class NewPhoto:
    """A photo worth taking: between which two, and why."""

    first: str
    second: str
    strength: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class PairGraph:
    """Which photos are linked, and where more are worth taking; ready for JSON.

    Attributes:
        measure: what strengths are: shares of a photo that the other sees, too, or counts of verified matches.
        linked_from, solid_from: strengths from which photos are linked, and solidly so.
        photos: in the given order.
        links: all, strongest first.
        components: indices of the photos of each connected part, the largest first.
        worth_adding: the most helpful first.
        positions: (x, y) of each photo seen from above, the first camera looking up; None where no camera is known.
        findings: what concerns the set.
    """

    measure: Strength
    linked_from: float
    solid_from: float
    photos: tuple[LinkedPhoto, ...]
    links: tuple[Link, ...]
    components: tuple[tuple[int, ...], ...]
    worth_adding: tuple[NewPhoto, ...]
    positions: tuple[tuple[float, float] | None, ...] | None
    findings: tuple[Finding, ...]


def pair_graph(
    names: Sequence[str],
    strengths: np.ndarray,
    measure: Strength = "overlap",
    *,
    cameras: Sequence[Camera | None] | None = None,
) -> PairGraph:
    """Judge how well photos hang together.

    Args:
        names: of N photos, in the order in which they were taken as far as that is known.
        strengths: (N, N), not negative; of the two directions the larger counts, so that one triangle is enough. The
            diagonal is not used.
        measure: what the strengths are; sets from where on photos count as linked.
        cameras: of the photos in one world, for gaps between viewing directions and a map.

    Raises:
        InputError: shapes disagree, or a strength is negative or not finite.
    """
    matrix = _checked(names, strengths, measure, cameras)
    linked_from, solid_from = THRESHOLDS[measure]
    adjacency = matrix >= linked_from
    components = _components(adjacency)
    holds = _holds(adjacency, components)
    first, second = np.nonzero(np.triu(adjacency, 1))
    order = np.argsort(-matrix[first, second], kind="stable")
    pairs = list(zip(first[order].tolist(), second[order].tolist(), strict=True))
    angles = _view_angles(cameras) if cameras is not None else None
    return PairGraph(
        measure=measure,
        linked_from=linked_from,
        solid_from=solid_from,
        photos=tuple(_linked_photo(index, names, matrix, measure, components, holds) for index in range(len(names))),
        links=tuple(Link(first=i, second=j, strength=float(matrix[i, j])) for i, j in pairs),
        components=components,
        worth_adding=tuple(_worth_adding(names, matrix, measure, angles, holds)),
        positions=None if cameras is None else _from_above(cameras),
        findings=tuple(_separate(names, components)),
    )


def _checked(
    names: Sequence[str], strengths: np.ndarray, measure: Strength, cameras: Sequence[Camera | None] | None
) -> np.ndarray:
    """(N, N) float64, symmetric, with a diagonal of 0."""
    matrix = np.array(strengths, dtype=np.float64)
    count = len(names)
    if not count:
        raise InputError("a graph needs at least one photo")
    if matrix.shape != (count, count):
        raise InputError(f"expected strengths ({count}, {count}) for {count} photos, got {matrix.shape}")
    if cameras is not None and len(cameras) != count:
        raise InputError(f"got {len(cameras)} cameras for {count} photos", hint="Give None where one is not known.")
    if measure not in THRESHOLDS:
        raise InputError(f"the measure is {measure!r}", hint=f"Give one of {', '.join(THRESHOLDS)}.")
    np.fill_diagonal(matrix, 0)
    if not (np.isfinite(matrix).all() and (matrix >= 0).all()):
        raise InputError("strengths are not negative and finite", hint="Give 0 for pairs that were not looked at.")
    return np.maximum(matrix, matrix.T)


def _components(adjacency: np.ndarray) -> tuple[tuple[int, ...], ...]:
    edges = [(int(first), int(second)) for first, second in np.argwhere(adjacency)]
    return tuple(connected(edges, len(adjacency)))


def _holds(adjacency: np.ndarray, components: Sequence[Sequence[int]]) -> dict[int, tuple[tuple[int, ...], ...]]:
    """For each photo whose loss would split its component (articulation): the parts that remain, the largest first."""
    found = {}
    for component in components:
        part = np.asarray(component)
        for position, index in enumerate(component):
            if adjacency[index, part].sum() < 2:
                continue  # the end of a chain holds nothing
            rest = np.delete(part, position)
            parts = _components(adjacency[np.ix_(rest, rest)])
            if len(parts) > 1:
                found[index] = tuple(tuple(rest[list(members)].tolist()) for members in parts)
    return found


# ------------------------------------------------------------------ words
def _linked_photo(
    index: int,
    names: Sequence[str],
    matrix: np.ndarray,
    measure: Strength,
    components: Sequence[Sequence[int]],
    holds: dict[int, tuple[tuple[int, ...], ...]],
) -> LinkedPhoto:
    linked_from, solid_from = THRESHOLDS[measure]
    count = int((matrix[index] >= linked_from).sum())
    best = int(matrix[index].argmax())
    held = tuple(names[i] for part in holds.get(index, ())[1:] for i in part)
    findings = []
    if len(names) > 1 and count == 0:
        words = "shares nothing with any other photo. Take photos between it and the others, or leave it out."
        findings.append(Finding("unlinked", "problem", words))
    elif count and matrix[index, best] < solid_from:
        words = f"weakly linked: {in_words(matrix[index, best], measure)} with {names[best]} is its best."
        findings.append(Finding("weakly_linked", "doubt", f"{words} Take one between the two."))
    if held:
        words = f"alone holds {few(held)} to the others. Take another photo beside it."
        findings.append(Finding("holds_together", "doubt", words))
    return LinkedPhoto(
        name=names[index],
        component=next(number for number, part in enumerate(components) if index in part),
        links=count,
        strongest=float(matrix[index, best]) if count else None,
        strongest_with=names[best] if count else None,
        holds=held,
        findings=tuple(findings),
    )


def _separate(names: Sequence[str], components: Sequence[Sequence[int]]) -> list[Finding]:
    if len(components) < 2:
        return []
    parts = "; ".join(few([names[index] for index in part]) for part in components[:4])
    more = f"; and {len(components) - 4} more" if len(components) > 4 else ""
    words = f"{len(components)} parts that nothing links ({parts}{more})."
    words += " Each gets a world of its own: take photos between."
    return [Finding("separate_parts", "problem", words)]


def few(names: Sequence[str], most: int = 3) -> str:
    """Names in a row, the last ones counted where there are many."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def in_words(strength: float, measure: Strength) -> str:
    """ "12 % overlap", "40 matches"."""
    return f"{strength:.0%} overlap" if measure == "overlap" else f"{strength:.0f} matches"


# ------------------------------------------------------------------ photos worth adding
def _worth_adding(
    names: Sequence[str],
    matrix: np.ndarray,
    measure: Strength,
    angles: np.ndarray | None,
    holds: dict[int, tuple[tuple[int, ...], ...]],
) -> list[NewPhoto]:
    """Weak links that hold the set together, then second ways around single photos, then gaps between directions."""
    linked_from, solid_from = THRESHOLDS[measure]
    reasons: dict[tuple[int, int], str] = {}
    order = np.arange(len(names), dtype=np.float64)
    nearness = np.abs(order[:, None] - order) if angles is None else np.nan_to_num(angles, nan=360.0)
    tree = sorted(_spanning_tree(matrix, nearness), key=lambda pair: matrix[pair])
    for pair in tree:
        if matrix[pair] < linked_from:
            reasons[pair] = f"nothing links the parts they are in ({in_words(matrix[pair], measure)})"
        elif matrix[pair] < solid_from:
            reasons[pair] = f"the best link between the parts they are in is weak ({in_words(matrix[pair], measure)})"
    for index, parts in sorted(holds.items(), key=lambda item: -sum(map(len, item[1][1:]))):  # the most at stake first
        pair = _best_between(matrix, nearness, parts[0], [i for part in parts[1:] for i in part])
        reasons.setdefault(pair, f"only {names[index]} links the parts they are in")
    if angles is not None:
        known = np.flatnonzero(np.isfinite(angles).any(axis=1))
        between = angles[np.ix_(known, known)]
        wide = [(int(known[i]), int(known[j])) for i, j in _spanning_tree(-between, between)]
        for pair in sorted(wide, key=lambda pair: -angles[pair]):
            if angles[pair] > WIDE_ANGLE:
                reasons.setdefault(pair, f"their viewing directions are {angles[pair]:.0f} degrees apart")
    return [
        NewPhoto(first=names[i], second=names[j], strength=float(matrix[i, j]), reason=reason)
        for (i, j), reason in reasons.items()
    ]


def _spanning_tree(matrix: np.ndarray, nearness: np.ndarray) -> list[tuple[int, int]]:
    """The strongest links that connect all photos (a maximum spanning tree); of equal ones the nearest pair."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    first, second = np.triu_indices(len(matrix), 1)
    rank = np.empty(len(first))
    rank[np.lexsort((nearness[first, second], -matrix[first, second]))] = np.arange(1, len(first) + 1)
    tree = minimum_spanning_tree(coo_array((rank, (first, second)), shape=matrix.shape)).tocoo()
    return [(min(i, j), max(i, j)) for i, j in zip(tree.row.tolist(), tree.col.tolist(), strict=True)]


def _best_between(
    matrix: np.ndarray, nearness: np.ndarray, first: Sequence[int], second: Sequence[int]
) -> tuple[int, int]:
    """The strongest pair with one photo in each part; of equal ones the nearest."""
    pairs = [(i, j) for i in first for j in second]
    i, j = min(pairs, key=lambda pair: (-matrix[pair], nearness[pair], pair))
    return min(i, j), max(i, j)


# ------------------------------------------------------------------ cameras
def _view_angles(cameras: Sequence[Camera | None]) -> np.ndarray:
    """(N, N) degrees between views, nan where a camera is not known.

    The larger of the angle between the viewing axes and the one under which both are seen from the place that all look
    at, where there is one.
    """
    angles = np.full((len(cameras), len(cameras)), np.nan)
    known = [index for index, camera in enumerate(cameras) if camera is not None]
    if not known:
        return angles
    placed = np.array([camera.world_from_camera for camera in cameras if camera is not None])
    axes, centres = placed[:, :3, 2], placed[:, :3, 3]
    between = _angles(axes)
    place = _looked_at(axes, centres)
    if place is not None:
        between = np.maximum(between, _angles(centres - place))
    angles[np.ix_(known, known)] = between
    return angles


def _angles(vectors: np.ndarray) -> np.ndarray:
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return np.degrees(np.arccos(np.clip(unit @ unit.T, -1, 1)))


def _looked_at(axes: np.ndarray, centres: np.ndarray) -> np.ndarray | None:
    """The point that is nearest to all viewing axes, if they meet at all and most cameras have it in front."""
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    normal = across.sum(axis=0)
    values = np.linalg.eigvalsh(normal)
    if values[0] < PARALLEL * values[2]:
        return None
    place = np.linalg.solve(normal, np.einsum("nij,nj->i", across, centres))
    in_front = np.einsum("nj,nj->n", place - centres, axes) > 0
    return place if in_front.mean() > 0.5 else None


def _from_above(cameras: Sequence[Camera | None]) -> tuple[tuple[float, float] | None, ...]:
    """Positions on the page (x right, y down), seen against the cameras' mean up, the first camera looking up."""
    known = [camera.world_from_camera for camera in cameras if camera is not None]
    if not known:
        return (None,) * len(cameras)
    down = np.mean([matrix[:3, 1] for matrix in known], axis=0)
    if np.linalg.norm(down) < 1e-6:  # half of them upside down
        down = known[0][:3, 1]
    down = down / np.linalg.norm(down)
    # A camera that looks straight down has its own up in the plane instead.
    ahead = max((known[0][:3, 2], -known[0][:3, 1]), key=lambda axis: np.linalg.norm(axis - (axis @ down) * down))
    ahead = ahead - (ahead @ down) * down
    ahead = ahead / np.linalg.norm(ahead)
    right = np.cross(down, ahead)
    return tuple(
        None if camera is None else (float(camera.centre @ right), float(-camera.centre @ ahead)) for camera in cameras
    )
