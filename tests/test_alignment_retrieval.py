"""Pairs by what pictures look like: partners are found, the graph holds together, order and size do not matter."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from manyview.alignment.pairs import make_pairs
from manyview.alignment.retrieval import NEIGHBOURS, pairs_by_similarity, similarity
from manyview.errors import InputError
from manyview.networks.checkpoints.find import find_network
from manyview.worlds import WorldSettings, overlap, render_worlds


def places(seed: int, views: int, tokens: int = 40, channels: int = 24) -> list[torch.Tensor]:
    """Tokens of pictures along a line of things: neighbours share half of what they show, those two apart nothing."""
    generator = torch.Generator().manual_seed(seed)
    things = torch.randn((views + 1) * tokens // 2, channels, generator=generator)
    return [
        things[view * tokens // 2 :][:tokens] + 0.1 * torch.randn(tokens, channels, generator=generator)
        for view in range(views)
    ]


def random_similarity(seed: int, views: int) -> np.ndarray:
    values = np.random.default_rng(seed).random((views, views))
    return (values + values.T) / 2


def is_connected(edges: np.ndarray, views: int) -> bool:
    graph = np.zeros((views, views))
    graph[tuple(edges.T)] = 1
    return connected_components(graph, directed=False)[0] == 1


# ---------------------------------------------------------------- similarity
def test_pictures_that_show_the_same_things_are_the_most_similar():
    shared = similarity(places(0, 12))
    neighbours = np.abs(np.subtract.outer(np.arange(12), np.arange(12))) == 1
    others = ~neighbours & ~np.eye(12, dtype=bool)
    assert shared[neighbours].min() > 2 * shared[others].max()


def test_similarity_is_symmetric_bounded_and_the_same_every_time():
    tokens = places(1, 9)
    shared = similarity(tokens)
    np.testing.assert_array_equal(shared, shared.T)
    np.testing.assert_array_equal(np.diag(shared), 1)
    assert shared.min() >= 0
    assert shared.max() <= 1
    np.testing.assert_array_equal(shared, similarity(tokens))


def test_each_picture_gives_one_vote():
    """Of two pictures each gives its only vote to the other."""
    np.testing.assert_allclose(similarity(places(2, 2)), np.ones((2, 2)), rtol=1e-6)
    np.testing.assert_array_equal(similarity(places(2, 1)), [[1.0]])


def test_the_order_of_the_pictures_does_not_matter():
    tokens, order = places(3, 10), np.random.default_rng(0).permutation(10)
    np.testing.assert_allclose(
        similarity([tokens[view] for view in order]), similarity(tokens)[np.ix_(order, order)], atol=1e-5
    )


def test_what_all_pictures_have_in_common_does_not_count():
    tokens = places(4, 10)
    np.testing.assert_allclose(similarity([picture + 30.0 for picture in tokens]), similarity(tokens), atol=1e-4)


def test_pictures_of_other_sizes_and_precision_are_compared_too():
    tokens = places(5, 8)
    mixed = [picture[: 24 + 2 * view].to(torch.bfloat16) for view, picture in enumerate(tokens)]
    shared = similarity(mixed)
    partners = np.argmax(shared - np.eye(8), axis=1)
    np.testing.assert_array_equal(np.abs(partners - np.arange(8)), 1)


def test_a_picture_without_finite_tokens_does_not_spoil_the_others():
    tokens = places(6, 8)
    tokens[3] = torch.full_like(tokens[3], torch.nan)
    shared = similarity(tokens)
    assert np.isfinite(shared).all()
    assert np.argmax(shared[6] - np.eye(8)[6]) in (5, 7)


def test_tokens_that_do_not_fit_are_refused():
    for wrong in ([], [torch.zeros(4, 8), torch.zeros(4, 9)], [torch.zeros(0, 8)], [torch.zeros(1, 4, 8)]):
        with pytest.raises(InputError, match="tokens of shapes"):
            similarity(wrong)


def test_overlapping_views_of_a_world_are_found_by_the_packaged_encoder():
    """Far more often than by chance: of five best partners at least half are among the five most similar."""
    network, _ = find_network("manyview-small")
    world = render_worlds([910_300], 20, (64, 80), WorldSettings(paths=("photographs",), spread=1.5))
    with torch.inference_mode():
        tokens = list(network.encoder(world.images[0] * 2 - 1))
    seen = overlap(world)[0].numpy()
    truth = np.minimum(seen, seen.T) - 2 * np.eye(20)
    best, found = (np.argsort(-values, axis=1)[:, :5] for values in (truth, similarity(tokens) - 2 * np.eye(20)))
    recall = np.mean([np.isin(partners, chosen).mean() for partners, chosen in zip(best, found, strict=True)])
    assert recall > 0.5, f"by chance it would be {5 / 19:.2f}"


def test_two_hundred_pictures_are_compared_within_seconds():
    generator = torch.Generator().manual_seed(0)
    tokens = [torch.randn(64, 96, generator=generator) for _ in range(200)]
    start = time.perf_counter()
    edges = pairs_by_similarity(similarity(tokens), symmetric=True)
    assert time.perf_counter() - start < 20
    assert len(edges) < 39_800 / 10


# ---------------------------------------------------------------- pairs
@settings(max_examples=60, deadline=None)
@given(st.integers(2, 30), st.integers(1, 12), st.integers(0, 1000), st.booleans())
def test_the_graph_is_connected_sorted_and_has_each_pictures_best_partners(views, neighbours, seed, sequence):
    values = random_similarity(seed, views)
    edges = pairs_by_similarity(values, neighbours=neighbours, sequence=sequence)
    assert edges.dtype == np.int64
    assert (edges[:, 0] < edges[:, 1]).all()
    assert is_connected(edges, views)
    chosen = set(map(tuple, edges.tolist()))
    assert list(map(tuple, edges.tolist())) == sorted(chosen)
    for view in range(views):
        order = [other for other in np.argsort(-values[view]).tolist() if other != view][:neighbours]
        assert all((min(view, other), max(view, other)) in chosen for other in order)
    assert len(edges) <= views * neighbours + (views - 1) * (1 + sequence)
    if sequence:
        assert all((view, view + 1) in chosen for view in range(views - 1))


def test_two_groups_that_prefer_themselves_are_joined_by_their_best_link():
    values = np.full((12, 12), 0.1)
    values[:6, :6] = values[6:, 6:] = 0.9
    values[4, 9] = values[9, 4] = 0.2
    edges = pairs_by_similarity(values, neighbours=2)
    across = [edge for edge in edges.tolist() if (edge[0] < 6) != (edge[1] < 6)]
    assert across == [[4, 9]]


def test_few_pictures_get_all_pairs_and_one_gets_none():
    for views in range(1, NEIGHBOURS + 1):
        edges = pairs_by_similarity(random_similarity(0, views), symmetric=True)
        assert set(map(tuple, edges.tolist())) == set(map(tuple, make_pairs(views, "complete").tolist()))
    assert pairs_by_similarity(np.ones((1, 1)), sequence=True).shape == (0, 2)


def test_the_other_direction_is_appended_on_request():
    values = random_similarity(1, 15)
    single, both = pairs_by_similarity(values), pairs_by_similarity(values, symmetric=True)
    np.testing.assert_array_equal(both, np.concatenate([single, single[:, ::-1]]))


def test_equal_similarities_give_the_same_connected_graph_every_time():
    edges = pairs_by_similarity(np.ones((20, 20)), neighbours=1)
    assert is_connected(edges, 20)
    np.testing.assert_array_equal(edges, pairs_by_similarity(np.ones((20, 20)), neighbours=1))


def test_no_similarity_and_no_neighbours_are_refused():
    for wrong in (np.zeros((3, 4)), np.zeros(3), np.zeros((0, 0)), np.full((3, 3), np.nan)):
        with pytest.raises(InputError, match="similarity"):
            pairs_by_similarity(wrong)
    with pytest.raises(InputError, match="0 neighbours"):
        pairs_by_similarity(np.ones((3, 3)), neighbours=0)
