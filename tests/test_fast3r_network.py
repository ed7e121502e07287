"""The Fast3R network: official numbers, its published peculiarities, and the fast path against the readable one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from manyview.networks import from_official
from manyview.networks.fast3r import Economy, Fast3R, Layout
from manyview.networks.layers.coordinates import coordinate_features
from manyview.networks.layers.view_index import draw_ids, index_embedding, index_pool, sequential_ids
from manyview.networks.reference import fast3r_reference, transformer_block
from toys import SMALLEST, random_images, random_network
from weights import TINY_OFFICIAL, rule_image, rule_weights

KINDS = {
    "pts3d_in_other_view": "points",
    "conf": "confidence",
    "pts3d_local": "local_points",
    "conf_local": "local_confidence",
}
PLAIN_FILES = {
    "golden_tiny_landscape_3v.npz": [(48, 64)] * 3,
    "golden_tiny_mixed_3v.npz": [(48, 64), (64, 48), (64, 64)],
    "golden_tiny_batch2_2v.npz": [(48, 64)] * 2,
    "golden_tiny_sequential_ids_3v.npz": [(48, 64)] * 3,
}


def assert_same(got, want, rtol=1e-5):
    for name in KINDS.values():
        for g, w in zip(getattr(got, name), getattr(want, name), strict=True):
            np.testing.assert_allclose(g.numpy(), w.numpy(), rtol=rtol, atol=rtol * float(w.abs().max()))


@pytest.fixture(scope="module")
def reference(shared):
    return shared / "reference" / "fast3r"


@pytest.fixture(scope="module")
def tiny(reference) -> Fast3R:
    return from_official("fast3r", TINY_OFFICIAL, rule_weights(reference / "manifest_tiny.json"))


@pytest.fixture(scope="module")
def peculiar() -> Fast3R:
    """A network none of whose numbers is a default."""
    config = replace(SMALLEST, mlp_ratio=1.5, rope_base=10.0, fusion_dim=48, fusion_heads=3)
    return random_network(config)


def golden_images(sizes, batch):
    return [torch.cat([rule_image(v, *size, sample=b) for b in range(batch)]) for v, size in enumerate(sizes)]


# ---------------------------------------------------------------- official numbers
@pytest.mark.parametrize("file", PLAIN_FILES)
def test_outputs_equal_the_official_ones(reference, tiny, file):
    gold = np.load(reference / file)
    ids = torch.from_numpy(gold["view_ids"])
    with torch.inference_mode():
        out = tiny(golden_images(PLAIN_FILES[file], len(ids)), view_ids=ids)
    for key, name in KINDS.items():
        for v in range(len(PLAIN_FILES[file])):
            want = gold[f"v{v}_{key}"]
            np.testing.assert_allclose(getattr(out, name)[v], want, rtol=5e-5, atol=5e-5 * np.abs(want).mean())


@pytest.mark.parametrize("file", PLAIN_FILES)
def test_tokens_on_the_way_equal_the_official_ones(reference, tiny, file):
    gold = np.load(reference / file)
    images, ids = golden_images(PLAIN_FILES[file], len(gold["view_ids"])), torch.from_numpy(gold["view_ids"])
    layout = Layout(tuple((h // 16, w // 16) for h, w in PLAIN_FILES[file]))
    with torch.inference_mode():
        encoded = tiny.encode(images, layout, torch.ones(ids.shape, dtype=torch.bool), Economy())
        entering = tiny.fusion.embedding(encoded) + tiny.fusion.index_of_tokens(ids, layout, encoded)
        depths = list(tiny.fusion(encoded, layout, ids))
    np.testing.assert_allclose(encoded, gold["enc_tokens"], atol=2e-5)
    np.testing.assert_allclose(entering, gold["dec_in"], atol=2e-5)
    for depth in (5, 7, 10):
        np.testing.assert_allclose(depths[depth], gold[f"dec_tokens_{depth}"], atol=5e-5)


def test_portraits_stored_as_landscape_equal_the_official_training_path(reference, tiny):
    gold = np.load(reference / "golden_tiny_manyar_mixed_batch2_2v.npz")
    upright = torch.tensor([[True, True], [False, False]])  # sample 1 is portrait in both views
    with torch.inference_mode():
        out = tiny(
            golden_images([(48, 64)] * 2, 2), view_ids=torch.from_numpy(gold["view_ids"]), stored_upright=upright
        )
    for key, name in KINDS.items():
        for v in range(2):
            want = gold[f"v{v}_{key}"]
            np.testing.assert_allclose(getattr(out, name)[v], want, rtol=5e-5, atol=5e-5 * np.abs(want).mean())


@pytest.mark.parametrize(
    ("file", "seed"),
    [
        ("golden_tiny_landscape_3v.npz", 0),
        ("golden_tiny_mixed_3v.npz", 1),
        ("golden_tiny_batch2_2v.npz", 2),
        ("golden_tiny_manyar_mixed_batch2_2v.npz", 6),
    ],
)
def test_a_seed_draws_the_official_view_ids(reference, file, seed):
    want = np.load(reference / file)["view_ids"]
    assert draw_ids(*want.shape, seed).tolist() == want.tolist()


# ---------------------------------------------------------------- peculiarities
def test_two_views_with_seed_0_get_rows_0_and_877():
    assert draw_ids(1, 2, 0).tolist() == [[0, 877]]


def test_fusion_blocks_have_another_epsilon_than_encoder_and_final_norm():
    network = random_network()
    assert {block.norm1.eps for block in network.fusion.blocks} == {1e-5}
    assert {block.norm2.eps for block in network.fusion.blocks} == {1e-5}
    assert {block.norm1.eps for block in network.encoder.blocks} == {1e-6}
    assert network.encoder.norm.eps == network.fusion.norm.eps == 1e-6


def test_epsilon_of_the_fusion_matters_for_faint_tokens():
    """The readable block with the encoder's epsilon does not give the fusion's result."""
    block = random_network().fusion.blocks[0]
    faint = 1e-3 * torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        got = block(faint)
        torch.testing.assert_close(got, transformer_block(block, faint, 2, eps=1e-5), rtol=1e-4, atol=1e-6)
        assert not torch.allclose(got, transformer_block(block, faint, 2, eps=1e-6), rtol=1e-2)


def test_released_fusion_knows_no_patch_positions():
    """Without RoPE, exchanging two tokens of a view exchanges their results and changes nothing else."""
    network = random_network()
    tokens = torch.randn(1, 12, 32, generator=torch.Generator().manual_seed(0))
    layout, ids = Layout(((2, 3),) * 2), torch.tensor([[0, 5]])
    order = torch.tensor([1, 0, *range(2, 12)])
    with torch.inference_mode():
        plain = list(network.fusion(tokens, layout, ids))[-1]
        exchanged = list(network.fusion(tokens[:, order], layout, ids))[-1]
        with_positions = random_network(replace(SMALLEST, fusion_positions=True))
        moved = [list(with_positions.fusion(t, layout, ids))[-1] for t in (tokens, tokens[:, order])]
    torch.testing.assert_close(exchanged, plain[:, order], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(moved[1], moved[0][:, order], rtol=1e-4, atol=1e-5)


def test_attention_scale_option_changes_the_fusion_alone():
    plain, scaled = random_network(), random_network(replace(SMALLEST, length_scaled_attention=True))
    ratio = scaled.fusion.blocks[0].attention.scale / plain.fusion.blocks[0].attention.scale
    assert ratio == pytest.approx(np.sqrt(np.log(137) / np.log(20)))
    assert scaled.encoder.blocks[0].attention.scale is None
    images, ids = random_images([(16, 24)] * 2), torch.tensor([[0, 3]])
    with torch.inference_mode():
        assert not torch.allclose(scaled(images, view_ids=ids).points[1], plain(images, view_ids=ids).points[1])


# ---------------------------------------------------------------- view indices
def test_equal_seeds_give_equal_results_and_others_do_not():
    network, images = random_network(), random_images([(16, 24)] * 3)
    with torch.inference_mode():
        first, again, other = (network(images, seed=seed).points[2] for seed in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_results_do_not_depend_on_the_global_random_state():
    network, images = random_network(), random_images([(16, 24)] * 3)
    with torch.inference_mode(), torch.random.fork_rng():
        torch.manual_seed(1)
        first = network(images).points[2]
        torch.manual_seed(2)
        assert torch.equal(first, network(images).points[2])


@pytest.mark.parametrize("views", [1, 2, 1000, 1001, 1500, 5000])
def test_rows_are_distinct_inside_the_trained_range_and_start_with_0(views):
    for ids in (draw_ids(2, views, seed=3), sequential_ids(2, views)):
        assert ids.shape == (2, views)
        assert (ids[:, 0] == 0).all()
        assert all(len(set(row)) == views for row in ids.tolist())
        assert ids.min() >= 0
        assert ids.max() <= 999


def test_the_finer_grid_keeps_its_ends_and_the_formula_joins_neighbouring_rows():
    pool = index_pool(1500)
    assert (pool[0], pool[-1]) == (1, 999)
    low, middle, high = index_embedding(torch.tensor([[10.0, 10.5, 11.0]]), 64)[0]
    assert (middle - low).norm() < (high - low).norm()


def test_more_than_a_thousand_views_run():
    network = random_network()
    with torch.inference_mode():
        out = network(random_images([(8, 8)]) * 1005)
    assert len(out.points) == 1005
    assert torch.isfinite(torch.stack(list(out.points))).all()


def test_sequential_rows_can_be_asked_for():
    network, images = random_network(replace(SMALLEST, random_view_ids=False)), random_images([(16, 24)] * 3)
    with torch.inference_mode():
        got, want = network(images, seed=4), network(images, view_ids=torch.tensor([[0, 1, 2]]))
    assert torch.equal(got.points[2], want.points[2])


def test_every_scene_of_a_batch_draws_its_own_rows():
    first, second = draw_ids(2, 5, seed=0).tolist()
    assert first[1:] != second[1:]


def test_sequential_rows_of_very_many_views_are_spread_evenly_over_the_trained_range():
    rows = sequential_ids(1, 2001)[0]
    assert (rows[0], rows[-1]) == (0, 999)
    torch.testing.assert_close(rows.diff(), torch.full((2000,), 999 / 2000, dtype=torch.float64))


# ---------------------------------------------------------------- the fast path
@pytest.mark.parametrize(
    "sizes", [[(16, 24)], [(16, 24)] * 5, [(24, 16), (24, 16), (16, 16), (24, 16)], [(24, 40)] * 2]
)
@pytest.mark.parametrize("batch", [1, 2])
def test_fast_path_equals_the_readable_one(sizes, batch):
    network, images = random_network(), random_images(sizes, batch)
    ids = draw_ids(batch, len(sizes), seed=0)
    with torch.inference_mode():
        assert_same(network(images, view_ids=ids), fast3r_reference(network, images, ids))


def test_fast_path_equals_the_readable_one_with_patches_of_16_and_scaled_attention():
    config = replace(SMALLEST, patch_size=16, length_scaled_attention=True)
    network, images = random_network(config), random_images([(48, 64), (64, 48)])
    ids = draw_ids(1, 2, seed=0)
    with torch.inference_mode():
        assert_same(network(images, view_ids=ids), fast3r_reference(network, images, ids))


def test_fast_path_equals_the_readable_one_where_no_size_is_a_default(peculiar):
    images, ids = random_images([(24, 40), (40, 24)]), torch.tensor([[0, 700]])
    assert {block.mlp.expand.out_features for block in peculiar.encoder.blocks} == {48}
    assert {block.mlp.expand.out_features for block in peculiar.fusion.blocks} == {72}
    with torch.inference_mode():
        assert_same(peculiar(images, view_ids=ids), fast3r_reference(peculiar, images, ids))


@pytest.mark.parametrize(
    "economy", [Economy(encoder_images=1, head_images=1), Economy(encoder_images=3, head_images=2)]
)
def test_cutting_up_the_work_does_not_change_the_result(economy):
    network, images = random_network(), random_images([(16, 24)] * 4 + [(24, 16)], batch=2)
    with torch.inference_mode():
        assert_same(network(images, economy=economy), network(images))


@pytest.mark.parametrize(("allowed", "batch", "most"), [(3, 1, 3), (4, 2, 4), (1, 2, 2)])
def test_no_more_images_than_allowed_are_worked_on_at_once(allowed, batch, most):
    """A view of all scenes is the least that can be worked on."""
    network, seen = random_network(), {"encoder": [], "head": []}
    network.encoder.register_forward_pre_hook(lambda _, given: seen["encoder"].append(len(given[0])))
    network.global_head.register_forward_pre_hook(lambda _, given: seen["head"].append(len(given[0][0])))
    with torch.inference_mode():
        network(random_images([(16, 24)] * 5, batch), economy=Economy(encoder_images=allowed, head_images=allowed))
    for sizes in seen.values():
        assert sum(sizes) == 5 * batch
        assert max(sizes) == most


def test_results_go_where_they_are_wanted():
    """The device "meta" stands for another device than that of the network."""
    with torch.inference_mode():
        out = random_network()(random_images([(16, 24)] * 2), economy=Economy(results_on="meta"))
    for name in KINDS.values():
        assert [result.device.type for result in getattr(out, name)] == ["meta"] * 2


@pytest.mark.parametrize("economy", [Economy(), Economy(encoder_images=2, head_images=2)])
def test_portraits_stored_as_landscape_give_what_they_give_upright(economy):
    network, ids = random_network(), draw_ids(1, 4, seed=0)
    natural = random_images([(16, 24), (24, 16), (24, 16), (16, 24)])
    upright = torch.tensor([[True, False, False, True]])
    stored = [image if flag else image.mT for image, flag in zip(natural, upright[0].tolist(), strict=True)]
    with torch.inference_mode():
        want = network(natural, view_ids=ids)
        got = network(stored, view_ids=ids, stored_upright=upright, economy=economy)
    for name in KINDS.values():
        for view, flag in enumerate(upright[0].tolist()):
            result = getattr(got, name)[view] if flag else getattr(got, name)[view].transpose(1, 2)
            torch.testing.assert_close(result, getattr(want, name)[view], rtol=1e-4, atol=1e-5)


def test_local_head_can_be_left_out():
    network, images = random_network(), random_images([(16, 24)] * 3)
    with torch.inference_mode():
        whole, part = network(images), network(images, local=False)
    assert part.local_points is None
    assert part.local_confidence is None
    assert torch.equal(part.points[2], whole.points[2])


def test_one_tensor_and_a_list_of_tensors_mean_the_same():
    network, images = random_network(), random_images([(16, 24)] * 3, batch=2)
    with torch.inference_mode():
        assert_same(network(torch.stack(images, dim=1)), network(images))


def test_only_narrow_maps_of_the_hooked_depths_are_kept():
    network, images = random_network(), random_images([(16, 24)] * 3)
    layout = Layout(((2, 3),) * 3)
    encoded = network.encode(images, layout, torch.ones(1, 3, dtype=torch.bool), Economy())
    heads = [network.global_head, network.local_head]
    for maps in network.fuse(encoded, layout, draw_ids(1, 3, 0), heads):
        assert [m.shape[-1] for m in maps] == list(SMALLEST.head_widths)


@pytest.mark.parametrize(
    "options",
    [
        {"fusion_attention": "alternating"},
        {"fusion_positions": True},
        {"fusion_coordinates": True},
        {"fusion_qk_norm": True},
    ],
)
def test_options_of_the_fusion_change_the_result_and_keep_the_shapes(options):
    """Both networks have the same weights wherever both have one."""
    images = random_images([(16, 24), (24, 16), (24, 16)])
    plain, other = random_network(), random_network(replace(SMALLEST, **options), seed=1)
    lacking, unexpected = other.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert bool(lacking) == (next(iter(options)) in ("fusion_coordinates", "fusion_qk_norm"))
    with torch.inference_mode():
        without, with_option = plain(images), other(images)
    for w, o in zip(without.points, with_option.points, strict=True):
        assert w.shape == o.shape
        assert not torch.allclose(w, o)


@pytest.mark.parametrize("attention", ["joint", "alternating"])
@pytest.mark.parametrize("coordinates", [False, True])
def test_fusion_with_options_equals_the_blocks_one_by_one(attention, coordinates):
    """Views of three shapes; positions are (y, x) on each view's own grid, and even blocks see one view at a time."""
    config = replace(
        SMALLEST, fusion_attention=attention, fusion_positions=True, fusion_coordinates=coordinates, rope_base=10.0
    )
    fusion, layout, ids = random_network(config).fusion, Layout(((2, 3), (2, 3), (3, 2), (2, 2))), draw_ids(2, 4, 0)
    encoded = torch.randn(2, sum(layout.lengths), 32, generator=torch.Generator().manual_seed(0))
    y, x = torch.tensor([(row, column) for h, w in layout.grids for row in range(h) for column in range(w)]).unbind(1)
    with torch.inference_mode():
        got = list(fusion(encoded, layout, ids))
        tokens = fusion.embedding(encoded) + fusion.index_of_tokens(ids, layout, encoded)
        if fusion.coordinates is not None:
            places = torch.cat([coordinate_features(*grid) for grid in layout.grids])
            tokens = tokens + torch.nn.functional.linear(places, fusion.coordinates.weight, fusion.coordinates.bias)
        for number, block in enumerate(fusion.blocks):
            lengths = layout.lengths if attention == "alternating" and number % 2 == 0 else [sum(layout.lengths)]
            parts = zip(*(part.split(lengths, dim=dim) for part, dim in ((tokens, 1), (y, 0), (x, 0))), strict=True)
            tokens = torch.cat(
                [transformer_block(block, own, 2, eps=1e-5, rope=(oy, ox, 10.0)) for own, oy, ox in parts], dim=1
            )
            want = fusion.norm(tokens) if number == 3 else tokens
            torch.testing.assert_close(got[number + 1], want, rtol=1e-4, atol=1e-5)
    assert torch.equal(got[0], encoded)


