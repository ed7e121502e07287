"""What can be done to a network's transformer blocks for training, without changing their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from manyview.networks.families import Network
from manyview.networks.fast3r import Fast3R
from manyview.networks.layers.blocks import Block, CrossBlock
from manyview.networks.layers.dpt import DPTHead


def blocks(network: nn.Module) -> Iterator[Block | CrossBlock]:
    """The transformer blocks, in order."""
    return (module for module in network.modules() if isinstance(module, (Block, CrossBlock)))


def prepare_blocks(network: nn.Module, *, recompute: bool, compiled: bool) -> None:
    """Change how the blocks are computed. Names and numbers of the weights stay as they are.

    Args:
        network: whose blocks.
        recompute: keep only a block's inputs for the gradient and compute the rest again: less memory, a third more
            work.
        compiled: let `torch.compile` write the kernels. Each new shape may cost a compilation.
    """
    for block in blocks(network):
        forward = torch.compile(block.forward) if compiled else block.forward
        if recompute:
            # Blocks draw nothing at random, so there is no generator to restore for the second time.
            forward = partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False)
        block.forward = forward  # pyright: ignore[reportAttributeAccessIssue]


def freeze_unused(network: Network, *, local: bool) -> None:
    """Take what never gets a gradient out of training: processes that average gradients would wait for it.

    Args:
        network: what is trained.
        local: does the objective look at local points?
    """
    for head in (module for module in network.modules() if isinstance(module, DPTHead)):
        head.refinement(3).join.requires_grad_(False)  # in the checkpoints of DPT heads, but never used
    if isinstance(network, Fast3R) and not local:
        network.local_head.requires_grad_(False)
