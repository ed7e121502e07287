"""The network's frame: official sizes and pixels, and an affine that is true for the decoded content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from manyview.errors import InputError
from manyview.images import FitRules, NetworkFrame, load_views, network_frame, to_network_tensor
from manyview.images.resize import render, spare_resolution


@st.composite
def rules(draw: st.DrawFn) -> FitRules:
    patch_size = draw(st.sampled_from([8, 14, 16]))
    return FitRules(
        size=draw(st.sampled_from([patch_size * 7, patch_size * 16, 224, 300])),
        fit=draw(st.sampled_from(["crop", "pad"])),
        patch_size=patch_size,
        square_ok=draw(st.booleans()),
        crop_to_landscape=draw(st.booleans()),
        rotate_clockwise_90=draw(st.booleans()),
    )


SIDES = st.integers(40, 400)


def _apply(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ affine[:2, :2].T + affine[:2, 2]


def _golden_picture(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width].astype(np.float64)
    red = 127.5 + 127.5 * np.sin(7 * x / width + 3 * y / height)
    green = 127.5 + 127.5 * np.cos(5 * x / width - 4 * y / height)
    blue = 255 * (x / width) * (y / height)
    return np.round(np.stack([red, green, blue], axis=-1)).astype(np.uint8)


def test_every_size_of_the_official_table_is_reproduced(shared: Path) -> None:
    table = np.load(shared / "reference/fast3r/golden_load_images.npz")["size_table"]
    for size, width, height, square_ok, network_width, network_height in table.tolist():
        frame = network_frame((height, width), FitRules(size=size, square_ok=bool(square_ok)))
        assert frame.size == (network_height, network_width), (size, width, height, square_ok)


@pytest.mark.parametrize("size", [512, 224])
@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 640), (300, 200), (517, 1033)])
def test_pixels_equal_the_official_loader(shared: Path, tmp_path: Path, size: int, width: int, height: int) -> None:
    golden = np.load(shared / "reference/fast3r/golden_load_images.npz")
    Image.fromarray(_golden_picture(width, height)).save(tmp_path / "picture.png")
    tensor = to_network_tensor(load_views(tmp_path / "picture.png", size=size))[0].numpy()
    assert tensor.dtype == np.float32
    np.testing.assert_array_equal(tensor[0, :, ::16, ::16], golden[f"s{size}_{width}x{height}"])
    mean = float(golden[f"s{size}_{width}x{height}_mean"])
    assert tensor.mean(dtype=np.float64) == pytest.approx(mean, abs=5e-7)  # the reference was summed in float32


def test_landscape_cut_and_rotation_give_the_official_sizes(shared: Path) -> None:
    golden = np.load(shared / "reference/fast3r/golden_load_images.npz")
    cut = network_frame((640, 480), FitRules(crop_to_landscape=True))
    turned = network_frame((640, 480), FitRules(rotate_clockwise_90=True))
    assert cut.size == tuple(golden["crop_to_landscape_480x640"][0])
    assert turned.size == tuple(golden["rotate_480x640"][0])


@given(rules(), SIDES, SIDES)
def test_sizes_are_whole_patches(rules: FitRules, height: int, width: int) -> None:
    frame = _frame_or_reject((height, width), rules)
    assert frame.size[0] % rules.patch_size == 0 and frame.size[1] % rules.patch_size == 0
    assert frame.valid.shape == frame.size and frame.valid.any()


@given(rules(), SIDES, SIDES)
def test_the_affine_is_invertible_and_valid_pixels_lie_in_the_original(
    rules: FitRules, height: int, width: int
) -> None:
    frame = _frame_or_reject((height, width), rules)
    affine = frame.original_from_network
    pixels = np.argwhere(frame.valid)[:, ::-1].astype(float)
    there = _apply(affine, pixels)
    np.testing.assert_allclose(_apply(np.linalg.inv(affine), there), pixels, atol=1e-9)
    # Enlarged pixels at the border have their centres up to half an original pixel outside the outermost centres.
    assert there.min() >= -0.5
    assert there[:, 0].max() <= width - 0.5 and there[:, 1].max() <= height - 0.5


@given(rules(), SIDES, SIDES)
def test_the_picture_covers_what_kept_says(rules: FitRules, height: int, width: int) -> None:
    frame = _frame_or_reject((height, width), rules)
    rows, columns = np.where(frame.valid)
    corners = np.array([[columns.min() - 0.5, rows.min() - 0.5], [columns.max() + 0.5, rows.max() + 0.5]])
    extent_x, extent_y = np.abs(np.diff(_apply(frame.original_from_network, corners), axis=0))[0]
    np.testing.assert_allclose(frame.kept, (extent_y / height, extent_x / width), rtol=1e-9)


@given(SIDES, SIDES, st.booleans(), st.sampled_from([128, 224, 300]))
def test_padding_never_cuts_content(height: int, width: int, turned: bool, size: int) -> None:
    frame = network_frame((height, width), FitRules(fit="pad", size=size, rotate_clockwise_90=turned))
    assert frame.kept == (1.0, 1.0)
    rows, columns = np.where(frame.valid)
    first, last = (columns.min() - 0.5, rows.min() - 0.5), (columns.max() + 0.5, rows.max() + 0.5)
    corners = _apply(frame.original_from_network, np.array([first, last]))
    np.testing.assert_allclose(corners.min(axis=0), [-0.5, -0.5], atol=1e-9)
    np.testing.assert_allclose(corners.max(axis=0), [width - 0.5, height - 0.5], atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(rules(), SIDES, SIDES)
def test_decoded_content_lies_where_the_affine_says(rules: FitRules, height: int, width: int) -> None:
    """Red is proportional to the original x and green to y, so that each pixel tells where it comes from."""
    frame = _frame_or_reject((height, width), rules)
    y, x = np.mgrid[:height, :width]
    picture = np.stack([x * (255 / (width - 1)), y * (255 / (height - 1)), np.zeros_like(x)], axis=-1)
    decoded = render(frame, Image.fromarray(np.round(picture).astype(np.uint8))).astype(float)
    rows, columns = np.where(frame.valid)
    told = decoded[rows, columns, :2] * (np.array([width - 1, height - 1]) / 255)
    stated = _apply(frame.original_from_network, np.stack([columns, rows], axis=-1).astype(float))
    left, top, right, bottom = frame.source_box
    scale = max((right - left) / frame.resized_size[1], (bottom - top) / frame.resized_size[0], 1.0)
    one_level = np.array([width, height]) / 255
    assert np.abs(told - stated).max() < (1.5 * one_level + 2 * scale).max()
    inner = _without_border(rows, columns, 4)
    assume(inner.sum() > 500)
    # Away from the border the filter sees a plain gradient: what is left is the rounding to 8 bits. Its mean is near
    # zero, but not in small pictures, whose few rows or columns repeat one pattern of rounding.
    difference = (told - stated)[inner]
    assert (np.abs(difference).max(axis=0) <= 1.5 * one_level + 0.1 * scale).all()
    pattern = 0.4 * np.minimum(one_level, 0.3)
    assert (np.abs(difference.mean(axis=0)) <= pattern + 0.15 * one_level + 0.02 * scale).all()


@settings(max_examples=30, deadline=None)
@given(SIDES, SIDES, st.booleans())
def test_padding_repeats_the_border(height: int, width: int, turned: bool) -> None:
    frame = network_frame((height, width), FitRules(fit="pad", size=120, rotate_clockwise_90=turned))
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels = render(frame, Image.fromarray(picture))
    rows, columns = np.where(frame.valid)
    clipped_rows = np.clip(np.arange(frame.size[0]), rows.min(), rows.max())
    clipped_columns = np.clip(np.arange(frame.size[1]), columns.min(), columns.max())
    np.testing.assert_array_equal(pixels, pixels[clipped_rows][:, clipped_columns])


def test_rotation_by_90_degrees_shows_the_turned_picture() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    frame = network_frame((64, 48), FitRules(size=64, rotate_clockwise_90=True))
    np.testing.assert_array_equal(render(frame, Image.fromarray(picture)), np.rot90(picture, -1))


def test_the_landscape_cut_sees_nothing_beyond_its_box() -> None:
    picture = np.zeros((300, 100, 3), np.uint8)
    box = network_frame((300, 100), FitRules(size=64, crop_to_landscape=True)).source_box
    picture[: box[1]] = 255
    picture[box[3] :] = 255
    frame = network_frame((300, 100), FitRules(size=64, crop_to_landscape=True))
    assert render(frame, Image.fromarray(picture)).max() == 0


def test_squares_stay_square_only_if_asked() -> None:
    assert network_frame((512, 512), FitRules()).size == (384, 512)
    assert network_frame((512, 512), FitRules(square_ok=True)).size == (512, 512)
    assert network_frame((512, 512), FitRules(fit="pad")).size == (512, 512)


def test_too_elongated_pictures_are_refused_by_crop_and_kept_by_pad() -> None:
    with pytest.raises(InputError, match="too elongated"):
        network_frame((10, 1000), FitRules())
    assert network_frame((10, 1000), FitRules(fit="pad")).size == (16, 512)


@pytest.mark.parametrize("options", [{"fit": "stretch"}, {"size": 8}, {"patch_size": 0}])
def test_bad_rules_are_named(options: dict) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        FitRules(**options)


def test_spare_resolution_is_the_smaller_of_both_orientations() -> None:
    assert spare_resolution((3000, 4000), FitRules()) == pytest.approx(4000 / 512)
    cut = FitRules(crop_to_landscape=True)
    assert spare_resolution((3000, 4000), cut) == spare_resolution((4000, 3000), cut) == pytest.approx(3000 / 512)


def _without_border(rows: np.ndarray, columns: np.ndarray, border: int) -> np.ndarray:
    """Which of the valid pixels are at least `border` away from the outermost valid ones."""
    inner_rows = (rows - rows.min() >= border) & (rows.max() - rows >= border)
    return inner_rows & (columns - columns.min() >= border) & (columns.max() - columns >= border)


def _frame_or_reject(size: tuple[int, int], rules: FitRules) -> NetworkFrame:
    try:
        return network_frame(size, rules)
    except InputError:
        assume(False)
        raise
