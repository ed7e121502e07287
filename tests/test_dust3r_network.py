"""The DUSt3R network: official numbers, its published peculiarities, and the fast path against the readable one."""

from __future__ import annotations

import itertools
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from manyview.networks import from_official
from manyview.networks.dust3r import Dust3R
from manyview.networks.economy import Economy
from manyview.networks.layers.pointmap_activations import activate_confidence, activate_points
from manyview.networks.layers.rope import grid_positions, rotate, rotation
from manyview.networks.pointmaps import Pointmaps
from manyview.networks.reference import rotate_2d
from manyview.networks.reference_dust3r import cross_block, decode, dust3r_reference
from toys import SMALLEST_PAIRS, disturbed, random_images, random_pair_network
from weights import TINY_DUST3R, rule_image, rule_weights

LINEAR = replace(SMALLEST_PAIRS, head="linear")
SHAPES = {
    "landscape": [(48, 64), (48, 64)],
    "portrait": [(64, 48), (64, 48)],
    "mixed": [(48, 64), (64, 48)],
    "square": [(64, 64), (64, 64)],
}
KEYS = (("pts3d_1", "conf_1"), ("pts3d_2in1", "conf_2"))


def assert_same(got: Pointmaps, want: Pointmaps, rtol: float = 1e-5) -> None:
    for name in ("points", "confidence"):
        for g, w in zip(getattr(got, name), getattr(want, name), strict=True):
            np.testing.assert_allclose(g.numpy(), w.numpy(), rtol=rtol, atol=rtol * float(w.abs().max()))


def assert_golden(got: Pointmaps, gold) -> None:
    for view, keys in enumerate(KEYS):
        for result, key in zip((got.points[view], got.confidence[view]), keys, strict=True):
            np.testing.assert_allclose(result, gold[key], rtol=5e-5, atol=5e-5 * np.abs(gold[key]).mean())


@pytest.fixture(scope="module")
def reference(shared):
    return shared / "reference" / "dust3r"


@pytest.fixture(scope="module")
def tiny(reference) -> dict[str, Dust3R]:
    return {
        head: from_official("dust3r", text, rule_weights(reference / f"manifest_tiny_{head}.json"))
        for head, text in TINY_DUST3R.items()
    }


@pytest.fixture(scope="module")
def encoded() -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of two views on grids (2, 3) and (3, 3), as the decoders of `SMALLEST_PAIRS` take them."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 6, 32, generator=generator), torch.randn(1, 9, 32, generator=generator)


def peculiar(**options) -> Dust3R:
    """A network none of whose numbers is a default, norms and biases included."""
    config = replace(
        SMALLEST_PAIRS, mlp_ratio=1.5, rope_base=10.0, decoder_dim=48, decoder_heads=3, decoder_depth=6,
        head_widths=(4, 8, 12, 16), depth_activation="square", confidence_activation="sigmoid",
        confidence_range=(0.5, 3.0), decoder_coordinates=True, decoder_sides=True, decoder_qk_norm=True, **options,
    )  # fmt: skip
    return disturbed(random_pair_network(config))


