"""Networks: one file a family, layers shared by all, and their checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from manyview.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn


def from_official(family: str, config: Mapping[str, Any] | str, state_dict: Mapping[str, Tensor]) -> nn.Module:
    """Build a network from what an official release ships.

    Args:
        family: "fast3r" or "dust3r".
        config: the configuration as that release writes it. fast3r: the dict of config.json. dust3r: the constructor
            expression as text (it is parsed, never evaluated), or its keywords as a dict, as in config.json.
        state_dict: {official name: tensor}.

    Raises:
        WeightsError: an unknown family or configuration, or names that are missing, unexpected or misshapen (all
            listed).
    """
    from manyview.networks.checkpoints.dust3r import dust3r_from_official
    from manyview.networks.checkpoints.fast3r import fast3r_from_official

    if family == "fast3r":
        if not isinstance(config, Mapping):
            raise WeightsError(f"the configuration of fast3r is a {type(config).__name__}; expected a dict")
        return fast3r_from_official(config, state_dict)
    if family == "dust3r":
        return dust3r_from_official(config, state_dict)
    raise WeightsError(f"unknown family {family!r}", hint="Known families: fast3r, dust3r.")
