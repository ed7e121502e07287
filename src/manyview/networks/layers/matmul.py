"""One matrix product with a fast path for CPUs.

PyTorch sends float32 products on a CPU to the BLAS it was built with. On some processors oneDNN is twice as fast at the
same precision, and it can apply a GELU while the result is still in cache. A global switch for this exists
(`torch.set_float32_matmul_precision`), but on some machines it also allows bfloat16 or TF32 arithmetic, so oneDNN's
own operator is called instead, after a probe has shown that it computes in float32.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["none", "gelu"]

# Inputs rounded to bfloat16 or TF32 give relative errors of 1e-3 or more; float32 sums of this length stay below 1e-6.
_EXACT_TOLERANCE = 5e-6


class Linear(nn.Linear):
    """`torch.nn.Linear`, with the activation that follows it as an argument of the call."""

    def forward(self, input: Tensor, activation: Activation = "none") -> Tensor:
        return linear(input, self.weight, self.bias, activation)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None, activation: Activation = "none") -> Tensor:
    """activation(input @ weight.T + bias): (..., I) with weight (O, I) -> (..., O). GELU is the exact (erf) one."""
    if _onednn_takes(input, weight):
        return torch.ops.mkldnn._linear_pointwise(input, weight, bias, activation, [], "none")
    return linear_reference(input, weight, bias, activation)


def linear_reference(input: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
    """The same by PyTorch's default route; differentiable."""
    output = F.linear(input, weight, bias)
    return F.gelu(output) if activation == "gelu" else output


def _onednn_takes(input: Tensor, weight: Tensor) -> bool:
    return (
        input.device.type == "cpu"
        and weight.dtype == input.dtype
        and not (torch.is_grad_enabled() and (input.requires_grad or weight.requires_grad))
        and not torch.is_autocast_enabled("cpu")
        and input.is_contiguous()
        and onednn_is_exact(input.dtype)
    )


@cache
def onednn_is_exact(dtype: torch.dtype) -> bool:
    """Does oneDNN's linear operator exist here, and does it keep the precision of `dtype`?

    Compared with float64 on a product whose terms differ by more than bfloat16 or TF32 can hold.
    """
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    input = torch.randn(64, 256, generator=generator).to(dtype)
    weight = torch.randn(128, 256, generator=generator).to(dtype)
    bias = torch.randn(128, generator=generator).to(dtype)
    truth = F.gelu(F.linear(input.double(), weight.double(), bias.double()))
    try:
        with torch.no_grad():
            result = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "gelu", [], "none")
    except (AttributeError, RuntimeError):
        return False
    tolerance = _EXACT_TOLERANCE if dtype == torch.float32 else 2 * torch.finfo(dtype).eps
    return bool((result.double() - truth).abs().max() <= tolerance * truth.abs().max())
