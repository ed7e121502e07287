"""Which view a token belongs to: the additive index embedding of Fast3R (arXiv 2501.13928, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

TABLE_ROWS = 1000  # rows 0..999 were seen in training


def index_embedding(ids: Tensor, dim: int) -> Tensor:
    """Row `ids` (...) of the fixed sine table -> (..., dim) float32: [sin(r w_j) | cos(r w_j)], w_j = 10000^(-2j/dim).

    The table is a formula, so a row between two integers is as good as any.
    """
    exponents = torch.arange(dim // 2, dtype=torch.float64, device=ids.device) / (dim / 2)
    angles = ids.double()[..., None] * 10000.0**-exponents
    return torch.cat([angles.sin(), angles.cos()], dim=-1).float()


def sequential_ids(batch: int, views: int) -> Tensor:
    """(batch, views): 0, 1, 2, ...; above 1000 views evenly spread over [0, 999]."""
    rows = torch.arange(views) if views <= TABLE_ROWS else torch.linspace(0, TABLE_ROWS - 1, views, dtype=torch.float64)
    return rows.expand(batch, views)


def draw_ids(batch: int, views: int, seed: int) -> Tensor:
    """(batch, views) rows: 0 for the first view, the others distinct and at random, the same for the same seed.

    Equal to what the official code draws after `torch.manual_seed(seed)` (one process), for up to 1000 views. There
    are only 999 other rows, so that code fails for more. Here the pool is then a finer grid on [1, 999]: the released
    authors advise against rows above 999, which training has never seen.
    """
    outer = torch.Generator().manual_seed(seed)
    inner_seed = int(torch.randint(0, 2**32, (1,), generator=outer))
    generator = torch.Generator().manual_seed(inner_seed)
    pool = index_pool(views)
    ids = torch.zeros(batch, views, dtype=pool.dtype)
    for sample in range(batch):
        ids[sample, 1:] = pool[torch.randperm(len(pool), generator=generator)[: views - 1]]
    return ids


def index_pool(views: int) -> Tensor:
    """Rows that views other than the first can get: 1..999, or a finer grid on the same range if that is too few."""
    whole_rows = TABLE_ROWS - 1
    if views <= TABLE_ROWS:
        return torch.arange(1, TABLE_ROWS)
    steps = -(-(views - 1) // whole_rows)
    return torch.linspace(1, whole_rows, whole_rows * steps, dtype=torch.float64)
