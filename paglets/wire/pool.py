"""A pool of idle connections, by URL.

The pool has no locks, so call it from one thread at a time. No call blocks.
"""

from __future__ import annotations

from collections import deque

from paglets.wire.signed_http import Connection

MOST_IDLE_EACH = 4
"""Maximum number of idle connections per URL. Each one occupies a thread of the server, and hosts need few at once."""


class ConnectionPool:
    """Idle connections by URL. Times are monotonic seconds. A sealed pool closes each connection passed to `keep`."""

    def __init__(self, idle_seconds: float) -> None:
        self._idle_seconds = idle_seconds
        self._idle: dict[str, deque[tuple[float, Connection]]] = {}
        self._sealed = False

    def take(self, url: str, now: float) -> Connection | None:
        """Remove and return the most recently used open connection to `url`; None if there is none."""
        self._expire(now)
        idle = self._idle.get(url)
        while idle:
            _, connection = idle.pop()
            if connection.stream.is_idle():
                return connection
            connection.close()
        return None

    def keep(self, url: str, connection: Connection, now: float) -> None:
        self._idle.setdefault(url, deque()).append((now, connection))
        self._expire(now)

    def drop(self, url: str) -> None:
        """Close the idle connections to `url`."""
        for _, connection in self._idle.pop(url, ()):
            connection.close()

    def seal(self) -> None:
        """Close all idle connections, and from now on each connection that is passed to `keep`."""
        self._sealed = True
        self._expire(0.0)

    def _expire(self, now: float) -> None:
        """Close connections over the limit, and those that have been idle for too long."""
        for url, idle in list(self._idle.items()):
            while idle and (self._sealed or len(idle) > MOST_IDLE_EACH or now - idle[0][0] >= self._idle_seconds):
                idle.popleft()[1].close()
            if not idle:
                del self._idle[url]
