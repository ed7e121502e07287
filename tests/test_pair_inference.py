"""Many pairs through a network: as pair by pair, each picture encoded once, and no more memory than there is."""

from __future__ import annotations

import gc
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview.alignment.pairs import make_pairs
from manyview.errors import DeviceError, InputError
from manyview.methods import pair_inference, pair_store
from manyview.methods.devices import in_precision
from manyview.methods.pair_inference import encode_pictures, infer_pairs
from manyview.methods.pair_store import free_memory
from manyview.networks.dust3r import Dust3R, Dust3RConfig
from manyview.networks.layers.dpt import DPTHead
from toys import random_images

CPU = {"device": torch.device("cpu"), "dtype": torch.float32}
LANDSCAPE, PORTRAIT, SQUARE = (16, 24), (24, 16), (16, 16)
SMALLEST_PAIRS = Dust3RConfig(
    patch_size=8, encoder_dim=32, encoder_heads=2, encoder_depth=1, decoder_dim=32, decoder_heads=2, decoder_depth=4,
    head_widths=(8, 8, 8, 8), head_features=8, head_last_features=8,
)  # fmt: skip
BYTES_PREPARED = 4 * 8 * (4 * 2) * (4 * 3)  # of a picture of LANDSCAPE on one side: float32, features, rows, columns
OUT_OF_MEMORY = [torch.OutOfMemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError()]


@pytest.fixture(scope="module")
def network() -> Dust3R:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Dust3R(SMALLEST_PAIRS).eval()


def pair_by_pair(network: Dust3R, images, edges) -> list[tuple]:
    """(points, confidence) of each edge: the network run on two pictures."""
    with torch.inference_mode():
        results = [network([images[first], images[second]]) for first, second in edges.tolist()]
    return [tuple([given[0] for given in kind] for kind in (one.points, one.confidence)) for one in results]


def assert_as_pair_by_pair(found, network, images, tolerance=1e-6):
    expected = pair_by_pair(network, images, found.pairs.edges)
    for row, maps in enumerate(expected):
        for mine, true in zip((found.pairs.points[row], found.pairs.confidence[row]), maps, strict=True):
            for side in (0, 1):
                torch.testing.assert_close(mine[side], true[side], rtol=tolerance, atol=tolerance)


def run_out_of_memory(monkeypatch, name: str, error: Exception | type[Exception], calls: int) -> list:
    """Let the first calls of a method of the network fail; the list receives (batch size, precision) of each call."""
    plain, made = getattr(Dust3R, name), []

    def scarce(self, tokens, *others):
        made.append((len(tokens), next(self.parameters()).dtype))
        if len(made) <= calls:
            raise error
        return plain(self, tokens, *others)

    monkeypatch.setattr(Dust3R, name, scarce)
    return made


# ---------------------------------------------------------------- as pair by pair
@pytest.mark.parametrize("store", ["memory", "disk"])
@pytest.mark.parametrize(
    "sizes",
    [[LANDSCAPE] * 2, [LANDSCAPE] * 4, [LANDSCAPE, PORTRAIT], [SQUARE, PORTRAIT, LANDSCAPE, PORTRAIT, SQUARE]],
    ids=["two", "four", "mixed pair", "mixed"],
)
def test_all_pairs_are_as_pair_by_pair(network, sizes, store):
    images, edges = random_images(sizes), make_pairs(len(sizes), "complete")
    with infer_pairs(network, images, edges, store=store, **CPU) as found:
        assert found.pairs.sizes == tuple(sizes)
        np.testing.assert_array_equal(found.pairs.edges, edges)
        assert (found.dtype, found.changes, found.masked_pixels) == (torch.float32, (), 0)
        assert found.is_on_disk == (store == "disk")
        assert_as_pair_by_pair(found, network, images)


