"""Crops keep cameras exact, depth formats keep every number, and colours change as published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from manyview.datasets.base import oriented_size
from manyview.datasets.choose import breadth_first, distinct, filled, jittered, window_about
from manyview.datasets.crop import crop_to_cover, principal_point_is_central
from manyview.datasets.depth_files import read_exr, read_pfm
from manyview.datasets.jitter import jitter_colours, shift_hue
from manyview.errors import InputError
from manyview.geometry import pixel_grid, transform_pixels
from test_datasets import save_exr

K = np.array([[90.0, 0, 50], [0, 91, 34], [0, 0, 1]])
sizes = st.tuples(st.integers(40, 130), st.integers(40, 130))
centres = st.tuples(st.floats(0.3, 0.7), st.floats(0.3, 0.7))


def crop_of(source, centre, target, extra):
    x, y = centre[0] * source[1], centre[1] * source[0]
    return crop_to_cover(source, (x, y), target, extra), (x, y)


def test_intrinsics_are_those_of_the_published_loaders():
    crop = crop_to_cover((72, 96), (50, 34), (48, 64))
    np.testing.assert_allclose(crop.intrinsics(K), [[63.53, 0, 31.85], [0, 64.24, 23.85], [0, 0, 1]], atol=0.005)


@settings(max_examples=40, deadline=None)
@given(source=sizes, centre=centres, target=sizes, extra=st.integers(0, 60))
def test_pictures_and_depth_are_seen_by_the_new_camera(source, centre, target, extra):
    """A picture of its own pixel coordinates: what the new K says of a pixel is what stands there."""
    crop, _ = crop_of(source, centre, target, extra)
    old = transform_pixels(K @ np.linalg.inv(crop.intrinsics(K)), pixel_grid(*target))
    reach = 3 / min(crop.scale, 1) + 1  # near the border the filter has pixels on one side only
    inner = (old > reach).all(axis=-1) & (old < np.array(source)[::-1] - 1 - reach).all(axis=-1)
    for axis in (0, 1):
        ramp = pixel_grid(*source)[..., axis]
        picture = np.asarray(crop.picture(Image.fromarray(ramp.astype(np.float32))))
        assert picture.shape == target
        np.testing.assert_allclose(picture[inner], old[..., axis][inner], atol=0.06)
        assert np.abs(crop.nearest(ramp) - old[..., axis]).max() < 0.5 + 1e-6


@settings(max_examples=100, deadline=None)
@given(source=sizes, centre=centres, target=sizes, extra=st.integers(0, 300))
def test_crops_stay_in_the_picture_and_keep_their_centre(source, centre, target, extra):
    crop, (x, y) = crop_of(source, centre, target, extra)
    right, bottom = crop.left + target[1] / crop.scale, crop.top + target[0] / crop.scale
    assert crop.left > -1e-6 and crop.top > -1e-6
    assert right < source[1] + 1e-6 and bottom < source[0] + 1e-6
    assert abs((crop.left + right) / 2 - x) <= 0.5 + 0.5 / crop.scale + 1e-6
    assert abs((crop.top + bottom) / 2 - y) <= 0.5 + 0.5 / crop.scale + 1e-6


def test_extra_pixels_make_the_crop_tighter_by_just_that_much():
    wide, tight = (crop_to_cover((480, 640), (320, 240), (96, 128), extra) for extra in (0, 32))
    assert tight.scale / wide.scale == pytest.approx((96 + 32) / 96)


def test_a_principal_point_within_a_fifth_of_the_border_is_not_central():
    for x, y, central in [(50, 50, True), (21, 50, True), (19, 50, False), (50, 19, False), (81, 50, False)]:
        assert principal_point_is_central(np.array([[1, 0, x], [0, 1, y], [0, 0, 1]]), (100, 100)) is central


def test_portrait_pictures_get_the_transposed_size_and_square_ones_either():
    generator = np.random.default_rng(0)
    assert oriented_size((120, 100), (48, 64), generator) == (64, 48)
    assert oriented_size((100, 120), (64, 48), generator) == (48, 64)
    assert oriented_size((120, 100), (64, 64), generator) == (64, 64)
    assert {oriented_size((100, 100), (48, 64), generator) for _ in range(20)} == {(64, 48), (48, 64)}


@pytest.mark.parametrize(("precision", "dtype"), [("float", np.float32), ("half", np.float16)])
@pytest.mark.parametrize("size", [(33, 77), (16, 64)])
def test_exr_depth_is_read_to_the_last_bit(tmp_path, precision, dtype, size):
    depth = (np.random.default_rng(0).random(size) * 9).astype(dtype)
    depth[0, :2] = 0, np.inf
    save_exr(tmp_path / "1.exr", depth, precision)
    read = read_exr(tmp_path / "1.exr")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, depth.astype(np.float32))


def test_exr_pictures_are_no_depth(tmp_path):
    import av

    encoder = av.CodecContext.create("exr", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 8, 8, "gbrpf32le", 1
    frame = av.VideoFrame.from_ndarray(np.zeros((8, 8, 3), np.float32), format="gbrpf32le")
    (tmp_path / "rgb.exr").write_bytes(b"".join(map(bytes, [*encoder.encode(frame), *encoder.encode(None)])))
    with pytest.raises(InputError, match=r"rgb\.exr.*single channel Y"):
        read_exr(tmp_path / "rgb.exr")


@pytest.mark.parametrize(("scale", "dtype"), [("-1.0", "<f4"), ("1.0", ">f4")])
def test_pfm_rows_go_up_in_either_byte_order(tmp_path, scale, dtype):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = tmp_path / "map.pfm"
    path.write_bytes(f"Pf\n3 2\n{scale}\n".encode() + values[::-1].astype(dtype).tobytes())
    np.testing.assert_array_equal(read_pfm(path), values)


@pytest.mark.parametrize("content", [b"", b"PF\n1 1\n-1\n" + bytes(12), b"Pf\n3 2\n-1\n" + bytes(20)])
def test_damaged_pfm_files_are_named(tmp_path: Path, content):
    path = tmp_path / "map.pfm"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"map\.pfm"):
        read_pfm(path)


def test_a_third_of_the_hue_circle_takes_red_to_green():
    red = Image.new("RGB", (2, 2), (250, 0, 0))
    assert np.abs(np.asarray(shift_hue(red, 1 / 3)).astype(int) - [0, 250, 0]).max() < 6
    grey = Image.new("RGB", (2, 2), (90, 90, 90))
    assert shift_hue(grey, 0.3).tobytes() == grey.tobytes()


def test_colour_jitter_goes_by_its_generator():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8))
    first, again, other = (jitter_colours(picture, np.random.default_rng(seed)).tobytes() for seed in (1, 1, 2))
    assert first == again != other and first != picture.tobytes()


@given(count=st.integers(1, 30), wanted=st.integers(1, 40), seed=st.integers(0, 99))
def test_choices_are_distinct_as_long_as_they_can_be(count, wanted, seed):
    chosen = distinct(count, wanted, np.random.default_rng(seed))
    assert len(chosen) == wanted and len(set(chosen)) == min(count, wanted)
    assert set(filled(chosen, wanted + 3, np.random.default_rng(seed))) == set(chosen)


@given(count=st.integers(1, 50), views=st.integers(1, 20), data=st.data())
def test_windows_hold_enough_frames_wherever_they_are(count, views, data):
    centre = data.draw(st.integers(0, count - 1))
    first, last = window_about(centre, 2 * views, count)
    assert 0 <= first <= centre < last <= count and last - first <= 2 * views
    assert last - first >= min(views, count)
    moved = jittered(range(first, last), 2, count, np.random.default_rng(0))
    assert all(0 <= place < count for place in moved)
    assert max(abs(place - before) for place, before in zip(moved, range(first, last), strict=True)) <= 2


def test_walks_go_breadth_first_through_what_is_connected():
    graph = {0: [1, 2], 1: [3, 9], 2: [4], 3: [5], 7: [8]}
    for seed in range(5):
        walk = breadth_first(graph, 0, 5, np.random.default_rng(seed))
        assert walk[0] == 0 and set(walk[1:3]) == {1, 2} and len(walk) == 5
        assert sorted(breadth_first(graph, 7, 5, np.random.default_rng(seed))) == [7, 8]