def depths_of(network: Dust3R, encoded: tuple[torch.Tensor, torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    with torch.inference_mode():
        return list(network.decoder(*encoded, (2, 3), (3, 3)))


# ---------------------------------------------------------------- official numbers
@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("head", TINY_DUST3R)
def test_outputs_equal_the_official_ones(reference, tiny, head, case):
    images = [rule_image(view, *size) for view, size in enumerate(SHAPES[case])]
    with torch.inference_mode():
        assert_golden(tiny[head](images), np.load(reference / f"golden_tiny_{head}_{case}.npz"))


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("head", TINY_DUST3R)
def test_tokens_on_the_way_equal_the_official_ones(reference, tiny, head, case):
    """Depth 0 is what the encoder gives, after its norm; the last one is normalised; those between are not."""
    gold, network = np.load(reference / f"golden_tiny_{head}_{case}.npz"), tiny[head]
    images = [rule_image(view, *size) for view, size in enumerate(SHAPES[case])]
    grids = [network.grid(image) for image in images]
    with torch.inference_mode():
        depths = list(network.decoder(*network.encode_both(*images), *grids))
    assert len(depths) == network.config.decoder_depth + 1
    levels = {int(key.partition("_")[2]) for key in gold if key.startswith("dec")}
    assert levels >= {network.config.decoder_depth}
    for view, grid in enumerate(grids):
        assert grid_positions(*grid).tolist() == gold[f"pos{view + 1}"][0].tolist()
        np.testing.assert_allclose(depths[0][view], gold[f"enc{view + 1}"], atol=1e-5)
        for level in levels:
            np.testing.assert_allclose(depths[level][view], gold[f"dec{view + 1}_{level}"], atol=1e-5)


def test_a_batch_of_pairs_in_both_orders_equals_the_official_one(reference, tiny):
    pairs = [(0, 1), (1, 0), (2, 3), (3, 2)]
    images = [torch.cat([rule_image(pair[side], 48, 64) for pair in pairs]) for side in (0, 1)]
    with torch.inference_mode():
        assert_golden(tiny["linear"](images), np.load(reference / "golden_tiny_linear_sym4.npz"))


@pytest.mark.parametrize("head", TINY_DUST3R)
def test_portraits_stored_as_landscape_equal_the_official_training_path(reference, tiny, head):
    """Pair 0 is landscape, pair 1 is portrait and stored transposed."""
    gold = np.load(reference / f"golden_tiny_{head}_trainmode.npz")
    images = [torch.cat([rule_image(view, 48, 64), rule_image(view + 1, 64, 48).mT]) for view in (0, 2)]
    upright = torch.tensor([[True, True], [False, False]])
    with torch.inference_mode():
        assert_golden(tiny[head](images, stored_upright=upright), gold)
    for sample, grid in enumerate([(3, 4), (4, 3)]):
        assert grid_positions(*grid).tolist() == gold["pos1"][sample].tolist()


def test_rotary_positions_equal_the_official_ones(reference):
    gold = np.load(reference / "golden_rope2d.npz")
    tokens, positions = torch.from_numpy(gold["x"]), torch.from_numpy(gold["pos"])[0]
    got = rotate(tokens.transpose(1, 2), rotation(positions, tokens.shape[-1], 100.0)).transpose(1, 2)
    np.testing.assert_allclose(got, gold["y"], atol=1e-6)
    np.testing.assert_allclose(rotate_2d(tokens, *positions.unbind(1), 100.0), gold["y"], atol=1e-6)


def test_activations_equal_the_official_ones(reference):
    gold = np.load(reference / "golden_output_activation.npz")
    raw = torch.from_numpy(gold["raw"]).permute(0, 2, 3, 1)
    for kind in ("exp", "square", "linear"):
        np.testing.assert_allclose(activate_points(raw[..., :3], kind), gold[f"pts3d_{kind}"], rtol=1e-5, atol=1e-6)
    for kind, low, high in (("exp", 1.0, float("inf")), ("sigmoid", 1.0, 30.0)):
        np.testing.assert_allclose(activate_confidence(raw[..., 3], kind, low, high), gold[f"conf_{kind}"], rtol=1e-5)


# ---------------------------------------------------------------- peculiarities
def test_blocks_of_both_sides_see_what_the_other_was_one_block_before(encoded):
    """A second side that saw the first side's new tokens would change with the first side's first block."""
    network = random_pair_network()
    before = depths_of(network, encoded)
    disturbed(network.decoder.first_blocks[0])
    after = depths_of(network, encoded)
    assert not torch.allclose(after[1][0], before[1][0], atol=1e-3)
    assert torch.equal(after[1][1], before[1][1])
    assert not torch.allclose(after[2][1], before[2][1], atol=1e-3)


def test_only_the_last_depth_is_normalised_and_by_one_norm_for_both_sides(encoded):
    network = random_pair_network()
    before = depths_of(network, encoded)
    with torch.no_grad():
        network.decoder.norm.weight.mul_(2)
    after = depths_of(network, encoded)
    for depth in range(4):
        assert all(torch.equal(a, b) for a, b in zip(after[depth], before[depth], strict=True))
    for a, b in zip(after[4], before[4], strict=True):
        torch.testing.assert_close(a, 2 * b)


def test_the_first_of_the_heads_maps_are_the_encoders_normalised_tokens():
    network, images, seen = random_pair_network(), random_images([(16, 24)] * 2), []
    network.first_head.project = lambda level, tokens: (
        seen.append((level, tokens)) or type(network.first_head).project(network.first_head, level, tokens)
    )
    with torch.inference_mode():
        network(images)
        tokens = network.encode(images[0])
    assert [(level, entry.shape[-1]) for level, entry in seen] == [(0, 32), (1, 32), (2, 32), (3, 32)]
    assert network.config.hooks == (0, 2, 3, 4)
    torch.testing.assert_close(seen[0][1], tokens)
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(1, 6), atol=1e-5, rtol=0)


def test_hooks_of_the_released_depth_are_the_published_ones():
    assert replace(SMALLEST_PAIRS, decoder_depth=12).hooks == (0, 6, 9, 12)
    assert replace(LINEAR, decoder_depth=12).hooks == (12,)


def test_norms_of_decoders_use_another_epsilon_than_the_fusion_of_fast3r(encoded):
    """1e-6; seen in tokens whose variance is not far above it."""
    block = random_pair_network().decoder.first_blocks[0]
    other = deepcopy(block)
    for module in other.modules():
        if isinstance(module, torch.nn.LayerNorm):
            assert module.eps == 1e-6
            module.eps = 1e-5
    tokens, others = (1e-3 * t for t in encoded)
    places = [grid_positions(*grid).unbind(1) for grid in ((2, 3), (3, 3))]
    by = [rotation(grid_positions(*grid), 16, 100.0) for grid in ((2, 3), (3, 3))]
    with torch.inference_mode():
        got = block(tokens, others, *by)
        want = cross_block(block, tokens, others, places[0], places[1], 2, 100.0)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)
        assert not torch.allclose(got, other(tokens, others, *by), rtol=1e-2)
        normalised = random_pair_network().decoder.norm(tokens)
    variance = tokens.var(-1, unbiased=False, keepdim=True)
    torch.testing.assert_close(normalised, (tokens - tokens.mean(-1, keepdim=True)) / (variance + 1e-6).sqrt())