def test_one_picture_is_a_pair_with_itself(network):
    images = random_images([LANDSCAPE])
    found = infer_pairs(network, images, np.array([[0, 0]]), **CPU)
    assert found.pairs.views == 1
    assert_as_pair_by_pair(found, network, images)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_graph_of_any_shapes_is_as_pair_by_pair(network, data):
    sizes = data.draw(st.lists(st.sampled_from([LANDSCAPE, PORTRAIT, SQUARE]), min_size=1, max_size=4))
    views = st.integers(0, len(sizes) - 1)
    extra = data.draw(st.lists(st.tuples(views, views), max_size=6))
    edges = np.array([(view, data.draw(views)) for view in range(len(sizes))] + extra)
    images = random_images(sizes, seed=data.draw(st.integers(0, 99)))
    assert_as_pair_by_pair(infer_pairs(network, images, edges, **CPU), network, images)


@pytest.mark.parametrize("pixels", [1, 900, 10**9])
def test_the_size_of_batches_does_not_change_the_results(network, monkeypatch, pixels):
    monkeypatch.setitem(pair_inference.PIXELS_AT_ONCE, "cpu", pixels)
    images = random_images([LANDSCAPE, LANDSCAPE, SQUARE])
    found = infer_pairs(network, images, make_pairs(3, "complete"), **CPU)
    assert_as_pair_by_pair(found, network, images)


def test_the_tokens_are_the_encoders(network):
    images = random_images([LANDSCAPE, PORTRAIT, LANDSCAPE])
    encoded = encode_pictures(network, images, **CPU)
    assert [tuple(tokens.shape) for tokens in encoded.tokens] == [(6, 32)] * 3
    with torch.inference_mode():
        for image, tokens in zip(images, encoded.tokens, strict=True):
            torch.testing.assert_close(tokens, network.encode(image)[0], rtol=1e-6, atol=1e-6)


def test_results_take_part_in_differentiation(network):
    """Tensors made for inference alone could not: an alignment by gradient descent would fail."""
    for store in ("memory", "disk"):
        found = infer_pairs(network, random_images([SQUARE] * 2), np.array([[0, 1]]), store=store, **CPU)
        scale = torch.ones((), requires_grad=True)
        (scale * found.pairs.points[0][1]).sum().backward()
        assert scale.grad is not None


# ---------------------------------------------------------------- each picture once
def test_no_picture_is_encoded_twice(network, monkeypatch):
    plain, seen = Dust3R.encode, []
    monkeypatch.setattr(Dust3R, "encode", lambda self, images: (seen.extend(images), plain(self, images))[1])
    images = random_images([LANDSCAPE, PORTRAIT] * 3)
    encoded = encode_pictures(network, images, **CPU)
    infer_pairs(network, images, make_pairs(6, "complete"), encoded=encoded, **CPU)
    assert len(seen) == 6
    for image in images:
        assert sum(image.shape[1:] == other.shape and torch.equal(image[0], other) for other in seen) == 1
    infer_pairs(network, images, make_pairs(6, "complete"), **CPU)
    assert len(seen) == 12


def prepare_calls(monkeypatch) -> list[tuple[int, torch.Tensor, weakref.ref | None]]:
    """A list that receives (side, tokens, what came of them) of each call of `prepare` from now on."""
    plain, calls = Dust3R.prepare, []

    def counted(self, tokens, grid, *, side):
        made = plain(self, tokens, grid, side=side)
        calls.append((side, tokens, None if made is None else weakref.ref(made)))
        return made

    monkeypatch.setattr(Dust3R, "prepare", counted)
    return calls


def count_alive(made: list) -> int:
    """How many of the maps that `prepare_calls` has seen are still in memory."""
    return sum(kept is not None and kept() is not None for _, _, kept in made)


def give_room(monkeypatch, bytes_: int):
    """Let the free memory be such that so many bytes may be kept of what heads make of single pictures."""
    monkeypatch.setattr(pair_inference, "free_memory", lambda: bytes_)
    monkeypatch.setattr(pair_inference, "PREPARED_SHARE", 1)


