"""Own module names <-> official names, as tables of patterns; both directions.

A rule is a pair of templates with `{}` for a number, e.g. `("encoder.blocks.{}.norm1", "enc_blocks.{}.norm1")`; it
renames whole dotted prefixes. The first rule that fits wins.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from manyview.errors import WeightsError


@dataclass(frozen=True)
class NameTable:
    """Renames between our parameters and an official release's.

    Attributes:
        rules: (own, official) templates of dotted prefixes.
        aliases: (kept, dropped) templates of official names that are two names of one tensor. Either may be missing;
            where both are there, the second was registered later and its value holds.
        unused: templates of official names that no computation of ours looks at; they may be there or not.
    """

    rules: Sequence[tuple[str, str]]
    aliases: Sequence[tuple[str, str]] = ()
    unused: Sequence[str] = ()

    def own(self, official: str) -> str | None:
        """Our name of an official one, or None if no rule fits."""
        return _translate(official, self._to_own)

    def official(self, own: str) -> str | None:
        """The official name of one of ours, or None if no rule fits."""
        return _translate(own, self._to_official)

    @cached_property
    def _to_own(self) -> list[tuple[re.Pattern[str], str]]:
        return [(_pattern(official), own) for own, official in self.rules]

    @cached_property
    def _to_official(self) -> list[tuple[re.Pattern[str], str]]:
        return [(_pattern(own), official) for own, official in self.rules]

    def resolve_aliases(self, official: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same tensors with one name each: the kept one; without the unused."""
        unused = [_pattern(template) for template in self.unused]
        resolved = {n: tensor for n, tensor in official.items() if not any(pattern.match(n) for pattern in unused)}
        for kept, dropped in self.aliases:
            pattern = _pattern(dropped)
            for name in [n for n in resolved if pattern.match(n)]:
                numbers = pattern.match(name).groups()  # pyright: ignore[reportOptionalMemberAccess]
                resolved[kept.format(*numbers[:-1]) + numbers[-1]] = resolved.pop(name)
        return resolved


def _pattern(template: str) -> re.Pattern[str]:
    """A template as a pattern with a group per number and one for the rest of the name."""
    return re.compile(re.escape(template).replace(r"\{\}", r"(\d+)") + r"((?:\..*)?)$")


def _translate(name: str, rules: Sequence[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, target in rules:
        if match := pattern.match(name):
            *numbers, rest = match.groups()
            return target.format(*numbers) + rest
    return None


def to_own(official: dict[str, Tensor], table: NameTable, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Official tensors under our names, each checked against `expected` (our own state dict, for names and shapes).

    1x1 convolutions that we hold as linear layers lose their two trailing dimensions.

    Raises:
        WeightsError: lists all names that are missing, unexpected or of another shape, as official names.
    """
    translated: dict[str, Tensor] = {}
    unexpected, misshapen = [], []
    for name, tensor in table.resolve_aliases(official).items():
        own = table.own(name)
        if own is None or own not in expected:
            unexpected.append(name)
            continue
        want = expected[own].shape
        tensor = tensor[..., 0, 0] if tensor.ndim == len(want) + 2 and tensor.shape[-2:] == (1, 1) else tensor
        if tensor.shape != want:
            misshapen.append(f"{name}: got {tuple(tensor.shape)}, expected {tuple(want)}")
        translated[own] = tensor
    missing = [table.official(own) or own for own in expected if own not in translated]
    complain(missing, unexpected, misshapen)
    return translated


def complain(missing: Sequence[str], unexpected: Sequence[str], misshapen: Sequence[str]) -> None:
    """Raise one WeightsError that lists everything that does not fit, or return if all does."""
    parts = [
        f"{len(names)} {kind}: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        if names
    ]
    if parts:
        raise WeightsError(
            "the checkpoint does not fit the network. Tensors " + "; ".join(parts),
            hint="Check that the configuration belongs to these weights and that the file is complete.",
        )


def to_official(own: dict[str, Tensor], table: NameTable) -> dict[str, str]:
    """{own name: official name} of a whole state dict; a name without a rule is an error."""
    names = {name: table.official(name) for name in own}
    if lost := [name for name, official in names.items() if official is None]:
        raise WeightsError(f"no official name for {', '.join(lost)}")
    return {name: official for name, official in names.items() if official is not None}
