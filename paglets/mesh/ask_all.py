"""A question to many hosts at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from paglets.core.errors import PagletsError
from paglets.core.refs import HostRef
from paglets.wire.request import Request, Response, Transport

T = TypeVar("T")


def ask_all(
    transport: Transport,
    hosts: Sequence[HostRef],
    request: Request,
    read: Callable[[HostRef, Response], T],
    merge: Callable[[list[T]], None],
    *,
    timeout_seconds: float,
    enough: Callable[[T], bool] = lambda answer: False,
) -> None:
    """Send a request to all hosts, and call `merge` once with their answers, in the order of arrival.

    `read` returns the answer in a response, or raises PagletsError: then that host has no answer, like a host whose
    request failed. `merge` is called when every request has ended, or at the first answer that is `enough`. Use this
    function only on the runner, on which it calls `read` and `merge`. Without hosts, it calls `merge` at once.
    """
    answers: list[T] = []
    waiting = {host.store_id for host in hosts}

    def responded(host: HostRef, outcome: Response | PagletsError) -> None:
        if not waiting:
            return
        waiting.discard(host.store_id)
        try:
            if isinstance(outcome, Response):
                answer = read(host, outcome)
                answers.append(answer)
                if enough(answer):
                    waiting.clear()
        except PagletsError:
            pass
        if not waiting:
            merge(answers)

    for host in hosts:
        transport.send(host, request, partial(responded, host), timeout_seconds=timeout_seconds)
    if not hosts:
        merge(answers)
