"""Changing a recipe by text: `learning_rate=1e-4`, `network.fusion_depth=4`, `stages.0.images=16`.

Text is read by the type of the field that it is for; nothing is ever evaluated.
"""

from __future__ import annotations

import difflib
import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Sequence as AbstractSequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal, TypeGuard, TypeVar, Union, get_args, get_origin

from manyview.errors import InputError

Config = TypeVar("Config")
WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Misfit(ValueError):
    """A value is not of its field's type; says what was expected."""


def override(config: Config, settings: Sequence[str]) -> Config:
    """The same dataclass with some values replaced, one after another.

    Args:
        config: a frozen dataclass, which may hold others and sequences of others.
        settings: "key=value"; the parts of a key are joined by dots, entries of sequences are numbers from 0 on.
            Sequences and dataclasses are given as JSON.

    Raises:
        InputError: an unknown key (the nearest known ones are named), or a value of the wrong type or out of range.
    """
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"--set {setting} is not key=value", hint="For example: --set learning_rate=1e-4")
        known = dict(flat(config))
        try:
            config = _replaced(config, type(config), key.strip().split("."), text.strip())
        except KeyError:
            raise InputError(f"there is no {key!r} in this recipe", hint=_nearest(key, list(known))) from None
        except Misfit as error:
            raise InputError(f"--set {setting}: {error}", hint=f"It is {known.get(key, '...')!r} now.") from None
        except InputError as error:
            raise InputError(f"--set {setting}: {Exception.__str__(error)}", hint=error.hint) from None
    return config


def flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("network.fusion_depth", 8) and so on: every key that can be set, with its value."""
    if is_dataclass(config) and not isinstance(config, type):
        members = [(field.name, getattr(config, field.name)) for field in fields(config)]
    else:
        members = [(str(index), member) for index, member in enumerate(typing.cast(Sequence[Any], config))]
    for name, member in members:
        yield f"{prefix}{name}", member
        if is_dataclass(member) or (_is_sequence(member) and any(is_dataclass(part) for part in member)):
            yield from flat(member, f"{prefix}{name}.")


def changes(then: Any, now: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The keys, each with its new value, that make one dataclass of another of its type.

    A member that is of another type in the two (a network of another family) is one change.
    """
    if _is_sequence(then) and _is_sequence(now):
        nested = len(then) == len(now) and all(is_dataclass(part) for part in now)
        pairs = {str(index): pair for index, pair in enumerate(zip(then, now, strict=False))} if nested else {}
    elif is_dataclass(then) and type(then) is type(now):
        pairs = {field.name: (getattr(then, field.name), getattr(now, field.name)) for field in fields(then)}
    else:
        pairs = {}
    if not pairs and to_json(then) != to_json(now):
        yield prefix, now
    for name, (before, after) in pairs.items():
        yield from changes(before, after, f"{prefix}.{name}" if prefix else name)


def as_text(value: Any) -> str:
    """A value as `override` reads it."""
    plain = to_json(value)
    return plain if isinstance(plain, str) else json.dumps(plain)