@pytest.mark.parametrize("config", [SMALLEST_PAIRS, LINEAR], ids=["dpt", "linear"])
def test_heads_are_not_shared(config):
    network, images = random_pair_network(config), random_images([(16, 24)] * 2)
    with torch.inference_mode():
        before = network(images)
        disturbed(network.second_head)
        after = network(images)
    assert torch.equal(after.points[0], before.points[0])
    assert not torch.allclose(after.points[1], before.points[1], rtol=1e-2)


def test_sides_are_not_shared(encoded):
    """Equal tokens on both sides become different ones, and the parameters are disjoint."""
    network = random_pair_network()
    with torch.inference_mode():
        depths = list(network.decoder(encoded[0], encoded[0], (2, 3), (2, 3)))
    assert torch.equal(*depths[0])
    assert not torch.allclose(*depths[1], atol=1e-2)
    first, second = (
        {id(p) for p in blocks.parameters()} for blocks in (network.decoder.first_blocks, network.decoder.second_blocks)
    )
    assert not first & second


def test_a_view_reads_positions_of_the_other_on_its_own_grid(encoded):
    """Six tokens of the second view as a grid of 2 x 3 or of 3 x 2 say different things to the first one."""
    network = random_pair_network()
    with torch.inference_mode():
        wide, tall = (list(network.decoder(encoded[0], encoded[0], (2, 3), grid))[1] for grid in ((2, 3), (3, 2)))
    assert not torch.allclose(wide[0], tall[0], atol=1e-4)


# ---------------------------------------------------------------- the fast path
@pytest.mark.parametrize("sizes", [[(16, 24), (16, 24)], [(24, 16), (16, 16)], [(8, 8), (40, 24)]])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("config", [SMALLEST_PAIRS, LINEAR], ids=["dpt", "linear"])
def test_fast_path_equals_the_readable_one(sizes, batch, config):
    network, images = random_pair_network(config), random_images(sizes, batch)
    with torch.inference_mode():
        assert_same(network(images), dust3r_reference(network, *images))


@pytest.mark.parametrize("head", ["dpt", "linear"])
@pytest.mark.parametrize("patch", [8, 16])
def test_fast_path_equals_the_readable_one_where_nothing_is_a_default(head, patch):
    network = peculiar(head=head, patch_size=patch)
    images = random_images([(3 * patch, 5 * patch), (5 * patch, 2 * patch)], batch=2)
    assert {block.mlp.expand.out_features for block in network.decoder.second_blocks} == {72}
    with torch.inference_mode():
        assert_same(network(images), dust3r_reference(network, *images))


