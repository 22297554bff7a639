"""The decoder of tagged JSON: it converts trees to values. `paglets.codec.tagged_json` describes the tags.

`depth` is the number of objects and lists around a tree.
"""

from __future__ import annotations

import binascii
import datetime
import math
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from decimal import Decimal
from enum import Enum, Flag
from fractions import Fraction
from pathlib import Path
from typing import Any

from paglets.codec.arrays import read_array, read_scalar
from paglets.codec.codec_error import CodecError, key_step, type_name
from paglets.codec.dataclass_fields import from_fields, is_named_tuple, named_tuple
from paglets.codec.plain_subclasses import FACTORIES, restore_instance
from paglets.codec.strict_json import MAX_DEPTH
from paglets.codec.unreadable import Unreadable
from paglets.codec.uuids import read_uuid
from paglets.core.errors import ImportFailed, Invalid
from paglets.core.record import from_json
from paglets.core.refs import BlobRef, StoredValue, check_artifact_id, check_blob
from paglets.core.text import with_article


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeOptions:
    """Options of the decoder. `resolve`: a function that returns the class of a name.

    `keeps_missing`: return an `Unreadable` for a value whose class cannot be imported or has other fields.
    """

    resolve: Callable[[str], type[Any]]
    keeps_missing: bool = False


Reader = Callable[[Any, int, DecodeOptions], Any]


def no_class(name: str) -> type[Any]:
    """Raise Invalid. This is the `resolve` function for processes that must not import user code."""
    raise Invalid(f"a value of class {name[:100]!a} cannot be read in this process: only plain values can")


def read(tree: Any, depth: int, options: DecodeOptions) -> Any:
    """Return the value of `tree`. Raises CodecError, and the errors of `options.resolve`."""
    kind = type(tree)
    if kind in _SCALARS:
        return tree
    if depth >= MAX_DEPTH:
        raise CodecError(f"the value is nested more than {MAX_DEPTH} levels deep")
    if kind is list:
        return _items(tree, depth, options)
    if kind is not dict:
        raise CodecError(f"{with_article(type_name(tree))} is not a JSON value")
    if len(tree) == 1:
        ((key, content),) = tree.items()
        if key[:1] == "$":
            return _tagged(key, content, depth, options)
    return _entries(tree, depth, options)


_SCALARS = frozenset((str, int, float, bool, type(None)))


def _items(trees: list[Any], depth: int, options: DecodeOptions) -> list[Any]:
    values: list[Any] = []
    try:
        for tree in trees:
            values.append(read(tree, depth + 1, options))
    except CodecError as refusal:
        refusal.at(f"[{len(values)}]")
        raise
    return values


def _entries(trees: dict[str, Any], depth: int, options: DecodeOptions) -> dict[str, Any]:
    values: dict[str, Any] = {}
    key = ""
    try:
        for key, tree in trees.items():
            values[key] = read(tree, depth + 1, options)
    except CodecError as refusal:
        refusal.at(key_step(key))
        raise
    return values


def _tagged(tag: str, content: Any, depth: int, options: DecodeOptions) -> Any:
    reader = _READERS.get(tag)
    if reader is None:
        raise CodecError(f"unknown tag {tag[:60]!a}")
    try:
        return reader(content, depth, options)
    except ImportFailed as error:
        if not options.keeps_missing:
            raise
        return Unreadable({tag: content}, error)
    except (ValueError, TypeError, ArithmeticError, LookupError) as error:
        if isinstance(error, Invalid) and options.keeps_missing and options.resolve is not no_class:
            return Unreadable({tag: content}, error)
        # The message of Invalid, which is a ValueError, names the wrong class or field already.
        reason = error.message if isinstance(error, Invalid) else f"{tag} has a wrong value: {str(error)[:200]}"
        raise CodecError(reason) from error


def _string(content: Any) -> str:
    if type(content) is not str:
        raise TypeError("expected a string")
    return content


def _list(content: Any, depth: int, options: DecodeOptions) -> list[Any]:
    if type(content) is not list:
        raise TypeError("expected a list")
    return _items(content, depth + 1, options)


def _binary(content: Any) -> bytes:
    return binascii.a2b_base64(_string(content).encode("ascii"), strict_mode=True)


def _distinct(items: list[Any], kind: Callable[[list[Any]], Any]) -> Any:
    made = kind(items)
    if len(made) != len(items):
        raise ValueError("an item occurs twice")
    return made


def _timedelta(content: Any, depth: int, options: DecodeOptions) -> datetime.timedelta:
    if type(content) is not list or [type(part) for part in content] != [int, int, int]:
        raise TypeError("expected [days, seconds, microseconds]")
    return datetime.timedelta(*content)