def finest_calls(monkeypatch) -> list[int]:
    """A list that receives the batch size of each call of `DPTHead.finest` from now on."""
    plain, calls = DPTHead.finest, []
    monkeypatch.setattr(
        DPTHead, "finest", lambda self, tokens, grid: (calls.append(len(tokens)), plain(self, tokens, grid))[1]
    )
    return calls


@pytest.mark.parametrize("pixels", [1, 10**9])
def test_a_head_looks_at_no_picture_alone_twice(network, monkeypatch, pixels):
    """Six pictures on two sides; nothing is left to do for a pair."""
    monkeypatch.setitem(pair_inference.PIXELS_AT_ONCE, "cpu", pixels)
    images = random_images([LANDSCAPE, PORTRAIT] * 3)
    prepared, finest = prepare_calls(monkeypatch), finest_calls(monkeypatch)
    infer_pairs(network, images, make_pairs(6, "complete"), **CPU)
    assert finest == [1] * 12
    for number, (side, tokens, _) in enumerate(prepared):
        assert not any(side == other and torch.equal(tokens, seen) for other, seen, _ in prepared[:number])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("room", [0, 3 * BYTES_PREPARED, 10**9], ids=["nothing", "three", "all"])
def test_what_is_kept_changes_no_bit(network, monkeypatch, room, dtype):
    """One pair at a time, so that both ways work on the same shapes."""
    monkeypatch.setitem(pair_inference.PIXELS_AT_ONCE, "cpu", 1)
    images, edges = random_images([LANDSCAPE, PORTRAIT, LANDSCAPE, LANDSCAPE]), make_pairs(4, "complete")
    encoded = encode_pictures(network, images, device=CPU["device"], dtype=dtype)
    give_room(monkeypatch, room)
    found = infer_pairs(network, images, edges, encoded=encoded, store="disk", **CPU)
    assert found.dtype == dtype
    with torch.inference_mode(), in_precision(network, dtype) as ready:
        for row, pair in enumerate(edges.tolist()):
            tokens, grids = [encoded.tokens[view][None] for view in pair], [ready.grid(images[view]) for view in pair]
            plain = ready.decode(*tokens, *grids)
            for side in (0, 1):
                assert torch.equal(found.pairs.points[row][side], plain.points[side][0])
                assert torch.equal(found.pairs.confidence[row][side], plain.confidence[side][0])


def test_without_room_to_keep_it_a_head_looks_at_a_picture_alone_once_a_batch(network, monkeypatch):
    images, edges = random_images([LANDSCAPE] * 4), make_pairs(4, "complete")
    give_room(monkeypatch, 1)
    made = prepare_calls(monkeypatch)
    found = infer_pairs(network, images, edges, store="disk", **CPU)
    assert len(made) == 8
    monkeypatch.undo()
    assert_as_pair_by_pair(found, network, images)


@pytest.mark.parametrize(("maps", "calls"), [(0, 0), (1, 11), (2, 10), (5, 7), (6, 6), (100, 6)])
def test_no_more_is_kept_than_there_is_room_for(network, monkeypatch, maps, calls):
    """Three pictures on two sides in two pairs each: what is kept is made once, all else twice."""
    monkeypatch.setitem(pair_inference.PIXELS_AT_ONCE, "cpu", 1)
    give_room(monkeypatch, maps * BYTES_PREPARED + (BYTES_PREPARED - 1 if maps else 0))
    made, alive, images = prepare_calls(monkeypatch), [], random_images([LANDSCAPE] * 3)

    def look(done: int, total: int | None, what: str) -> None:
        alive.append(count_alive(made))

    with infer_pairs(network, images, make_pairs(3, "complete"), store="disk", progress=look, **CPU) as found:
        assert len(made) == calls
        assert max(alive) == min(maps, 6)
        assert not count_alive(made)  # alignment has the memory for itself
        assert_as_pair_by_pair(found, network, images)


