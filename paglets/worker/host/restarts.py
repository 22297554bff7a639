"""When to start the next zygote after one has ended, and when to give up on what waits for one."""

from __future__ import annotations

STEADY_SECONDS = 10.0
"""A zygote that lived this long is followed at once by the next; after others the pauses grow."""

PAUSES_SECONDS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)

FAILED_STARTS = 3
"""Zygotes in a row that ended before they were ready, after which what waits for one is failed."""


class Restarts:
    """Times are monotonic seconds."""

    def __init__(self) -> None:
        self._opened_at = 0.0
        self._short = 0
        self._unready = 0

    @property
    def hopeless(self) -> bool:
        return self._unready >= FAILED_STARTS

    def opened(self, now: float) -> None:
        self._opened_at = now

    def ended(self, now: float, *, was_ready: bool) -> float:
        """When the next one is due."""
        self._short = 0 if now - self._opened_at >= STEADY_SECONDS else min(self._short + 1, len(PAUSES_SECONDS))
        self._unready = 0 if was_ready else self._unready + 1
        return now + PAUSES_SECONDS[max(self._short - 1, 0)]