def to_json(value: Any) -> Any:
    """Dataclasses and sequences as dicts and lists; infinity, which JSON has not, as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if _is_sequence(value):
        return [to_json(member) for member in value]
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return str(value)
    return value


def _replaced(value: Any, kind: Any, path: Sequence[str], text: str) -> Any:
    """`value`, of type `kind`, with the text put in at the end of the path."""
    if not path:
        return from_text(text, _nearest_first(kind, type(value)))
    name, rest = path[0], path[1:]
    if is_dataclass(value) and not isinstance(value, type):
        kinds = typing.get_type_hints(type(value))
        if name not in {field.name for field in fields(value)}:
            raise KeyError(name)
        return replace(value, **{name: _replaced(getattr(value, name), kinds[name], rest, text)})
    if _is_sequence(value):
        if not name.isdecimal() or int(name) >= len(value):
            raise KeyError(name)
        members, index = list(value), int(name)
        members[index] = _replaced(members[index], _member_kind(kind, index), rest, text)
        return tuple(members)
    raise KeyError(name)


def from_text(text: str, kind: Any) -> Any:
    """Text as a value of a type: a word, a number, or JSON for everything larger.

    Raises:
        Misfit: it is not one.
    """
    if kind is str or get_origin(kind) is Literal:
        return from_plain(text, kind)
    if kind is bool:
        if text.lower() not in WORDS:
            raise Misfit(f"expected true or false, got {text!r}")
        return WORDS[text.lower()]
    if kind in (int, float):
        return _number(text, kind)
    if _is_optional(kind) and text.lower() == "none":
        return None
    if _is_optional(kind):
        return from_text(text, _inner(kind))
    try:
        plain = json.loads(text)
    except json.JSONDecodeError:
        raise Misfit(f"expected {_named(kind)} as JSON, got {text!r}") from None
    return from_plain(plain, kind)


def from_plain(plain: Any, kind: Any) -> Any:
    """What JSON gives, as a value of a type.

    Raises:
        Misfit: it is not one.
    """
    if isinstance(kind, type) and issubclass(kind, (int, float, str)):
        return _scalar_from(plain, kind)
    if is_dataclass(kind):
        return _dataclass_from(plain, kind)
    if _is_optional(kind):
        return None if plain is None else from_plain(plain, _inner(kind))
    if _is_choice(kind):
        return _first_that_fits(plain, get_args(kind))
    if get_origin(kind) is Literal:
        if plain not in get_args(kind):
            raise Misfit(f"expected one of {', '.join(map(str, get_args(kind)))}, got {plain!r}")
        return plain
    if get_origin(kind) in (tuple, list, AbstractSequence):
        return _sequence_from(plain, kind)
    raise Misfit(f"expected {_named(kind)}, got {plain!r}")


def _first_that_fits(plain: Any, kinds: Sequence[Any]) -> Any:
    """What JSON gives, as a value of the first of several types that takes it."""
    expected = []
    for kind in kinds:
        try:
            return from_plain(plain, kind)
        except Misfit as misfit:
            expected.append(str(misfit).removesuffix(f", got {plain!r}"))
    raise Misfit(f"{', or '.join(expected)}, got {plain!r}")


def _nearest_first(kind: Any, present: type) -> Any:
    """Of several types, that of the present value first: text that fits two of them means the same type again."""
    if not _is_choice(kind) or present not in get_args(kind):
        return kind
    return Union[(present, *get_args(kind))]  # which keeps the first of equal ones


def _scalar_from(plain: Any, kind: Any) -> Any:
    if kind is float and (isinstance(plain, str) or type(plain) is int):
        return _number(str(plain), float)  # JSON has no infinity: it is written as text
    if type(plain) is not kind:
        raise Misfit(f"expected {_named(kind)}, got {plain!r}")
    return plain


def _dataclass_from(plain: Any, kind: Any) -> Any:
    kinds = typing.get_type_hints(kind)
    known = [field.name for field in fields(kind)]
    if not isinstance(plain, Mapping) or not set(plain) <= set(known):
        raise Misfit(f"expected {kind.__name__} with {', '.join(known)}, got {plain!r}")
    try:
        return kind(**{name: from_plain(value, kinds[name]) for name, value in plain.items()})
    except TypeError as error:  # something is missing that has no default
        raise Misfit(f"{kind.__name__}: {error}") from None


def _sequence_from(plain: Any, kind: Any) -> tuple[Any, ...]:
    arguments = get_args(kind)
    fixed = get_origin(kind) is tuple and arguments[-1] is not Ellipsis
    if not isinstance(plain, list) or (fixed and len(plain) != len(arguments)):
        raise Misfit(f"expected {_named(kind)}, got {plain!r}")
    return tuple(from_plain(member, _member_kind(kind, index)) for index, member in enumerate(plain))


def _number(text: str, kind: type[int] | type[float]) -> int | float:
    try:
        value = kind(text)
    except ValueError:
        raise Misfit(f"expected {_named(kind)}, got {text!r}") from None
    if value != value:
        raise Misfit(f"expected {_named(kind)}, got {text!r}")
    return value


def _member_kind(kind: Any, index: int) -> Any:
    arguments = get_args(kind)
    fixed = get_origin(kind) is tuple and arguments[-1] is not Ellipsis
    return arguments[index] if fixed else arguments[0]


def _is_sequence(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, (tuple, list))


def _is_optional(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType) and type(None) in get_args(kind)


def _is_choice(kind: Any) -> bool:
    """Whether it is one of several types, as the networks of all families."""
    return get_origin(kind) in (Union, types.UnionType) and not _is_optional(kind)


def _inner(kind: Any) -> Any:
    return next(argument for argument in get_args(kind) if argument is not type(None))


def _named(kind: Any) -> str:
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return words.get(kind, str(kind).replace("collections.abc.", "").replace("typing.", ""))


def _nearest(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    last = key.rsplit(".", 1)[-1]
    near += [name for name in known if name.rsplit(".", 1)[-1] == last and name not in near][:3]
    top = [name for name in known if "." not in name]
    return f"Nearest: {', '.join(near)}." if near else f"Known: {', '.join(top)}."
