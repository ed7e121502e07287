"""The picture of docs/worlds.md: two views each of eight compositions.

python benchmarks/worlds_picture.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from manyview.worlds import WorldSettings, render_worlds

OUT = Path(__file__).resolve().parents[1] / "docs" / "images" / "worlds.jpg"
SHOWN = (
    ("room", 5), ("corridor", 1), ("tabletop", 7), ("object", 3),
    ("courtyard", 5), ("facade", 4), ("street", 1), ("terrain", 1),
)  # fmt: skip


def main() -> None:
    strips = []
    for composition, seed in SHOWN:
        batch = render_worlds([seed], 2, (144, 192), WorldSettings(compositions=(composition,), samples=6))
        pixels = np.rint(255 * batch.images[0].permute(0, 2, 3, 1).numpy()).astype(np.uint8)
        strips.append(np.concatenate(list(pixels), axis=1))
    half = len(strips) // 2
    rows = [np.concatenate(pair, axis=1) for pair in zip(strips[:half], strips[half:], strict=True)]
    Image.fromarray(np.concatenate(rows)).save(OUT, quality=88)


if __name__ == "__main__":
    main()
