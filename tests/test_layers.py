"""Shared layers: every fast path against its readable twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview.networks.layers import matmul
from manyview.networks.layers.attention import attend, attend_reference
from manyview.networks.layers.dpt import Refine, upsample
from manyview.networks.layers.matmul import linear, linear_reference
from manyview.networks.layers.pointmap_activations import activate_confidence, activate_points
from manyview.networks.layers.rope import grid_positions, rotate, rotation
from manyview.networks.reference import refine, rotate_2d


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("activation", ["none", "gelu"])
@pytest.mark.parametrize("shape", [(5,), (1, 7), (3, 4, 9)])
def test_linear_equals_its_readable_twin(activation, shape):
    input, weight, bias = noise(*shape, 48), noise(32, 48, seed=1), noise(32, seed=2)
    with torch.inference_mode():
        got, want = linear(input, weight, bias, activation), linear_reference(input, weight, bias, activation)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_linear_keeps_gradients():
    weight = noise(32, 48).requires_grad_()
    linear(noise(4, 48), weight).sum().backward()
    assert weight.grad is not None


def test_probe_refuses_an_operator_that_rounds_to_bfloat16(monkeypatch):
    def rounding(input, weight, bias, activation, scalars, algorithm):
        return linear_reference(*(x.bfloat16() for x in (input, weight, bias)), activation).to(input.dtype)

    matmul.onednn_is_exact.cache_clear()
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", rounding, raising=False)
    assert not matmul.onednn_is_exact(torch.float32)
    matmul.onednn_is_exact.cache_clear()


def test_probe_accepts_float64_never():
    assert not matmul.onednn_is_exact(torch.float64)


@pytest.mark.parametrize("tokens", [1, 17, 130])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_equals_its_readable_twin(tokens, scale):
    q, k, v = (noise(2, tokens, 3, 16, seed=seed) for seed in range(3))
    torch.testing.assert_close(attend(q, k, v, scale), attend_reference(q, k, v, scale), rtol=1e-4, atol=1e-5)


def test_attention_agrees_in_training_in_bfloat16_too():
    q, k, v = (noise(2, 40, 3, 16, seed=seed).bfloat16().requires_grad_() for seed in range(3))
    trained = attend(q, k, v)
    with torch.inference_mode():
        exact = attend(*(x.float() for x in (q, k, v)))
    assert (trained.float() - exact).abs().max() < 0.05


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 6), width=st.integers(1, 6), base=st.sampled_from([100.0, 10.0]))
def test_rotation_equals_the_formula(height, width, base):
    tokens = noise(2, height * width, 3, 16)
    positions = grid_positions(height, width)
    want = rotate_2d(tokens.transpose(1, 2), positions[:, 0], positions[:, 1], base).transpose(1, 2)
    torch.testing.assert_close(rotate(tokens, rotation(positions, 16, base)), want)


@settings(max_examples=20, deadline=None)
@given(dy=st.integers(0, 20), dx=st.integers(0, 20))
def test_rotated_products_depend_on_relative_positions_only(dy, dx):
    q, k = noise(1, 1, 1, 32), noise(1, 1, 1, 32, seed=1)

    def product(at: tuple[int, int], other: tuple[int, int]) -> float:
        turned_q, turned_k = (rotate(t, rotation(torch.tensor([p]), 32, 100.0)) for t, p in ((q, at), (k, other)))
        return float((turned_q * turned_k).sum())

    assert product((2 + dy, 3 + dx), (dy, dx)) == pytest.approx(product((2, 3), (0, 0)), abs=1e-3)


def test_rotary_angles_stay_exact_in_bfloat16():
    """In the official code the angle 31 would be rounded before its cosine is taken."""
    positions = torch.tensor([[31, 31]])
    exact = rotation(positions, 64, 100.0)
    assert exact.cos.dtype == torch.float32
    rounded = (31 * 100.0 ** (-torch.arange(0, 32, 2) / 32)).bfloat16().cos()
    assert (exact.cos[0, 0, 0] - rounded).abs().max() > 0.01


def test_mixing_before_upsampling_equals_the_published_order():
    block = Refine(8)
    a, b = noise(2, 8, 5, 7), noise(2, 8, 5, 7, seed=1)
    with torch.inference_mode():
        torch.testing.assert_close(block(b, a), refine(block, a, b), rtol=1e-5, atol=1e-5)


def test_upsampling_keeps_corners():
    x = noise(1, 2, 3, 4)
    big = upsample(x, (6, 8))
    torch.testing.assert_close(big[..., [0, 0, -1, -1], [0, -1, 0, -1]], x[..., [0, 0, -1, -1], [0, -1, 0, -1]])


@pytest.mark.parametrize(("kind", "length"), [("exp", np.expm1(2.0)), ("linear", 2.0), ("square", 4.0)])
def test_point_activations(kind, length):
    raw = 2 * torch.nn.functional.normalize(noise(10, 3), dim=-1)
    points = activate_points(raw, kind)
    torch.testing.assert_close(points.norm(dim=-1), torch.full((10,), float(length)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.nn.functional.normalize(points, dim=-1), raw / 2, rtol=1e-5, atol=1e-5)


def test_a_raw_point_of_zero_stays_finite():
    assert torch.equal(activate_points(torch.zeros(1, 3), "exp"), torch.zeros(1, 3))


def test_confidence_activations_respect_their_range():
    raw = noise(100) * 10
    assert (activate_confidence(raw, "exp", 1.0, float("inf")) >= 1).all()
    assert activate_confidence(raw, "exp", 1.0, 3.0).max() == 3
    bounded = activate_confidence(raw, "sigmoid", 0.5, 2.0)
    assert bounded.min() >= 0.5
    assert bounded.max() <= 2