def test_tokens_of_every_depth_equal_the_readable_ones():
    network, generator = peculiar(), torch.Generator().manual_seed(0)
    encoded = (torch.randn(2, 6, 32, generator=generator), torch.randn(2, 9, 32, generator=generator))
    got = depths_of(network, encoded)
    with torch.inference_mode():
        want = decode(network, encoded, [(2, 3), (3, 3)])
    for depth, (g, w) in enumerate(zip(got, want, strict=True)):
        for side in (0, 1):
            torch.testing.assert_close(g[side], w[side], rtol=1e-4, atol=1e-5, msg=f"depth {depth}, side {side}")


def test_pictures_encoded_once_give_every_pair_exactly_what_encoding_them_again_gives():
    network, views = random_pair_network(), random_images([(16, 24)] * 4)
    with torch.inference_mode():
        tokens = [network.encode(view) for view in views]
        for i, j in itertools.permutations(range(4), 2):
            want = network.decode(network.encode(views[i]), network.encode(views[j]), (2, 3), (2, 3))
            got = network.decode(tokens[i], tokens[j], (2, 3), (2, 3))
            assert all(torch.equal(g, w) for g, w in zip(got.points, want.points, strict=True))
            assert_same(got, network([views[i], views[j]]), rtol=1e-6)


def test_views_of_one_shape_are_encoded_together_and_others_apart():
    network, seen = random_pair_network(), []
    network.encoder.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape)))
    with torch.inference_mode():
        network(random_images([(16, 24)] * 2))
        network(random_images([(16, 24), (24, 16)]))
    assert seen == [(2, 3, 16, 24), (1, 3, 16, 24), (1, 3, 24, 16)]


@pytest.mark.parametrize("sizes", [[(16, 24), (16, 24)], [(24, 16), (16, 16)]])
@pytest.mark.parametrize("config", [SMALLEST_PAIRS, LINEAR], ids=["dpt", "linear"])
def test_a_batch_of_pairs_equals_its_pairs_one_by_one(sizes, config):
    network, images = random_pair_network(config), random_images(sizes, batch=3)
    with torch.inference_mode():
        whole = network(images)
        for sample in range(3):
            one = network([image[sample : sample + 1] for image in images])
            part = Pointmaps(
                points=[p[sample : sample + 1] for p in whole.points],
                confidence=[c[sample : sample + 1] for c in whole.confidence],
            )
            assert_same(part, one)


def test_one_tensor_and_a_list_of_tensors_mean_the_same():
    network, images = random_pair_network(), random_images([(16, 24)] * 2, batch=2)
    with torch.inference_mode():
        assert_same(network(torch.stack(images, dim=1)), network(images), rtol=1e-7)


@pytest.mark.parametrize("flags", [[[True, False], [False, True]], [[False, False], [True, True]]])
def test_portraits_stored_as_landscape_give_what_they_give_upright(flags):
    network, natural, stored = random_pair_network(), [], []
    for sample, pair in enumerate(flags):
        natural.append(random_images([(16, 24) if up else (24, 16) for up in pair], seed=sample))
        stored.append([image if up else image.mT for image, up in zip(natural[-1], pair, strict=True)])
    images = [torch.cat([sample[view] for sample in stored]) for view in (0, 1)]
    with torch.inference_mode():
        got = network(images, stored_upright=torch.tensor(flags))
        for sample, (pair, up) in enumerate(zip(natural, flags, strict=True)):
            want = network(pair)
            for view in (0, 1):
                for g, w in ((got.points, want.points), (got.confidence, want.confidence)):
                    result = g[view][sample : sample + 1]
                    torch.testing.assert_close(result if up[view] else result.transpose(1, 2), w[view])


def test_results_go_where_they_are_wanted():
    """The device "meta" stands for another device than that of the network."""
    with torch.inference_mode():
        out = random_pair_network()(random_images([(16, 24)] * 2), economy=Economy(results_on="meta"))
    assert {result.device.type for result in (*out.points, *out.confidence)} == {"meta"}


