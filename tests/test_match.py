"""Matches of two photos and their picture, with a network that knows the truth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from exact_pairs import ExactPairs, Photo, photos
from manyview.app.match_picture import MARGIN, match_picture, position_colours, save_match_picture
from manyview.errors import ExportError, InputError
from manyview.geometry import invert_rigid
from manyview.methods.match import Matches, PairPredictor, match_pictures


@pytest.fixture
def world() -> tuple[Photo, ...]:
    return photos()


@pytest.fixture
def network(world: tuple[Photo, ...]) -> ExactPairs:
    return ExactPairs([photo.halved() for photo in world])


class Lopsided:
    """Doubts the pair in which the first picture comes first, so that the other direction leads."""

    patch_size, image_size, least_confidence = 16, 128, 2.0

    def __init__(self, network: ExactPairs) -> None:
        self.network = network

    def predict_pairs(self, pictures, edges):
        maps = self.network.predict_pairs(pictures, edges)
        confidence = [tuple(side * (0.5 if edge[0] == 0 else 1.0) for side in pair) for edge, pair in
                      zip(maps.edges.tolist(), maps.confidence, strict=True)]  # fmt: skip
        return replace(maps, confidence=confidence)


def turned_by(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.degrees(Rotation.from_matrix(first[:3, :3] @ second[:3, :3].T).magnitude()))


def match_errors(matches: Matches, first: Photo, second: Photo) -> np.ndarray:
    """Pixels of the second original between a match and where the first pixel's true point is seen."""
    x, y = np.rint(matches.first_pixels).astype(int).T
    seen, _ = second.camera.project(first.world_points[y, x])
    return np.linalg.norm(seen - matches.second_pixels, axis=-1)


def check(matches: Matches, first: Photo, second: Photo, degrees: float) -> None:
    truth = first.camera.camera_from_world @ second.camera.world_from_camera
    assert len(matches) > 1000
    errors = match_errors(matches, first, second)
    assert np.nanmedian(errors) < 2.0  # the network's pixels are two of the original's wide
    assert np.mean(errors < 4) > 0.95
    assert matches.status == "found"
    assert matches.relative is not None
    assert turned_by(matches.relative.first_from_second, truth) < degrees
    way, true_way = matches.relative.first_from_second[:3, 3], truth[:3, 3]
    cosine = way @ true_way / np.linalg.norm(way) / np.linalg.norm(true_way)
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))) < 3 * degrees


@pytest.mark.parametrize("lopsided", [False, True])
@pytest.mark.parametrize("cameras", ["pnp", "similarity"])
def test_matches_and_the_relative_camera_are_right_whichever_direction_is_the_surer(
    world, network, lopsided: bool, cameras: Literal["pnp", "similarity"]
) -> None:
    predictor: PairPredictor = Lopsided(network) if lopsided else network
    K = world[0].camera.K, world[1].camera.K
    matches = match_pictures(predictor, world[0].pixels, world[1].pixels, K=K, cameras=cameras)
    check(matches, world[0], world[1], degrees=0.05)
    np.testing.assert_array_equal(network.calls[0], [(0, 1), (1, 0)])
    assert matches.confidence.min() >= 2
    assert (matches.focals[0], matches.focals[1]) == (K[0][0, 0], K[1][0, 0])


def test_without_known_cameras_focal_lengths_are_estimated(world, network) -> None:
    matches = match_pictures(network, world[0].pixels, world[1].pixels)
    # The worlds' principal points are off the middle, which is not known here.
    truth = world[0].camera.camera_from_world @ world[1].camera.world_from_camera
    assert matches.relative is not None
    assert turned_by(matches.relative.first_from_second, truth) < 3
    for focal, photo in zip(matches.focals, world[:2], strict=True):
        assert focal == pytest.approx(photo.camera.K[0, 0], rel=0.03)
    assert matches.K[0][0, 2] == (256 - 1) / 2


def test_swapping_the_photos_swaps_the_matches_and_turns_the_camera_round(world, network) -> None:
    K = world[0].camera.K, world[1].camera.K
    there = match_pictures(network, world[0].pixels, world[1].pixels, K=K)
    back = match_pictures(network, world[1].pixels, world[0].pixels, K=K[::-1])
    both = [{tuple(row) for row in np.hstack(pair)} for pair in (
        (there.first_pixels, there.second_pixels), (back.second_pixels, back.first_pixels))]  # fmt: skip
    assert len(both[0] & both[1]) > 0.99 * len(there)
    assert there.relative is not None
    assert back.relative is not None
    assert turned_by(back.relative.first_from_second, invert_rigid(there.relative.first_from_second)) < 0.01


def test_a_cropped_photo_gives_matches_in_its_original_pixels(world, network) -> None:
    tall = np.pad(world[1].pixels, ((8, 8), (0, 0), (0, 0)), mode="edge")  # the loader cuts these rows off again
    K = world[1].camera.K.copy()
    K[1, 2] += 8
    matches = match_pictures(network, world[0].pixels, tall, K=(world[0].camera.K, K))
    assert matches.views[1].original_size == (208, 256)
    moved = replace(matches, second_pixels=matches.second_pixels - [0, 8])
    check(moved, world[0], world[1], degrees=0.05)


def test_pixels_of_low_confidence_do_not_match(world, network) -> None:
    matches = match_pictures(network, world[0].pixels, world[1].pixels, least_confidence=11)
    assert len(matches) == 0
    assert matches.first_pixels.shape == matches.second_pixels.shape == (0, 2)
    assert matches.relative is None
    assert matches.status == "not_found"
    assert "confidence 11" in matches.reason