def _dict(content: Any, depth: int, options: DecodeOptions) -> dict[Any, Any]:
    pairs = _list(content, depth, options)
    if not all(type(pair) is list and len(pair) == 2 for pair in pairs):
        raise TypeError("expected a list of [key, value]")
    made: dict[Any, Any] = _distinct(pairs, dict)
    return made


def _enum(content: Any, depth: int, options: DecodeOptions) -> Enum:
    if type(content) is not list or len(content) != 2:
        raise TypeError("expected [class, member]")
    name, member = content
    cls = options.resolve(_string(name))
    if not issubclass(cls, Enum):
        raise Invalid(f"{name} is not an Enum")
    if type(member) is int and issubclass(cls, Flag):
        return cls(member)
    if type(member) is not str or member not in cls.__members__:
        raise Invalid(f"{name} has no member {str(member)[:60]!a}")
    return cls.__members__[member]


def _object(content: Any, depth: int, options: DecodeOptions) -> Any:
    if type(content) is not dict or content.keys() != {"class", "fields"} or type(content["fields"]) is not dict:
        raise TypeError('expected {"class": ..., "fields": {...}}')
    cls = options.resolve(_string(content["class"]))
    make = from_fields if is_dataclass(cls) else named_tuple if is_named_tuple(cls) else None
    if make is None:
        raise Invalid(f"{content['class']} is neither a dataclass nor a named tuple")
    return make(cls, _entries(content["fields"], depth + 2, options))


def _float(content: Any) -> float:
    if content not in ("nan", "inf", "-inf"):
        raise ValueError("expected nan, inf or -inf")
    return float(content)


def _complex(content: Any, depth: int, options: DecodeOptions) -> complex:
    parts = _list(content, depth, options)
    if [type(part) for part in parts] != [float, float]:
        raise TypeError("expected [real, imaginary]")
    return complex(*parts)


def _decimal(content: Any, depth: int, options: DecodeOptions) -> Decimal:
    return Decimal(_string(content))


def _fraction(content: Any, depth: int, options: DecodeOptions) -> Fraction:
    if type(content) is not list or [type(part) for part in content] != [int, int]:
        raise TypeError("expected [numerator, denominator]")
    numerator, denominator = content
    if denominator < 1 or math.gcd(numerator, denominator) != 1:
        raise ValueError("the fraction is not in lowest terms")
    return Fraction(numerator, denominator)


def _stored(content: Any) -> StoredValue:
    stored = from_json(StoredValue, content, "$stored")
    check_artifact_id(stored.artifact_id)
    check_blob(BlobRef(sha256=stored.sha256, size_bytes=stored.size_bytes))
    return stored


def _defaultdict(content: Any, depth: int, options: DecodeOptions) -> defaultdict[Any, Any]:
    if type(content) is not list or len(content) != 2:
        raise TypeError("expected [name, [[key, value], ...]]")
    name, pairs = content
    return defaultdict(None if name is None else FACTORIES[_string(name)], _dict(pairs, depth + 1, options))


def _subclass(content: Any, depth: int, options: DecodeOptions) -> Any:
    if type(content) is not list or len(content) != 2:
        raise TypeError("expected [class, value]")
    name, tree = content
    return restore_instance(options.resolve(_string(name)), read(tree, depth + 2, options))


_READERS: dict[str, Reader] = {
    "$bytes": lambda content, depth, options: _binary(content),
    "$bytearray": lambda content, depth, options: bytearray(_binary(content)),
    "$tuple": lambda content, depth, options: tuple(_list(content, depth, options)),
    "$set": lambda content, depth, options: _distinct(_list(content, depth, options), set),
    "$frozenset": lambda content, depth, options: _distinct(_list(content, depth, options), frozenset),
    "$date": lambda content, depth, options: datetime.date.fromisoformat(_string(content)),
    "$time": lambda content, depth, options: datetime.time.fromisoformat(_string(content)),
    "$datetime": lambda content, depth, options: datetime.datetime.fromisoformat(_string(content)),
    "$timedelta": _timedelta,
    "$path": lambda content, depth, options: Path(_string(content)),
    "$enum": _enum,
    "$object": _object,
    "$dict": _dict,
    "$float": lambda content, depth, options: _float(content),
    "$complex": _complex,
    "$decimal": _decimal,
    "$fraction": _fraction,
    "$uuid": lambda content, depth, options: read_uuid(content),
    "$counter": lambda content, depth, options: Counter(_dict(content, depth, options)),
    "$ordered_dict": lambda content, depth, options: OrderedDict(_dict(content, depth, options)),
    "$defaultdict": _defaultdict,
    "$subclass": _subclass,
    "$stored": lambda content, depth, options: _stored(content),
    "$ndarray": lambda content, depth, options: read_array(content, _binary, options.resolve),
    "$numpy": lambda content, depth, options: read_scalar(content, _binary, options.resolve),
}
