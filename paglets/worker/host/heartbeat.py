"""The heartbeat of a zygote: it decides when to ping, and when to resume or replace a zygote that does not answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatTimeouts:
    """Limits for the answers of a zygote, in seconds.

    `interval_seconds`: the time between two checks. A longer gap counts as one interval, because then this host itself
    was not running. `unresponsive_seconds`: an idle machine answers in a millisecond; one that swaps, or forks hundreds
    of processes, may take a second. `replace_seconds`: a stopped zygote is resumed long before; one that is hung
    would hold its slots until the host restarts. `start_seconds`: extra time for the start of a zygote.
    """

    interval_seconds: float = 1.0
    unresponsive_seconds: float = 5.0
    replace_seconds: float = 30.0
    start_seconds: float = 60.0


Action = Literal["", "ping", "resume", "replace"]


class Heartbeat:
    """The time since the last answer of one zygote. `check` is called while the zygote has work.

    Times are monotonic seconds.
    """

    def __init__(self, timeouts: HeartbeatTimeouts) -> None:
        self.timeouts = timeouts
        self._unanswered_seconds = -timeouts.start_seconds
        self._pinged = True
        self._checked_at: float | None = None

    @property
    def is_unresponsive(self) -> bool:
        return self._unanswered_seconds >= self.timeouts.unresponsive_seconds

    def answered(self) -> None:
        """Note that the zygote has answered."""
        self._unanswered_seconds, self._pinged = 0.0, False

    def pause(self) -> None:
        """Count no time until the next check: the zygote has no work."""
        self._checked_at = None

    def check(self, now: float) -> Action:
        """Return what to do with the zygote now: ping it, resume it, replace it, or nothing."""
        since = float("inf") if self._checked_at is None else now - self._checked_at
        if since < self.timeouts.interval_seconds:
            return ""
        passed = 0.0 if self._checked_at is None else self.timeouts.interval_seconds
        self._checked_at = now
        if not self._pinged:
            self._pinged = True
            return "ping"
        self._unanswered_seconds += passed
        if self._unanswered_seconds >= self.timeouts.replace_seconds:
            return "replace"
        return "resume" if self.is_unresponsive else ""
