"""Views as the tensors that networks take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from manyview.images.views import View

if TYPE_CHECKING:
    from torch import Tensor


def to_network_tensor(views: View | Iterable[View]) -> list[Tensor]:
    """One float32 tensor (1, 3, H, W) a view, RGB from -1 (black) to 1 (white), on the CPU."""
    import torch

    pictures = [views] if isinstance(views, View) else list(views)
    # The official order of operations, (p / 255 - 0.5) / 0.5, gives the same float32 to the last bit.
    return [
        torch.from_numpy(view.pixels)
        .permute(2, 0, 1)[None]
        .to(torch.float32)
        .contiguous()
        .div_(255)
        .sub_(0.5)
        .div_(0.5)
        for view in pictures
    ]