@pytest.mark.parametrize("option", ["decoder_coordinates", "decoder_sides", "decoder_qk_norm"])
def test_options_of_the_decoders_change_the_result_and_keep_the_shapes(option):
    """Both networks have the same weights wherever both have one."""
    images = random_images([(16, 24), (24, 16)])
    plain, other = random_pair_network(), disturbed(random_pair_network(replace(SMALLEST_PAIRS, **{option: True})))
    lacking, unexpected = other.load_state_dict(plain.state_dict(), strict=False)
    assert lacking
    assert not unexpected
    with torch.inference_mode():
        without, with_option = plain(images), other(images)
    for w, o in zip(without.points, with_option.points, strict=True):
        assert w.shape == o.shape
        assert not torch.allclose(w, o)


def test_vectors_of_the_sides_start_without_effect():
    images = random_images([(16, 24)] * 2)
    plain, other = random_pair_network(), random_pair_network(replace(SMALLEST_PAIRS, decoder_sides=True))
    other.load_state_dict(plain.state_dict(), strict=False)
    with torch.inference_mode():
        assert_same(other(images), plain(images), rtol=1e-7)


@pytest.mark.parametrize("config", [SMALLEST_PAIRS, LINEAR], ids=["dpt", "linear"])
def test_bfloat16_stays_near_float32_and_results_are_float32(config):
    network, images = random_pair_network(config), random_images([(16, 24)] * 2)
    with torch.inference_mode():
        exact = network(images)
        coarse = network.to(torch.bfloat16)(images)
    for got, want in zip((*coarse.points, *coarse.confidence), (*exact.points, *exact.confidence), strict=True):
        assert got.dtype == torch.float32
        assert (got - want).abs().mean() < 0.05 * want.abs().mean()


def test_activations_and_their_range_are_those_of_the_configuration():
    config = replace(LINEAR, depth_activation="square", confidence_activation="sigmoid", confidence_range=(0.5, 2.0))
    points, confidence = random_pair_network(config).activate(torch.tensor([[0.0, 3.0, 4.0, 0.0]]))
    torch.testing.assert_close(points, torch.tensor([[0.0, 15.0, 20.0]]))
    torch.testing.assert_close(confidence, torch.tensor([1.25]))


# ---------------------------------------------------------------- what is refused, and what is trained
@pytest.mark.parametrize("views", [1, 3])
def test_any_other_number_of_views_than_two_is_refused(views):
    with pytest.raises(ValueError, match=f"got {views} views; DUSt3R takes two"):
        random_pair_network()(random_images([(16, 24)] * views))


@pytest.mark.parametrize("side", [15, 4])
def test_a_size_that_is_no_multiple_of_the_patch_is_refused(side):
    with pytest.raises(ValueError, match=r"view 1 has shape .* multiples of 8"):
        random_pair_network()(random_images([(16, 24), (side, 24)]))


def test_pictures_that_are_not_of_three_channels_are_refused():
    for image in (torch.zeros(1, 4, 16, 24), torch.zeros(1, 1, 16, 24), torch.zeros(3, 16, 24)):
        with pytest.raises(ValueError, match=r"expected \(B, 3, H, W\)"):
            random_pair_network()([image, image])


def test_unequal_numbers_of_pictures_on_the_two_sides_are_refused():
    with pytest.raises(ValueError, match="1 pictures on the first side and 2 on the second"):
        random_pair_network()([torch.zeros(1, 3, 16, 24), torch.zeros(2, 3, 16, 24)])


@pytest.mark.parametrize("config", [SMALLEST_PAIRS, LINEAR], ids=["dpt", "linear"])
def test_gradients_reach_every_used_weight(config):
    options = {"decoder_coordinates": True, "decoder_sides": True, "decoder_qk_norm": True}
    network = random_pair_network(replace(config, **options)).train()
    out = network(random_images([(16, 24)] * 2))
    sum(p.sum() for p in (*out.points, *out.confidence)).backward()
    unused = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()}
    coarsest = {name for name, _ in network.named_parameters() if ".refine.3.join." in name}
    # No softmax sees what is added to all keys alike, but rounding may.
    keys = ("attention.qkv.bias", "attention.key.bias", "attention.k_norm.bias")
    assert coarsest <= unused <= coarsest | {name for name in unused if name.endswith(keys)}
    assert len(coarsest) == (8 if config.head == "dpt" else 0)


def test_network_has_no_state_beside_its_weights():
    assert not dict(random_pair_network().named_buffers())
