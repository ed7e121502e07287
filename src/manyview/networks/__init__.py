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
        family: "fast3r".
        config: the configuration as that release writes it (fast3r: the dict of config.json).
        state_dict: {official name: tensor}.

    Raises:
        WeightsError: an unknown family or configuration, or names that are missing, unexpected or misshapen (all
            listed).
    """
    from manyview.networks.checkpoints.fast3r import fast3r_from_official

    builders = {"fast3r": fast3r_from_official}
    if family not in builders:
        raise WeightsError(f"unknown family {family!r}", hint=f"Known families: {', '.join(builders)}.")
    if not isinstance(config, Mapping):
        raise WeightsError(f"the configuration of {family} is a {type(config).__name__}; expected a dict")
    return builders[family](config, state_dict)
