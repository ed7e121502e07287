"""One forward pass of a network in training, with the tokens on the way that the helper losses look at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields

import torch
from torch import Tensor, nn

from manyview.geometry.posed_views import PosedViews
from manyview.networks.dust3r import Dust3R, Dust3RConfig
from manyview.networks.economy import Economy
from manyview.networks.families import Network, NetworkConfig
from manyview.networks.fast3r import Fast3R
from manyview.networks.pointmaps import Pointmaps


def joint_dim(config: NetworkConfig) -> int:
    """Channels of the tokens where views look at each other."""
    return config.decoder_dim if isinstance(config, Dust3RConfig) else config.fusion_dim


def joint_depth(config: NetworkConfig) -> int:
    """How many blocks there are where views look at each other."""
    return config.decoder_depth if isinstance(config, Dust3RConfig) else config.fusion_depth


def predict(network: Network, images: Tensor, view_ids: Tensor, *, local: bool) -> tuple[Pointmaps, list[Tensor]]:
    """Images (B, N, 3, H, W) in [0, 1] -> pointmaps, and the tokens (B, N, T, dim) of every depth from 1 on.

    A pairwise network sees each pair in both orders, as published: its results have 2 B entries, the pairs as they are
    and then turned round, as `in_the_order_predicted` arranges the truth. Each picture is encoded once.
    """
    images, views = images * 2 - 1, images.shape[1]
    with tokens_on_the_way(network) as depths:
        if isinstance(network, Dust3R):
            first, second = network.encode_both(*images.unbind(1))
            grid = network.grid(images)
            predicted = network.decode(torch.cat([first, second]), torch.cat([second, first]), grid, grid)
        else:
            every = images.shape[0] * views
            economy = Economy(encoder_images=every, head_images=every)
            predicted = network(images, view_ids=view_ids, local=local, economy=economy)
    return predicted, [tokens.unflatten(1, (views, -1)) for tokens in depths]


def in_the_order_predicted(network: Network, batch: PosedViews) -> PosedViews:
    """The truth of what `predict` gives: for a pairwise network, the pairs and then the same turned round."""
    if isinstance(network, Fast3R):
        return batch
    values = {field.name: getattr(batch, field.name) for field in fields(PosedViews)}
    return PosedViews(**{name: torch.cat([value, value.flip(1)]) for name, value in values.items()})


@contextmanager
def tokens_on_the_way(network: Network) -> Iterator[list[Tensor]]:
    """While open, keeps the tokens (B, views * T, dim) of every depth from 1 on, as the network goes along."""
    kept: list[Tensor] = []

    def watch(module: nn.Module, arguments: object, depths: Iterator) -> Iterator:
        for depth, tokens in enumerate(depths):
            if depth > 0:
                kept.append(torch.cat(tokens, dim=1) if isinstance(tokens, tuple) else tokens)
            yield tokens

    joint = network.decoder if isinstance(network, Dust3R) else network.fusion
    handle = joint.register_forward_hook(watch)
    try:
        yield kept
    finally:
        handle.remove()
