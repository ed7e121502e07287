"""The transformer block of every family: pre-norm attention, pre-norm MLP."""

from __future__ import annotations

from torch import Tensor, nn

from manyview.networks.layers.attention import Attention
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
