"""Decisions about redirects: which host to ask next if a paglet is not on the expected host. They need no I/O."""

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
"""Redirects to follow without a pause. One or two suffice to find a paglet. If there are more, two hosts redirect to
each other until their tables are updated."""

REPLACED_SECONDS = 5.0
"""Seconds to retry while another host answers at the address. If the expected host has a new address, the mesh learns
it within a few heartbeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A retry of a request after a pause: look up the paglet if `locate`, else ask `host` (None: the same host)."""

    pause_seconds: float = 0.0
    locate: bool = False
    host: HostRef | None = None


class Redirects:
    """The redirects and retries of one request to a paglet, until `deadline` (monotonic seconds).

    A request is retried only if it was certainly not processed.
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
        """Return the seconds until the deadline.

        After the deadline, raise the last error if it has `needs_lookup`, else TimedOut.
        """
        left = self._deadline - now
        if left > 0:
            return left
        last = self._last
        if last is not None and last.needs_lookup:
            raise last
        detail = f" ({last.message})" if last else ""
        raise TimedOut(
            f"no reply from {self._agent_id} within the timeout{detail}; its handler may still be running"
        ) from last

    def answered(self) -> None:
        """Forget earlier errors, because the host of the paglet has answered, even if not yet with the reply."""
        self._last = None
        self._replaced_at = None
        self._tries = 0

    def after(self, error: PagletsError, now: float) -> Retry:
        """Return the retry after `error`. Raises `error` if a retry cannot help or is not allowed."""
        self._last = error
        if isinstance(error, PeerReplaced) and self._is_replaced_for_good(now):
            raise error
        if isinstance(error, Moved):
            return self._follow(error, now)
        if isinstance(error, Unknown) and self._looked_up:
            raise error
        if error.needs_lookup:
            self._looked_up = isinstance(error, Unknown)
            # The first lookup needs no pause, because the host that is asked waits for the end of a move.
            is_first, pause = self._tries == 0, self._pause(now)
            return Retry(pause_seconds=0.0 if is_first else pause, locate=True)
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
