"""The same question to several hosts at once."""

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

if TYPE_CHECKING:  # loaded when it is needed: commands that ask one host start faster
    from concurrent.futures import Future

A = TypeVar("A")
T = TypeVar("T")

MOST_PARALLEL_ASKS = 16


def online_hosts(mesh: MeshClient) -> list[HostRef]:
    """Those that the link's host takes to be online, by name."""
    return online_refs(mesh.hosts())


def online_refs(views: Iterable[MeshHostView]) -> list[HostRef]:
    """Those of them that are online, by name."""
    return sorted((view.host.ref for view in views if view.online), key=lambda host: host.name)


def ask_all(ask: Callable[[A], T], things: Sequence[A]) -> list[T]:
    """What `ask` gives for each of `things`, asked at once: one silent host does not hold up the rest.

    An error, or Ctrl-C, ends it at once: what is being asked then is left to threads that hold up nobody, not even
    the end of the process, as those of an executor do.
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
    """The same error, which says whose it is."""
    return type(error)(f"{host.name}: {error.message}", **error.details)


def names_host(name: str, error: PagletsError) -> bool:
    """Whether `with_host_name` said that it is that of the host of this name."""
    return error.message.startswith(f"{name}: ")


def returning_errors(ask: Callable[[A], T]) -> Callable[[A], T | PagletsError]:
    """`ask`, which gives its error instead of raising it."""

    def asked(thing: A) -> T | PagletsError:
        try:
            return ask(thing)
        except PagletsError as error:
            return error

    return asked
