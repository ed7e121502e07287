"""The official DUSt3R releases: their configuration, which is the text of a constructor call, and their names."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from torch import Tensor

from manyview.errors import WeightsError
from manyview.networks.checkpoints.names import NameTable, to_own
from manyview.networks.checkpoints.official_parts import (
    block_names,
    dpt_aliases,
    dpt_names,
    number,
    require,
    rope_base,
)
from manyview.networks.dust3r import Dust3R, Dust3RConfig
from manyview.networks.families import empty_network, fill
from manyview.networks.layers.pointmap_activations import ConfidenceActivation, DepthActivation

CONSTRUCTOR = "AsymmetricCroCo3DStereo"
# Say how training batches are laid out, not what is computed; numbers are the same for all their values.
LAYOUT_KEYWORDS = frozenset(("img_size", "patch_embed_cls", "landscape_only", "freeze"))
KNOWN_KEYWORDS = LAYOUT_KEYWORDS | {
    *("pos_embed", "head_type", "output_mode", "depth_mode", "conf_mode", "patch_size", "mlp_ratio"),
    *(f"{part}_{what}" for part in ("enc", "dec") for what in ("embed_dim", "depth", "num_heads")),
}

logger = logging.getLogger(__name__)


def _decoder_names(own: str, official: str) -> list[tuple[str, str]]:
    cross = [("query", "projq"), ("key", "projk"), ("value", "projv"), ("project", "proj")]
    return [
        *((f"{own}.cross_attention.{ours}", f"{official}.cross_attn.{theirs}") for ours, theirs in cross),
        (f"{own}.norm_others", f"{official}.norm_y"),
        *block_names(own, official),
    ]


DUST3R_NAMES = NameTable(
    rules=[
        ("encoder.patch_embedding", "patch_embed.proj"),
        *block_names("encoder.blocks.{}", "enc_blocks.{}"),
        ("encoder.norm", "enc_norm"),
        ("decoder.embedding", "decoder_embed"),
        *_decoder_names("decoder.first_blocks.{}", "dec_blocks.{}"),
        *_decoder_names("decoder.second_blocks.{}", "dec_blocks2.{}"),
        ("decoder.norm", "dec_norm"),
        ("first_head.patch", "downstream_head1.proj"),
        ("second_head.patch", "downstream_head2.proj"),
        *dpt_names("first_head", "downstream_head1.dpt"),
        *dpt_names("second_head", "downstream_head2.dpt"),
    ],
    aliases=[*dpt_aliases("downstream_head1.dpt"), *dpt_aliases("downstream_head2.dpt")],
    unused=["mask_token"],
)


def dust3r_from_official(config: Mapping[str, Any] | str, weights: Mapping[str, Tensor]) -> Dust3R:
    """Build the network that an official configuration describes and fill it with official weights.

    A state dict without the second decoder (as a CroCo checkpoint has it) gives both sides the weights of the first.

    Raises:
        WeightsError: the configuration asks for something that is not built here, or names or shapes do not fit.
    """
    network = empty_network(dust3r_config(config))
    fill(network, to_own(_with_second_decoder(weights), DUST3R_NAMES, network.state_dict()))
    assert isinstance(network, Dust3R)
    return network


def dust3r_config(official: Mapping[str, Any] | str) -> Dust3RConfig:
    """The text of the official constructor call, or its keywords (the hub's config.json), as our configuration."""
    keywords = parse_constructor(official) if isinstance(official, str) else official
    if unknown := sorted(set(keywords) - KNOWN_KEYWORDS):
        logger.warning("the configuration has keywords that are not known here: %s", ", ".join(unknown))
    try:
        return _config(keywords)
    except KeyError as missing:
        raise WeightsError(
            f"the configuration lacks {missing}; it has {', '.join(keywords)}",
            hint="Expected the keywords of a DUSt3R release.",
        ) from missing
    except (TypeError, ValueError) as error:
        raise WeightsError(f"the configuration has a value that does not fit: {error}") from error


def _config(keywords: Mapping[str, Any]) -> Dust3RConfig:
    require("output_mode", keywords, "pts3d")
    head = _one_of("head_type", keywords["head_type"], ("linear", "dpt"))
    depth_kind, *depth_limits = keywords["depth_mode"]
    if [number(limit) for limit in depth_limits] != [float("-inf"), float("inf")]:
        raise WeightsError(f"depth_mode with limits {depth_limits} is not supported; expected -inf and inf")
    confidence_kind, low, high = keywords["conf_mode"]
    return Dust3RConfig(
        patch_size=_whole("patch_size", keywords.get("patch_size", 16)),
        **_sizes("encoder", "enc", keywords),
        **_sizes("decoder", "dec", keywords, least_depth=4 if head == "dpt" else 1),
        mlp_ratio=float(keywords.get("mlp_ratio", 4.0)),
        rope_base=rope_base(keywords["pos_embed"]),
        head=head,
        depth_activation=_one_of("depth_mode", depth_kind, get_args(DepthActivation)),
        confidence_activation=_one_of("conf_mode", confidence_kind, get_args(ConfidenceActivation)),
        confidence_range=(number(low), number(high)),
    )


def _sizes(own: str, official: str, keywords: Mapping[str, Any], least_depth: int = 1) -> dict[str, Any]:
    """Dimension, heads and depth of the encoder or of the decoders. A DPT head looks at four depths."""
    dim, heads = (_whole(key, keywords[key]) for key in (f"{official}_embed_dim", f"{official}_num_heads"))
    if dim % (4 * heads):
        raise WeightsError(f"{official}_embed_dim {dim} is not supported; expected a multiple of 4 times {heads} heads")
    depth = _whole(f"{official}_depth", keywords[f"{official}_depth"], least_depth)
    return {f"{own}_dim": dim, f"{own}_heads": heads, f"{own}_depth": depth}


def _whole(key: str, value: object, least: int = 1) -> int:
    if type(value) is not int or value < least:
        raise WeightsError(f"{key} {value!r} is not supported; expected a whole number from {least} on")
    return value


def _one_of(key: str, value: Any, known: Sequence[str]) -> Any:
    if value not in known:
        raise WeightsError(f"{key} {value!r} is not supported; expected one of {', '.join(known)}")
    return value


def parse_constructor(text: str) -> dict[str, Any]:
    """The keywords of `AsymmetricCroCo3DStereo(key=value, ...)`. Only literals are read; nothing is run.

    Raises:
        WeightsError: it is anything else than that call with constants, tuples and lists of constants.
    """
    try:
        return _keywords(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the last two: nested too deeply
        raise WeightsError(f"the configuration is not a constructor call: {text[:100]!r}") from error


def _keywords(call: ast.expr) -> dict[str, Any]:
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != CONSTRUCTOR:
        raise WeightsError(f"the configuration is {ast.unparse(call)[:100]!r}; expected {CONSTRUCTOR}(...)")
    if call.args or any(keyword.arg is None for keyword in call.keywords):
        raise WeightsError("the configuration has arguments without names; expected keywords alone")
    names = [str(keyword.arg) for keyword in call.keywords]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise WeightsError(f"the configuration has {', '.join(twice)} more than once")
    return {name: _literal(keyword.value) for name, keyword in zip(names, call.keywords, strict=True)}


def _literal(node: ast.expr) -> Any:
    """A constant, `inf`, a negative number, or a tuple or list of these."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        if node.id in ("inf", "Infinity"):
            return float("inf")
        if node.id.startswith(("PatchEmbed", "ManyAR")):  # a class name without quotes
            return node.id
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _literal(node.operand)
        if isinstance(value, (int, float)):
            return -value
    if isinstance(node, (ast.Tuple, ast.List)):
        return tuple(_literal(element) for element in node.elts)
    raise WeightsError(f"the configuration holds {ast.unparse(node)[:100]!r}; only literal values are read")


def _with_second_decoder(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if any(name.startswith("dec_blocks2") for name in weights):
        return dict(weights)
    copies = {re.sub(r"^dec_blocks\.", "dec_blocks2.", name): tensor for name, tensor in weights.items()}
    return {**copies, **weights}
