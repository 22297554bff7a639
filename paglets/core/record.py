"""Strict conversion between frozen dataclasses and JSON trees.

This module converts everything that paglets itself sends or stores: envelopes, gossip, requests, rows. A wrong type, an
unknown field or a missing field raises Invalid, whose message names the field. `paglets.codec.tagged_json` converts the
values of users.

Supported annotations: str, int (64 bits), float (an int is converted), bool, Any (any JSON value, not converted),
`X | None`, `tuple[X, ...]`, `dict[str, X]`, `Literal[...]` of strings, and nested dataclasses.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Literal, TypeVar, Union

from paglets.core.errors import Invalid
from paglets.core.text import type_of

T = TypeVar("T")
Decode = Callable[[Any, str], Any]

INT_BOUND = 1 << 63
"""The bound of integers, which are stored in signed 64-bit columns: they are from -INT_BOUND to INT_BOUND - 1."""

_PLAIN = frozenset((str, int, float, bool, type(None)))
"""The types whose values need no conversion. They are checked first because most fields have them."""

_STRINGS = frozenset((str,))
_CONTAINERS = frozenset((dict, list))


def to_json(value: Any) -> Any:
    """Return the JSON tree of a record (dataclass), a tuple or dict of records, or a plain value.

    A field that is a JSON tree already, such as the state of a job, is not copied: the result shares it.
    """
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    names = _field_names(type(value))
    if names is not None:
        tree = {}
        for name in names:
            item = getattr(value, name)
            tree[name] = item if type(item) in _PLAIN or _is_tree(item) else to_json(item)
        return tree
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if isinstance(value, Mapping):
        return {_key(key): to_json(item) for key, item in value.items()}
    raise Invalid(f"{type_of(value)} cannot be written as JSON")


def _is_tree(value: Any) -> bool:
    """Return True if `value` is a dict or list that needs no conversion, at any depth."""
    if type(value) is dict:
        if not _STRINGS.issuperset(map(type, value)):
            return False
        inside: Iterable[Any] = value.values()
    elif type(value) is list:
        inside = value
    else:
        return False
    # Most items are plain. Compare the set of their types first, which needs no Python code for each item.
    kinds = set(map(type, inside)) - _PLAIN
    return not kinds or (kinds <= _CONTAINERS and all(type(item) in _PLAIN or _is_tree(item) for item in inside))


def _new_field_names(cls: type) -> tuple[str, ...] | None:
    return tuple(field.name for field in dataclasses.fields(cls)) if dataclasses.is_dataclass(cls) else None


_field_names: Callable[[type], tuple[str, ...] | None] = cache(_new_field_names)
"""A function that returns the field names of a dataclass, or None for another class. Its results are cached."""


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise Invalid(f"{type_of(key)} cannot be a key in JSON")
    return key


def from_json(cls: type[T], tree: Any, where: str = "") -> T:
    """Return the record of class `cls` that the JSON tree describes. Raises Invalid; `where` starts its message."""
    return typing.cast(T, _record_decoder(cls)(tree, where or cls.__name__))


def _new_record_decoder(cls: type) -> Decode:
    hints = typing.get_type_hints(cls)
    fields = {f.name: _decoder(hints[f.name]) for f in dataclasses.fields(cls)}
    # Values of these types are used unchanged. That skips the decoder and its path argument, which takes time to build.
    exact = {f.name: hints[f.name] if hints[f.name] in (str, bool, int) else None for f in dataclasses.fields(cls)}
    required = [
        f.name
        for f in dataclasses.fields(cls)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]

    def decode(tree: Any, where: str) -> Any:
        if not isinstance(tree, dict):
            raise Invalid(f"{where}: expected an object, got {_kind(tree)}")
        for name in tree:
            if name not in fields:
                raise Invalid(f"{where}: unknown field {str(name)[:60]!r}")
        for name in required:
            if name not in tree:
                raise Invalid(f"{where}: field {name!r} is missing")
        values = {}
        for name, item in tree.items():
            kind = exact[name]
            is_exact = type(item) is kind and (kind is not int or -INT_BOUND <= item < INT_BOUND)
            values[name] = item if is_exact else fields[name](item, f"{where}.{name}")
        return cls(**values)

    return decode


_record_decoder: Callable[[type], Decode] = cache(_new_record_decoder)


def _kind(tree: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(tree), "a number")


def _scalar(kind: type, name: str) -> Decode:
    def decode(tree: Any, where: str) -> Any:
        if type(tree) is not kind:
            raise Invalid(f"{where}: expected {name}, got {_kind(tree)}")
        return tree

    return decode


def _integer(tree: Any, where: str) -> int:
    if type(tree) is not int:
        raise Invalid(f"{where}: expected an integer, got {_kind(tree)}")
    if not -INT_BOUND <= tree < INT_BOUND:
        raise Invalid(f"{where}: expected an integer of 64 bits, got one of {tree.bit_length()} bits")
    return tree


def _number(tree: Any, where: str) -> float:
    # An int may be too large for a float. A comparison then works, whereas float() would raise OverflowError.
    if type(tree) not in (int, float) or not -sys.float_info.max <= tree <= sys.float_info.max:
        raise Invalid(f"{where}: expected a finite number, got {_kind(tree)}")
    return float(tree)


def _anything(tree: Any, where: str) -> Any:
    return tree


_SCALARS: dict[Any, Decode] = {
    str: _scalar(str, "a string"),
    int: _integer,
    bool: _scalar(bool, "a boolean"),
    float: _number,
    Any: _anything,
}


@cache
def _decoder(hint: Any) -> Decode:
    if hint in _SCALARS:
        return _SCALARS[hint]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _optional(args)
    if origin is tuple:
        return _sequence(_decoder(args[0]))
    if origin is dict:
        return _mapping(_decoder(args[1]))
    if origin is Literal:
        return _choice(args)
    if dataclasses.is_dataclass(hint):
        return _record_decoder(typing.cast(type, hint))
    raise TypeError(f"record fields cannot be of type {hint}")


def _optional(args: tuple[Any, ...]) -> Decode:
    (inner,) = [_decoder(arg) for arg in args if arg is not type(None)]

    def decode(tree: Any, where: str) -> Any:
        return None if tree is None else inner(tree, where)

    return decode


def _sequence(inner: Decode) -> Decode:
    def decode(tree: Any, where: str) -> Any:
        if not isinstance(tree, (list, tuple)):
            raise Invalid(f"{where}: expected a list, got {_kind(tree)}")
        return tuple(inner(item, f"{where}[{index}]") for index, item in enumerate(tree))

    return decode


def _mapping(inner: Decode) -> Decode:
    def decode(tree: Any, where: str) -> Any:
        if not isinstance(tree, dict):
            raise Invalid(f"{where}: expected an object, got {_kind(tree)}")
        return {key: inner(item, f"{where}[{key[:60]!r}]") for key, item in tree.items()}

    return decode


def _choice(allowed: tuple[Any, ...]) -> Decode:
    def decode(tree: Any, where: str) -> Any:
        if tree not in allowed or not isinstance(tree, str):
            raise Invalid(f"{where}: expected one of {', '.join(allowed)}")
        return tree

    return decode
