"""The Fast3R loss gives the official numbers, values and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from manyview.networks.pointmaps import Pointmaps
from manyview.training.losses import Targets, fast3r_loss

VIEWS = range(3)


def golden(shared):
    return np.load(shared / "reference" / "fast3r" / "golden_loss.npz")


def read(gold) -> tuple[Pointmaps, Targets, dict[str, torch.Tensor]]:
    keys = [f"v{v}_{kind}" for v in VIEWS for kind in ("pts3d_in_other_view", "conf", "pts3d_local", "conf_local")]
    leaves = {key: torch.from_numpy(gold[f"pred_{key}"]).requires_grad_() for key in keys}
    predicted = Pointmaps(
        points=[leaves[f"v{v}_pts3d_in_other_view"] for v in VIEWS],
        confidence=[leaves[f"v{v}_conf"] for v in VIEWS],
        local_points=[leaves[f"v{v}_pts3d_local"] for v in VIEWS],
        local_confidence=[leaves[f"v{v}_conf_local"] for v in VIEWS],
    )
    targets = Targets(
        points=[torch.from_numpy(gold[f"gt_v{v}_pts3d"]) for v in VIEWS],
        valid=[torch.from_numpy(gold[f"gt_v{v}_valid_mask"]) for v in VIEWS],
        world_from_camera=[torch.from_numpy(gold[f"gt_v{v}_camera_pose"]) for v in VIEWS],
    )
    return predicted, targets, leaves


@pytest.mark.parametrize("consistent", [False, True])
def test_loss_and_its_terms_equal_the_reference(shared, consistent):
    gold = golden(shared)
    tag = "localscaleconsistent_" if consistent else ""
    predicted, targets, _ = read(gold)
    loss = fast3r_loss(predicted, targets, local_scale_consistent=consistent)
    np.testing.assert_allclose(
        loss.total.item(), gold["loss_localscaleconsistent" if consistent else "loss"], rtol=1e-5
    )
    for v in VIEWS:
        for kind, error, term in (
            ("global", loss.global_error, loss.global_confident),
            ("local", loss.local_error, loss.local_confident),
        ):
            np.testing.assert_allclose(
                error[v].item(), gold[f"detail_{tag}Regr3DMultiviewV3_pts3d_loss_{kind}_{v:02d}"], rtol=1e-5
            )
            np.testing.assert_allclose(
                term[v].item(), gold[f"detail_{tag}ConfLossMultiviewV2_conf_loss_{kind}_{v:02d}"], rtol=1e-5
            )


@pytest.mark.parametrize("consistent", [False, True])
def test_gradients_equal_the_reference(shared, consistent):
    gold = golden(shared)
    tag = "localscaleconsistent_" if consistent else ""
    predicted, targets, leaves = read(gold)
    fast3r_loss(predicted, targets, local_scale_consistent=consistent).total.backward()
    for key, leaf in leaves.items():
        assert leaf.grad is not None
        want = gold[f"grad_{tag}{key}"]
        np.testing.assert_allclose(leaf.grad.numpy(), want, rtol=1e-3, atol=1e-5 * np.abs(want).max())


def test_a_view_without_valid_pixels_adds_nothing():
    generator = torch.Generator().manual_seed(0)
    points = [torch.randn(1, 4, 5, 3, generator=generator) for _ in range(2)]
    predicted = Pointmaps(
        points=[p + 0.1 for p in points],
        confidence=[torch.full((1, 4, 5), 2.0)] * 2,
        local_points=[p - 0.1 for p in points],
        local_confidence=[torch.full((1, 4, 5), 2.0)] * 2,
    )
    valid = [torch.ones(1, 4, 5, dtype=torch.bool), torch.zeros(1, 4, 5, dtype=torch.bool)]
    loss = fast3r_loss(predicted, Targets(points=points, valid=valid, world_from_camera=[torch.eye(4)[None]] * 2))
    assert loss.global_confident[1] == 0
    assert loss.local_confident[1] == 0
    assert torch.isfinite(loss.total)


def test_a_perfect_prediction_of_any_scale_has_no_error():
    generator = torch.Generator().manual_seed(1)
    points = [torch.randn(2, 4, 5, 3, generator=generator) for _ in range(2)]
    predicted = Pointmaps(
        points=[7 * p for p in points],
        confidence=[torch.ones(2, 4, 5)] * 2,
        local_points=[3 * p for p in points],
        local_confidence=[torch.ones(2, 4, 5)] * 2,
    )
    valid = [torch.ones(2, 4, 5, dtype=torch.bool)] * 2
    loss = fast3r_loss(
        predicted, Targets(points=points, valid=valid, world_from_camera=[torch.eye(4).expand(2, 4, 4)] * 2)
    )
    assert loss.total.item() == pytest.approx(0, abs=1e-5)


def two_views(truth: torch.Tensor, **changes) -> tuple[Pointmaps, Targets]:
    """Two equal views of true points (B, H, W, 3), predicted perfectly unless `changes` say otherwise."""
    sure = [torch.ones(truth.shape[:-1])] * 2
    maps = {"points": [truth] * 2, "confidence": sure, "local_points": [truth] * 2, "local_confidence": sure}
    targets = Targets(
        points=[truth.float()] * 2,
        valid=[torch.ones(truth.shape[:-1], dtype=torch.bool)] * 2,
        world_from_camera=[torch.eye(4).expand(len(truth), 4, 4)] * 2,
    )
    return Pointmaps(**{**maps, **changes}), targets


def test_a_prediction_without_local_points_is_refused():
    predicted, targets = two_views(torch.ones(1, 4, 5, 3), local_points=None)
    with pytest.raises(ValueError, match="needs local points"):
        fast3r_loss(predicted, targets)


def test_predictions_of_zero_give_a_finite_loss():
    predicted, targets = two_views(torch.ones(1, 4, 5, 3), points=[torch.zeros(1, 4, 5, 3)] * 2)
    loss = fast3r_loss(predicted, targets)
    assert loss.global_error.tolist() == pytest.approx([1, 1])  # the distance of normalised truth from the origin


def test_the_loss_of_half_precision_predictions_is_computed_in_float32():
    points = torch.randn(1, 16, 16, 3, generator=torch.Generator().manual_seed(2)).bfloat16()
    coarse, targets = two_views(points)
    loss = fast3r_loss(coarse, targets)
    assert loss.total.dtype == torch.float32
    assert loss.total.item() == pytest.approx(0, abs=1e-6)


def test_confidence_is_rewarded_by_a_fifth_of_its_logarithm():
    sure = [torch.full((1, 4, 5), 3.0)] * 2
    predicted, targets = two_views(torch.ones(1, 4, 5, 3), confidence=sure)
    loss = fast3r_loss(predicted, targets)
    assert loss.global_confident.tolist() == pytest.approx([-0.2 * np.log(3)] * 2, abs=1e-5)
    assert loss.total.item() == pytest.approx(-0.1 * np.log(3), abs=1e-5)
