"""Pictures cut to a trained ratio and resized, and the way back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from manyview.errors import InputError
from manyview.geometry import pixel_grid, transform_pixels
from manyview.images.aspect import aspect_frame, load_aspect_picture, render_aspect, trained_shapes


def gradient(height: int, width: int) -> Image.Image:
    """Red grows with x, green with y."""
    grid = pixel_grid(height, width) / [width - 1, height - 1] * 255
    return Image.fromarray(np.concatenate([grid, np.zeros((height, width, 1))], axis=-1).round().astype(np.uint8))


def test_every_reference_picture_lands_where_it_should(shared: Path) -> None:
    cases = json.loads((shared / "reference/dust3r/golden_visloc_resize.json").read_text())
    assert len(cases) == 42
    for name, expected in cases.items():
        (width, height), size = map(int, name.partition("@")[0].split("x")), int(name.partition("@")[2])
        frame = aspect_frame((height, width), trained_shapes(size))
        assert list(frame.size) == expected["hw"], name
        steps = [["crop", list(frame.cropped_size)], ["resize", list(frame.size)]]
        assert ("identity" if frame.is_identity else steps) == expected["op"], name
        np.testing.assert_allclose(frame.corner_network_from_original, expected["to_resized"], atol=1e-12, err_msg=name)
        np.testing.assert_allclose(frame.corner_original_from_network, expected["to_orig"], atol=1e-12, err_msg=name)


def test_the_trained_shapes_are_the_published_ones() -> None:
    assert trained_shapes(512) == ((384, 512), (336, 512), (288, 512), (256, 512), (160, 512))
    assert trained_shapes(224) == ((224, 224),)
    assert all(height % 8 == 0 and width == 256 for height, width in trained_shapes(256, 8))


@given(st.integers(20, 6000), st.integers(20, 6000), st.sampled_from([224, 512, 128]))
def test_the_maps_are_inverse_and_the_picture_is_at_the_centre_with_nearly_square_pixels(
    height: int, width: int, size: int
) -> None:
    assume(1 / 5 < height / width < 5)
    frame = aspect_frame((height, width), trained_shapes(size))
    np.testing.assert_allclose(frame.original_from_network @ frame.network_from_original, np.eye(3), atol=1e-9)
    middle = transform_pixels(frame.original_from_network, (np.array(frame.size[::-1]) - 1) / 2)
    np.testing.assert_allclose(middle, [(width - 1) / 2, (height - 1) / 2], atol=1e-9)
    corners = transform_pixels(frame.original_from_network, np.array([[-0.5, -0.5], np.array(frame.size[::-1]) - 0.5]))
    assert (corners[0] >= -0.5 - 1e-9).all()
    assert (corners[1] <= np.array([width, height]) - 0.5 + 1e-9).all()
    scale = np.diag(frame.original_from_network)[:2]
    assert scale[0] == pytest.approx(scale[1], rel=1.5 / min(frame.cropped_size))
    assert (frame.size[0] <= frame.size[1]) == (height <= width) or size == 224


@pytest.mark.parametrize("original", [(193, 300), (768, 1024), (96, 128), (1063, 1600)])
def test_what_is_drawn_lies_where_the_map_says_even_if_the_margin_is_odd(original: tuple[int, int]) -> None:
    frame = aspect_frame(original, trained_shapes(128))
    coordinates = pixel_grid(*original).astype(np.float32)
    x, y = (render_aspect(frame, Image.fromarray(np.ascontiguousarray(coordinates[..., axis]))) for axis in (0, 1))
    expected = transform_pixels(frame.original_from_network, pixel_grid(*frame.size))
    np.testing.assert_allclose(np.stack([x, y], axis=-1)[3:-3, 3:-3], expected[3:-3, 3:-3], rtol=0, atol=0.1)


def test_shrinking_is_the_antialiased_bilinear_filter_that_torch_has() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (192, 256, 3)).astype(np.uint8)
    frame = aspect_frame((192, 256), trained_shapes(128))
    drawn = render_aspect(frame, Image.fromarray(pixels))
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(tensor, frame.size, mode="bilinear", antialias=True)
    assert np.abs(drawn - expected[0].permute(1, 2, 0).numpy()).max() <= 1
    assert drawn.std() < 0.6 * pixels.std()


def test_a_picture_of_a_trained_shape_is_untouched() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (128, 96, 3)).astype(np.uint8)
    loaded = load_aspect_picture(pixels, trained_shapes(128))
    assert loaded.frame.is_identity
    np.testing.assert_array_equal(loaded.pixels, pixels)


def test_a_photo_is_turned_upright_before_anything_else(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    gradient(100, 140).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "lying.png", exif=exif)
    loaded = load_aspect_picture(tmp_path / "lying.png", trained_shapes(128))
    assert loaded.name == "lying.png"
    assert loaded.frame.original_size == (100, 140)
    np.testing.assert_array_equal(loaded.pixels, render_aspect(loaded.frame, gradient(100, 140)))


def test_a_huge_picture_that_was_reduced_while_decoding_lands_at_the_same_place() -> None:
    frame = aspect_frame((1063, 1600), trained_shapes(128))
    whole = gradient(1063, 1600)
    reduced = whole.resize((800, 531), Image.Resampling.BOX, box=(0, 0, 1600, 1062))
    error = render_aspect(frame, reduced).astype(float) - render_aspect(frame, whole)
    assert np.abs(error).max() <= 2


def test_bad_pictures_and_shapes_are_errors_with_reasons(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(InputError, match=r"broken\.png"):
        load_aspect_picture(tmp_path / "broken.png", trained_shapes(128))
    with pytest.raises(InputError, match="no such file"):
        load_aspect_picture(tmp_path / "missing.png", trained_shapes(128))
    with pytest.raises(InputError, match="too many pixels"):
        load_aspect_picture(np.zeros((100, 100, 3), np.uint8), trained_shapes(128), max_pixels=99)
    with pytest.raises(InputError, match="multiple"):
        trained_shapes(100)
    with pytest.raises(InputError, match="too elongated"):
        aspect_frame((1, 4000), ((128, 5000 * 128),))
    with pytest.raises(InputError, match="no shapes"):
        aspect_frame((10, 10), ())
