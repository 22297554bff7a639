"""Connections that wait for their next request, by URL.

No locks: callers take turns. Nothing here waits; looking at a connection and closing it do not either.
"""

from __future__ import annotations

from collections import deque

from paglets.wire.signed_http import Connection

MOST_IDLE_EACH = 4
"""A host sends little at once to another; more connections would only hold threads there."""


class ConnectionPool:
    """Times are monotonic seconds. After `seal` nothing is kept any more."""

    def __init__(self, idle_seconds: float) -> None:
        self._idle_seconds = idle_seconds
        self._idle: dict[str, deque[tuple[float, Connection]]] = {}
        self._sealed = False

    def take(self, url: str, now: float) -> Connection | None:
        """The one of `url` used last that still stands."""
        self._expire(now)
        idle = self._idle.get(url)
        while idle:
            _, line = idle.pop()
            if line.stream.is_quiet():
                return line
            line.close()
        return None

    def keep(self, url: str, line: Connection, now: float) -> None:
        self._idle.setdefault(url, deque()).append((now, line))
        self._expire(now)

    def drop(self, url: str) -> None:
        """Close those of `url`."""
        for _, line in self._idle.pop(url, ()):
            line.close()

    def seal(self) -> None:
        self._sealed = True
        self._expire(0.0)

    def _expire(self, now: float) -> None:
        """Close surplus ones, and those unused for too long."""
        for url, idle in list(self._idle.items()):
            while idle and (self._sealed or len(idle) > MOST_IDLE_EACH or now - idle[0][0] >= self._idle_seconds):
                idle.popleft()[1].close()
            if not idle:
                del self._idle[url]
