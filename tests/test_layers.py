"""Shared layers: every fast path against its readable twin."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview.networks.layers import attention, matmul
from manyview.networks.layers.attention import Attention, attend, attend_reference
from manyview.networks.layers.coordinates import FEATURES, coordinate_features
from manyview.networks.layers.dpt import DPTHead, Refine, ResidualConvolutions, upsample
from manyview.networks.layers.linear_head import LinearHead
from manyview.networks.layers.matmul import linear, linear_reference
from manyview.networks.layers.pointmap_activations import activate_confidence, activate_points
from manyview.networks.layers.rope import Rotation, grid_positions, rotate, rotation
from manyview.networks.layers.vit import VisionTransformer
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
    exact = input.double() @ weight.double().T + bias.double()
    if activation == "gelu":
        exact = exact * (1 + torch.erf(exact / math.sqrt(2))) / 2
    torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=1e-5)


def test_linear_keeps_gradients():
    input, weight, bias = noise(4, 48), noise(32, 48, seed=1).requires_grad_(), noise(32, seed=2).requires_grad_()
    linear(input, weight, bias).sum().backward()
    torch.testing.assert_close(weight.grad, input.sum(0).expand(32, 48))
    torch.testing.assert_close(bias.grad, torch.full((32,), 4.0))


def test_linear_takes_pieces_of_larger_tensors():
    input, weight = noise(6, 9, 48).transpose(0, 1)[::2, :, 8:40], noise(16, 32, seed=1)
    with torch.inference_mode():
        got, want = linear(input, weight), linear_reference(input, weight, None, "none")
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_linear_obeys_autocast():
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert linear(noise(4, 48), noise(32, 48)).dtype == torch.bfloat16


def test_linear_uses_the_fast_route_where_it_is_exact(monkeypatch):
    called = []

    def spy(input, weight, bias, activation, scalars, algorithm):
        called.append(activation)
        return linear_reference(input, weight, bias, activation)

    monkeypatch.setattr(matmul, "onednn_is_exact", lambda dtype: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", spy, raising=False)
    input, weight = noise(4, 48), noise(32, 48)
    with torch.inference_mode():
        linear(input, weight, activation="gelu")
        assert called == ["gelu"]
        linear(input.T.contiguous().T, weight)
        with pytest.raises(RuntimeError, match="dtype"):
            linear(input.bfloat16(), weight)
    assert called == ["gelu"]
    monkeypatch.setattr(matmul, "onednn_is_exact", lambda dtype: False)
    with torch.inference_mode():
        linear(input, weight)
    linear(input, weight.requires_grad_())
    assert called == ["gelu"]


def test_probe_refuses_an_operator_that_rounds_to_bfloat16(monkeypatch):
    def rounding(input, weight, bias, activation, scalars, algorithm):
        return linear_reference(*(x.bfloat16() for x in (input, weight, bias)), activation).to(input.dtype)

    matmul.onednn_is_exact.cache_clear()
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", rounding, raising=False)
    assert not matmul.onednn_is_exact(torch.float32)
    matmul.onednn_is_exact.cache_clear()


def test_probe_accepts_float64_never():
    assert not matmul.onednn_is_exact(torch.float64)


def test_attention_is_the_softmax_of_scaled_products():
    q, k, v = (noise(2, 5, 3, 4, seed=seed).double() for seed in range(3))
    want = torch.empty(2, 5, 3, 4, dtype=torch.float64)
    for scene, head in np.ndindex(2, 3):
        weights = torch.exp(0.3 * q[scene, :, head] @ k[scene, :, head].T)
        want[scene, :, head] = weights @ v[scene, :, head] / weights.sum(dim=1, keepdim=True)
    torch.testing.assert_close(attend(q, k, v, 0.3), want.flatten(2))
    torch.testing.assert_close(attend(q, k, v), attend(q, k, v, 0.5))  # 1/sqrt(head size)


def test_queries_and_keys_are_normalised_by_their_own_weights_before_they_are_turned():
    layer = Attention(16, 2, qk_norm=True)
    tokens, by = noise(1, 6, 16), rotation(grid_positions(2, 3), 8, 10.0)
    with torch.inference_mode():
        for seed, norm in enumerate((layer.q_norm, layer.k_norm)):
            norm.weight.copy_(1 + noise(8, seed=seed))
            norm.bias.copy_(noise(8, seed=5 + seed))
        q, k, v = layer.qkv(tokens).unflatten(-1, (3, 2, 8)).unbind(2)
        q, k = ((x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt() for x in (q, k))
        q, k = q * layer.q_norm.weight + layer.q_norm.bias, k * layer.k_norm.weight + layer.k_norm.bias
        want = layer.project(attend_reference(rotate(q, by), rotate(k, by), v))
        torch.testing.assert_close(layer(tokens, by), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tokens", [1, 17, 130])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_equals_its_readable_twin(tokens, scale):
    q, k, v = (noise(2, tokens, 3, 16, seed=seed) for seed in range(3))
    torch.testing.assert_close(attend(q, k, v, scale), attend_reference(q, k, v, scale), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [None, 0.1])
def test_attention_agrees_in_training_in_bfloat16_too(scale):
    q, k, v = (noise(2, 40, 3, 16, seed=seed).bfloat16().requires_grad_() for seed in range(3))
    trained = attend(q, k, v, scale)
    with torch.inference_mode():
        exact = attend(*(x.float() for x in (q, k, v)), scale)
    assert (trained.float() - exact).abs().max() < 0.05


def test_attention_keeps_no_table_of_weights_outside_training(monkeypatch):
    def refuse(*_):
        raise AssertionError("all T x T weights would be kept in memory")

    monkeypatch.setattr(attention, "attend_reference", refuse)
    for dtype in (torch.float32, torch.bfloat16):
        q = noise(1, 8, 1, 4).to(dtype)
        with torch.inference_mode():
            attend(q, q, q)
    long = noise(1, 1025, 1, 4).bfloat16().requires_grad_()
    attend(long, long, long)


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


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.float() - want).norm() / want.norm())


def test_tokens_in_bfloat16_are_turned_by_exact_angles():
    """At position 31 only the rounding of numbers remains; rounded angles, as the official code has them, cost more."""
    tokens, by = noise(1, 1, 500, 64), rotation(torch.tensor([[31, 31]]), 64, 100.0)
    want = rotate(tokens, by)
    got = rotate(tokens.bfloat16(), by)
    assert got.dtype == torch.bfloat16
    # Three roundings (token, cosine or sine, result) of at most half an eps each; about a third of that on average.
    assert relative_error(got, want) < torch.finfo(torch.bfloat16).eps / 2
    angles = (31 * 100.0 ** (-torch.arange(0, 32, 2) / 32)).bfloat16().float().expand(1, 1, 2, 16)
    rounded_first = rotate(tokens.bfloat16(), Rotation(angles.cos(), angles.sin()))
    assert relative_error(rounded_first, want) > 4 * relative_error(got, want)


def test_an_encoder_in_bfloat16_has_the_angles_of_one_in_float32():
    encoder = VisionTransformer(patch_size=2, dim=32, heads=2, depth=1, mlp_ratio=1.0, rope_base=100.0)
    given = []
    encoder.blocks[0].register_forward_pre_hook(lambda _, inputs: given.append(inputs[1]))
    with torch.inference_mode():
        encoder(noise(1, 3, 2, 64))
        encoder.bfloat16()(noise(1, 3, 2, 64).bfloat16())
    exact, coarse = given
    assert coarse.cos.dtype == torch.float32
    assert torch.equal(coarse.cos, exact.cos)
    assert torch.equal(coarse.sin, exact.sin)
    assert float(exact.sin[31, 0, 1, 0]) == pytest.approx(math.sin(31), abs=1e-5)  # channels of x
    assert float(exact.sin[31, 0, 0, 0]) == 0  # channels of y


def test_patches_know_where_they_lie():
    """Of a grid of 2 x 4 patches the one at row 1, column 3: a quarter of the longer side below, three to the right."""
    features = coordinate_features(2, 4)
    assert features.shape == (8, FEATURES)
    y, x = 0.25, 0.75
    waves = [wave(math.pi * 2**octave * p) for wave in (math.sin, math.cos) for octave in range(4) for p in (y, x)]
    torch.testing.assert_close(features[7], torch.tensor([y, x, *waves]))
    torch.testing.assert_close(features[0, :2], torch.tensor([-y, -x]))
    upright = coordinate_features(4, 2).unflatten(0, (4, 2)).transpose(0, 1).flatten(0, 1)
    torch.testing.assert_close(upright[:, :2], features[:, [1, 0]])


def test_mixing_before_upsampling_equals_the_published_order():
    block = Refine(8)
    a, b = noise(2, 8, 5, 7), noise(2, 8, 5, 7, seed=1)
    with torch.inference_mode():
        torch.testing.assert_close(block(b, a), refine(block, a, b), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grid", [(3, 5), (4, 2)])
def test_a_head_gives_the_same_bits_with_its_finest_map_made_beforehand(grid, dtype):
    head = DPTHead(
        token_dims=(24, 16, 16, 16), widths=(4, 8, 12, 16), features=8, last_features=8, channels=4, patch_size=16
    ).to(dtype)
    tokens = [noise(2, grid[0] * grid[1], dim, seed=dim).to(dtype) for dim in (24, 16, 16, 16)]
    with torch.inference_mode():
        projected = [head.project(level, each) for level, each in enumerate(tokens)]
        finest = head.finest(projected[0], grid)
        assert finest.shape == (2, 8, 4 * grid[0], 4 * grid[1])
        want = head(projected, grid)
        assert torch.equal(head(projected, grid, finest), want)
        assert torch.equal(head([torch.zeros_like(projected[0]), *projected[1:]], grid, finest), want)
        assert not torch.allclose(head(projected, grid, finest + 1), want, atol=1e-2)


def test_a_linear_head_has_nothing_to_make_beforehand():
    assert LinearHead(dim=8, channels=4, patch_size=2).finest(noise(1, 6, 8), (2, 3)) is None


def test_upsampling_keeps_corners():
    x = noise(1, 2, 3, 4)
    big = upsample(x, (6, 8))
    torch.testing.assert_close(big[..., [0, 0, -1, -1], [0, -1, 0, -1]], x[..., [0, 0, -1, -1], [0, -1, 0, -1]])
    assert upsample(x, (3, 4)) is x


def test_a_residual_leaves_its_input_as_it_is():
    x = noise(1, 8, 3, 4)
    before = x.clone()
    with torch.inference_mode():
        ResidualConvolutions(8)(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize(("kind", "length"), [("exp", np.expm1(2.0)), ("linear", 2.0), ("square", 4.0)])
def test_point_activations(kind, length):
    raw = 2 * torch.nn.functional.normalize(noise(10, 3), dim=-1)
    points = activate_points(raw, kind)
    torch.testing.assert_close(points.norm(dim=-1), torch.full((10,), float(length)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.nn.functional.normalize(points, dim=-1), raw / 2, rtol=1e-5, atol=1e-5)


def test_a_raw_point_of_zero_stays_finite():
    assert torch.equal(activate_points(torch.zeros(1, 3), "exp"), torch.zeros(1, 3))


def test_confidence_activations_equal_their_formulas_and_respect_their_range():
    raw = noise(100) * 10
    open_ended = activate_confidence(raw, "exp", 0.7, float("inf"))
    np.testing.assert_allclose(open_ended, 0.7 + np.exp(raw.numpy()), rtol=1e-5)
    assert (open_ended >= 0.7).all()
    torch.testing.assert_close(activate_confidence(raw, "exp", 1.0, 3.0), (1 + raw.exp()).clamp(max=3))
    bounded = activate_confidence(raw, "sigmoid", 0.5, 2.0)
    torch.testing.assert_close(bounded, 0.5 + 1.5 * torch.sigmoid(raw))
    assert bounded.min() >= 0.5
    assert bounded.max() <= 2