def test_photos_that_cannot_be_used_and_cameras_that_do_not_fit_are_errors(world, network, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"broken\.jpg"):
        match_pictures(network, world[0].pixels, tmp_path / "broken.jpg")
    with pytest.raises(InputError, match="does not fit"):
        match_pictures(network, world[0].pixels, world[1].pixels, K=(None, np.diag([-900.0, 900.0, 1.0])))
    assert network.calls == []


@pytest.mark.parametrize("ending", ["json", "npz"])
def test_matches_are_written_and_read_back(world, network, tmp_path: Path, ending: str) -> None:
    matches = match_pictures(network, world[0].pixels, world[1].pixels)
    path = matches.save(tmp_path / f"new/matches.{ending}")
    if ending == "npz":
        with np.load(path) as archive:
            read = {name: archive[name] for name in archive.files}
    else:
        read = json.loads(path.read_text())
    for name in ("first_pixels", "second_pixels", "confidence"):
        np.testing.assert_allclose(read[name], getattr(matches, name), rtol=1e-6)
    np.testing.assert_allclose(read["second_K"], matches.K[1])
    assert matches.relative is not None
    np.testing.assert_allclose(read["first_from_second"], matches.relative.first_from_second)
    assert list(read["names"]) == ["array#0", "array#1"]
    assert np.array(read["sizes"]).tolist() == [[192, 256], [192, 256]]
    assert "originals" in str(read["about"])
    lost = replace(matches, relative=None, status="not_found", reason="why")
    assert "first_from_second" not in json.loads(lost.save(tmp_path / "lost.json").read_text())


def test_an_unknown_ending_is_an_error_that_names_the_known_ones(world, network, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"\.npz"):
        match_pictures(network, world[0].pixels, world[1].pixels).save(tmp_path / "matches.csv")


# ------------------------------------------------------------------ the picture
@pytest.fixture
def matches(world, network, tmp_path: Path) -> Matches:
    paths = [tmp_path / name for name in ("left.png", "right.png")]
    for path, photo in zip(paths, world, strict=False):
        Image.fromarray(photo.pixels).save(path)
    return match_pictures(network, *paths)


def test_the_picture_shows_both_photos_with_coloured_marks_at_the_matches(matches: Matches) -> None:
    drawn = match_picture(matches)
    plain = match_picture(_first_rows(matches, 0))
    assert drawn.dtype == np.uint8
    assert drawn.shape == plain.shape
    assert drawn.shape[1] == pytest.approx(1200, abs=2)
    marked = np.abs(drawn.astype(int) - plain).sum(axis=-1) > 60
    photos_only = slice(45, drawn.shape[0] - 45)
    middle = drawn.shape[1] // 2
    assert 0.03 < marked[photos_only, :middle].mean() < 0.6
    assert 0.03 < marked[photos_only, middle:].mean() < 0.6


def test_a_mark_has_the_colour_of_its_place_on_both_photos(matches: Matches) -> None:
    one = _first_rows(matches, 1)
    plain, drawn = match_picture(_first_rows(one, 0)), match_picture(one, max_lines=1)
    colour = position_colours(one.first_pixels, (192, 256))[0].astype(int)
    width = (drawn.shape[1] - 2 * MARGIN - 16) / 2
    for left, pixel in ((MARGIN, one.first_pixels[0]), (MARGIN + width + 16, one.second_pixels[0])):
        x, y = np.rint([left, 40] + (pixel + 0.5) * width / 256 - 0.5).astype(int)
        assert np.abs(drawn[y, x].astype(int) - colour).max() < 40
        assert np.abs(plain[y, x].astype(int) - drawn[y, x]).max() > 0


def test_places_far_apart_have_different_colours() -> None:
    places = np.array([[0, 0], [255, 0], [0, 191], [255, 191], [128, 96]], dtype=float)
    colours = position_colours(places, (192, 256)).astype(int)
    apart = np.abs(colours[:, None] - colours).sum(axis=-1) + 1000 * np.eye(5)
    assert apart.min() > 90
    assert position_colours(np.zeros((0, 2)), (192, 256)).shape == (0, 3)


def test_lines_are_as_many_as_asked_for_and_never_too_many(matches: Matches) -> None:
    none, some = match_picture(matches, max_lines=0), match_picture(matches, max_lines=100)
    gap = slice(none.shape[1] // 2 - 4, none.shape[1] // 2 + 4)
    assert (none[45:-45, gap] == 255).all()
    assert (some[45:-45, gap] < 240).any()
    with pytest.raises(InputError, match="100"):
        match_picture(matches, max_lines=101)


def test_the_picture_of_a_portrait_and_a_panorama_keeps_both_whole(matches: Matches) -> None:
    portrait = replace(matches.views[1], source=None, original_size=(1000, 300),
                       original_from_network=np.diag([300 / 128, 1000 / 96, 1.0]))  # fmt: skip
    drawn = match_picture(replace(_first_rows(matches, 0), views=(matches.views[0], portrait)))
    assert drawn.shape[1] <= 1200
    assert drawn.shape[0] < 1000


def test_the_picture_is_written_as_png(matches: Matches, tmp_path: Path) -> None:
    path = save_match_picture(matches, tmp_path / "new/out.png")
    with Image.open(path) as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(np.asarray(image), match_picture(matches))


def _first_rows(matches: Matches, count: int) -> Matches:
    return replace(
        matches,
        first_pixels=matches.first_pixels[:count],
        second_pixels=matches.second_pixels[:count],
        confidence=matches.confidence[:count],
    )