def test_memory_that_results_will_take_is_not_given_away(network, monkeypatch):
    images, made = random_images([LANDSCAPE] * 2), prepare_calls(monkeypatch)
    give_room(monkeypatch, 2 * 16 * 2 * 16 * 24)  # two pairs, two pictures, four floats a pixel
    infer_pairs(network, images, make_pairs(2, "complete"), store="memory", **CPU)
    assert not made
    infer_pairs(network, images, make_pairs(2, "complete"), store="disk", **CPU)
    assert made


def test_linear_heads_have_nothing_to_keep(monkeypatch):
    linear = Dust3R(replace(SMALLEST_PAIRS, head="linear")).eval()
    images, made = random_images([LANDSCAPE, PORTRAIT]), prepare_calls(monkeypatch)
    found = infer_pairs(linear, images, make_pairs(2, "complete"), **CPU)
    assert {kept for _, _, kept in made} == {None}
    assert_as_pair_by_pair(found, linear, images)


def test_tokens_are_let_go_with_the_last_who_wants_them(network):
    images = random_images([LANDSCAPE] * 2)
    encoded = encode_pictures(network, images, **CPU)
    tokens = weakref.ref(encoded.tokens[0])
    found = infer_pairs(network, images, make_pairs(2, "complete"), encoded=encoded, **CPU)
    assert tokens() is not None
    del encoded
    gc.collect()
    assert tokens() is None
    assert found.pairs.views == 2


def test_pairs_of_equal_shapes_are_decoded_together(network, monkeypatch):
    calls = run_out_of_memory(monkeypatch, "decode", MemoryError(), 0)
    infer_pairs(network, random_images([LANDSCAPE] * 3 + [PORTRAIT]), make_pairs(4, "complete"), **CPU)
    assert sorted(size for size, _ in calls) == [3, 3, 6]


def test_progress_counts_pictures_and_pairs_to_the_end(network):
    told = []
    images = random_images([LANDSCAPE, PORTRAIT, LANDSCAPE])
    infer_pairs(network, images, make_pairs(3, "complete"), progress=lambda *given: told.append(given), **CPU)
    pictures = [given for given in told if given[2] == "encoding pictures"]
    pairs = [given for given in told if given[2] == "pairs"]
    assert pictures[-1] == (3, 3, "encoding pictures")
    assert pairs[-1] == (6, 6, "pairs")
    assert [done for done, _, _ in pairs] == sorted({done for done, _, _ in pairs})


# ---------------------------------------------------------------- what must not be used
def test_padding_has_no_confidence_in_any_pair(network):
    images = random_images([LANDSCAPE] * 3)
    masks = [None, np.ones(LANDSCAPE, dtype=bool), np.ones(LANDSCAPE, dtype=bool)]
    masks[2][:, 20:] = False
    plain = infer_pairs(network, images, make_pairs(3, "complete"), **CPU)
    masked = infer_pairs(network, images, make_pairs(3, "complete"), valid=masks, **CPU)
    assert masked.masked_pixels == 0
    for row, edge in enumerate(masked.pairs.edges.tolist()):
        for side, view in enumerate(edge):
            sure = masked.pairs.confidence[row][side]
            inside = torch.ones(LANDSCAPE, dtype=torch.bool) if masks[view] is None else torch.from_numpy(masks[view])
            assert torch.equal(sure, torch.where(inside, plain.pairs.confidence[row][side], 0.0))
            assert bool((sure[inside] >= 1).all())


def test_numbers_that_are_not_finite_are_masked_and_counted(network, monkeypatch):
    plain = Dust3R.decode

    def broken(self, *given):
        result = plain(self, *given)
        result.points[0][:, 0, :5, 2] = torch.inf
        result.confidence[1][:, 3, 4] = torch.nan
        return result

    monkeypatch.setattr(Dust3R, "decode", broken)
    mask = np.ones(SQUARE, dtype=bool)
    mask[0, :2] = False
    found = infer_pairs(network, random_images([SQUARE] * 2), np.array([[0, 1]]), valid=[mask, None], **CPU)
    (first, second), (sure, other) = found.pairs.points[0], found.pairs.confidence[0]
    assert found.masked_pixels == 3 + 1
    assert bool(torch.isfinite(first).all() and torch.isfinite(second).all())
    assert not first[0, :5].any()
    assert not sure[0, :5].any()
    assert int((sure == 0).sum()) == 5
    assert other[3, 4] == 0
    assert int((other == 0).sum()) == 1


