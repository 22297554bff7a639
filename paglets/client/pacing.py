"""Sizes of pieces, and times of retries, for the modules `upload` and `download`."""

from __future__ import annotations

from collections.abc import Callable

from paglets.api.limits import MAX_PIECE_BYTES
from paglets.core.clock import Clock
from paglets.core.errors import PagletsError

Progress = Callable[[str, int, int], None]
"""A callback that gets the current step (READING, SENDING, RECEIVING), the bytes done and the total bytes."""

READING = "reading"
SENDING = "sending"
RECEIVING = "receiving"

FIRST_PIECE_BYTES = 256 << 10
"""The size of the first piece. At 10 KB/s, it takes less than a timeout of 30 s.

A fast connection reaches the largest size after five pieces.
"""

SHORTEST_PIECE_BYTES = 32 << 10
QUICK_SECONDS = 0.5
SLOW_SECONDS = 3.0
"""The next piece is larger after a piece that took less than QUICK_SECONDS, and smaller after more than SLOW_SECONDS.
So progress is shown every few seconds on any connection, and little is sent again after an interruption."""

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0
SHORTEST_TIMEOUT_SECONDS = 0.1


def no_progress(what: str, done: int, total: int) -> None:
    """Do nothing: a `Progress` for callers that show none."""


class ChunkSizer:
    """The size of the next piece, which depends on the times of earlier pieces."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.monotonic()
        self.piece_bytes = FIRST_PIECE_BYTES

    def begin(self) -> None:
        """Start to measure the time of a piece."""
        self._began = self._clock.monotonic()

    def done(self) -> None:
        """Adjust the size of the next piece to the time that this piece took."""
        took = self._clock.monotonic() - self._began
        if took < QUICK_SECONDS:
            self.piece_bytes = min(MAX_PIECE_BYTES, self.piece_bytes * 2)
        elif took > SLOW_SECONDS:
            self.failed()

    def failed(self) -> None:
        """Halve the size of the next piece, down to SHORTEST_PIECE_BYTES."""
        self.piece_bytes = max(SHORTEST_PIECE_BYTES, self.piece_bytes // 2)


class RetryBudget:
    """Retries after transient errors, until `timeout` seconds have passed without progress."""

    def __init__(self, clock: Clock, pause: Callable[[float], None], timeout: float) -> None:
        self._clock = clock
        self._sleep = pause
        self._timeout = timeout
        self.progressed()

    def progressed(self) -> None:
        """Restart the timeout, because a piece was transferred."""
        self._end = self._clock.monotonic() + self._timeout
        self._pause = FIRST_PAUSE_SECONDS

    def left(self) -> float:
        """Return the timeout of the next attempt in seconds, at least SHORTEST_TIMEOUT_SECONDS."""
        return max(SHORTEST_TIMEOUT_SECONDS, self._end - self._clock.monotonic())

    def wait(self, error: PagletsError) -> None:
        """Pause before the next attempt. Raises `error` if the timeout has passed."""
        if self._clock.monotonic() + self._pause >= self._end:
            raise error
        self._sleep(self._pause)
        self._pause = min(LONGEST_PAUSE_SECONDS, self._pause * 2)
