"""Conversion of dataclasses and named tuples to their fields and back. Constructors are not called."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import MISSING, dataclass
from functools import cached_property, lru_cache
from typing import Any, Union

from paglets.core.errors import Invalid
from paglets.core.text import type_of, with_article

MAX_CACHED_SCHEMAS = 1024
"""Maximum number of cached classes, for programs that create classes while they run."""

MAX_NAMES_SHOWN = 5
MAX_NAME_SHOWN = 60

PLAIN_BASES = (str, int, float, complex, bytes, bytearray, tuple, list, dict, set, frozenset)
"""Types whose instances have content besides fields. A dataclass that inherits from one would lose that content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSchema:
    """The fields of a dataclass by name. `tuples`: names of the fields that are annotated as tuples."""

    fields: Mapping[str, dataclasses.Field[Any]]
    tuples: frozenset[str]


def to_fields(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass instance by name.

    Raises Invalid if instances of the class cannot be restored, or if a field has no value. Also raises Invalid for
    attributes that are not fields, because they would be lost.
    """
    fields = schema_of(type(value)).fields
    refuse_attributes(value, "declare them as fields", fields)
    try:
        return {name: getattr(value, name) for name in fields}
    except AttributeError as error:
        raise Invalid(f"{type_of(value)} without {error.name!r} cannot be sent") from None


def from_fields(cls: Any, fields: Mapping[str, Any]) -> Any:
    """Return an instance of dataclass `cls` with these fields. Neither `__init__` nor `__post_init__` runs.

    Both ran when the original value was created, and running them again could change the value. Missing fields get
    their defaults. A list is accepted for a field with a tuple type. Raises Invalid for an unknown field, and for a
    missing field without default.
    """
    shape = schema_of(cls)
    _check_names(cls, fields, shape.fields)
    values = {name: _fitted(value, name in shape.tuples) for name, value in fields.items()}
    try:
        made = cls.__new__(cls)
        for name, field in shape.fields.items():
            # This is the only way to set a field of a frozen dataclass.
            object.__setattr__(made, name, values[name] if name in values else _default(cls, field))
    except Invalid:
        raise
    except Exception as error:
        raise Invalid(
            f"{cls.__qualname__} cannot be made from its fields: {type(error).__name__}: {str(error)[:300]}"
        ) from error
    return made


def _default(cls: type[Any], field: dataclasses.Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    if field.default_factory is not MISSING:
        return field.default_factory()
    raise Invalid(f"field {field.name!r} of {cls.__qualname__} is missing")


def _check_names(cls: type[Any], given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for name in given:
        if name not in known:
            raise Invalid(f"{with_article(cls.__qualname__)} has no field {str(name)[:MAX_NAME_SHOWN]!a}")


def _fitted(value: Any, to_tuple: bool) -> Any:
    return tuple(value) if to_tuple and type(value) is list else value


# The functions below handle named tuples.


def is_named_tuple(cls: type) -> bool:
    return issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple)


def named_tuple(cls: Any, fields: Mapping[str, Any]) -> Any:
    """Return a named tuple with these fields. Missing fields get their defaults. Raises Invalid like `from_fields`."""
    _check_names(cls, fields, dict.fromkeys(cls._fields))
    values = {**cls._field_defaults, **fields}
    for name in cls._fields:
        if name not in values:
            raise Invalid(f"field {name!r} of {cls.__qualname__} is missing")
    return tuple.__new__(cls, [values[name] for name in cls._fields])


# The functions below refuse attributes that would be lost.


def refuse_attributes(value: Any, advice: str, known: Collection[str] = ()) -> None:
    """Raise Invalid, with `advice` in the message, if `value` has attributes that are not in `known`."""
    extra = list(_attributes(value, known))
    if extra:
        names = ", ".join(f"{name[:MAX_NAME_SHOWN]!a}" for name in extra[:MAX_NAMES_SHOWN])
        more = f" and {len(extra) - MAX_NAMES_SHOWN} more" if len(extra) > MAX_NAMES_SHOWN else ""
        raise Invalid(f"{type_of(value)} has attributes that cannot be sent: {names}{more}; {advice}")


def _attributes(value: Any, known: Collection[str]) -> Iterator[str]:
    """Yield the names of an instance's attributes that are not in `known`.

    Values of cached_property are left out, because they are computed again.
    """
    cls = type(value)
    for name in getattr(value, "__dict__", ()):
        # Compare the name first, because the lookup takes some 10 us, and most attributes are fields.
        if name not in known and not isinstance(inspect.getattr_static(cls, name, None), cached_property):
            yield name
    for name in _slots_of(cls):
        if name not in known and hasattr(value, name):
            yield name


def _find_slots(cls: type[Any]) -> tuple[str, ...]:
    names: list[str] = []
    for base in cls.__mro__:
        slots = vars(base).get("__slots__", ())
        names += [slots] if isinstance(slots, str) else slots
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


_slots_of: Callable[[type], tuple[str, ...]] = lru_cache(MAX_CACHED_SCHEMAS)(_find_slots)


# The functions below find the fields of a dataclass.


def _find_schema(cls: type[Any]) -> FieldSchema:
    if not dataclasses.is_dataclass(cls):
        raise Invalid(f"{cls.__qualname__} is not a dataclass")
    if "__dataclass_fields__" not in vars(cls) and _annotations(cls):
        raise Invalid(f"{cls.__qualname__} has its own fields but lacks @dataclass: write it above the class")
    for base in PLAIN_BASES:
        if issubclass(cls, base):
            raise Invalid(
                f"{cls.__qualname__} cannot be sent: it is a dataclass and {with_article(base.__name__)} as well"
            )
    return FieldSchema(
        fields={field.name: field for field in dataclasses.fields(cls)},
        tuples=frozenset(name for name, hint in _hints(cls).items() if _is_tuple(hint)),
    )


schema_of: Callable[[type], FieldSchema] = lru_cache(MAX_CACHED_SCHEMAS)(_find_schema)
"""Return the fields of a dataclass. Raises Invalid if its instances cannot be restored in another process."""


def prepare_fields(cls: type[Any]) -> None:
    """Find the fields of a dataclass now, so that later conversions in this process and its forks are faster."""
    schema_of(cls)
    _slots_of(cls)


def _hints(cls: type[Any]) -> dict[str, Any]:
    """Return the types of fields by name. Each annotation is evaluated separately, because some may be undefined."""
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        # Use the globals of `__init__`: `__module__` may be a public path instead of the defining module.
        names = getattr(vars(base).get("__init__"), "__globals__", {})
        hints |= {name: _evaluated(hint, names) for name, hint in _annotations(base).items()}
    return hints


def _annotations(cls: type[Any]) -> dict[str, Any]:
    try:
        return inspect.get_annotations(cls)
    except NameError:
        # Annotations that are not strings are evaluated together, so one undefined name makes all of them unknown.
        return {}


def _evaluated(hint: Any, names: dict[str, Any]) -> Any:
    try:
        return typing.get_type_hints(types.SimpleNamespace(__annotations__={"it": hint}), names)["it"]
    except (NameError, TypeError, AttributeError, SyntaxError):
        # The annotation has a name that exists only for type checkers. So lists in this field are not converted.
        return Any


def _is_tuple(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        arms = typing.get_args(hint)
        return any(map(_is_tuple, arms)) and not any(_is_list(arm) for arm in arms)
    return hint is tuple or origin is tuple


def _is_list(hint: Any) -> bool:
    return hint in (list, Any) or typing.get_origin(hint) is list
