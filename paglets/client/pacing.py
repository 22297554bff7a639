"""How long and in what steps bytes are sent and fetched: decided here, done by `publish` and `fetch`."""

from __future__ import annotations

from collections.abc import Callable

from paglets.api.limits import MAX_PIECE_BYTES
from paglets.core.clock import Clock
from paglets.core.errors import PagletsError

Progress = Callable[[str, int, int], None]
"""Is told what is done, one of the steps below, and how many bytes of how many."""

READING = "reading"
SENDING = "sending"
RECEIVING = "receiving"

FIRST_PIECE_BYTES = 256 << 10
"""A line of 10 KB/s gets through that within a time-out of 30 s; a fast one is at whole pieces after five."""

SHORTEST_PIECE_BYTES = 32 << 10
QUICK_SECONDS = 0.5
SLOW_SECONDS = 3.0
"""Pieces grow while one takes less than the first, and shrink where it takes more than the second: progress is seen
every few seconds on any line, and little is sent anew after a cut."""

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0
SHORTEST_TIMEOUT_SECONDS = 0.1


def no_progress(what: str, done: int, total: int) -> None:
    """The `Progress` of who does not look."""


class ChunkSizer:
    """The size of the next piece, by how long the last ones took."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.monotonic()
        self.piece_bytes = FIRST_PIECE_BYTES

    def begin(self) -> None:
        """A piece is asked for now."""
        self._began = self._clock.monotonic()

    def done(self) -> None:
        """It is there."""
        took = self._clock.monotonic() - self._began
        if took < QUICK_SECONDS:
            self.piece_bytes = min(MAX_PIECE_BYTES, self.piece_bytes * 2)
        elif took > SLOW_SECONDS:
            self.failed()

    def failed(self) -> None:
        self.piece_bytes = max(SHORTEST_PIECE_BYTES, self.piece_bytes // 2)


class RetryBudget:
    """Another try after what passes, until `timeout` seconds went by without progress."""

    def __init__(self, clock: Clock, pause: Callable[[float], None], timeout: float) -> None:
        self._clock = clock
        self._sleep = pause
        self._timeout = timeout
        self.progressed()

    def progressed(self) -> None:
        """The time begins anew."""
        self._end = self._clock.monotonic() + self._timeout
        self._pause = FIRST_PAUSE_SECONDS

    def left(self) -> float:
        """Seconds for the next try; never none, so that there is an error to tell."""
        return max(SHORTEST_TIMEOUT_SECONDS, self._end - self._clock.monotonic())

    def wait(self, error: PagletsError) -> None:
        """Pause before another try. Raises `error` where the time is over."""
        if self._clock.monotonic() + self._pause >= self._end:
            raise error
        self._sleep(self._pause)
        self._pause = min(LONGEST_PAUSE_SECONDS, self._pause * 2)
