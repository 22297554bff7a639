"""The heartbeat of a zygote. It decides when to ping the zygote, and when to resume (SIGCONT) or replace it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatTimeouts:
    """Time limits for the answers of a zygote, in seconds.

    `interval_seconds`: the time between two checks. A longer gap counts as one interval, because the host itself was
    suspended. `unresponsive_seconds`: the time without an answer after which the zygote is resumed. An answer takes a
    millisecond on an idle machine, and about a second if the machine swaps or forks hundreds of processes.
    `replace_seconds`: the time without an answer after which the zygote is replaced. The runs of a zygote that hangs
    would otherwise hold their slots until the host restarts. `start_seconds`: additional time while a zygote starts.
    """

    interval_seconds: float = 1.0
    unresponsive_seconds: float = 5.0
    replace_seconds: float = 30.0
    start_seconds: float = 60.0


Action = Literal["", "ping", "resume", "replace"]


class Heartbeat:
    """A counter of the time since a zygote last answered. Times are monotonic, in seconds.

    The owner calls `check` regularly while the zygote has runs, and `pause` while it has none.
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
        """Record an answer of the zygote: the time without an answer restarts at 0."""
        self._unanswered_seconds, self._pinged = 0.0, False

    def pause(self) -> None:
        """Stop counting time until the next `check`, because the zygote has no runs."""
        self._checked_at = None

    def check(self, now: float) -> Action:
        """Return the action that is due for the zygote: "ping", "resume", "replace", or "" for none."""
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