def test_alternating_fusion_keeps_views_apart_in_its_first_block():
    network = random_network(replace(SMALLEST, fusion_attention="alternating"))
    tokens = torch.randn(1, 12, 32, generator=torch.Generator().manual_seed(0))
    changed = torch.cat([tokens[:, :6], tokens[:, 6:] + 1], dim=1)
    layout, ids = Layout(((2, 3),) * 2), torch.tensor([[0, 5]])
    with torch.inference_mode():
        one, two = (list(network.fusion(t, layout, ids)) for t in (tokens, changed))
    assert torch.allclose(one[1][:, :6], two[1][:, :6])
    assert not torch.allclose(one[1][:, 6:], two[1][:, 6:])
    assert not torch.allclose(one[2][:, :6], two[2][:, :6])


def test_bfloat16_stays_near_float32_and_results_are_float32():
    network, images = random_network(), random_images([(16, 24)] * 2)
    with torch.inference_mode():
        exact = network(images)
        coarse = network.to(torch.bfloat16)(images)
    assert coarse.points[0].dtype == torch.float32
    assert (coarse.points[1] - exact.points[1]).abs().mean() < 0.05 * exact.points[1].abs().mean()


def test_activations_and_their_range_are_those_of_the_configuration():
    config = replace(SMALLEST, depth_activation="square", confidence_activation="sigmoid", confidence_range=(0.5, 2.0))
    points, confidence = random_network(config).activate(torch.tensor([[0.0, 3.0, 4.0, 0.0]]))
    torch.testing.assert_close(points, torch.tensor([[0.0, 15.0, 20.0]]))
    torch.testing.assert_close(confidence, torch.tensor([1.25]))


@pytest.mark.parametrize("side", [15, 4])
def test_a_size_that_is_no_multiple_of_the_patch_is_refused(side):
    with pytest.raises(ValueError, match=r"view 1 has shape .* multiples of 8"):
        random_network()(random_images([(16, 24), (side, 24)]))


def test_pictures_that_are_not_of_three_channels_are_refused():
    for image in (torch.zeros(1, 4, 16, 24), torch.zeros(1, 1, 16, 24), torch.zeros(3, 16, 24)):
        with pytest.raises(ValueError, match=r"expected \(B, 3, H, W\)"):
            random_network()([image])


def test_gradients_reach_every_used_weight():
    network = random_network().train()
    out = network(random_images([(16, 24)] * 2))
    assert out.local_points is not None
    sum(p.sum() for p in (*out.points, *out.confidence, *out.local_points)).backward()
    unused = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()}
    coarsest = {name for name, _ in network.named_parameters() if ".refine.3.join." in name}
    # No softmax sees what is added to all keys alike, but rounding may.
    assert coarsest <= unused <= coarsest | {name for name in unused if name.endswith("attention.qkv.bias")}
    assert len(coarsest) == 8


def test_network_has_no_state_beside_its_weights():
    assert not dict(random_network().named_buffers())