# ---------------------------------------------------------------- memory
@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_out_of_memory_while_decoding_means_smaller_batches_with_the_same_result(network, monkeypatch, error):
    monkeypatch.setitem(pair_inference.PIXELS_AT_ONCE, "cpu", 8 * 2 * 16 * 24)
    images = random_images([LANDSCAPE] * 4)
    calls = run_out_of_memory(monkeypatch, "decode", error, 1)
    found = infer_pairs(network, images, make_pairs(4, "complete"), **CPU)
    assert [size for size, _ in calls] == [8] + [1] * 12
    assert found.dtype == torch.float32
    assert found.changes == ("ran out of memory; went on with smaller chunks",)
    monkeypatch.undo()
    assert_as_pair_by_pair(found, network, images)


def test_out_of_memory_means_that_nothing_is_kept_of_single_pictures_any_more(network, monkeypatch):
    run_out_of_memory(monkeypatch, "decode", MemoryError, 1)  # a new error each time: one that is kept keeps its frames
    made, alive, images = prepare_calls(monkeypatch), [], random_images([LANDSCAPE] * 3)

    def look(done: int, total: int | None, what: str) -> None:
        alive.append(count_alive(made))

    found = infer_pairs(network, images, make_pairs(3, "complete"), progress=look, **CPU)
    assert len(made) == 6  # all in the first attempt
    assert found.changes
    assert alive == [0, 0]  # after encoding, and after all pairs in the second attempt


def test_out_of_memory_later_on_does_not_decode_again_what_is_done(network, monkeypatch):
    monkeypatch.setitem(pair_inference.PIXELS_AT_ONCE, "cpu", 8 * 2 * 16 * 24)
    plain, calls = Dust3R.decode, []

    def scarce(self, tokens, *others):
        calls.append(len(tokens))
        if len(calls) == 2:
            raise MemoryError
        return plain(self, tokens, *others)

    monkeypatch.setattr(Dust3R, "decode", scarce)
    images = random_images([LANDSCAPE] * 4)
    found = infer_pairs(network, images, make_pairs(4, "complete"), **CPU)
    assert calls == [8, 4, 1, 1, 1, 1]
    monkeypatch.undo()
    assert_as_pair_by_pair(found, network, images)


def test_the_last_resort_is_half_precision_for_all_pairs(network, monkeypatch):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    images = random_images([LANDSCAPE] * 3)
    calls = run_out_of_memory(monkeypatch, "decode", MemoryError(), 2)
    found = infer_pairs(network, images, make_pairs(3, "complete"), **CPU)
    assert [dtype for _, dtype in calls] == [torch.float32] * 2 + [torch.bfloat16] * (len(calls) - 2)
    assert sum(size for size, _ in calls[2:]) == 6
    assert found.dtype == torch.bfloat16
    assert "bfloat16" in found.changes[-1]
    assert found.pairs.points[0][0].dtype == found.pairs.confidence[0][1].dtype == torch.float32
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    monkeypatch.undo()
    assert_as_pair_by_pair(found, network, images, tolerance=0.2)


def test_out_of_memory_while_encoding_is_said_too(network, monkeypatch):
    images = random_images([LANDSCAPE] * 3)
    run_out_of_memory(monkeypatch, "encode", MemoryError(), 1)
    encoded = encode_pictures(network, images, **CPU)
    assert encoded.changes == ("ran out of memory; went on with smaller chunks",)
    monkeypatch.undo()
    found = infer_pairs(network, images, make_pairs(3, "complete"), encoded=encoded, **CPU)
    assert found.changes == encoded.changes
    assert_as_pair_by_pair(found, network, images)


