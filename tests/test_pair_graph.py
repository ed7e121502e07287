"""How photos hang together: parts, weak spots, and where a new photo would help."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from manyview.errors import InputError
from manyview.geometry import Camera, intrinsics
from manyview.refine.pair_graph import PairGraph, pair_graph


def chain(count: int, strength: float = 0.6) -> np.ndarray:
    """Each photo sees the same as the next one."""
    return strength * np.eye(count, k=1)


def names(count: int) -> list[str]:
    return [f"p{index}" for index in range(count)]


def looking_at(angle: float, radius: float = 5.0) -> Camera:
    """On a circle about the vertical, looking at its centre; degrees."""
    turn = np.radians(angle)
    forward = np.array([-np.sin(turn), 0.0, -np.cos(turn)])
    down = np.array([0.0, 1.0, 0.0])
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([np.cross(down, forward), down, forward], axis=1)
    matrix[:3, 3] = -radius * forward
    return Camera(K=intrinsics(500.0, (319.5, 239.5)), world_from_camera=matrix, width=640, height=480)


def kinds(graph: PairGraph) -> list[list[str]]:
    return [[finding.kind for finding in photo.findings] for photo in graph.photos]


def test_a_well_linked_set_has_nothing_to_remark() -> None:
    graph = pair_graph(names(4), np.full((4, 4), 0.6))
    assert kinds(graph) == [[]] * 4
    assert graph.components == ((0, 1, 2, 3),)
    assert graph.worth_adding == () == graph.findings
    assert len(graph.links) == 6


def test_the_middle_of_a_chain_holds_its_ends() -> None:
    graph = pair_graph(names(5), chain(5))
    assert [photo.holds for photo in graph.photos] == [(), ("p0",), ("p3", "p4"), ("p4",), ()]
    assert [(new.first, new.second) for new in graph.worth_adding] == [("p1", "p3"), ("p0", "p2"), ("p2", "p4")]


def test_a_ring_holds_together_whichever_photo_is_lost() -> None:
    matrix = chain(5)
    matrix[0, 4] = 0.5
    assert kinds(pair_graph(names(5), matrix)) == [[]] * 5


def test_parts_without_a_link_are_named_and_the_nearest_gap_is_proposed() -> None:
    matrix = np.zeros((6, 6))
    matrix[:3, :3] = matrix[3:, 3:] = 0.7
    graph = pair_graph(names(6), matrix)
    assert graph.components == ((0, 1, 2), (3, 4, 5))
    assert [finding.kind for finding in graph.findings] == ["separate_parts"]
    assert [(new.first, new.second) for new in graph.worth_adding] == [("p2", "p3")]
    assert "nothing links" in graph.worth_adding[0].reason


def test_the_strongest_of_the_missing_links_is_proposed() -> None:
    matrix = np.zeros((6, 6))
    matrix[:3, :3] = matrix[3:, 3:] = 0.7
    matrix[0, 5] = 0.08
    assert [(new.first, new.second) for new in pair_graph(names(6), matrix).worth_adding] == [("p0", "p5")]


def test_a_photo_that_shares_nothing_is_said_so() -> None:
    matrix = np.full((4, 4), 0.6)
    matrix[3] = matrix[:, 3] = 0.02
    graph = pair_graph(names(4), matrix)
    assert kinds(graph) == [[], [], [], ["unlinked"]]
    assert (graph.photos[3].links, graph.photos[3].strongest) == (0, None)


@pytest.mark.parametrize(("measure", "weak"), [("overlap", 0.2), ("matches", 50)])
def test_a_weak_link_is_worth_a_photo_between(measure: str, weak: float) -> None:
    matrix = np.full((4, 4), 8 * weak / 2)
    matrix[3] = matrix[:, 3] = weak
    graph = pair_graph(names(4), np.minimum(matrix, 1) if measure == "overlap" else matrix, measure)  # type: ignore[arg-type]
    assert kinds(graph) == [[], [], [], ["weakly_linked"]]
    assert [{new.first, new.second} & {"p3"} for new in graph.worth_adding] == [{"p3"}]


def test_gaps_between_viewing_directions_are_found() -> None:
    cameras = [looking_at(angle) for angle in (0, 15, 30, 80, 95)]
    graph = pair_graph(names(5), np.full((5, 5), 0.6), cameras=cameras)
    assert [(new.first, new.second) for new in graph.worth_adding] == [("p2", "p3")]
    assert "50 degrees" in graph.worth_adding[0].reason


def test_cameras_side_by_side_have_no_gap() -> None:
    cameras = []
    for index in range(4):
        matrix = np.eye(4)
        matrix[0, 3] = 10.0 * index
        cameras.append(Camera(K=intrinsics(500, (319.5, 239.5)), world_from_camera=matrix, width=640, height=480))
    assert pair_graph(names(4), np.full((4, 4), 0.6), cameras=cameras).worth_adding == ()


def test_the_map_is_seen_from_above_with_the_first_camera_looking_up() -> None:
    graph = pair_graph(names(3), np.full((3, 3), 0.6), cameras=[looking_at(0), looking_at(90), None])
    assert graph.positions is not None
    (x, y), second, unknown = graph.positions
    assert unknown is None and second is not None
    # It stands below the circle's centre (y is down); at 90 degrees it is at the world's +x: to the left of one who
    # looks along -z.
    assert (x, y) == pytest.approx((0, 5), abs=1e-9)
    assert second == pytest.approx((-5, 0), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(arrays(np.float64, (6, 6), elements=st.sampled_from([0.0, 0.0, 0.05, 0.2, 0.5])), st.permutations(range(6)))
def test_parts_and_held_photos_do_not_depend_on_the_order(matrix: np.ndarray, order: list[int]) -> None:
    symmetric = np.maximum(matrix, matrix.T)
    graph = pair_graph(names(6), symmetric)
    turned = pair_graph([names(6)[index] for index in order], symmetric[np.ix_(order, order)])
    holds = {photo.name: len(photo.holds) for photo in graph.photos}
    assert {photo.name: len(photo.holds) for photo in turned.photos} == holds
    assert sorted(map(len, turned.components)) == sorted(map(len, graph.components))
    # Where the set is in parts, there is a wish for each missing link at least.
    assert len(graph.worth_adding) >= len(graph.components) - 1


@settings(max_examples=40, deadline=None)
@given(arrays(np.float64, (6, 6), elements=st.sampled_from([0.0, 0.05, 0.2, 0.5])))
def test_photos_that_hold_others_are_those_whose_loss_splits_a_part(matrix: np.ndarray) -> None:
    graph = pair_graph(names(6), matrix)
    for index, photo in enumerate(graph.photos):
        rest = [i for i in range(6) if i != index]
        without = pair_graph([f"p{i}" for i in rest], matrix[np.ix_(rest, rest)])
        alone = photo.links == 0
        splits = len(without.components) > len(graph.components) - alone
        assert bool(photo.holds) == splits


def test_one_photo_is_a_graph() -> None:
    graph = pair_graph(["a"], np.ones((1, 1)), cameras=[looking_at(0)])
    assert kinds(graph) == [[]]
    assert graph.components == ((0,),)


def test_the_graph_is_json() -> None:
    graph = pair_graph(names(3), chain(3), cameras=[looking_at(0), None, looking_at(90)])
    assert json.loads(json.dumps(asdict(graph), allow_nan=False))["components"] == [[0, 1, 2]]


@pytest.mark.parametrize(
    "strengths", [np.zeros((2, 3)), np.zeros((2, 2)), np.full((3, 3), -1.0), np.full((3, 3), np.nan)]
)
def test_wrong_strengths_are_errors(strengths: np.ndarray) -> None:
    with pytest.raises(InputError):
        pair_graph(names(3), strengths)


def test_other_wrong_arguments_are_errors() -> None:
    with pytest.raises(InputError, match="cameras"):
        pair_graph(names(3), chain(3), cameras=[None])
    with pytest.raises(InputError, match="measure"):
        pair_graph(names(3), chain(3), "likeness")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least one"):
        pair_graph([], np.zeros((0, 0)))
