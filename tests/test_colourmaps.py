"""Colour maps against OpenCV's full tables."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from manyview.images.colourmaps import ColourMap, colour_table, coloured


@pytest.mark.parametrize(("name", "reference"), [("turbo", cv2.COLORMAP_TURBO), ("viridis", cv2.COLORMAP_VIRIDIS)])
def test_colours_are_the_published_ones(name: ColourMap, reference: int) -> None:
    levels = np.arange(256, dtype=np.uint8)
    expected = cv2.applyColorMap(levels[:, None], reference)[:, 0, ::-1]
    assert np.abs(colour_table(name).astype(int) - expected).max() <= 3
    np.testing.assert_array_equal(coloured(levels / 255, name), colour_table(name))


def test_numbers_beyond_the_ends_have_the_colours_of_the_ends() -> None:
    shown = coloured(np.array([[-1.0, 0.0], [1.0, 7.0]]), "turbo")
    assert shown.shape == (2, 2, 3) and shown.dtype == np.uint8
    assert shown[0].tolist() == [[48, 18, 59]] * 2 and shown[1].tolist() == [[122, 4, 3]] * 2
