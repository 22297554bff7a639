"""A reactor: it calls a handler when a socket becomes readable or writable."""

from __future__ import annotations

import selectors
from collections.abc import Callable
from typing import Protocol

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

Handler = Callable[[int], None]


class HasFileno(Protocol):
    """An object that a selector can watch."""

    def fileno(self) -> int: ...


class Reactor:
    """A selector that adds or changes the watch of a socket as needed."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def watch(self, source: HasFileno, handler: Handler, *, writing: bool = False) -> None:
        """Call `handler` with READ, WRITE or both when `source` is readable or, if `writing`, writable."""
        events = READ | WRITE if writing else READ
        key = self._selector.get_map().get(source)
        if key is None:
            self._selector.register(source, events, handler)
        elif key.events != events:
            self._selector.modify(source, events, handler)

    def unwatch(self, source: HasFileno) -> None:
        """Stop watching `source`. Call this before you close it; unwatched sources are ignored."""
        if source in self._selector.get_map():
            self._selector.unregister(source)

    def poll(self, timeout_seconds: float | None) -> None:
        """Wait until a source is ready or the timeout is over, and call the handlers."""
        for key, mask in self._selector.select(timeout_seconds):
            key.data(mask)

    def close(self) -> None:
        self._selector.close()
