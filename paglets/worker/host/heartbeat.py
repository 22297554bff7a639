"""A zygote that does not answer: when it counts as silent, and when as hung. Times are monotonic seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatTimeouts:
    """Limits for the answers of a zygote, in seconds.

    `interval_seconds`: the time between two checks. A longer gap counts as one interval, because then this host itself
    was not running. `unresponsive_seconds`: an idle machine answers in a millisecond; one that swaps, or forks hundreds
    of processes, may take a second. `replace_seconds`: a stopped zygote is resumed long before; one that is hung
    for so long would hold its slots until the host restarts. `start_seconds`: extra time for the start of a zygote.
    """

    interval_seconds: float = 1.0
    unresponsive_seconds: float = 5.0
    replace_seconds: float = 30.0
    start_seconds: float = 60.0


Sign = Literal["", "ask", "silent", "hung"]


class Heartbeat:
    """The silence of one zygote, which begins with its start. `look` is called while the zygote has work."""

    def __init__(self, patience: HeartbeatTimeouts) -> None:
        self.patience = patience
        self._silent = -patience.start_seconds
        self._asked = True
        self._looked_at: float | None = None

    @property
    def is_silent(self) -> bool:
        return self._silent >= self.patience.unresponsive_seconds

    def answered(self) -> None:
        """Note that the zygote has answered."""
        self._silent, self._asked = 0.0, False

    def rest(self) -> None:
        """Count nothing until the next look: the zygote has no work."""
        self._looked_at = None

    def look(self, now: float) -> Sign:
        """Return what to do: send a ping, continue a zygote that is silent, replace one that hangs, or nothing."""
        since = float("inf") if self._looked_at is None else now - self._looked_at
        if since < self.patience.interval_seconds:
            return ""
        passed = 0.0 if self._looked_at is None else self.patience.interval_seconds
        self._looked_at = now
        if not self._asked:
            self._asked = True
            return "ask"
        self._silent += passed
        if self._silent >= self.patience.replace_seconds:
            return "hung"
        return "silent" if self.is_silent else ""
