"""Random colours, as the published recipes draw them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance

STRENGTH = 0.5  # brightness, contrast and saturation are multiplied by 1 - STRENGTH to 1 + STRENGTH
HUE = 0.1  # of the whole circle, to either side


def jitter_colours(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Change brightness, contrast, saturation and hue of an RGB picture, in random order."""
    brightness, contrast, saturation = generator.uniform(1 - STRENGTH, 1 + STRENGTH, size=3).tolist()
    hue = float(generator.uniform(-HUE, HUE))
    changes: list[Callable[[Image.Image], Image.Image]] = [
        lambda picture: ImageEnhance.Brightness(picture).enhance(brightness),
        lambda picture: ImageEnhance.Contrast(picture).enhance(contrast),
        lambda picture: ImageEnhance.Color(picture).enhance(saturation),
        lambda picture: shift_hue(picture, hue),
    ]
    for change in generator.permutation(len(changes)):
        image = changes[change](image)
    return image


def shift_hue(image: Image.Image, turn: float) -> Image.Image:
    """An RGB picture with all hues moved along the circle; `turn` 1 is once around."""
    hue, saturation, value = image.convert("HSV").split()
    moved = (np.asarray(hue).astype(np.int64) + round(turn * 256)) % 256
    return Image.merge("HSV", (Image.fromarray(moved.astype(np.uint8)), saturation, value)).convert("RGB")
