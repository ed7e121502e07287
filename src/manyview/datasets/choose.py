"""Which frames of a scene make a sample."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

_Item = TypeVar("_Item")


def distinct(count: int, wanted: int, generator: np.random.Generator) -> list[int]:
    """`wanted` numbers below `count` in random order, all different as long as there are enough, then repeated."""
    return filled(generator.permutation(count)[:wanted].tolist(), wanted, generator)


def filled(items: Sequence[_Item], wanted: int, generator: np.random.Generator) -> list[_Item]:
    """`items`, and as many of them again, at random, as are missing for `wanted`."""
    missing = max(wanted - len(items), 0)
    return [*items, *(items[again] for again in generator.integers(len(items), size=missing))]


def window_about(centre: int, width: int, count: int) -> tuple[int, int]:
    """First and behind-the-last place of a window about `centre`, cut at the ends of a list of `count`."""
    return max(0, centre - width // 2), min(count, centre + max(width // 2, 1))


def jittered(places: Sequence[int], by: int, count: int, generator: np.random.Generator) -> list[int]:
    """Each place moved by -`by` to `by` and kept within a list of `count`. Places may coincide."""
    moves = generator.integers(-by, by + 1, size=len(places))
    return np.clip(np.asarray(places) + moves, 0, count - 1).tolist()


def breadth_first(
    neighbours: Mapping[int, Sequence[int]], start: int, wanted: int, generator: np.random.Generator
) -> list[int]:
    """At most `wanted` nodes of a graph, breadth first from `start`, neighbours in random order."""
    found, waiting = {start: None}, deque([start])  # a dict, since a set would lose the order
    while waiting and len(found) < wanted:
        near = neighbours.get(waiting.popleft(), ())
        for node in generator.permutation(np.asarray(near, dtype=np.int64)).tolist():
            if node not in found:
                found[node] = None
                waiting.append(node)
    return list(found)[:wanted]
