"""Time and chance come in through these two seams, so that a simulation can replace them.

No other module of the host reads a clock or a random source (a test greps for it).
"""

from __future__ import annotations

import random
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Protocol

Mutex = threading.Lock
"""For what several threads share in memory."""


class Clock(Protocol):
    """`monotonic` for durations and due times, in seconds; `wall` for what people read, epoch seconds.

    `boottime` is as `monotonic`, but goes on while the machine sleeps (where that stands still: Linux, macOS). It tells
    a host that it slept, and nothing else is measured by it: neither a job's time-out nor another host's silence is
    to run while this machine cannot do anything.
    """

    def monotonic(self) -> float: ...

    def boottime(self) -> float: ...

    def wall(self) -> float: ...


class Entropy(Protocol):
    """Ids, nonces and jitter."""

    def token(self, nbytes: int = 16) -> str:
        """Lower-case hexadecimal digits of `nbytes` random bytes."""
        ...

    def uniform(self, low: float, high: float) -> float: ...

    def pick(self, count: int) -> int:
        """An index in range(count)."""
        ...


SLEEPLESS = {"linux": "CLOCK_BOOTTIME", "darwin": "CLOCK_MONOTONIC"}
"""The clock of each system that counts its sleep. Elsewhere `time.monotonic` does (Windows), or none does."""


def sleepless_clock() -> Callable[[], float]:
    number = getattr(time, SLEEPLESS.get(sys.platform, ""), None)
    return time.monotonic if number is None else lambda: time.clock_gettime(number)


class SystemClock:
    def __init__(self) -> None:
        self._boottime = sleepless_clock()

    def monotonic(self) -> float:
        return time.monotonic()

    def boottime(self) -> float:
        return self._boottime()

    def wall(self) -> float:
        return time.time()


class SystemEntropy:
    def __init__(self) -> None:
        self._random = random.SystemRandom()

    def token(self, nbytes: int = 16) -> str:
        return secrets.token_hex(nbytes)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)

    def pick(self, count: int) -> int:
        return self._random.randrange(count)


def system_pause(seconds: float) -> None:
    """Wait, for code that runs for a user and not in a host, whose parts never wait."""
    time.sleep(seconds)


QUIET_SECONDS = 2.0
"""Who waits for so long is told what for."""


@contextmanager
def told_if_slow(tell: Callable[[str], None], text: str, after_seconds: float) -> Iterator[None]:
    """`tell` what is waited for, from another thread, where that takes longer than so."""
    timer = Timer(after_seconds, tell, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
