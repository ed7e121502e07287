"""Portrait pictures that are stored transposed, as landscape, so that a training batch has one shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from manyview.networks.layers.dpt import DPTHead


def in_natural_orientation(encoder: Callable[[Tensor], Tensor], images: Tensor, upright: Tensor) -> Tensor:
    """Encode images (B, 3, H, W) of which the not `upright` ones (B,) are portraits stored transposed.

    A portrait's tokens are those of the picture as it is seen, row by row on its own (w, h) grid.
    """
    if bool(upright.all()):
        return encoder(images)
    tokens = [
        encoder(image if flag else image.mT) for image, flag in zip(images.split(1), upright.tolist(), strict=True)
    ]
    return torch.cat(tokens)


def head_in_natural_orientation(
    head: DPTHead, maps: Sequence[Tensor], grid: tuple[int, int], upright: Tensor
) -> Tensor:
    """Run a head on B views of which the not `upright` ones are portraits; their results are transposed back."""
    if bool(upright.all()):
        return head(maps, grid)
    results = []
    for sample, flag in enumerate(upright.tolist()):
        own = [tokens[sample : sample + 1] for tokens in maps]
        results.append(head(own, grid) if flag else head(own, (grid[1], grid[0])).mT)
    return torch.cat(results)
