"""DUSt3R's losses give the official numbers, values and gradients."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from manyview.networks.pointmaps import Pointmaps
from manyview.training.dust3r_losses import Dust3rOptions, dust3r_loss
from manyview.training.losses import Targets

LEAVES = ("pred1_pts3d", "pred2_pts3d_in_other_view", "pred1_conf", "pred2_conf")
PLAIN = {
    "Regr3D(L21,avg_dis)": {},
    "Regr3D(L21,avg_log1p)": {"normalisation": "avg_log1p"},
    "Regr3D(L21,avg_warp-log1p)": {"normalisation": "avg_warp-log1p"},
    "Regr3D(L21,median_dis)": {"normalisation": "median_dis"},
    "Regr3D(L21,sqrt_dis)": {"normalisation": "sqrt_dis"},
    "Regr3D(L21,None)": {"normalisation": "none"},
    "Regr3D(L21,avg_dis,gt_scale)": {"true_scale": True},
    "Regr3D_ShiftInv(L21,avg_dis)": {"invariance": "shift"},
    "Regr3D_ScaleInv(L21,avg_dis)": {"invariance": "scale"},
    "Regr3D_ScaleInv(L21,gt_scale)": {"invariance": "scale", "true_scale": True},
    "Regr3D_ScaleShiftInv(L21)": {"invariance": "scale-shift"},
    "Regr3D_ScaleShiftInv(L21,gt_scale)": {"invariance": "scale-shift", "true_scale": True},
}
CONFIDENT = {
    "ConfLoss(Regr3D(L21,avg_dis),alpha=0.2)": {},
    "ConfLoss(Regr3D(L21,avg_dis),alpha=1)": {"confidence_reward": 1.0},
}


@pytest.fixture(scope="module")
def golden(shared):
    folder = shared / "reference" / "dust3r"
    return np.load(folder / "golden_losses_inputs.npz"), json.loads((folder / "golden_losses.json").read_text())


def read(arrays) -> tuple[Pointmaps, Targets, dict[str, torch.Tensor]]:
    leaves = {name: torch.from_numpy(arrays[name]).requires_grad_() for name in LEAVES}
    predicted = Pointmaps(
        points=[leaves["pred1_pts3d"], leaves["pred2_pts3d_in_other_view"]],
        confidence=[leaves["pred1_conf"], leaves["pred2_conf"]],
    )
    truth = {kind: [torch.from_numpy(arrays[f"gt{v}_{kind}"]) for v in (1, 2)] for kind in ("pts3d", "valid_mask")}
    cameras = [torch.from_numpy(arrays[f"gt{v}_camera_pose"]) for v in (1, 2)]
    return predicted, Targets(points=truth["pts3d"], valid=truth["valid_mask"], world_from_camera=cameras), leaves


def assert_gradients(leaves, want) -> None:
    for name, norm in want["grad_norm"].items():
        leaf = leaves["pred2_pts3d_in_other_view" if name == "pred2_pts3d" else name]
        got = 0.0 if leaf.grad is None else leaf.grad.norm().item()
        assert got == pytest.approx(norm, rel=1e-4, abs=1e-9), name


@pytest.mark.parametrize("name", PLAIN)
def test_regression_errors_and_their_gradients_equal_the_reference(golden, name):
    arrays, numbers = golden
    predicted, targets, leaves = read(arrays)
    loss = dust3r_loss(predicted, targets, Dust3rOptions(**PLAIN[name]))
    np.testing.assert_allclose(loss.error.detach(), list(numbers[name]["details"].values()), rtol=2e-5)
    loss.error.sum().backward()
    assert_gradients(leaves, numbers[name])


@pytest.mark.parametrize("name", CONFIDENT)
def test_confident_losses_equal_the_reference(golden, name):
    arrays, numbers = golden
    predicted, targets, leaves = read(arrays)
    loss = dust3r_loss(predicted, targets, Dust3rOptions(**CONFIDENT[name]))
    want = numbers[name]
    assert loss.total.item() == pytest.approx(want["loss"], rel=1e-5)
    np.testing.assert_allclose(loss.confident.detach(), list(want["details"].values())[:2], rtol=1e-5)
    loss.total.backward()
    assert_gradients(leaves, want)


def test_gradients_of_the_published_loss_equal_the_reference_pixel_by_pixel(golden):
    arrays, _ = golden
    predicted, targets, leaves = read(arrays)
    dust3r_loss(predicted, targets).total.backward()
    for name in ("pred1_pts3d", "pred2_pts3d_in_other_view", "pred1_conf"):
        grad = leaves[name].grad
        assert grad is not None
        want = arrays[f"grad_{name.replace('_in_other_view', '')}"]
        np.testing.assert_allclose(grad.numpy(), want, rtol=1e-3, atol=1e-6 * np.abs(want).max())


def test_losses_add_up_as_the_reference_has_it(golden):
    """ConfLoss(ShiftInv, 0.2) + 0.1 * Regr3D: the sum of two calls."""
    arrays, numbers = golden
    predicted, targets, leaves = read(arrays)
    shift = dust3r_loss(predicted, targets, Dust3rOptions(invariance="shift"))
    total = shift.total + 0.1 * dust3r_loss(predicted, targets).error.sum()
    want = numbers["ConfLoss(ShiftInv,alpha=0.2)+0.1*Regr3D"]
    assert total.item() == pytest.approx(want["loss"], rel=1e-5)
    total.backward()
    assert_gradients(leaves, want)


def test_the_plain_weight_adds_the_plain_error(golden):
    predicted, targets, _ = read(golden[0])
    plain, both = (dust3r_loss(predicted, targets, Dust3rOptions(plain_weight=w)) for w in (0.0, 0.5))
    assert both.total.item() == pytest.approx((plain.total + 0.5 * plain.error.sum()).item())


@pytest.mark.parametrize("normalisation", ["avg_dis", "avg_log1p", "avg_warp-log1p", "median_dis", "sqrt_dis"])
@pytest.mark.parametrize("invariance", ["none", "scale-shift"])
def test_a_batch_without_valid_pixels_adds_nothing_and_passes_no_gradient(golden, normalisation, invariance):
    predicted, targets, leaves = read(golden[0])
    hidden = Targets(
        points=targets.points,
        valid=[torch.zeros_like(v) for v in targets.valid],
        world_from_camera=targets.world_from_camera,
    )
    loss = dust3r_loss(predicted, hidden, Dust3rOptions(normalisation=normalisation, invariance=invariance))
    assert loss.total.item() == 0
    loss.total.backward()
    assert all(leaf.grad is None or leaf.grad.abs().max() == 0 for leaf in leaves.values())
