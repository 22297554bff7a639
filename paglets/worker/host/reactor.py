"""A reactor: it calls a handler when a socket becomes readable or writable."""

from __future__ import annotations

import selectors
from collections.abc import Callable
from typing import Protocol

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

Handler = Callable[[int], None]


class HasFileno(Protocol):
    """An object with a file descriptor, which a selector can watch."""

    def fileno(self) -> int: ...


class Reactor:
    """A selector with one handler for each watched socket."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def watch(self, source: HasFileno, handler: Handler, *, writing: bool = False) -> None:
        """Call `handler` whenever `source` is readable or, with `writing`, writable.

        The argument of `handler` is a mask of READ and WRITE. A second call for the same source can change `writing`.
        """
        events = READ | WRITE if writing else READ
        key = self._selector.get_map().get(source)
        if key is None:
            self._selector.register(source, events, handler)
        elif key.events != events:
            self._selector.modify(source, events, handler)

    def unwatch(self, source: HasFileno) -> None:
        """Stop watching `source`, if it is watched. Call this before you close `source`."""
        if source in self._selector.get_map():
            self._selector.unregister(source)

    def poll(self, timeout_seconds: float | None) -> None:
        """Wait until a source is ready or the timeout expires, then call the handlers of the ready sources."""
        for key, mask in self._selector.select(timeout_seconds):
            key.data(mask)

    def close(self) -> None:
        self._selector.close()
