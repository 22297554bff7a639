"""The progress of a transfer on stderr: a bar on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from paglets.cli.output import say
from paglets.core.terminal import CLEAR, draws_on, fitted
from paglets.core.text import duration_text, printable
from paglets.slots.amounts import bytes_text

DRAW_SECONDS = 0.1
LINE_SECONDS = 5.0
RATE_SECONDS = 8.0
"""The time over which the rate is measured. A rate since the start would hide that a transfer became slow."""


class ProgressLine:
    """A context manager that displays the progress of one transfer. At its end, the line on stderr is cleared.

    The manager itself is the `client.pacing.Progress` of the transfer.
    """

    def __init__(self, name: str, *, out: TextIO | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self._name = printable(name)
        self._out = out or sys.stderr
        self._now = now
        self._draws = draws_on(self._out)
        self._every = DRAW_SECONDS if self._draws else LINE_SECONDS
        # Delay the first line, because a fast transfer needs no progress display.
        self._due = now() + self._every
        self._what = ""
        self._seen: deque[tuple[float, int]] = deque()
        self._drawn = False

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._drawn:
            self._out.write(CLEAR)
            self._out.flush()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Record that `done` of `total` bytes of the step `what` are complete, and show it if a line is due."""
        now = self._now()
        if what != self._what:
            self._what = what
            self._seen.clear()
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] > RATE_SECONDS:
            self._seen.popleft()
        if now >= self._due:
            self._due = now + self._every
            self._show(done, total)

    def _show(self, done: int, total: int) -> None:
        if not self._draws:
            say(f"{self._name}: {self._words(done, total)}")
            return
        line = fitted(self._name, self._words(done, total), done / total if total else 1.0)
        self._out.write(f"\r{line}\x1b[K")
        self._out.flush()
        self._drawn = True

    def _words(self, done: int, total: int) -> str:
        percent = 100 * done // total if total else 100
        text = f"{self._what} {percent:3d} %, {bytes_text(done)} of {bytes_text(total)}"
        rate = self._rate()
        return f"{text}, {bytes_text(int(rate))}/s, {duration_text((total - done) / rate)} left" if rate else text

    def _rate(self) -> float:
        """Return the transfer rate in bytes per second, or 0 if it is unknown."""
        (began, before), (now, done) = self._seen[0], self._seen[-1]
        return (done - before) / (now - began) if now > began else 0.0
