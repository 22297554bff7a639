"""Check the signatures of the methods that users write, and call these methods.

A submitting script makes the same checks as the process of a paglet, so that it reports a class that cannot run before
it sends anything.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from paglets.core.errors import Invalid

Kind = Literal["creation", "dispatching", "arrival", "cloning", "clone", "deactivating", "activation", "disposing"]

HOOKS: Mapping[str, Kind] = {
    "on_creation": "creation",
    "on_dispatching": "dispatching",
    "on_arrival": "arrival",
    "on_cloning": "cloning",
    "on_clone": "clone",
    "on_deactivating": "deactivating",
    "on_activation": "activation",
    "on_disposing": "disposing",
}
"""The hooks, each with the kind of its event. A hook takes no argument, or the event."""

_TAKE_NOTHING = ("run", "run_compute_job", "build_result_payload", "after_compute_success")
_TAKE_ONE = ("handle_message", "after_compute_failure")

_NEVER_RUN: tuple[tuple[Callable[[object], bool], str], ...] = (
    (inspect.iscoroutinefunction, "is `async def`: its body would never run; write a plain `def`"),
    (inspect.isasyncgenfunction, "is `async def`: its body would never run; write a plain `def`"),
    (inspect.isgeneratorfunction, "has a `yield`: its body would never run; return the values instead"),
)

_UNFINISHED: tuple[tuple[Callable[[object], bool], str], ...] = (
    (inspect.isasyncgen, "an async generator"),
    (inspect.isgenerator, "a generator"),
    (inspect.isawaitable, "a coroutine"),
)

_FINISHED = frozenset((type(None), bool, int, float, str, bytes, tuple, list, dict))
"""Types of most returned values. They are not checked further, as `inspect.isawaitable` is slow in a new process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookEvent:
    """The event that is passed to a hook.

    `kind` is the name of the hook without `on_`. `from_host` is the name of the host that the paglet arrived from, and
    None if `kind` is not "arrival". `when` is the time in seconds since the epoch.
    """

    kind: Kind
    from_host: str | None = None
    when: float


class _Unfit(Exception):
    """An error whose text is the reason why a host cannot call a method."""


def check_methods(*classes: type) -> None:
    """Check that a host can call the hooks, `run`, handlers and job methods of these classes. Raises Invalid."""
    for cls in classes:
        with suppress(TypeError):  # An abstract class raises TypeError, also on a host.
            _check_class(cls)


@functools.lru_cache(maxsize=64)
def _check_class(cls: type) -> None:
    """Check the methods of a class. A checked class is remembered, because a script may submit many groups of it."""
    instance: object = object.__new__(cls)
    for name in (*HOOKS, *_TAKE_NOTHING, *_TAKE_ONE):
        _check(cls, instance, name)


def _check(cls: type, instance: object, name: str) -> None:
    found = inspect.getattr_static(cls, name, None)
    if found is None and not hasattr(cls, name):
        return
    try:
        if isinstance(found, property):
            raise _Unfit("is a property, not a method")
        method = getattr(instance, name)
        if name in HOOKS:
            _way_of(method)
        else:
            _check_takes(method, 1 if name in _TAKE_ONE else 0)
    except _Unfit as unfit:
        raise _invalid(cls, name, unfit) from None


def call_hook(paglet: object, name: str, event: HookEvent) -> None:
    """Call a hook, with `event` if its signature takes an argument. Raises Invalid if the hook cannot be called."""
    method = getattr(paglet, name)
    try:
        way = _way_of(method)
    except _Unfit as unfit:
        raise _invalid(type(paglet), name, unfit) from None
    _checked(paglet, name, _WAYS[way](method, event))


def call_method(paglet: object, name: str, *args: Any) -> Any:
    """Call a method that is not a hook, and return its value. Raises Invalid if it returns a coroutine or generator."""
    return _checked(paglet, name, getattr(paglet, name)(*args))


def _checked(paglet: object, name: str, value: Any) -> Any:
    """Return `value`. Raises Invalid for a coroutine or a generator, which shows that the method's body did not run."""
    for is_one, what in () if type(value) in _FINISHED else _UNFINISHED:
        if is_one(value):
            getattr(value, "close", lambda: None)()
            raise _invalid(type(paglet), name, _Unfit(f"returned {what}, whose body did not run; return its value"))
    return value


def _invalid(cls: type, name: str, reason: _Unfit) -> Invalid:
    return Invalid(f"{cls.__qualname__}.{name} {reason}", method=name)


_Way = Literal["nothing", "position", "keyword"]

_WAYS: Mapping[_Way, Callable[[Callable[..., Any], HookEvent], Any]] = {
    "nothing": lambda method, event: method(),
    "position": lambda method, event: method(event),
    "keyword": lambda method, event: method(event=event),
}


def _way_of(method: object) -> _Way:
    """Return how a hook takes its event: as the argument `event`, as its only required argument, or not at all."""
    signature = _signature(method)
    if signature is None:
        return "nothing"
    given = [each for each in signature.parameters.values() if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    required = [each for each in given if each.default is each.empty]
    named = next((each for each in given if each.name == "event"), None)
    if named is not None and named.kind is not named.POSITIONAL_ONLY:
        _check_binds(signature, event=None)
        return "keyword"
    if named is not None or (required and required[0].kind is not inspect.Parameter.KEYWORD_ONLY):
        _check_binds(signature, None)
        return "position"
    _check_binds(signature)
    return "nothing"


def _check_takes(method: object, count: int) -> None:
    signature = _signature(method)
    if signature is not None:
        _check_binds(signature, *[None] * count)


def _check_binds(signature: inspect.Signature, *args: None, **named: None) -> None:
    try:
        signature.bind(*args, **named)
    except TypeError:
        count = len(args) + len(named)
        given = "self and one argument" if count else "self only"
        names = ", ".join(signature.parameters)
        raise _Unfit(f"has the parameters ({names}), but hosts call it with {given}") from None


def _signature(method: object) -> inspect.Signature | None:
    """Return the signature of a method without `self`, or None if it is unknown, as for a method written in C.

    Raises _Unfit if hosts cannot call the method.
    """
    if not callable(method):
        raise _Unfit(f"is not a method: it is of type {type(method).__name__}")
    for is_one, reason in _NEVER_RUN:
        if is_one(method) or is_one(getattr(method, "__call__", None)):  # noqa: B004  it is callable
            raise _Unfit(reason)
    try:
        own = inspect.signature(method, follow_wrapped=False)
        # A decorator with `*args` passes them to the function that it wraps, so that function's signature counts.
        passes_on = any(each.kind is each.VAR_POSITIONAL for each in own.parameters.values())
        return inspect.signature(method) if passes_on else own
    except (TypeError, ValueError):
        function = getattr(method, "__func__", None)
        if isinstance(function, types.FunctionType | functools.partial):
            raise _Unfit("has no parameter self") from None
        return None