def test_too_little_memory_is_an_error_that_says_so_and_others_stay_what_they_are(network, monkeypatch):
    images = random_images([LANDSCAPE] * 2)
    run_out_of_memory(monkeypatch, "decode", MemoryError(), 100)
    with pytest.raises(DeviceError, match="too little memory"):
        infer_pairs(network, images, np.array([[0, 1]]), **CPU)
    monkeypatch.undo()
    run_out_of_memory(monkeypatch, "decode", RuntimeError("shapes do not fit"), 100)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        infer_pairs(network, images, np.array([[0, 1]]), **CPU)


# ---------------------------------------------------------------- the store
def test_much_goes_to_disk_and_little_stays_in_memory(network, monkeypatch):
    images = random_images([SQUARE] * 2)
    assert not infer_pairs(network, images, np.array([[0, 1]]), **CPU).is_on_disk
    monkeypatch.setattr(pair_store, "free_memory", lambda: 4 * 2 * 256 * 4 * 4 - 4)
    assert infer_pairs(network, images, np.array([[0, 1]]), **CPU).is_on_disk
    monkeypatch.setattr(pair_store, "free_memory", lambda: 4 * 2 * 256 * 4 * 4)
    assert not infer_pairs(network, images, np.array([[0, 1]]), **CPU).is_on_disk
    assert 0 < free_memory() < 2**50


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_store_on_disk_disappears(network, tmp_path, monkeypatch):
    def is_mapped() -> bool:
        gc.collect()
        return str(tmp_path) in Path("/proc/self/maps").read_text()

    def has_handles() -> bool:
        return any(
            str(tmp_path) in str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()
        )

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(pair_store.tempfile, "tempdir", None)
    images = random_images([SQUARE] * 2)
    with infer_pairs(network, images, np.array([[0, 1]]), store="disk", **CPU) as found:
        assert is_mapped()
        kept = found.pairs.points[0][0]
        value = kept.clone()
        assert list(tmp_path.iterdir()) == []  # nothing is left behind, even if the process is killed
    assert not hasattr(found, "pairs")
    assert torch.equal(kept, value)  # a tensor that somebody still holds stays valid
    assert is_mapped()
    del kept
    assert not is_mapped()
    assert not has_handles()
    collected = infer_pairs(network, images, np.array([[0, 1]]), store="disk", **CPU)
    assert is_mapped()
    del collected
    assert not is_mapped()
    assert not has_handles()


# ---------------------------------------------------------------- bad input
def test_edges_that_make_no_sense_are_refused(network):
    images = random_images([SQUARE] * 3)
    for edges, words in (
        (np.zeros((0, 2), dtype=np.int64), "at least one edge"),
        (np.array([0, 1]), "shape"),
        (np.array([[0, 3], [1, 2]]), "there are 3"),
        (np.array([[0, -1], [1, 2]]), "there are 3"),
        (np.array([[0, 1]]), r"\[2\] of 3 are in no edge"),
    ):
        with pytest.raises(InputError, match=words):
            infer_pairs(network, images, edges, **CPU)


def test_pictures_masks_and_tokens_that_do_not_fit_are_refused(network):
    images, edges = random_images([SQUARE] * 2), np.array([[0, 1]])
    for wrong in ([], [torch.zeros(1, 3, 12, 16)], [torch.zeros(2, 3, 16, 16)], [torch.zeros(3, 16, 16)]):
        with pytest.raises(InputError, match="picture"):
            encode_pictures(network, wrong, **CPU)
    for masks in ([None], [None, np.ones((16, 8), dtype=bool)]):
        with pytest.raises(InputError, match="masks"):
            infer_pairs(network, images, edges, valid=masks, **CPU)
    encoded = encode_pictures(network, random_images([SQUARE, PORTRAIT]), **CPU)
    with pytest.raises(InputError, match="tokens"):
        infer_pairs(network, images, edges, encoded=encoded, **CPU)
