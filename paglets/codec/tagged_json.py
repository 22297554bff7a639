"""Tagged JSON: conversion of values of user code to and from JSON trees, with a fixed set of tags.

str, int, float, bool, None, lists, and dicts whose keys are strings are written as plain JSON. Every other supported
value is written as a *tag*: an object with exactly one key, which begins with `$`.

| tag | value |
| --- | --- |
| `$bytes`, `$bytearray` | base64 |
| `$tuple` | a list |
| `$set`, `$frozenset` | a list in the order of the items' JSON text, so that equal sets are equal text |
| `$date`, `$time`, `$datetime` | ISO 8601; a time zone is sent as its offset from UTC, `fold` is not sent |
| `$timedelta` | [days, seconds, microseconds] |
| `$path` | the path with `/`; it is read as a `pathlib.Path` |
| `$enum` | ["module:qualname", member name]; a number instead of the name for a combination of flags |
| `$object` | {"class": "module:qualname", "fields": {name: value}} of a dataclass or a named tuple |
| `$subclass` | ["module:qualname", value] of a subclass of a plain type; the value is that of the plain type |
| `$dict` | a list of [key, value]: dicts with other keys, and dicts that look like a tag |
| `$counter`, `$ordered_dict` | a list of [key, value] |
| `$defaultdict` | [name of the built-in type of missing values (null: none), a list of [key, value]] |
| `$float` | "nan", "inf" or "-inf" |
| `$complex` | [real, imaginary] |
| `$decimal`, `$uuid` | their text |
| `$fraction` | [numerator, denominator] in lowest terms |
| `$ndarray` | {"dtype": numpy's name of it such as "<f8", "shape": [...], "data": base64 in C order} |
| `$stored` | {"artifact_id", "sha256", "size_bytes"}: an artifact of the collector with the value's tagged JSON |
| `$numpy` | a numpy scalar: [dtype, base64 of its bytes]; ["U", text]; ["S", base64] |

Subclasses of plain types keep their class, except as keys of a dict, which become plain strings. Dataclasses,
named tuples and subclasses are restored without their constructors. An instance with attributes that are not part of
its value is refused. Tuples are tagged everywhere, also in states, and are restored as tuples. If a dataclass declares
a field as a tuple, a list is accepted too, so that states can be written by hand as plain JSON.

The host stores trees without decoding them, except the state of a collector that runs inside the host. `tree_of`
converts a dict of trees whose keys come from users, so that no key is mistaken for a tag.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from paglets.codec.class_names import resolve_class
from paglets.codec.codec_error import CodecError, key_step, type_name
from paglets.codec.dataclass_fields import from_fields, to_fields
from paglets.codec.decoder import DecodeOptions, no_class, read
from paglets.codec.encoder import MAX_VALUE_DEPTH, is_record, looks_like_tag, plain_str, write
from paglets.codec.strict_json import dump_bytes, dumps, loads
from paglets.core.errors import Invalid

__all__ = [
    "MAX_VALUE_DEPTH",
    "class_names_in",
    "decode",
    "decode_fields",
    "decode_state",
    "dump_bytes",
    "dumps",
    "encode",
    "encode_fields",
    "encode_state",
    "loads",
    "tree_of",
]

T = TypeVar("T")


def encode(value: Any, where: str = "value") -> Any:
    """Return the tree of `value`. Raises Invalid with the path to the bad part. `where`: the start of the path."""
    try:
        return write(value, 0)
    except CodecError as refusal:
        raise refusal.invalid(where) from refusal.__cause__


def decode(tree: Any, where: str = "value", *, import_classes: bool = True, keep_missing: bool = False) -> Any:
    """Return the value of a tree. This imports its classes, so user code runs.

    Raises Invalid for an unknown tag or a bad tag content, and ImportFailed if a class or numpy cannot be imported.
    With `keep_missing`, a part whose class is missing or has other fields becomes an `Unreadable` instead, which raises
    an error when it is used. With `import_classes` False, a tree that needs an import raises Invalid.
    """
    try:
        options = DecodeOptions(resolve=resolve_class if import_classes else no_class, keeps_missing=keep_missing)
        return read(tree, 0, options)
    except CodecError as refusal:
        raise refusal.invalid(where) from refusal.__cause__


def encode_fields(values: Mapping[str, Any], where: str = "args") -> dict[str, Any]:
    """Return the trees of named values, such as the arguments of a message. The dict itself is never read as a tag."""
    for name in values:
        if not isinstance(name, str):
            raise Invalid(f"{where}: names are strings, not {type_name(name)}")
    trees, name = {}, ""
    try:
        for name, value in values.items():
            trees[plain_str(name)] = write(value, 0)
    except CodecError as refusal:
        raise refusal.invalid(f"{where}{key_step(name)}") from refusal.__cause__
    return trees


def decode_fields(
    trees: Mapping[str, Any], where: str = "args", *, import_classes: bool = True, keep_missing: bool = False
) -> dict[str, Any]:
    """Return the values from which `encode_fields` made `trees`. Raises the errors of `decode`."""
    return {
        name: decode(tree, f"{where}{key_step(name)}", import_classes=import_classes, keep_missing=keep_missing)
        for name, tree in trees.items()
    }


def encode_state(state: Any) -> dict[str, Any]:
    """Return the trees of a state's fields by name. The class of the state is not included."""
    if not is_record(state):
        raise Invalid(f"a state must be a dataclass, not {type_name(state)}")
    return encode_fields(to_fields(state), "state")


def decode_state(cls: type[T], tree: Any, *, import_classes: bool = True) -> T:
    """Return a state of dataclass `cls`, created without its constructor. Missing fields get their defaults.

    Raises Invalid for an unknown field and for a missing field without default, and the errors of `decode`.
    """
    if type(tree) is not dict:
        raise Invalid(f"state: expected an object with the fields of {cls.__qualname__}")
    fields = decode_fields(tree, "state", import_classes=import_classes)
    try:
        made: T = from_fields(cls, fields)
    except Invalid as error:
        raise Invalid(f"state: {error.message}") from error.__cause__
    return made


def class_names_in(trees: Iterable[Any]) -> set[str]:
    """Return the names of the classes that the tags in these trees mention."""
    names: set[str] = set()
    waiting: list[Any] = [list(trees)]
    while waiting:
        tree = waiting.pop()
        inside = tree.values() if isinstance(tree, dict) else tree
        waiting += [each for each in inside if isinstance(each, dict | list)]
        if isinstance(tree, dict) and len(tree) == 1:
            if "$object" in tree:
                names.add(tree["$object"]["class"])
            elif "$enum" in tree or "$subclass" in tree:
                names.add(next(iter(tree.values()))[0])
    return names


def tree_of(trees: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tree of a dict that maps strings to trees. A dict that looks like a tag becomes a `$dict` tag."""
    plain = dict(trees)
    return {"$dict": [[key, tree] for key, tree in plain.items()]} if looks_like_tag(plain) else plain
