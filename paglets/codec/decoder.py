"""Trees to values: the reading half of `paglets.codec.wire`, where the tags are listed.

`depth` counts the objects and lists of the tree that lie around a tree.
"""

from __future__ import annotations

import binascii
import datetime
from collections.abc import Callable
from dataclasses import is_dataclass
from enum import Enum, Flag
from pathlib import Path
from typing import Any

from paglets.codec.refusal import Refusal, key_step, type_name
from paglets.codec.shapes import put_together
from paglets.codec.text import MAX_DEPTH
from paglets.core.errors import Invalid

Resolve = Callable[[str], type[Any]]
Reader = Callable[[Any, int, Resolve], Any]


def no_class(name: str) -> type[Any]:
    """The Resolve of those who may not import users' code."""
    raise Invalid(f"a value of class {name[:100]!a} is not read here, only plain values are")


def read(tree: Any, depth: int, resolve: Resolve) -> Any:
    """The value of `tree`. Raises Refusal, and what `resolve` raises for a class that is not here."""
    kind = type(tree)
    if kind in _SCALARS:
        return tree
    if depth >= MAX_DEPTH:
        raise Refusal(f"nested more than {MAX_DEPTH} levels deep")
    if kind is list:
        return _items(tree, depth, resolve)
    if kind is not dict:
        raise Refusal(f"a {type_name(tree)} is no JSON value")
    if len(tree) == 1:
        ((key, content),) = tree.items()
        if key[:1] == "$":
            return _tagged(key, content, depth, resolve)
    return _entries(tree, depth, resolve)


_SCALARS = frozenset((str, int, float, bool, type(None)))


def _items(trees: list[Any], depth: int, resolve: Resolve) -> list[Any]:
    values: list[Any] = []
    try:
        for tree in trees:
            values.append(read(tree, depth + 1, resolve))
    except Refusal as refusal:
        refusal.at(f"[{len(values)}]")
        raise
    return values


def _entries(trees: dict[str, Any], depth: int, resolve: Resolve) -> dict[str, Any]:
    values: dict[str, Any] = {}
    key = ""
    try:
        for key, tree in trees.items():
            values[key] = read(tree, depth + 1, resolve)
    except Refusal as refusal:
        refusal.at(key_step(key))
        raise
    return values


def _tagged(tag: str, content: Any, depth: int, resolve: Resolve) -> Any:
    reader = _READERS.get(tag)
    if reader is None:
        raise Refusal(f"unknown tag {tag[:60]!a}")
    try:
        return reader(content, depth, resolve)
    except (ValueError, TypeError, OverflowError, LookupError) as error:
        # Invalid (of names and shapes) is a ValueError too, and says all that there is to say.
        reason = error.message if isinstance(error, Invalid) else f"{tag} has a wrong value: {str(error)[:200]}"
        raise Refusal(reason) from error


def _string(content: Any) -> str:
    if type(content) is not str:
        raise TypeError("expected a string")
    return content


def _list(content: Any, depth: int, resolve: Resolve) -> list[Any]:
    if type(content) is not list:
        raise TypeError("expected a list")
    return _items(content, depth + 1, resolve)


def _binary(content: Any) -> bytes:
    return binascii.a2b_base64(_string(content).encode("ascii"), strict_mode=True)


def _distinct(items: list[Any], kind: Callable[[list[Any]], Any]) -> Any:
    made = kind(items)
    if len(made) != len(items):
        raise ValueError("an item stands in it twice")
    return made


def _timedelta(content: Any, depth: int, resolve: Resolve) -> datetime.timedelta:
    if type(content) is not list or [type(part) for part in content] != [int, int, int]:
        raise TypeError("expected [days, seconds, microseconds]")
    return datetime.timedelta(*content)


def _dict(content: Any, depth: int, resolve: Resolve) -> dict[Any, Any]:
    pairs = _list(content, depth, resolve)
    if not all(type(pair) is list and len(pair) == 2 for pair in pairs):
        raise TypeError("expected a list of [key, value]")
    made: dict[Any, Any] = _distinct(pairs, dict)
    return made


def _enum(content: Any, depth: int, resolve: Resolve) -> Enum:
    if type(content) is not list or len(content) != 2:
        raise TypeError("expected [class, member]")
    name, member = content
    cls = resolve(_string(name))
    if not issubclass(cls, Enum):
        raise Invalid(f"{name} is not an Enum")
    if type(member) is int and issubclass(cls, Flag):
        return cls(member)
    if type(member) is not str or member not in cls.__members__:
        raise Invalid(f"{name} has no member {str(member)[:60]!a}")
    return cls.__members__[member]


def _object(content: Any, depth: int, resolve: Resolve) -> Any:
    if type(content) is not dict or content.keys() != {"class", "fields"} or type(content["fields"]) is not dict:
        raise TypeError('expected {"class": ..., "fields": {...}}')
    cls = resolve(_string(content["class"]))
    if not is_dataclass(cls):
        raise Invalid(f"{content['class']} is not a dataclass")
    return put_together(cls, _entries(content["fields"], depth + 2, resolve))


_READERS: dict[str, Reader] = {
    "$bytes": lambda content, depth, resolve: _binary(content),
    "$bytearray": lambda content, depth, resolve: bytearray(_binary(content)),
    "$tuple": lambda content, depth, resolve: tuple(_list(content, depth, resolve)),
    "$set": lambda content, depth, resolve: _distinct(_list(content, depth, resolve), set),
    "$frozenset": lambda content, depth, resolve: _distinct(_list(content, depth, resolve), frozenset),
    "$date": lambda content, depth, resolve: datetime.date.fromisoformat(_string(content)),
    "$time": lambda content, depth, resolve: datetime.time.fromisoformat(_string(content)),
    "$datetime": lambda content, depth, resolve: datetime.datetime.fromisoformat(_string(content)),
    "$timedelta": _timedelta,
    "$path": lambda content, depth, resolve: Path(_string(content)),
    "$enum": _enum,
    "$object": _object,
    "$dict": _dict,
}
