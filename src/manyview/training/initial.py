"""Where a run's first weights come from: another model, of the same network or of a related one."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from manyview.errors import WeightsError
from manyview.networks.dust3r import Dust3R, Dust3RConfig
from manyview.networks.families import Network, NetworkConfig
from manyview.networks.fast3r import Fast3R
from manyview.networks.layers.attention import Attention, CrossAttention
from manyview.networks.layers.blocks import Block, CrossBlock
from manyview.networks.layers.view_index import TABLE_ROWS, index_embedding
from manyview.training.recipe import Recipe

# What may differ between two pairwise networks of which one takes over the other's encoder and decoders.
HEAD_FIELDS = ("head", "head_widths", "head_features", "head_last_features")
# What a pairwise network and the Fast3R that it starts from have in common: (ours, theirs).
SHARED_FIELDS = (
    *((name, name) for name in ("patch_size", "encoder_dim", "encoder_heads", "encoder_depth", "mlp_ratio")),
    *((name, name) for name in ("rope_base", "depth_activation", "confidence_activation", "confidence_range")),
    *((f"decoder_{name}", f"fusion_{name}") for name in ("dim", "heads", "depth", "coordinates", "qk_norm")),
)


def load_initial(network: Network, recipe: Recipe) -> None:
    """Take the weights of the recipe's `initial` model; heads that it does not have stay as they are.

    Raises:
        WeightsError: it cannot be loaded, or is not of the recipe's network nor related to it.
    """
    from manyview.networks.checkpoints.find import find_network

    initial = find_network(recipe.initial)[0]
    if isinstance(network, Dust3R) and isinstance(initial, Fast3R):
        take_over_fast3r(network, initial)
    elif network.config != initial.config and differ_in_heads_alone(network.config, initial.config):
        assert isinstance(network, Dust3R)
        assert isinstance(initial, Dust3R)
        _copy(network.encoder, initial.encoder)
        _copy(network.decoder, initial.decoder)
    else:
        _take_all(network, initial, recipe.initial)


def differ_in_heads_alone(ours: NetworkConfig, theirs: NetworkConfig) -> bool:
    """Whether two pairwise networks have equal encoders and decoders (and perhaps equal heads)."""
    if not (isinstance(ours, Dust3RConfig) and isinstance(theirs, Dust3RConfig)):
        return False
    return replace(theirs, **{name: getattr(ours, name) for name in HEAD_FIELDS}) == ours


def _take_all(network: Network, initial: Network, name: str) -> None:
    weights = initial.state_dict()
    theirs, ours = (
        {name: tuple(tensor.shape) for name, tensor in state.items()} for state in (weights, network.state_dict())
    )
    misfits = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    hint = "Leave out --set network...: the network is that of the initial model."
    if misfits:
        raise WeightsError(
            f"{name} is not of the recipe's network: {len(misfits)} tensors differ, {misfits[0]} first", hint=hint
        )
    for field in (field for field in vars(initial.config) if field.endswith("_heads")):  # shapes do not show it
        if getattr(network.config, field) != getattr(initial.config, field):
            raise WeightsError(f"{name} is not of the recipe's network: {field} differs", hint=hint)
    network.load_state_dict(weights)


# ------------------------------------------------------------------ from any number of views to two
@torch.no_grad()
def take_over_fast3r(network: Dust3R, fast3r: Fast3R) -> None:
    """Start a pairwise network from a Fast3R of equal sizes, so that it says nearly the same of a pair at once.

    Both decoders become the fusion. Where a block of the fusion looks at all tokens, the pairwise block looks at its
    own view's and at the other's one after the other, each with half the weight; where it looks within a view, the
    look at the other view starts without effect.

    Positions of patches are known in all decoders, also where the fusion had none.

    Raises:
        WeightsError: sizes or options differ, or the heads are of another kind.
    """
    ours, theirs = network.config, fast3r.config
    for own, other in SHARED_FIELDS:
        if getattr(ours, own) != getattr(theirs, other):
            raise WeightsError(
                f"the initial model does not fit the network: its {other} is {getattr(theirs, other)}, "
                f"{own} here is {getattr(ours, own)}",
                hint="Sizes and options of encoder, blocks and heads have to be those of the initial model.",
            )
    decoder, fusion = network.decoder, fast3r.fusion
    _copy(network.encoder, fast3r.encoder)
    _copy(decoder.embedding, fusion.embedding)
    _copy(decoder.norm, fusion.norm)
    if decoder.coordinates is not None and fusion.coordinates is not None:  # both or neither
        _copy(decoder.coordinates, fusion.coordinates)
    if decoder.sides is not None:
        rows = torch.tensor([0, TABLE_ROWS // 2])  # the first view's, and any other's: they were drawn at random
        decoder.sides.copy_(index_embedding(rows, ours.decoder_dim))
    for blocks in (decoder.first_blocks, decoder.second_blocks):
        for number, (block, source) in enumerate(zip(blocks, fusion.blocks, strict=True)):
            assert isinstance(block, CrossBlock)
            assert isinstance(source, Block)
            _take_over_block(block, source, across=theirs.fusion_attention == "joint" or number % 2 == 1)
    for head in (network.first_head, network.second_head):
        _copy(head, fast3r.global_head)


def _take_over_block(block: CrossBlock, source: Block, *, across: bool) -> None:
    _copy(block.attention, source.attention)
    _copy(block.mlp, source.mlp)
    _copy(block.norm3, source.norm2)
    for norm in (block.norm1, block.norm2, block.norm_others):
        _copy(norm, source.norm1)
    _look_across(block.cross_attention, source.attention)
    share = 0.5 if across else 0.0
    _scale(block.cross_attention.project, share)
    _scale(block.attention.project, 1 - share)


def _look_across(cross: CrossAttention, source: Attention) -> None:
    """The queries, keys and values of a self-attention as those of a cross-attention."""
    parts = zip(source.qkv.weight.chunk(3), source.qkv.bias.chunk(3), strict=True)
    for layer, (weight, bias) in zip((cross.query, cross.key, cross.value), parts, strict=True):
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    for own, other in ((cross.project, source.project), (cross.q_norm, source.q_norm), (cross.k_norm, source.k_norm)):
        _copy(own, other)


def _scale(layer: nn.Linear, factor: float) -> None:
    layer.weight.mul_(factor)
    layer.bias.mul_(factor)


def _copy(own: nn.Module, source: nn.Module) -> None:
    try:
        own.load_state_dict(source.state_dict())
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise WeightsError(
            f"the initial model does not fit the network: {first}",
            hint="Sizes and options of encoder, blocks and heads have to be those of the initial model.",
        ) from error
