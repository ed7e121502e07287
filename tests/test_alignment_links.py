"""Which pairs show one place: judged by what is seen second, in both directions, whatever else is certain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview.alignment.links import SURE_SHARE, link_quality
from manyview.alignment.pairs import make_pairs
from manyview.alignment.problem import PairMaps

SIZES = ((6, 8), (8, 6), (4, 4))


def pairs_of(edges, seed: int = 0, sizes=SIZES) -> PairMaps:
    """Random points and confidence."""
    generator = np.random.default_rng(seed)
    points = [[generator.normal(size=(*sizes[view], 3)) for view in edge] for edge in edges]
    confidence = [[1 + generator.exponential(size=sizes[view]) for view in edge] for edge in edges]
    return PairMaps.checked(edges, points, confidence, views=len(sizes))


def with_confidence(pairs: PairMaps, side: int, change) -> PairMaps:
    """The confidence of one side of every pair changed."""
    changed = [
        tuple(change(given) if number == side else given for number, given in enumerate(both))
        for both in pairs.confidence
    ]
    return replace(pairs, confidence=changed)


def high(confidence: torch.Tensor) -> float:
    """The value that the share of pixels does not exceed."""
    values = sorted(confidence.reshape(-1).tolist())
    return values[max(1, round(SURE_SHARE * len(values))) - 1]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_both_directions_have_the_lower_of_their_qualities(seed):
    pairs = pairs_of(make_pairs(3, "complete"), seed)
    quality = link_quality(pairs)
    own = [high(second) for _, second in pairs.confidence]
    row_of = {tuple(edge): row for row, edge in enumerate(pairs.edges.tolist())}
    for row, (first, second) in enumerate(pairs.edges.tolist()):
        other = row_of[second, first]
        assert quality[row] == quality[other]
        assert quality[row] == min(own[row], own[other])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), certain=st.floats(1, 1e6))
def test_how_sure_the_network_is_of_first_pictures_does_not_matter(seed, certain):
    pairs = pairs_of(make_pairs(3, "complete"), seed)
    sure = with_confidence(pairs, 0, lambda given: torch.full_like(given, certain))
    np.testing.assert_array_equal(link_quality(pairs), link_quality(sure))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), factor=st.floats(1, 100))
def test_more_confidence_in_second_pictures_never_lowers_it(seed, factor):
    pairs = pairs_of(make_pairs(3, "complete"), seed)
    surer = with_confidence(pairs, 1, lambda given: given * factor)
    np.testing.assert_allclose(link_quality(surer), factor * link_quality(pairs), rtol=1e-5)


def test_the_order_of_pixels_and_pairs_does_not_matter():
    pairs = pairs_of(make_pairs(3, "complete"))
    order = np.random.default_rng(0).permutation(len(pairs.edges))
    shuffled = pairs.rows(order.tolist())
    np.testing.assert_array_equal(link_quality(shuffled), link_quality(pairs)[order])
    turned = with_confidence(pairs, 1, lambda given: given.flip(0, 1))
    np.testing.assert_array_equal(link_quality(turned), link_quality(pairs))


def test_a_pair_in_one_direction_is_judged_by_that_one():
    pairs = pairs_of([(0, 1), (2, 1)])
    both = pairs_of([(0, 1), (2, 1), (1, 2)])
    np.testing.assert_array_equal(link_quality(pairs), [high(second) for _, second in pairs.confidence])
    assert link_quality(both)[1] == link_quality(both)[2]


def test_one_sure_direction_does_not_make_a_link():
    pairs = pairs_of([(0, 1), (1, 0)], sizes=SIZES[:2])
    confidence = [
        (first, torch.full_like(second, 50.0 if row == 0 else 1.0))
        for row, (first, second) in enumerate(pairs.confidence)
    ]
    np.testing.assert_array_equal(link_quality(replace(pairs, confidence=confidence)), [1, 1])


@pytest.mark.parametrize(("sure", "is_high"), [(0.0, False), (0.03, False), (0.1, True), (1.0, True)])
def test_a_twentieth_of_sure_pixels_makes_a_link(sure, is_high):
    count = 20 * 20
    values = torch.ones(count)
    values[: round(sure * count)] = 9.0
    pairs = PairMaps(
        edges=np.array([[0, 1]]),
        points=[(torch.zeros(20, 20, 3), torch.zeros(20, 20, 3))],
        confidence=[(torch.ones(20, 20), values.view(20, 20))],
        sizes=((20, 20), (20, 20)),
    )
    assert link_quality(pairs).tolist() == [9.0 if is_high else 1.0]


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 3)])
def test_tiny_pictures_are_judged(size):
    pairs = pairs_of(make_pairs(2, "complete"), sizes=(size, size))
    quality = link_quality(pairs)
    assert quality.shape == (2,)
    assert (quality >= 1).all()


def test_a_picture_paired_with_itself_is_judged():
    pairs = pairs_of([(0, 1)], sizes=((4, 4), (4, 4)))
    alone = replace(pairs, edges=np.array([[0, 0]]), sizes=((4, 4),))
    np.testing.assert_array_equal(link_quality(alone), link_quality(pairs))


def test_padding_says_nothing():
    pairs = pairs_of([(0, 1)], sizes=((8, 8), (8, 8)))

    def padded(given: torch.Tensor) -> torch.Tensor:
        return torch.cat([given, torch.zeros_like(given)])  # confidence 0: pixels that must not be used

    larger = replace(with_confidence(pairs, 1, padded), sizes=((8, 8), (16, 8)))
    np.testing.assert_array_equal(link_quality(larger), link_quality(pairs))
    nothing = with_confidence(pairs, 1, torch.zeros_like)
    assert link_quality(nothing).tolist() == [0.0]
