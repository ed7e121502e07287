"""Photometric search: what the fast sweep computes, written out slowly, and depth that is found to parts of a pixel."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview.refine.neighbours import choose_neighbours
from manyview.refine.plane_sweep import (
    NO_SCORE,
    SENSOR_NOISE,
    Sweep,
    Transfer,
    best_mean,
    box_sums,
    sample,
    semi_global,
    step_for,
    sweep_scores,
    winner,
)
from textured_planes import WALL, Photo, Surface, camera_at, photograph, row_of_photos


# ------------------------------------------------------------------ written out
def slow_score(sweep: Sweep, pixel: tuple[int, int], offset: float) -> float:
    """One entry of `sweep_scores`: the pixel (x, y) at one offset of log inverse depth."""
    grey, surface = sweep.grey.double().numpy(), sweep.inverse_depth.double().numpy() * math.exp(offset)
    height, width = grey.shape
    scores = []
    for neighbour, transfer in zip(sweep.neighbours, sweep.transfers, strict=True):
        other = neighbour.double().numpy()
        place = slow_transfer(transfer, pixel, surface)
        if place is None or not (-0.5 <= place[0] <= other.shape[1] - 0.5 and -0.5 <= place[1] <= other.shape[0] - 0.5):
            continue
        own, others = [], []
        for y in range(max(pixel[1] - sweep.radius, 0), min(pixel[1] + sweep.radius, height - 1) + 1):
            for x in range(max(pixel[0] - sweep.radius, 0), min(pixel[0] + sweep.radius, width - 1) + 1):
                there = slow_transfer(transfer, (x, y), surface)
                assert there is not None
                own.append(grey[y, x])
                others.append(slow_bilinear(other, there))
        scores.append(slow_correlation(np.array(own), np.array(others)))
    highest = sorted(scores, reverse=True)[: sweep.best]
    return float(np.mean(highest)) if highest else NO_SCORE


def slow_transfer(transfer: Transfer, pixel: tuple[int, int], surface: np.ndarray) -> np.ndarray | None:
    x, y = pixel
    homogeneous = transfer.turn @ np.array([x, y, 1.0]) + surface[y, x] * transfer.move
    return homogeneous[:2] / homogeneous[2] if homogeneous[2] > 1e-6 else None


def slow_bilinear(picture: np.ndarray, place: np.ndarray) -> float:
    height, width = picture.shape
    x, y = float(np.clip(place[0], 0, width - 1)), float(np.clip(place[1], 0, height - 1))
    left, top = min(int(x), width - 2), min(int(y), height - 2)
    upper = (1 - x + left) * picture[top, left] + (x - left) * picture[top, left + 1]
    lower = (1 - x + left) * picture[top + 1, left] + (x - left) * picture[top + 1, left + 1]
    return float((1 - y + top) * upper + (y - top) * lower)


def slow_correlation(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first - first.mean(), second - second.mean()
    noise = SENSOR_NOISE**2
    return float((first * second).mean() / np.sqrt(((first**2).mean() + noise) * ((second**2).mean() + noise)))


def sweep_of(photos: list[Photo], inverse_depth: np.ndarray, **settings) -> Sweep:
    """Of the first photo, with the others as neighbours."""
    reference, *others = photos
    return Sweep(
        grey=grey_of(reference),
        neighbours=[grey_of(other) for other in others],
        transfers=[Transfer.between(reference.camera, other.camera) for other in others],
        inverse_depth=torch.as_tensor(inverse_depth, dtype=torch.float32),
        **settings,
    )


def grey_of(photo: Photo) -> torch.Tensor:
    return torch.as_tensor(photo.pixels[..., 0].astype(np.float32) / 255)


def test_scores_are_what_plain_loops_over_pixels_give() -> None:
    places = [((0, 0, 0), (17, 22)), ((0.5, 0.1, 0), (17, 22)), ((-2.2, 0, 0), (20, 15))]
    photos = [photograph(camera_at(place, size=size, turn=-place[0] / 9)) for place, size in places]
    sweep = sweep_of(photos, 1.03 / photos[0].depth, step=0.07, reach=2, radius=2, best=1)
    for best in (1, 2):
        sweep = replace(sweep, best=best)
        scores = sweep_scores(sweep)
        slow = [[[slow_score(sweep, (x, y), o) for x in range(22)] for y in range(17)] for o in sweep.offsets]
        np.testing.assert_allclose(scores.numpy(), slow, atol=2e-3)
        assert (scores > NO_SCORE).any()


def test_a_pixel_that_no_neighbour_sees_has_no_score() -> None:
    photos = [photograph(camera_at((0, 0, 0))), photograph(camera_at((0, 0, 0), turn=math.pi))]
    scores = sweep_scores(sweep_of(photos, 1 / photos[0].depth, step=0.1, reach=1))
    assert (scores == NO_SCORE).all()


@pytest.mark.parametrize("wrong_by", [0.93, 1.0, 1.0413, 1.1])
def test_the_depth_of_a_slanted_plane_is_found_to_a_small_part_of_a_pixel(wrong_by: float) -> None:
    photos = row_of_photos(3, [WALL])
    photos = [photos[1], photos[0], photos[2]]
    pixels = np.argwhere(np.ones((72, 96)))[::7, ::-1]
    step = step_for(
        photos[0].camera, [p.camera for p in photos[1:]], 1 / photos[0].depth[pixels[:, 1], pixels[:, 0]], pixels, 0.5
    )
    sweep = sweep_of(photos, wrong_by / photos[0].depth, step=step, reach=math.ceil(0.12 / step))
    scores = sweep_scores(sweep)
    place, score, _ = winner(1 - scores, scores)
    inner = (slice(6, -6), slice(12, -12))
    error = (place * step + math.log(wrong_by))[inner].abs()
    assert float(error.median()) < 0.1 * step  # a twentieth of a pixel
    assert float((error < 0.5 * step).float().mean()) > 0.97
    assert float(score[inner].median()) > 0.98


def test_exposure_and_contrast_do_not_matter() -> None:
    photos = row_of_photos(3, [WALL])
    sweep = sweep_of(photos, 1 / photos[0].depth, step=0.05, reach=1)
    dimmed = replace(sweep, neighbours=[0.5 * grey + 0.2 for grey in sweep.neighbours])
    change = (sweep_scores(dimmed) - sweep_scores(sweep)).abs()
    assert float(change.median()) < 0.002 and float(change.max()) < 0.1  # plain windows, where the noise is counted


def test_windows_without_texture_have_no_correlation() -> None:
    plain = Surface(texture=0.0)
    photos = [photograph(camera_at((x, 0, 0)), [plain]) for x in (0.0, 0.3)]
    generator = torch.Generator().manual_seed(0)
    sweep = sweep_of(photos, 1 / photos[0].depth, step=0.1, reach=2)
    noisy = [
        grey + 0.2 / 255 * torch.randn(grey.shape, generator=generator) for grey in (sweep.grey, *sweep.neighbours)
    ]
    scores = sweep_scores(replace(sweep, grey=noisy[0], neighbours=noisy[1:]))
    assert float(scores[scores > NO_SCORE].abs().max()) < 0.2


# ------------------------------------------------------------------ parts
@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 4), st.integers(0, 99))
def test_box_sums_are_sums_over_windows_cut_off_at_the_border(height: int, width: int, radius: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(height, width))
    found = box_sums(torch.as_tensor(values)[None], radius)[0].numpy()
    for y in range(height):
        for x in range(width):
            window = values[max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1]
            assert found[y, x] == pytest.approx(window.sum(), abs=1e-9)


def test_integers_are_at_pixel_centres_when_pictures_are_sampled() -> None:
    picture = torch.arange(12.0).reshape(1, 3, 4)
    x, y = torch.tensor([[0.0, 3.0, 1.5, -9.0]]), torch.tensor([[0.0, 2.0, 1.0, 0.0]])
    torch.testing.assert_close(sample(picture, x, y)[0, 0], torch.tensor([0.0, 11.0, 5.5, 0.0]))


def test_the_mean_of_the_best_leaves_out_neighbours_that_see_nothing() -> None:
    scores = torch.tensor([[[0.9, NO_SCORE]], [[0.5, NO_SCORE]], [[NO_SCORE, NO_SCORE]], [[-0.4, 0.3]]])
    torch.testing.assert_close(best_mean(scores, 2), torch.tensor([[0.7, 0.3]]))
    torch.testing.assert_close(best_mean(scores[2:], 2), torch.tensor([[-0.4, 0.3]]))
    torch.testing.assert_close(best_mean(scores, 1), torch.tensor([[0.9, 0.3]]))


def test_a_step_moves_pixels_by_as_much_as_was_asked_for() -> None:
    reference, other = camera_at((0, 0, 0)), camera_at((0.4, 0, 0))
    pixels = np.array([[48.0, 36.0]] * 10)
    step = step_for(reference, [other], np.full(10, 0.5), pixels, shift=0.5)
    before, after = (other.project(reference.unproject(pixels, np.full(10, 2 / math.exp(s))))[0] for s in (0, step))
    assert np.linalg.norm(after - before, axis=1) == pytest.approx(0.5, rel=0.05)
    assert step_for(reference, [], np.full(10, 0.5), pixels, shift=0.5) == math.inf


@given(st.floats(-0.49, 0.49), st.integers(1, 5))
def test_the_place_between_steps_is_the_lowest_point_of_a_parabola(shift: float, index: int) -> None:
    costs = (torch.arange(7.0) - index - shift).square()[:, None, None]
    place, _, sharpness = winner(costs, 1 - costs)
    assert float(place) == pytest.approx(index - 3 + shift, abs=1e-4)
    assert float(sharpness) > 0


@pytest.mark.parametrize("end", [0, 6])
def test_a_winner_at_an_end_of_the_search_is_not_sharp(end: int) -> None:
    costs = (torch.arange(7.0) - end).abs()[:, None, None]
    place, _, sharpness = winner(costs, 1 - costs)
    assert (float(place), float(sharpness)) == (end - 3, 0)


def test_smoothness_removes_a_lone_outlier_but_not_a_jump_at_an_edge_of_the_picture() -> None:
    costs = torch.ones(9, 16, 16)
    costs[2, :, :8] = costs[6, :, 8:] = 0.0
    costs[:, 5, 3] = 1.0
    costs[7, 5, 3], costs[2, 5, 3] = 0.0, 0.2
    grey = torch.zeros(16, 16)
    grey[:, 8:] = 0.5
    smoothed = semi_global(costs, grey, small_jump=0.1, large_jump=0.6).argmin(dim=0)
    assert (smoothed[:, :8] == 2).all() and (smoothed[:, 8:] == 6).all()
    assert int(costs[:, 5, 3].argmin()) == 7


def test_a_thin_thing_that_the_picture_shows_keeps_its_depth_and_one_that_it_does_not_show_loses_it() -> None:
    costs = torch.ones(9, 1, 16)
    costs[2] = 0.0
    costs[2, 0, 8], costs[6, 0, 8] = 0.2, 0.0
    plain, shown = torch.zeros(1, 16), torch.zeros(1, 16)
    shown[0, 8] = 0.5
    places = [semi_global(costs, grey, small_jump=0.1, large_jump=0.6).argmin(dim=0)[0, 8] for grey in (plain, shown)]
    assert places == [2, 6]


# ------------------------------------------------------------------ neighbours
def test_neighbours_are_views_with_a_useful_angle_and_best_first() -> None:
    # At a distance of 4: 0, 0.1, 10, 30 degrees, and one that looks the other way.
    places = [0.0, 0.007, 0.7, 2.3]
    cameras = [camera_at((x, 0, 0), turn=-math.atan2(x, 4)) for x in places] + [camera_at((0.7, 0, 0), turn=math.pi)]
    depths = [photograph(camera, [replace(WALL, normal=(0, 0, 1.0))]).depth for camera in cameras]
    chosen = choose_neighbours(cameras, depths, 4)
    assert chosen[0] == (2, 3)
    assert choose_neighbours(cameras, depths, 1)[0] == (2,)
    assert chosen[4] == ()


def test_a_view_from_behind_a_wall_is_no_neighbour() -> None:
    front, behind = camera_at((0, 0, 0)), camera_at((0.7, 0, 6), turn=0.0)
    wall = replace(WALL, normal=(0, 0, 1.0))
    depth = photograph(front, [wall]).depth
    hidden = camera_at((0.7, 0, 0))
    screen = np.full((72, 96), 1.0)  # stands right before the other camera
    assert choose_neighbours([front, hidden], [depth, screen], 3)[0] == ()
    assert choose_neighbours([front, hidden], [depth, depth], 3)[0] == (1,)
    assert choose_neighbours([front, behind], [depth, depth], 3)[0] == ()


def test_without_depth_there_are_no_neighbours() -> None:
    cameras = [camera_at((x, 0, 0)) for x in (0, 0.7)]
    assert choose_neighbours(cameras, [np.zeros((72, 96))] * 2, 3) == [(), ()]
