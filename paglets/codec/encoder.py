"""Values to trees: the writing half of `paglets.codec.wire`, where the tags are listed.

`depth` counts the objects and lists of the tree that lie around a value.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import math
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

from paglets.codec.names import class_name
from paglets.codec.refusal import Refusal, key_step, short_repr, type_name
from paglets.codec.shapes import take_apart
from paglets.codec.text import MAX_INT_DIGITS, dumps
from paglets.core.errors import Invalid

MAX_VALUE_DEPTH = 80
"""Levels of a value's tree. The rest of the text's bound is for the envelopes around values."""

_INT_BOUND = 10**MAX_INT_DIGITS


def is_record(value: Any) -> bool:
    """Whether `value` is an instance of a dataclass."""
    return dataclasses.is_dataclass(type(value))


def looks_like_tag(tree: Mapping[str, Any]) -> bool:
    return len(tree) == 1 and next(iter(tree)).startswith("$")


def write(value: Any, depth: int) -> Any:
    encoder = _ENCODERS.get(type(value))
    if encoder is None:
        encoder = _encoder_by_base(value)
    return encoder(value, depth)


def _encoder_by_base(value: Any) -> Callable[[Any, int], Any]:
    if isinstance(value, Enum):
        return _enum
    if is_record(value):
        return _record
    for base, encoder in _BASES:
        if isinstance(value, base):
            return encoder
    raise Refusal(f"a {type_name(value)} cannot travel; {_advice(value)}")


def _advice(value: Any) -> str:
    for test, advice in _ADVICE:
        if test(value):
            return advice
    return "convert it to plain values, or make its class a dataclass"


_ADVICE: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (lambda value: isinstance(value, type), "send its name"),
    (lambda value: isinstance(value, datetime.date), "convert it to datetime.datetime"),
    (lambda value: isinstance(value, datetime.timedelta), "convert it to datetime.timedelta"),
    (lambda value: isinstance(value, memoryview), "convert it to bytes"),
    (lambda value: isinstance(value, Mapping), "convert it to dict"),
    (lambda value: callable(value), "send what it returns"),
    (lambda value: hasattr(value, "read"), "send what is in it; files travel as inputs or artifacts"),
    (lambda value: hasattr(value, "tolist") and hasattr(value, "__len__"), "convert it with .tolist()"),
    (lambda value: isinstance(value, Iterable), "convert it to list"),
    (lambda value: hasattr(value, "__index__"), "convert it to int"),
    (lambda value: hasattr(value, "__float__"), "convert it to float"),
)


def _deeper(depth: int) -> int:
    if depth >= MAX_VALUE_DEPTH:
        raise Refusal(f"the value is nested more than {MAX_VALUE_DEPTH} levels deep, or holds itself")
    return depth + 1


def _same(value: Any, depth: int) -> Any:
    return value


def _str(value: str, depth: int) -> str:
    if not value.isascii():
        _check_text(value)
    return value


def _check_text(value: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise Refusal(
            f"the string {value[:40]!a} has a lone surrogate and is not text; of a file name, send os.fsencode(name)"
        ) from None


def plain_str(value: str) -> str:
    return str.__str__(value)


def _int(value: int, depth: int) -> int:
    if not -_INT_BOUND < value < _INT_BOUND:
        raise Refusal(f"an integer of more than {MAX_INT_DIGITS} digits cannot travel; send it as bytes")
    return value


def _float(value: float, depth: int) -> float:
    if not math.isfinite(value):
        raise Refusal(f"{float(value)} cannot travel; send None or a string")
    return value


def _list(value: Iterable[Any], depth: int) -> list[Any]:
    depth = _deeper(depth)
    trees: list[Any] = []
    try:
        for item in value:
            trees.append(write(item, depth))
    except Refusal as refusal:
        refusal.at(f"[{len(trees)}]")
        raise
    return trees


def _dict(value: dict[Any, Any], depth: int) -> dict[str, Any]:
    if not all(type(key) is str for key in value):
        if not all(isinstance(key, str) and not isinstance(key, Enum) for key in value):
            return _pairs(value, depth)
        value = {plain_str(key): item for key, item in value.items()}
    if looks_like_tag(value):
        return _pairs(value, depth)
    depth = _deeper(depth)
    trees: dict[str, Any] = {}
    key = ""
    try:
        for key, item in value.items():
            trees[_str(key, depth)] = write(item, depth)
    except Refusal as refusal:
        refusal.at(key_step(key))
        raise
    return trees


def _pairs(value: dict[Any, Any], depth: int) -> dict[str, Any]:
    depth = _deeper(_deeper(_deeper(depth)))
    pairs = []
    key: Any = None
    try:
        for key, item in value.items():
            pairs.append([write(key, depth), write(item, depth)])
    except Refusal as refusal:
        refusal.at(key_step(key))
        raise
    return {"$dict": pairs}


def _sequence(tag: str) -> Callable[[Any, int], dict[str, Any]]:
    return lambda value, depth: {tag: _list(value, _deeper(depth))}


def _unordered(tag: str) -> Callable[[Any, int], dict[str, Any]]:
    def encoder(value: Iterable[Any], depth: int) -> dict[str, Any]:
        depth = _deeper(_deeper(depth))
        return {tag: sorted((_member(item, depth) for item in value), key=dumps)}

    return encoder


def _member(item: Any, depth: int) -> Any:
    try:
        return write(item, depth)
    except Refusal as refusal:
        refusal.at("{" + short_repr(item) + "}")
        raise


def _base64(tag: str) -> Callable[[Any, int], dict[str, Any]]:
    return lambda value, depth: {tag: base64.b64encode(value).decode("ascii")}


def _iso(tag: str) -> Callable[[Any, int], dict[str, Any]]:
    return lambda value, depth: {tag: value.isoformat()}


def _time(value: datetime.time, depth: int) -> dict[str, Any]:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise Refusal("a time whose zone has no fixed offset from UTC cannot travel; send a datetime")
    return {"$time": value.isoformat()}


def _timedelta(value: datetime.timedelta, depth: int) -> dict[str, Any]:
    return {"$timedelta": [value.days, value.seconds, value.microseconds]}


def _path(value: PurePath, depth: int) -> dict[str, Any]:
    return {"$path": _str(value.as_posix(), depth)}


def _enum(value: Enum, depth: int) -> dict[str, Any]:
    name: Any = value._name_
    if name not in type(value).__members__:
        name = value._value_
    return {"$enum": [_name_of(type(value)), name]}


def _record(value: Any, depth: int) -> dict[str, Any]:
    depth = _deeper(_deeper(_deeper(depth)))
    name = _name_of(type(value))
    try:
        fields = take_apart(value)
    except Invalid as error:
        raise Refusal(error.message) from None
    trees: dict[str, Any] = {}
    field = ""
    try:
        for field, item in fields.items():
            trees[field] = write(item, depth)
    except Refusal as refusal:
        refusal.at(f".{field}")
        raise
    return {"$object": {"class": name, "fields": trees}}


def _name_of(cls: type) -> str:
    try:
        return class_name(cls)
    except Invalid as error:
        raise Refusal(error.message) from None


_ENCODERS: dict[type, Callable[[Any, int], Any]] = {
    type(None): _same,
    bool: _same,
    str: _str,
    int: _int,
    float: _float,
    list: _list,
    dict: _dict,
    tuple: _sequence("$tuple"),
    set: _unordered("$set"),
    frozenset: _unordered("$frozenset"),
    bytes: _base64("$bytes"),
    bytearray: _base64("$bytearray"),
    datetime.date: _iso("$date"),
    datetime.datetime: _iso("$datetime"),
    datetime.time: _time,
    datetime.timedelta: _timedelta,
}

_BASES: tuple[tuple[type, Callable[[Any, int], Any]], ...] = (
    (str, lambda value, depth: _str(plain_str(value), depth)),
    (int, lambda value, depth: _int(int.__pos__(value), depth)),
    (float, lambda value, depth: _float(float.__pos__(value), depth)),
    (PurePath, _path),
    *((base, _ENCODERS[base]) for base in (list, dict, tuple, set, frozenset, bytes, bytearray)),
)
"""Subclasses arrive as the base. Not so those of dates: what they add (nanoseconds, say) would be lost."""
