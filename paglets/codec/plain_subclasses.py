"""Conversion of instances of subclasses of plain types, such as `class Id(str)`, to their content and back.

Instances are restored without their constructors, like dataclasses. An instance with further attributes is refused,
because the attributes would be lost.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

from paglets.codec.codec_error import CodecError
from paglets.codec.dataclass_fields import refuse_attributes
from paglets.core.errors import Invalid
from paglets.core.text import type_of, with_article

FACTORIES: dict[str, Callable[[], Any]] = {
    each.__name__: each for each in (int, float, complex, str, bytes, bool, list, dict, set, tuple, frozenset)
}
"""Allowed default factories of a defaultdict, by their names in a `$defaultdict` tag."""


Make = Callable[[Any, type[Any], Any], Any]


def _filled(fill: Callable[[Any, Any], None]) -> Make:
    def make(base: Any, cls: type[Any], content: Any) -> Any:
        made = base.__new__(cls)
        fill(made, content)
        return made

    return make


def _at_once(base: Any, cls: type[Any], content: Any) -> Any:
    return base.__new__(cls, content)


def _fill_ordered(made: Any, content: Any) -> None:
    for key, value in content.items():
        OrderedDict.__setitem__(made, key, value)


_MAKERS: dict[type[Any], Make] = {
    OrderedDict: _filled(_fill_ordered),
    Counter: _filled(dict.update),
    str: _at_once,
    int: _at_once,
    float: _at_once,
    list: _filled(list.extend),
    dict: _filled(dict.update),
    tuple: _at_once,
    set: _filled(set.update),
    frozenset: _at_once,
    bytes: _at_once,
    bytearray: _filled(bytearray.extend),
}
"""Functions that create an instance of a subclass from the content of its plain base. The first base that matches
counts, so more specific types come first."""


def base_of(value: Any) -> type[Any] | None:
    """Return the plain type from which the class of `value` inherits, or None.

    Raises CodecError if attributes or other parts of the value would be lost.
    """
    if isinstance(value, defaultdict):
        raise CodecError("a subclass of defaultdict cannot be sent; convert it to dict")
    for base in _MAKERS:
        if isinstance(value, base):
            _check(value, base)
            return base
    return None


def _check(value: Any, base: type[Any]) -> None:
    try:
        refuse_attributes(value, f"convert it to {base.__name__}, or make its class a dataclass")
    except Invalid as error:
        raise CodecError(error.message) from None
    if hasattr(type(value), "n_sequence_fields"):
        # A type such as os.stat_result has more values than the items of its tuple.
        raise CodecError(f"{type_of(value)} cannot be sent; convert it to tuple")


def content_of(value: Any, base: type[Any]) -> Any:
    """Return the content of `value` as an exact instance of `base`. Methods that its class overrides are not called."""
    if base in _PLAIN:
        return _PLAIN[base](value)
    if issubclass(base, dict):
        return base(dict(base.items(value)))
    return base(base.__iter__(value))


_PLAIN: dict[type[Any], Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__pos__,
    float: float.__pos__,
    bytes: lambda value: bytes(memoryview(value)),
    bytearray: lambda value: bytearray(memoryview(value)),
}


def restore_instance(cls: type[Any], content: Any) -> Any:
    """Return an instance of `cls` with `content`. Raises Invalid if `cls` is not a subclass of the content's type."""
    base = type(content)
    if base not in _MAKERS or not issubclass(cls, base):
        raise Invalid(f"{cls.__qualname__} is not a subclass of {base.__name__}")
    try:
        return _MAKERS[base](base, cls, content)
    except TypeError as error:
        raise Invalid(
            f"{cls.__qualname__} cannot be made from {with_article(base.__name__)}: {str(error)[:200]}"
        ) from error


def factory_name(value: defaultdict[Any, Any]) -> str | None:
    """Return the name of the default factory of a defaultdict, if any. Raises CodecError if it is not in FACTORIES."""
    made = value.default_factory
    if made is None:
        return None
    for name, factory in FACTORIES.items():
        if made is factory:
            return name
    raise CodecError("a defaultdict that calls a function for missing keys cannot be sent; convert it to dict")
