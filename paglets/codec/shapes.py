"""Dataclasses taken apart into their fields and put together again."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from inspect import Parameter
from typing import Any, Union

from paglets.core.errors import Invalid

MAX_SHAPES = 1024
"""Bounds the cache where a program makes classes as it runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a dataclass is made: `taken` by its constructor, `late` set afterwards, `tuples` hold tuples."""

    names: tuple[str, ...]
    taken: frozenset[str]
    late: frozenset[str]
    required: tuple[str, ...]
    tuples: frozenset[str]


def take_apart(value: Any) -> dict[str, Any]:
    """The fields of a dataclass's instance by name. Raises Invalid where the class cannot be made again."""
    names = shape_of(type(value)).names
    try:
        return {name: getattr(value, name) for name in names}
    except AttributeError as error:
        raise Invalid(f"a {type(value).__qualname__} without {error.name!r} cannot travel") from None


def put_together(cls: type[Any], fields: Mapping[str, Any]) -> Any:
    """An instance of dataclass `cls`, made by its constructor, so that `__post_init__` runs.

    Missing fields take their defaults; lists are taken for fields of a tuple type. Raises Invalid for
    an unknown or missing field, and where the class refuses the values.
    """
    shape = shape_of(cls)
    for name in fields:
        if name not in shape.taken and name not in shape.late:
            raise Invalid(f"a {cls.__qualname__} has no field {str(name)[:60]!a}")
    for name in shape.required:
        if name not in fields:
            raise Invalid(f"field {name!r} of {cls.__qualname__} is missing")
    values = {name: _fitted(value, name in shape.tuples) for name, value in fields.items()}
    try:
        made = cls(**{name: value for name, value in values.items() if name in shape.taken})
        for name in shape.late & values.keys():
            # The only way into a field of a frozen class that its constructor does not take.
            object.__setattr__(made, name, values[name])
    except Exception as error:
        raise Invalid(f"{cls.__qualname__} refused its fields: {type(error).__name__}: {str(error)[:300]}") from error
    return made


def _fitted(value: Any, to_tuple: bool) -> Any:
    return tuple(value) if to_tuple and type(value) is list else value


def _find_shape(cls: type[Any]) -> Shape:
    if not dataclasses.is_dataclass(cls):
        raise Invalid(f"{cls.__qualname__} is not a dataclass")
    if "__dataclass_fields__" not in vars(cls) and _annotations(cls):
        raise Invalid(f"{cls.__qualname__} has fields of its own but lacks @dataclass: they would be lost")
    names = tuple(field.name for field in dataclasses.fields(cls))
    parameters = inspect.signature(cls).parameters.values()
    needed = [p.name for p in parameters if p.default is Parameter.empty and p.kind not in _OPEN_KINDS]
    for name in needed:
        if name not in names:
            raise Invalid(f"{cls.__qualname__} cannot travel: its constructor needs {name!r}, which is not a field")
    taken = frozenset(names) & {p.name for p in parameters if p.kind not in _OPEN_KINDS}
    return Shape(
        names=names,
        taken=taken,
        late=frozenset(names) - taken,
        required=tuple(needed),
        tuples=frozenset(name for name, hint in _hints(cls).items() if _is_tuple(hint)),
    )


_OPEN_KINDS = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)

shape_of: Callable[[type], Shape] = lru_cache(MAX_SHAPES)(_find_shape)
"""The shape of a dataclass; raises Invalid where it could not be made again elsewhere."""


def _hints(cls: type[Any]) -> dict[str, Any]:
    """The types of fields, each by itself: one that cannot be known here spoils no other."""
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        # Not those of `__module__`, which is the public path of a class and may not be where it is written.
        names = getattr(vars(base).get("__init__"), "__globals__", {})
        hints |= {name: _evaluated(hint, names) for name, hint in _annotations(base).items()}
    return hints


def _annotations(cls: type[Any]) -> dict[str, Any]:
    try:
        return inspect.get_annotations(cls)
    except NameError:
        # Where annotations are not text, they are evaluated all at once.
        return {}


def _evaluated(hint: Any, names: dict[str, Any]) -> Any:
    try:
        return typing.get_type_hints(types.SimpleNamespace(__annotations__={"it": hint}), names)["it"]
    except (NameError, TypeError, AttributeError, SyntaxError):
        # A name that exists only for a type checker. A list then stays a list in this field.
        return Any


def _is_tuple(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        arms = typing.get_args(hint)
        return any(map(_is_tuple, arms)) and not any(_is_list(arm) for arm in arms)
    return hint is tuple or origin is tuple


def _is_list(hint: Any) -> bool:
    return hint in (list, Any) or typing.get_origin(hint) is list
