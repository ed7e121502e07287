"""Transformer blocks: pre-norm attention, pre-norm MLP; with or without a look at another sequence between."""

from __future__ import annotations

from torch import Tensor, nn

from manyview.networks.layers.attention import Attention, CrossAttention
from manyview.networks.layers.matmul import Linear
from manyview.networks.layers.rope import Rotation


class Mlp(nn.Module):
    """dim -> ratio * dim -> dim with an exact GELU between."""

    def __init__(self, dim: int, ratio: float) -> None:
        super().__init__()
        hidden = int(dim * ratio)
        self.expand = Linear(dim, hidden)
        self.contract = Linear(hidden, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.contract(self.expand(tokens, activation="gelu"))


class Block(nn.Module):
    """x += Attention(LayerNorm(x)); x += MLP(LayerNorm(x))."""

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        mlp_ratio: float,
        norm_eps: float,
        attention_scale: float | None = None,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attention = Attention(dim, heads, scale=attention_scale, qk_norm=qk_norm)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, mlp_ratio)

    def forward(self, tokens: Tensor, positions: Rotation | None = None) -> Tensor:
        """(B, T, dim) -> (B, T, dim)."""
        tokens = tokens + self.attention(self.norm1(tokens), positions)
        return tokens + self.mlp(self.norm2(tokens))


class CrossBlock(nn.Module):
    """x += Attention(LN(x)); x += CrossAttention(LN(x), LN(y)); x += MLP(LN(x)), where y is another sequence."""

    def __init__(self, dim: int, heads: int, *, mlp_ratio: float, norm_eps: float, qk_norm: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attention = Attention(dim, heads, qk_norm=qk_norm)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.norm_others = nn.LayerNorm(dim, eps=norm_eps)
        self.cross_attention = CrossAttention(dim, heads, qk_norm=qk_norm)
        self.norm3 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, mlp_ratio)

    def forward(
        self,
        tokens: Tensor,
        others: Tensor,
        positions: Rotation | None = None,
        others_positions: Rotation | None = None,
    ) -> Tensor:
        """(B, T, dim), and (B, S, dim), which is only read -> (B, T, dim)."""
        tokens = tokens + self.attention(self.norm1(tokens), positions)
        others = self.norm_others(others)
        tokens = tokens + self.cross_attention(self.norm2(tokens), others, positions, others_positions)
        return tokens + self.mlp(self.norm3(tokens))
