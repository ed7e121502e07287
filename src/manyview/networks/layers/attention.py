"""Multi-head attention, shared by all families."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manyview.networks.layers.matmul import Linear
from manyview.networks.layers.rope import Rotation, rotate


class Attention(nn.Module):
    """Self-attention over all tokens of a sequence; no mask, no dropout.

    Args:
        dim: channels of a token.
        heads: number of heads; `dim` is a multiple of it.
        scale: factor of q k^T before the softmax; 1/sqrt(head size) if None.
        qk_norm: normalise queries and keys per head (LayerNorm) before the product.
    """

    def __init__(self, dim: int, heads: int, *, scale: float | None = None, qk_norm: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.scale = scale
        self.qkv = Linear(dim, 3 * dim)
        self.project = Linear(dim, dim)
        self.q_norm = nn.LayerNorm(dim // heads) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(dim // heads) if qk_norm else nn.Identity()

    def forward(self, tokens: Tensor, positions: Rotation | None = None) -> Tensor:
        """(B, T, dim) -> (B, T, dim). With `positions`, queries and keys are rotated (RoPE)."""
        # q, k, v stay views of one tensor (B, T, heads, head size): nothing is copied to split them.
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).unbind(2)
        q, k = self.q_norm(q), self.k_norm(k)
        if positions is not None:
            q, k = rotate(q, positions), rotate(k, positions)
        mixed = attend(q, k, v, self.scale)
        return self.project(mixed)


class CrossAttention(nn.Module):
    """Every token of one sequence looks at all tokens of another.

    Args:
        dim: channels of a token, of both sequences.
        heads: number of heads; `dim` is a multiple of it.
        qk_norm: normalise queries and keys per head (LayerNorm) before the product.
    """

    def __init__(self, dim: int, heads: int, *, qk_norm: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.query = Linear(dim, dim)
        self.key = Linear(dim, dim)
        self.value = Linear(dim, dim)
        self.project = Linear(dim, dim)
        self.q_norm = nn.LayerNorm(dim // heads) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(dim // heads) if qk_norm else nn.Identity()

    def forward(
        self,
        tokens: Tensor,
        others: Tensor,
        positions: Rotation | None = None,
        others_positions: Rotation | None = None,
    ) -> Tensor:
        """(B, T, dim) looks at (B, S, dim) -> (B, T, dim). Positions rotate queries and keys (RoPE)."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1))
            for layer, x in ((self.query, tokens), (self.key, others), (self.value, others))
        )
        q, k = self.q_norm(q), self.k_norm(k)
        if positions is not None and others_positions is not None:
            q, k = rotate(q, positions), rotate(k, others_positions)
        return self.project(attend(q, k, v))


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """softmax(q k^T scale) v: q (B, T, heads, D), k and v (B, S, heads, D) -> (B, T, heads * D), the fastest way."""
    if _plain_products_win(q):
        return attend_reference(q, k, v, scale)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(2)


def attend_reference(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """The same, written out; keeps all T x S weights in memory."""
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    weights = (q @ k.mT).mul(factor).softmax(dim=-1)
    return (weights.to(v.dtype) @ v).transpose(1, 2).flatten(2)


def _plain_products_win(q: Tensor) -> bool:
    """Training on a CPU in bfloat16, short sequences: the fused kernel does not use the processor's bfloat16
    products; forward and backward together it takes 2 to 4 times as long as three plain products."""
    in_bf16 = q.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
    return q.device.type == "cpu" and in_bf16 and torch.is_grad_enabled() and q.shape[1] <= 1024
