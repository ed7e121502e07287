"""What a user says of scale and orientation on the command line."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from manyview.errors import InputError
from manyview.refine.world_wish import WorldWish, fulfilled, view_named
from scenes import synthetic_scene

FIRST = synthetic_scene().views[0].name


def carried_out(wish: WorldWish):
    scene = synthetic_scene()
    return fulfilled(scene, wish.wishes(scene), {}, strict=True)


def test_a_baseline_makes_metres() -> None:
    scene = synthetic_scene()
    first, second = (view.name for view in scene.views[:2])
    moved = carried_out(WorldWish(baseline=f"{first} '{second}' 2.5"))
    centres = moved.world_from_camera[:2, :3, 3]
    assert moved.metric and np.linalg.norm(centres[0] - centres[1]) == pytest.approx(2.5)


def test_an_upright_world_with_metres_is_both() -> None:
    scene = synthetic_scene()
    first, second = (view.name for view in scene.views[:2])
    moved = carried_out(WorldWish(baseline=f"{first} {second} 2", up="0,-1,0.1"))
    assert moved.metric and moved.world == "gravity up"
    assert len(moved.provenance.changes) == len(scene.provenance.changes) + 2


def test_nothing_known_changes_nothing() -> None:
    assert WorldWish().is_empty and not WorldWish(camera_height=1.6).is_empty


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (WorldWish(baseline="a b"), "has 2 words, expected 3"),
        (WorldWish(baseline="a 'b 1"), "quotation"),
        (WorldWish(baseline="a b far"), "'far' is no number"),
        (WorldWish(distance="a 1 2 b 3 4"), "has 6 words, expected 7"),
        (WorldWish(up="left"), "got left as the direction up"),
        (WorldWish(up="0,nan,1"), "direction up"),
        (WorldWish(up="1,2"), "direction up"),
        (WorldWish(up="0,0,0"), "direction up"),
        (WorldWish(baseline="nobody b 1"), "0 photos of the scene are named nobody"),
        (WorldWish(baseline=f"{FIRST} {FIRST} 1"), "names one photo twice"),
        (WorldWish(baseline=f"{FIRST} {FIRST} 0"), "--baseline: got 0 metres"),
        (WorldWish(camera_height=-1.6), "--camera-height: got -1.6 metres"),
        (WorldWish(distance=f"{FIRST} 1 1 {FIRST} 9999 1 2"), "outside"),
        (WorldWish(distance=f"{FIRST} 1 1 {FIRST} 1 1 2"), "names one point twice"),
        (WorldWish(gps=True), "0 photos have a GPS position"),
        (WorldWish(baseline="a b 1", camera_height=1.6), "two ways to the scale"),
        (WorldWish(gps=True, up="ground"), "two ways"),
        (WorldWish(gps=True, camera_height=1.6), "two ways"),
    ],
)
def test_what_cannot_be_meant_is_said_before_the_scene_is_worked_on(wish: WorldWish, words: str) -> None:
    with pytest.raises(InputError, match=words):
        wish.wishes(synthetic_scene())


def test_what_cannot_be_found_later_is_an_error_or_a_warning_and_the_rest_is_done() -> None:
    scene = synthetic_scene()
    wishes = WorldWish(distance=f"{FIRST} 5 5 {FIRST} 10 5 2", up="0,-1,0.1").wishes(scene)
    blind = replace(scene, views=tuple(replace(v, valid=np.zeros_like(v.valid)) for v in scene.views))
    with pytest.raises(InputError, match="no depth"):
        fulfilled(blind, wishes, {}, strict=True)
    found = fulfilled(blind, wishes, {}, strict=False)
    assert found.world == "gravity up" and not found.metric
    assert [told for told in found.warnings if told not in scene.warnings] == [
        f"--distance has had no effect: {FIRST} has no depth at (5, 5)"
    ]


def test_photos_are_found_by_name_with_or_without_ending() -> None:
    scene = synthetic_scene()
    name = scene.views[1].name
    assert view_named(scene, name) == 1
    assert view_named(scene, name.rpartition(".")[0]) == 1
