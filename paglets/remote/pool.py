"""Connections that wait for their next request, by URL.

No locks and no I/O: callers take turns, and close what comes out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from paglets.remote.line import Line

MOST_IDLE_EACH = 4
"""A host sends little at once to another; more connections would only hold threads there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Idle:
    line: Line
    since: float


class Pool:
    """Times are monotonic seconds. After `seal` nothing is kept any more."""

    def __init__(self, idle_seconds: float) -> None:
        self._idle_seconds = idle_seconds
        self._idle: dict[str, deque[_Idle]] = {}
        self._sealed = False

    def pop(self, url: str) -> Line | None:
        """The one of `url` used last. Whether it still stands is for the caller to see."""
        idle = self._idle.get(url)
        return idle.pop().line if idle else None

    def add(self, url: str, line: Line, now: float) -> list[Line]:
        """Keep `line`; gives what must be closed."""
        if self._sealed:
            return [line]
        self._idle.setdefault(url, deque()).append(_Idle(line=line, since=now))
        return self.expire(now)

    def expire(self, now: float) -> list[Line]:
        """Forget surplus ones, and those unused for too long; gives what must be closed."""
        return [old.line for idle in self._idle.values() for old in self._surplus(idle, now)]

    def drop(self, url: str) -> list[Line]:
        """Forget those of `url`; gives what must be closed."""
        return [one.line for one in self._idle.pop(url, ())]

    def seal(self) -> list[Line]:
        """Forget all; gives what must be closed."""
        self._sealed = True
        return [line for url in list(self._idle) for line in self.drop(url)]

    def _surplus(self, idle: deque[_Idle], now: float) -> Iterable[_Idle]:
        while idle and (len(idle) > MOST_IDLE_EACH or now - idle[0].since >= self._idle_seconds):
            yield idle.popleft()
