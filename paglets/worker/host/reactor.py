"""A selector that is told what is wanted of a socket, not how to get from what was wanted before."""

from __future__ import annotations

import selectors
from collections.abc import Callable
from typing import Protocol

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

Handler = Callable[[int], None]


class HasFileno(Protocol):
    def fileno(self) -> int: ...


class Reactor:
    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def watch(self, source: HasFileno, handler: Handler, *, writing: bool = False) -> None:
        """Call `handler` with READ, WRITE or both when `source` is readable or, if `writing`, has room."""
        events = READ | WRITE if writing else READ
        key = self._selector.get_map().get(source)
        if key is None:
            self._selector.register(source, events, handler)
        elif key.events != events:
            self._selector.modify(source, events, handler)

    def forget(self, source: HasFileno) -> None:
        """Watch it no more, if it was watched; before it is closed."""
        if source in self._selector.get_map():
            self._selector.unregister(source)

    def poll(self, timeout_seconds: float | None) -> None:
        """Wait until something is ready or the time is over, and call what is to be called."""
        for key, mask in self._selector.select(timeout_seconds):
            key.data(mask)

    def close(self) -> None:
        self._selector.close()
