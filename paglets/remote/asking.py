"""The same question to several hosts at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from paglets.core.errors import PagletsError
from paglets.core.refs import HostRef
from paglets.remote.link import Link

A = TypeVar("A")
T = TypeVar("T")

MOST_PARALLEL_ASKS = 16


def online_hosts(link: Link) -> list[HostRef]:
    """Those that the link's host takes to be online, by name."""
    return sorted((view.member.ref for view in link.hosts() if view.online), key=lambda host: host.name)


def ask_each(ask: Callable[[A], T], things: Sequence[A]) -> list[T]:
    """What `ask` gives for each of `things`, asked at once: one silent host does not hold up the rest."""
    if len(things) < 2:
        return [ask(thing) for thing in things]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=min(MOST_PARALLEL_ASKS, len(things))) as pool:
        return list(pool.map(ask, things))


def attempt(ask: Callable[[A], T]) -> Callable[[A], T | PagletsError]:
    """`ask`, which gives its error instead of raising it."""

    def asked(thing: A) -> T | PagletsError:
        try:
            return ask(thing)
        except PagletsError as error:
            return error

    return asked
