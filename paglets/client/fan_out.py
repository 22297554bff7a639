"""Requests to several hosts in parallel."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

from paglets.api.hosts import MeshHostView
from paglets.client.mesh_client import MeshClient
from paglets.core.errors import PagletsError
from paglets.core.refs import HostRef

if TYPE_CHECKING:  # Future is imported on use, so that commands that ask one host start faster.
    from concurrent.futures import Future

A = TypeVar("A")
T = TypeVar("T")

MOST_PARALLEL_ASKS = 16


def online_hosts(mesh: MeshClient) -> list[HostRef]:
    """Return the hosts that the client's host sees as online, sorted by name."""
    return online_refs(mesh.hosts())


def online_refs(views: Iterable[MeshHostView]) -> list[HostRef]:
    """Return the hosts of `views` that are online, sorted by name."""
    return sorted((view.host.ref for view in views if view.online), key=lambda host: host.name)


def ask_all(ask: Callable[[A], T], things: Sequence[A]) -> list[T]:
    """Call `ask` with each of `things` in parallel, and return the results in the same order.

    The first error in this order, or Ctrl-C, ends this function. Calls in progress then go on in daemon threads. No
    executor is used, because its threads would delay the end of the process.
    """
    if len(things) < 2:
        return [ask(thing) for thing in things]
    from concurrent.futures import Future

    answers: list[Future[T]] = [Future() for _ in things]
    todo = deque(zip(answers, things, strict=True))

    def work() -> None:
        with suppress(IndexError):
            while True:
                answer, thing = todo.popleft()
                _fill(answer, ask, thing)

    for _ in range(min(MOST_PARALLEL_ASKS, len(things))):
        Thread(target=work, name="ask", daemon=True).start()
    try:
        return [answer.result() for answer in answers]
    except BaseException:
        todo.clear()
        raise


def _fill(answer: Future[T], ask: Callable[[A], T], thing: A) -> None:
    try:
        answer.set_result(ask(thing))
    except BaseException as error:
        answer.set_exception(error)


def with_host_name(host: HostRef, error: PagletsError) -> PagletsError:
    """Return a copy of `error` whose message starts with the name of the host."""
    return type(error)(f"{host.name}: {error.message}", **error.details)


def names_host(name: str, error: PagletsError) -> bool:
    """Return True if the message of `error` starts with the host name `name`, added by `with_host_name`."""
    return error.message.startswith(f"{name}: ")


def returning_errors(ask: Callable[[A], T]) -> Callable[[A], T | PagletsError]:
    """Return a function that calls `ask` and returns a PagletsError instead of raising it."""

    def asked(thing: A) -> T | PagletsError:
        try:
            return ask(thing)
        except PagletsError as error:
            return error

    return asked
