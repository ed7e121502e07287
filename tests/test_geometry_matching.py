"""Points that are each other's nearest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview.errors import InputError
from manyview.geometry import matching, nearest_neighbours, reciprocal_matches

SEARCHES: tuple[matching.Search, ...] = ("tree", "brute")


def two_clouds(seed: int, first: int = 300, second: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(first, 3)), rng.normal(size=(second, 3))


@pytest.mark.parametrize("search", SEARCHES)
def test_the_reference_matches_are_found(shared: Path, search: matching.Search) -> None:
    with np.load(shared / "reference/dust3r/golden_reciprocal_nn.npz") as golden:
        points_a, points_b = golden["P1"], golden["P2"]
        mask, nearest, count = golden["reciprocal_in_P2"], golden["nn2_in_P1"], int(golden["num"])
    np.testing.assert_array_equal(nearest_neighbours(points_b, points_a), nearest)
    pairs = reciprocal_matches(points_a, points_b, search=search)
    assert pairs.shape == (count, 2)
    np.testing.assert_array_equal(pairs[:, 1], np.flatnonzero(mask))
    np.testing.assert_array_equal(pairs[:, 0], nearest[mask])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 60))
def test_the_tree_and_all_distances_agree(seed: int, first: int, second: int) -> None:
    points_a, points_b = two_clouds(seed, first, second)
    by_tree = reciprocal_matches(points_a, points_b, search="tree")
    by_distances = reciprocal_matches(torch.from_numpy(points_a), torch.from_numpy(points_b), search="brute")
    np.testing.assert_array_equal(by_tree, by_distances)


def test_all_distances_a_block_at_a_time_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    points_a, points_b = (torch.from_numpy(points).float() for points in two_clouds(0))
    whole = reciprocal_matches(points_a, points_b, search="brute")
    monkeypatch.setattr(matching, "DISTANCES_AT_ONCE", 7 * len(points_a))
    np.testing.assert_array_equal(reciprocal_matches(points_a, points_b, search="brute"), whole)


def test_all_distances_stay_exact_far_from_the_origin() -> None:
    points_a = (torch.arange(50.0)[:, None] * 0.01 + torch.tensor([1000.0, 0, 0])).float()
    pairs = reciprocal_matches(points_a, points_a + 0.001, search="brute")
    assert len(pairs) == 50
    np.testing.assert_array_equal(pairs[:, 0], pairs[:, 1])


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=20)
def test_matches_are_mutual_unique_and_the_same_from_the_other_side(seed: int) -> None:
    points_a, points_b = two_clouds(seed, 80, 50)
    pairs = reciprocal_matches(points_a, points_b)
    assert len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1])) == len(pairs) > 0
    distances = np.linalg.norm(points_a[:, None] - points_b, axis=-1)
    for a, b in pairs:
        assert distances[a].argmin() == b
        assert distances[:, b].argmin() == a
    swapped = reciprocal_matches(points_b, points_a)
    assert {tuple(pair) for pair in pairs} == {(a, b) for b, a in swapped}


@pytest.mark.parametrize("search", SEARCHES)
def test_points_that_are_not_finite_match_nothing(search: matching.Search) -> None:
    points, _ = two_clouds(0)
    spoilt = points.copy()
    spoilt[3], spoilt[7, 1] = np.nan, np.inf
    pairs = reciprocal_matches(spoilt, points, search=search)
    np.testing.assert_array_equal(pairs[:, 0], np.delete(np.arange(300), [3, 7]))
    np.testing.assert_array_equal(pairs[:, 0], pairs[:, 1])


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("empty", [np.zeros((0, 3)), np.full((4, 3), np.nan)], ids=["none", "nan"])
def test_without_points_there_are_no_matches(search: matching.Search, empty: np.ndarray) -> None:
    points, _ = two_clouds(0)
    for pair in ((empty, points), (points, empty), (empty, empty)):
        assert reciprocal_matches(*pair, search=search).shape == (0, 2)


def test_wrong_shapes_and_searches_are_errors_that_say_what_is_expected() -> None:
    with pytest.raises(InputError, match=r"\(P, 3\)"):
        reciprocal_matches(np.zeros((4, 5, 3)), np.zeros((4, 3)))
    with pytest.raises(InputError, match="tree"):
        reciprocal_matches(np.zeros((4, 3)), np.zeros((4, 3)), search="magic")  # type: ignore[arg-type]
