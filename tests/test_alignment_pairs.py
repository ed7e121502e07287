"""Pair graphs: the published pairs, and what no graph may do."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview.alignment.groups import groups
from manyview.alignment.pairs import filter_pairs, make_pairs, prefilter_mask
from manyview.alignment.problem import PairMaps
from manyview.errors import InputError

GRAPHS = ("complete", "swin", "swin-2", "swin-5-noncyclic", "logwin", "logwin-4", "logwin-3-noncyclic", "oneref")


@pytest.fixture(scope="module")
def golden(shared) -> dict:
    return json.loads((shared / "reference/dust3r/golden_pairs_n7.json").read_text())


def as_set(edges) -> set[tuple[int, int]]:
    return {(int(i), int(j)) for i, j in edges}


def test_every_published_graph_has_the_published_pairs(golden):
    assert len(golden["graphs"]) > 20
    for text, expected in golden["graphs"].items():
        graph, _, prefilter = text.partition("|")
        for key, symmetric in (("sym", True), ("nosym", False)):
            made = make_pairs(
                golden["n"], graph, prefilter=prefilter or None, symmetric=symmetric, self_pairs=True
            ).tolist()
            assert as_set(made) == as_set(expected[key]), (text, key)
            if graph.startswith(("complete", "oneref")):
                assert made == expected[key], (text, key)


def test_nobody_runs_a_picture_against_itself_unless_asked(golden):
    published = as_set(golden["graphs"]["swin-7"]["sym"])
    assert (2, 2) in published
    made = make_pairs(7, "swin-7")
    assert as_set(made) == {pair for pair in published if pair[0] != pair[1]}
    assert len(made) == len(as_set(made))


@settings(deadline=None)
@given(st.integers(1, 12), st.sampled_from(GRAPHS), st.booleans())
def test_pairs_are_distinct_valid_and_mirrored(views, graph, symmetric):
    edges = make_pairs(views, graph, symmetric=symmetric)
    assert edges.dtype == np.int64
    assert edges.shape[1:] == (2,)
    assert len(as_set(edges)) == len(edges)
    assert all(0 <= i < views and 0 <= j < views and i != j for i, j in edges.tolist())
    if symmetric:
        half = len(edges) // 2
        assert (edges[half:] == edges[:half, ::-1]).all()
    if views > 1:
        assert len(groups(edges, views)) == 1


def test_one_and_two_pictures():
    assert make_pairs(1).shape == (0, 2)
    assert make_pairs(1, "swin-3").shape == (0, 2)
    assert make_pairs(1, prefilter="cyc2").shape == (0, 2)
    for graph in ("complete", "swin", "logwin", "oneref", "swin-9"):
        assert as_set(make_pairs(2, graph)) == {(0, 1), (1, 0)}


UNKNOWN = ["", "all", "complete-2", "swin-x", "swin-2-cyclic", "swin-2-3", "oneref--1", "swin-0", "logwin-1.5"]


@pytest.mark.parametrize("graph", UNKNOWN)
def test_an_unknown_graph_is_an_error_that_lists_the_known_ones(graph):
    with pytest.raises(InputError, match=r"complete, swin\[-WINDOW\]"):
        make_pairs(5, graph)


def test_other_bad_options_are_errors():
    with pytest.raises(InputError, match="there are 3"):
        make_pairs(3, "oneref-3")
    with pytest.raises(InputError, match="seqK and cycK"):
        make_pairs(3, prefilter="near2")
    with pytest.raises(InputError, match="at least one"):
        make_pairs(0)


def test_a_loop_is_closed_for_cyc_alone():
    edges = make_pairs(6)
    assert as_set(edges[prefilter_mask(edges, "cyc1")]) - as_set(edges[prefilter_mask(edges, "seq1")]) == {
        (0, 5),
        (5, 0),
    }


def test_computed_pairs_are_filtered_with_their_maps():
    edges = make_pairs(4)
    maps = [torch.full((2, 3, 3), float(row)) for row in range(len(edges))]
    ones = torch.ones(2, 3)
    pairs = PairMaps.checked(edges, [(given, given) for given in maps], [(ones, ones)] * len(edges))
    kept = filter_pairs(pairs, "seq1")
    assert as_set(kept.edges) == as_set(make_pairs(4, prefilter="seq1"))
    for edge, (points, _) in zip(kept.edges.tolist(), kept.points, strict=True):
        assert edges[int(points[0, 0, 0])].tolist() == edge
    with pytest.raises(InputError, match="leaves pictures"):
        filter_pairs(pairs, "seq0")


def test_groups_are_the_connected_parts_largest_first():
    assert groups([(5, 1), (0, 2), (2, 3)], 6) == ((0, 2, 3), (1, 5), (4,))
    assert groups(np.zeros((0, 2)), 2) == ((0,), (1,))
    assert groups([], 0) == ()


@settings(deadline=None)
@given(st.integers(1, 9), st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=12))
def test_groups_part_the_pictures(views, candidates):
    edges = [(i % views, j % views) for i, j in candidates]
    parts = groups(edges, views)
    assert sorted(view for part in parts for view in part) == list(range(views))
    assert [len(part) for part in parts] == sorted((len(part) for part in parts), reverse=True)
    assert all(any(i in part and j in part for part in parts) for i, j in edges)
