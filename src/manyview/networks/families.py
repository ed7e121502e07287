"""The families of networks by name: how an empty one is made from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from manyview.networks.dust3r import Dust3R, Dust3RConfig
from manyview.networks.fast3r import Fast3R, Fast3RConfig
from manyview.networks.layers.dpt import DPTHead

Network: TypeAlias = Fast3R | Dust3R
NetworkConfig: TypeAlias = Fast3RConfig | Dust3RConfig

CONFIGS: Mapping[str, type[Fast3RConfig] | type[Dust3RConfig]] = {"fast3r": Fast3RConfig, "dust3r": Dust3RConfig}


def new_network(config: NetworkConfig) -> Network:
    """The network of a configuration, with random weights."""
    return Dust3R(config) if isinstance(config, Dust3RConfig) else Fast3R(config)


def empty_network(config: NetworkConfig) -> Network:
    """The network without memory for its weights, to be filled."""
    with torch.device("meta"):
        return new_network(config)


def fill(network: Network, weights: Mapping[str, Tensor]) -> Network:
    """Put weights into an empty network without a copy, for inference; the heads' convolutions as they run fastest."""
    network.load_state_dict(weights, assign=True)
    for module in network.modules():
        if isinstance(module, DPTHead):
            module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return network.eval().requires_grad_(False)


def family_of(config: NetworkConfig) -> str:
    """ "fast3r" or "dust3r"."""
    return next(name for name, kind in CONFIGS.items() if isinstance(config, kind))
