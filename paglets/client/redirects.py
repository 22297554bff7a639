"""Where to ask next when a paglet is not where it was thought to be: decided here, done by the client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from paglets.core.errors import (
    Moved,
    PagletsError,
    PeerReplaced,
    TimedOut,
    Unknown,
)
from paglets.core.record import from_json
from paglets.core.refs import HostRef

FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 2.0
MOVES_WITHOUT_PAUSE = 5
"""A paglet that really moves is caught in a step or two; more means rows that point in a circle for a moment."""

REPLACED_SECONDS = 5.0
"""Where another store answers at an address, the one that was meant is heard of at another within a few heartbeats, or
not at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """What to do before asking again: pause, then look the paglet up (`locate`), or go to `host`."""

    pause_seconds: float = 0.0
    locate: bool = False
    host: HostRef | None = None


class Redirects:
    """One request on its way to a paglet that may move, until `deadline` (monotonic seconds).

    Only errors after which the request was certainly not done lead to another try.
    """

    def __init__(self, agent_id: str, *, deadline: float, jitter: Callable[[float, float], float]) -> None:
        self._agent_id = agent_id
        self._deadline = deadline
        self._jitter = jitter
        self._moves = 0
        self._tries = 0
        self._looked_up = False
        self._last: PagletsError | None = None
        self._replaced_at: float | None = None

    def left(self, now: float) -> float:
        """Seconds left. Raises when none are: the last error where it says more than that time ran out."""
        left = self._deadline - now
        if left > 0:
            return left
        last = self._last
        if last is not None and last.needs_lookup:
            raise last
        detail = f" ({last.message})" if last else ""
        raise TimedOut(
            f"no reply from {self._agent_id} in the time given{detail}; what was asked for may go on"
        ) from last

    def answered(self) -> None:
        """The paglet's host answered, if not yet with the reply: earlier errors say nothing any more."""
        self._last = None
        self._replaced_at = None
        self._tries = 0

    def after(self, error: PagletsError, now: float) -> Retry:
        """The next step after `error`. Raises `error` where trying again cannot or must not help."""
        self._last = error
        if isinstance(error, PeerReplaced) and self._is_replaced_for_good(now):
            raise error
        if isinstance(error, Moved):
            return self._follow(error, now)
        if isinstance(error, Unknown) and self._looked_up:
            raise error
        if error.needs_lookup:
            self._looked_up = isinstance(error, Unknown)
            return Retry(pause_seconds=self._pause(now), locate=True)
        if error.retryable and not error.outcome_unknown:
            self._looked_up = False
            return Retry(pause_seconds=self._pause(now))
        raise error

    def _is_replaced_for_good(self, now: float) -> bool:
        self._replaced_at = now if self._replaced_at is None else self._replaced_at
        return now - self._replaced_at >= REPLACED_SECONDS

    def _follow(self, error: Moved, now: float) -> Retry:
        host = from_json(HostRef, error.details.get("host"), "the host named by `moved`")
        self._moves += 1
        self._looked_up = False
        pause = 0.0 if self._moves <= MOVES_WITHOUT_PAUSE else self._pause(now)
        return Retry(pause_seconds=pause, host=host)

    def _pause(self, now: float) -> float:
        self._tries += 1
        longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(self._tries, 20))
        return min(self._jitter(longest / 2, longest), self.left(now))
