"""The encoder of tagged JSON: it converts values to trees. `paglets.codec.tagged_json` describes the tags.

`depth` is the number of objects and lists around a value in its tree.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import math
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import Any

from paglets.codec.arrays import array_content, is_array, is_scalar, scalar_content
from paglets.codec.class_names import class_name
from paglets.codec.codec_error import CodecError, key_step, short_repr, type_name
from paglets.codec.dataclass_fields import is_named_tuple, to_fields
from paglets.codec.plain_subclasses import base_of, content_of, factory_name
from paglets.codec.strict_json import MAX_INT_DIGITS, dumps
from paglets.codec.unreadable import Unreadable, tree_in
from paglets.codec.uuids import UUID
from paglets.core.errors import Invalid
from paglets.core.record import to_json
from paglets.core.refs import StoredValue
from paglets.core.text import with_article

MAX_VALUE_DEPTH = 80
"""Maximum number of levels in the tree of a value. Strict JSON allows more, for the envelopes around values."""

_INT_BOUND = 10**MAX_INT_DIGITS


def is_record(value: Any) -> bool:
    """Return True if `value` is an instance of a dataclass."""
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
    # Test for numpy types before plain types, because numpy.float64 is a subclass of float.
    if is_scalar(value):
        return _numpy_scalar
    if is_array(value):
        return _array
    if isinstance(value, PurePath):
        return _path
    if is_named_tuple(type(value)):
        return _named_tuple
    base = base_of(value)
    if base is not None:
        return _subclass(base)
    raise CodecError(f"{with_article(type_name(value))} cannot be sent; {_advice(value)}")


def _advice(value: Any) -> str:
    for exact in (Decimal, Fraction, UUID, complex):
        if isinstance(value, exact):
            return f"convert it to {exact.__name__}"
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
    (lambda value: hasattr(value, "read"), "send its content; send files as inputs or artifacts"),
    (lambda value: hasattr(value, "__array__"), "convert it with numpy.asarray(...)"),
    (lambda value: isinstance(value, Iterable), "convert it to list"),
    (lambda value: hasattr(value, "__index__"), "convert it to int"),
    (lambda value: hasattr(value, "__float__"), "convert it to float"),
)


def _deeper(depth: int) -> int:
    if depth >= MAX_VALUE_DEPTH:
        raise CodecError(f"the value is nested more than {MAX_VALUE_DEPTH} levels deep, or contains itself")
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
        raise CodecError(
            f"the string {value[:40]!a} has a lone surrogate and is not text; for a file name, send os.fsencode(name)"
        ) from None


def plain_str(value: str) -> str:
    return str.__str__(value)


def _int(value: int, depth: int) -> int:
    if not -_INT_BOUND < value < _INT_BOUND:
        raise CodecError(f"an integer of more than {MAX_INT_DIGITS} digits cannot be sent; send it as bytes")
    return value


def _float(value: float, depth: int) -> Any:
    return value if math.isfinite(value) else {"$float": repr(value)}


def _complex(value: complex, depth: int) -> dict[str, Any]:
    return {"$complex": [_float(value.real, depth), _float(value.imag, depth)]}


def _fraction(value: Fraction, depth: int) -> dict[str, Any]:
    return {"$fraction": [_int(value.numerator, depth), _int(value.denominator, depth)]}


def _list(value: Iterable[Any], depth: int) -> list[Any]:
    depth = _deeper(depth)
    trees: list[Any] = []
    try:
        for item in value:
            trees.append(write(item, depth))
    except CodecError as refusal:
        refusal.at(f"[{len(trees)}]")
        raise
    return trees


def _dict(value: dict[Any, Any], depth: int) -> dict[str, Any]:
    if not all(type(key) is str for key in value):
        if not all(isinstance(key, str) and not isinstance(key, Enum) for key in value):
            return {"$dict": _pairs(value, depth)}
        value = {plain_str(key): item for key, item in value.items()}
    if looks_like_tag(value):
        return {"$dict": _pairs(value, depth)}
    depth = _deeper(depth)
    trees: dict[str, Any] = {}
    key = ""
    try:
        for key, item in value.items():
            trees[_str(key, depth)] = write(item, depth)
    except CodecError as refusal:
        refusal.at(key_step(key))
        raise
    return trees


def _pairs(value: dict[Any, Any], depth: int) -> list[Any]:
    depth = _deeper(_deeper(_deeper(depth)))
    pairs = []
    key: Any = None
    try:
        for key, item in value.items():
            pairs.append([write(key, depth), write(item, depth)])
    except CodecError as refusal:
        refusal.at(key_step(key))
        raise
    return pairs


def _tagged_pairs(tag: str) -> Callable[[Any, int], dict[str, Any]]:
    return lambda value, depth: {tag: _pairs(value, depth)}


def _defaultdict(value: defaultdict[Any, Any], depth: int) -> dict[str, Any]:
    return {"$defaultdict": [factory_name(value), _pairs(value, _deeper(depth))]}


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
    except CodecError as refusal:
        refusal.at("{" + short_repr(item) + "}")
        raise


def _base64(tag: str) -> Callable[[Any, int], dict[str, Any]]:
    return lambda value, depth: {tag: base64.b64encode(value).decode("ascii")}


def _iso(tag: str) -> Callable[[Any, int], dict[str, Any]]:
    return lambda value, depth: {tag: value.isoformat()}


def _time(value: datetime.time, depth: int) -> dict[str, Any]:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise CodecError("a time whose zone has no fixed offset from UTC cannot be sent; send a datetime")
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


def _object(value: Any, fields: dict[str, Any], depth: int) -> dict[str, Any]:
    depth = _deeper(_deeper(_deeper(depth)))
    name = _name_of(type(value))
    trees: dict[str, Any] = {}
    field = ""
    try:
        for field, item in fields.items():
            trees[field] = write(item, depth)
    except CodecError as refusal:
        refusal.at(f".{field}")
        raise
    return {"$object": {"class": name, "fields": trees}}


def _record(value: Any, depth: int) -> dict[str, Any]:
    try:
        return _object(value, to_fields(value), depth)
    except Invalid as error:
        raise CodecError(error.message) from None


def _named_tuple(value: Any, depth: int) -> dict[str, Any]:
    base_of(value)
    if tuple.__len__(value) != len(value._fields):
        raise CodecError(
            f"{with_article(type_name(value))} with {tuple.__len__(value)} items cannot be sent; convert it to tuple"
        )
    try:
        return _object(value, dict(zip(value._fields, tuple.__iter__(value), strict=True)), depth)
    except CodecError as refusal:
        if not refusal.steps:
            refusal.reason += "; or convert it to tuple"
        raise


def _subclass(base: type[Any]) -> Callable[[Any, int], dict[str, Any]]:
    def encoder(value: Any, depth: int) -> dict[str, Any]:
        try:
            name = _name_of(type(value))
        except CodecError as refusal:
            refusal.reason += f"; or convert it to {base.__name__}"
            raise
        return {"$subclass": [name, write(content_of(value, base), _deeper(_deeper(depth)))]}

    return encoder


def _array(value: Any, depth: int) -> dict[str, Any]:
    return {"$ndarray": array_content(value)}


def _numpy_scalar(value: Any, depth: int) -> dict[str, Any]:
    return {"$numpy": scalar_content(value)}


def _name_of(cls: type) -> str:
    try:
        return class_name(cls)
    except Invalid as error:
        raise CodecError(error.message) from None


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
    complex: _complex,
    Decimal: lambda value, depth: {"$decimal": str(value)},
    Fraction: _fraction,
    UUID: lambda value, depth: {"$uuid": str(value)},
    Counter: _tagged_pairs("$counter"),
    OrderedDict: _tagged_pairs("$ordered_dict"),
    defaultdict: _defaultdict,
    StoredValue: lambda value, depth: {"$stored": to_json(value)},
    Unreadable: lambda value, depth: tree_in(value),
}
