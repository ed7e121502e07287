"""The store of pair results by itself: what was written comes back, from memory and from disk, or an error says why."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview.errors import DeviceError
from manyview.methods import pair_store
from manyview.methods.pair_store import PairStore


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_store_gives_back_what_was_written_in_any_order(data):
    sizes = data.draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4))
    view = st.integers(0, len(sizes) - 1)
    edges = np.array(data.draw(st.lists(st.tuples(view, view), min_size=1, max_size=6)))
    where = data.draw(st.sampled_from(["memory", "disk"]))
    generator = torch.Generator().manual_seed(0)
    written = {}
    with PairStore(edges, sizes, where) as store:
        for row in data.draw(st.permutations(range(len(edges)))):
            shapes = [sizes[side] for side in edges[row].tolist()]
            points, confidence = (
                tuple(torch.randn(*shape, *last, generator=generator) for shape in shapes) for last in ((3,), ())
            )
            written[row] = (points, confidence)
            store.write(row, points, confidence)
        maps = store.maps()
    assert store.bytes == sum(16 * sizes[side][0] * sizes[side][1] for edge in edges.tolist() for side in edge)
    for row, (points, confidence) in written.items():
        assert all(map(torch.equal, maps.points[row], points))
        assert all(map(torch.equal, maps.confidence[row], confidence))


def test_reading_from_disk_is_lazy_and_writing_to_it_stays_private():
    edges, size = np.array([[0, 1], [1, 0]]), (4, 5)
    with PairStore(edges, [size, size], "disk") as store:
        for row in (0, 1):
            store.write(row, (torch.ones(*size, 3),) * 2, (torch.full(size, 2.0),) * 2)
        maps, again = store.maps(), store.maps()
        assert maps.points[0][0].data_ptr() + 4 * 3 * 20 == maps.points[0][1].data_ptr()  # views of one file
        maps.points[0][0].zero_()
        assert again.points[0][0].min() == 1
        np.testing.assert_array_equal(maps.scores, [4.0, 4.0])


def test_a_full_disk_is_a_clear_error(monkeypatch, tmp_path):
    edges, size = np.array([[0, 1]]), (4, 5)
    usage = pair_store.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(pair_store.shutil, "disk_usage", lambda place: usage._replace(free=600))
    with pytest.raises(DeviceError, match=r"on disk: .* has 0\.00 GiB left") as caught:
        PairStore(edges, [size, size], "disk", folder=tmp_path)
    assert "TMPDIR" in caught.value.hint
    monkeypatch.undo()
    store = PairStore(edges, [size, size], "disk", folder=tmp_path)

    class Full:
        def seek(self, place):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(store, "_file", Full())
    with pytest.raises(DeviceError, match="No space left on device"):
        store.write(0, (torch.ones(*size, 3),) * 2, (torch.ones(size),) * 2)
    with pytest.raises(DeviceError, match="on disk"):
        PairStore(edges, [size, size], "disk", folder=tmp_path / "missing")


def test_more_than_all_memory_is_a_clear_error():
    with pytest.raises(DeviceError, match="more than there is memory"):
        PairStore(np.zeros((2**22, 2), dtype=np.int64), [(2**10, 2**10)], "memory")
