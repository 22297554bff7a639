"""A reactor: it calls a handler when a socket is readable or writable, and runs functions that other threads post."""

from __future__ import annotations

import selectors
import socket
from collections import deque
from collections.abc import Callable
from typing import Literal, Protocol

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

RETRY_SECONDS = 0.02
"""Time between two calls of a handler that writes later. Most receivers read within a millisecond."""

Handler = Callable[[int], None]

Writing = Literal["", "ready", "later"]
"""The time to write to a source: never, when it is writable, or within RETRY_SECONDS even if it is writable now."""


class HasFileno(Protocol):
    """An object with a file descriptor, which a selector can watch."""

    def fileno(self) -> int: ...


class Reactor:
    """A selector with one handler for each watched socket. Only `post` may be called from other threads."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._posted: deque[Callable[[], None]] = deque()
        self._later: dict[HasFileno, Handler] = {}
        self._wake_reader, self._wake_writer = socket.socketpair()
        for end in (self._wake_reader, self._wake_writer):
            end.setblocking(False)
        self.watch(self._wake_reader, self._on_wake)

    def post(self, act: Callable[[], None]) -> None:
        """Let the next `poll` run `act`."""
        self._posted.append(act)
        try:
            self._wake_writer.send(b"\0")
        except (BlockingIOError, OSError):
            # A full socket already holds a wake-up, and a closed reactor needs none.
            return

    def _on_wake(self, mask: int) -> None:
        self._wake_reader.recv(1 << 16)

    def watch(self, source: HasFileno, handler: Handler, *, writing: Writing = "") -> None:
        """Call `handler` whenever `source` is readable or to be written.

        The argument of `handler` is a mask of READ and WRITE. A second call for the same source can change `writing`.
        """
        self._later.pop(source, None)
        if writing == "later":
            self._later[source] = handler
        events = READ | WRITE if writing == "ready" else READ
        key = self._selector.get_map().get(source)
        if key is None:
            self._selector.register(source, events, handler)
        elif key.events != events:
            self._selector.modify(source, events, handler)

    def unwatch(self, source: HasFileno) -> None:
        """Stop watching `source`, if it is watched. Call this before you close `source`."""
        self._later.pop(source, None)
        if source in self._selector.get_map():
            self._selector.unregister(source)

    def poll(self, timeout_seconds: float | None) -> None:
        """Wait for a ready source or the timeout. Call the handlers of sources, then the posted functions."""
        later = dict(self._later)
        if later:
            timeout_seconds = RETRY_SECONDS if timeout_seconds is None else min(timeout_seconds, RETRY_SECONDS)
        for key, mask in self._selector.select(timeout_seconds):
            key.data(mask)
        for source, handler in later.items():
            if source in self._later:
                handler(WRITE)
        while self._posted:
            self._posted.popleft()()

    def close(self) -> None:
        self._selector.close()
        self._wake_writer.close()
        self._wake_reader.close()
