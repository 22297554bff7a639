"""Hooks and methods of authors: the signatures that hosts can call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from paglets.core.agent import Paglet
from paglets.core.errors import Invalid
from paglets.core.messages import Message
from paglets.core.signatures import HookEvent, call_hook, check_methods
from paglets.system.compute_slots import CollectingComputeJobPaglet
from paglets.testing.authors import FakeContext

EVENT = HookEvent(kind="arrival", from_host="laptop", when=1.0)


def passing(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **named: Any) -> Any:
        return function(*args, **named)

    return wrapper


def paglet_with(**methods: Any) -> Paglet[Any]:
    cls = type("Mine", (Paglet,), methods)
    check_methods(cls)
    return cls(None, FakeContext())  # type: ignore[arg-type]


async def asynchronous(self: Any) -> None: ...


async def asynchronous_generator(self: Any) -> Any:
    yield


def generator(self: Any) -> Any:
    yield


@pytest.mark.parametrize(
    ("make", "taken"),
    [
        (lambda told: lambda self: told(), None),
        (lambda told: lambda self, event: told(event), EVENT),
        (lambda told: lambda self, event, /: told(event), EVENT),
        (lambda told: lambda self, any_name: told(any_name), EVENT),
        (lambda told: lambda self, *, event: told(event), EVENT),
        (lambda told: lambda self, loud=False, event=None: told(event), EVENT),
        (lambda told: lambda self, other=None: told(other), None),
        (lambda told: lambda self, *args, **named: told(*args, **named), None),
        (lambda told: staticmethod(lambda event: told(event)), EVENT),
        (lambda told: classmethod(lambda cls: told()), None),
        (lambda told: passing(lambda self, event: told(event)), EVENT),
        (lambda told: functools.partialmethod(lambda self, given, event: told(event), 3), EVENT),
    ],
)
def test_a_hook_gets_the_event_if_it_takes_one(make: Callable[..., Any], taken: HookEvent | None) -> None:
    told: list[Any] = []
    paglet = paglet_with(on_arrival=make(lambda event=None: told.append(event)))
    call_hook(paglet, "on_arrival", EVENT)
    assert told == [taken]


@pytest.mark.parametrize(
    ("hook", "reason"),
    [
        (asynchronous, "`async def`"),
        (asynchronous_generator, "`async def`"),
        (functools.partial(asynchronous), "`async def`"),
        (generator, "`yield`"),
        (lambda self, event, more: None, r"parameters \(event, more\)"),
        (lambda self, *, other: None, "other"),
        (lambda: None, "no parameter self"),
        (property(lambda self: None), "property"),
        (None, "NoneType"),
        (5, "int"),
    ],
)
def test_a_hook_that_cannot_be_called_is_refused_with_class_and_reason(hook: Any, reason: str) -> None:
    with pytest.raises(Invalid, match=rf"Mine\.on_arrival .*{reason}"):
        paglet_with(on_arrival=hook)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("run", lambda self, event: None),
        ("run", asynchronous),
        ("handle_message", lambda self: None),
        ("handle_message", asynchronous),
        ("run_compute_job", asynchronous),
        ("run_compute_job", generator),
        ("run_compute_job", lambda self, item: None),
        ("build_result_payload", asynchronous),
        ("after_compute_failure", lambda self: None),
    ],
)
def test_other_methods_are_refused_too(name: str, method: Any) -> None:
    cls = type("Job", (CollectingComputeJobPaglet,), {name: method})
    with pytest.raises(Invalid, match=rf"Job\.{name}"):
        check_methods(cls)


def test_a_hook_whose_body_did_not_run_fails() -> None:
    paglet = paglet_with(on_arrival=lambda self: asynchronous(self))
    with pytest.raises(Invalid, match="returned a coroutine"):
        call_hook(paglet, "on_arrival", EVENT)


def test_a_class_that_changed_since_it_was_checked_fails() -> None:
    paglet = paglet_with()
    type(paglet).on_arrival = asynchronous  # type: ignore[method-assign,assignment]
    with pytest.raises(Invalid, match="`async def`"):
        call_hook(paglet, "on_arrival", EVENT)


def test_a_handler_whose_body_did_not_run_fails() -> None:
    paglet = paglet_with(handle_message=lambda self, message: asynchronous(self))
    with pytest.raises(Invalid, match="returned a coroutine"):
        paglet.take_message(Message("hello"))


def test_a_message_is_refused_without_naming_it() -> None:
    paglet = paglet_with(handle_message=lambda self, message: self.not_handled())
    with pytest.raises(Exception, match="no handler for messages of kind 'hello'"):
        paglet.take_message(Message("hello"))
