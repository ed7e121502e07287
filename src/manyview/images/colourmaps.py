"""Colour maps for numbers that are shown as pictures."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

ColourMap: TypeAlias = Literal["turbo", "viridis"]

# Every eighth of the 256 published colours; straight lines between them are off by 3 of 255 at most. Turbo goes from
# dark blue to dark red (Mikhailov, "Turbo, an improved rainbow colormap", 2019), viridis from violet to yellow (van der
# Walt and Smith, 2015), each step of it equally visible.
_KNOTS: dict[ColourMap, str] = {
    "turbo": (
        "30123b 392a73 4040a2 4456c7 466be3 4680f6 4294ff 37a8fa 28bceb 1ccdd8 18ddc2 "
        "1fe9af 32f298 4ef97d 6dfe62 8bff4b a4fc3c b9f635 cdec34 dfdf37 eecf3a f8be39 "
        "fdac34 fe962b fb7e21 f46617 eb500e df3f08 d02f05 be2102 a91601 920b01 7a0403"
    ),
    "viridis": (
        "440154 470d60 48186a 482374 472d7b 453781 424086 3e4989 3b528b 375b8d 33638d "
        "2f6b8e 2c728e 297a8e 26828e 23898e 21918c 1f988b 1fa088 22a785 28ae80 32b67a "
        "3fbc73 4ec36b 5ec962 70cf57 84d44b 98d83e addc30 c2df23 d8e219 ece51b fde725"
    ),
}


def colour_table(name: ColourMap) -> np.ndarray:
    """(256, 3) uint8 RGB of a colour map, from its low end to its high end."""
    knots = np.frombuffer(bytes.fromhex(_KNOTS[name]), dtype=np.uint8).reshape(-1, 3)
    levels = np.minimum(8 * np.arange(len(knots)), 255)
    return np.rint([np.interp(np.arange(256), levels, channel) for channel in knots.T]).astype(np.uint8).T.copy()


def coloured(shares: np.ndarray, name: ColourMap) -> np.ndarray:
    """Numbers (...), 0 for the low end and 1 for the high end, clipped -> (..., 3) uint8 RGB."""
    return colour_table(name)[np.rint(255 * np.clip(shares, 0, 1)).astype(np.uint8)]
