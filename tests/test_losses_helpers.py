"""Helper losses: matches, places and cameras are the true ones, and the losses are what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from manyview.training.cameras import CameraLoss, true_cameras
from manyview.training.matching import NOT_SEEN, MatchingLoss, PlaceLoss, token_matches
from manyview.worlds import WorldSettings, render_worlds


@pytest.fixture(scope="module")
def worlds():
    return render_worlds(range(3), 3, (32, 40), WorldSettings(spread=0.5))


def match_by_hand(batch, scene: int, i: int, j: int, y: int, x: int) -> tuple[int, np.ndarray] | None:
    """(token of view j, place in it) that sees what pixel (x, y) of view i sees; pictures of 32 x 40, patches of 8."""
    if not batch.valid[scene, i, y, x]:
        return None
    point = np.append(batch.points[scene, i, y, x].double().numpy(), 1)
    in_camera = (np.linalg.inv(batch.world_from_camera[scene, j].double().numpy()) @ point)[:3]
    if in_camera[2] <= 0:
        return None
    px, py = (batch.K[scene, j].double().numpy() @ in_camera)[:2] / in_camera[2]
    column, row = round(px), round(py)
    if not (0 <= column < 40 and 0 <= row < 32):
        return None
    if abs(float(batch.depth[scene, j, row, column]) - in_camera[2]) >= 0.05 * in_camera[2]:
        return None
    return (row // 8) * 5 + column // 8, np.array([px - 19.5, py - 15.5]) / 20


def test_matches_are_all_tokens_that_see_the_same_surface_and_no_others(worlds):
    valid = worlds.valid & (torch.rand(worlds.valid.shape, generator=torch.Generator().manual_seed(0)) < 0.9)
    batch = replace(worlds, valid=valid)
    matches = token_matches(batch, 8)
    assert matches.token.shape == (3, 3, 3, 20)
    hidden, seen = 0, 0
    for scene, i, j, token in np.ndindex(3, 3, 3, 20):
        want = match_by_hand(batch, scene, i, j, token // 5 * 8 + 4, token % 5 * 8 + 4)
        got = int(matches.token[scene, i, j, token])
        assert got == (NOT_SEEN if want is None else want[0])
        assert bool(matches.seen[scene, i, j, token]) == (want is not None)
        if want is not None:
            np.testing.assert_allclose(matches.place[scene, i, j, token], want[1], atol=1e-3)
        seen, hidden = seen + (want is not None and i != j), hidden + (want is None)
    assert min(seen, hidden) > 50


def test_matching_loss_is_the_cross_entropy_of_scaled_cosines(worlds):
    matches, loss = token_matches(worlds, 8), MatchingLoss(6, 4)
    tokens = torch.randn(3, 3, 20, 6, generator=torch.Generator().manual_seed(0))
    terms = []
    with torch.no_grad():
        features = torch.nn.functional.normalize(loss.project(tokens), dim=-1).double()
        for scene, i, j, token in matches.seen.nonzero().tolist():
            if i != j:
                logits = features[scene, j] @ features[scene, i, token] / 0.07
                terms.append(logits.logsumexp(0) - logits[matches.token[scene, i, j, token]])
        assert loss(tokens, matches).item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-4)


def test_matching_loss_is_low_for_matching_tokens_and_high_for_others(worlds):
    matches = token_matches(worlds, 8)
    loss = MatchingLoss(3, 3)
    with torch.no_grad():
        loss.project.weight.copy_(torch.eye(3))
        loss.project.bias.zero_()
    centres = worlds.points[:, :, 4::8, 4::8].flatten(2, 3)
    unit = torch.nn.functional.normalize(centres - centres.mean(dim=(1, 2), keepdim=True), dim=-1)
    shuffled = unit[:, :, torch.randperm(unit.shape[2], generator=torch.Generator().manual_seed(0))]
    assert loss(unit, matches) < 0.7 * loss(shuffled, matches)


def test_place_loss_is_zero_where_every_token_says_the_truth_and_ignores_hidden_ones(worlds):
    matches = token_matches(worlds, 8)
    loss = PlaceLoss(2)
    loss.say = torch.nn.Identity()
    truth = torch.where(matches.seen[:, :, 0, :, None], matches.place[:, :, 0], 99.0)
    assert loss(truth, matches).item() == pytest.approx(0, abs=1e-5)
    assert loss(truth + 0.1, matches).item() == pytest.approx(0.1 * 2**0.5, abs=1e-4)


def test_true_cameras_place_each_view_in_the_first_ones_frame(worlds):
    cameras = true_cameras(worlds)
    torch.testing.assert_close(cameras[:, 0, :, :3], torch.eye(3).expand(3, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(cameras[:, 0, :, 3], torch.zeros(3, 3), atol=1e-5, rtol=0)
    first = torch.linalg.inv(worlds.world_from_camera[:, 0])
    torch.testing.assert_close(cameras[:, 2, :, :3], (first @ worlds.world_from_camera[:, 2])[:, :3, :3])


def test_true_cameras_are_measured_in_mean_distances_of_what_is_seen(worlds):
    batch = replace(worlds, valid=worlds.valid & (torch.arange(40) < 11))
    cameras = true_cameras(batch)
    for scene in range(3):
        centres = batch.world_from_camera[scene, :, :3, 3]
        seen = batch.points[scene][batch.valid[scene]]
        unit = (seen - centres[0]).norm(dim=-1).mean()
        got = cameras[scene, 1:, :, 3].norm(dim=-1)
        torch.testing.assert_close(got, (centres[1:] - centres[0]).norm(dim=-1) / unit, rtol=1e-4, atol=1e-5)


def test_camera_loss_adds_rotation_and_translation_of_all_but_the_first():
    loss = CameraLoss(8)
    with torch.no_grad():
        loss.vote[3].weight.zero_()
        loss.vote[3].bias.copy_(torch.eye(3, 4).flatten())
    truth = torch.eye(3, 4).repeat(1, 3, 1, 1)
    truth[:, 0] += 100
    truth[:, 1, 0, 1] += 0.3  # norms: rotation 0.5 and 0, translation 0 and 2
    truth[:, 1, 2, 0] -= 0.4
    truth[:, 2, 2, 3] += 2
    assert loss(torch.randn(1, 3, 5, 8), truth).item() == pytest.approx(0.25 + 1.0)


def test_camera_loss_is_zero_for_a_perfect_vote(worlds):
    truth = true_cameras(worlds)[:, :, :, :].clone()
    truth[:, 1:] = truth[:1, 1:2]
    loss = CameraLoss(8)
    with torch.no_grad():
        loss.vote[3].weight.zero_()
        loss.vote[3].bias.copy_(truth[0, 1].flatten())
    assert loss(torch.randn(3, 3, 5, 8), truth).item() == pytest.approx(0, abs=1e-5)
