"""The clock and the random source of a host, which the simulator replaces.

A test of the imports names the few other modules that may read a clock or a random source.
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
"""The class of locks for values in memory that several threads share."""


class Clock(Protocol):
    """A source of times: `monotonic` seconds for durations, `wall` seconds since the epoch for people to read.

    `boottime` also counts the time while the machine sleeps, when `monotonic` stops on Linux and macOS. A host uses it
    only to notice that the machine slept. Time-outs use `monotonic`, so that they do not run out during sleep.
    """

    def monotonic(self) -> float: ...

    def boottime(self) -> float: ...

    def wall(self) -> float: ...


class Entropy(Protocol):
    """A source of randomness for ids, nonces and jitter."""

    def token(self, nbytes: int = 16) -> str:
        """Return `nbytes` random bytes as lower-case hexadecimal digits."""
        ...

    def uniform(self, low: float, high: float) -> float: ...

    def pick(self, count: int) -> int:
        """Return a random index in range(count)."""
        ...


BOOT_CLOCKS = {"linux": "CLOCK_BOOTTIME", "darwin": "CLOCK_MONOTONIC"}
"""The name in `time` of the clock that also counts the time while the machine sleeps, by `sys.platform`.

On Windows, `time.monotonic` counts that time. No clock of other systems counts it.
"""


def boot_clock() -> Callable[[], float]:
    """Return the function that implements `Clock.boottime` on this system, which may be `time.monotonic`."""
    number = getattr(time, BOOT_CLOCKS.get(sys.platform, ""), None)
    return time.monotonic if number is None else lambda: time.clock_gettime(number)


class SystemClock:
    """The clock of this machine."""

    def __init__(self) -> None:
        self._boottime = boot_clock()

    def monotonic(self) -> float:
        return time.monotonic()

    def boottime(self) -> float:
        return self._boottime()

    def wall(self) -> float:
        return time.time()


class SystemEntropy:
    """The random source of the operating system."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()

    def token(self, nbytes: int = 16) -> str:
        return secrets.token_hex(nbytes)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)

    def pick(self, count: int) -> int:
        return self._random.randrange(count)


def system_pause(seconds: float) -> None:
    """Sleep. Only clients, commands, processes of paglets and failpoints call this, because a host must not block."""
    time.sleep(seconds)


QUIET_SECONDS = 2.0
"""The time in seconds after which a command prints what it is waiting for."""


@contextmanager
def call_if_slow(tell: Callable[[str], None], text: str, after_seconds: float) -> Iterator[None]:
    """Call `tell(text)` from another thread if the block takes longer than `after_seconds`."""
    timer = Timer(after_seconds, tell, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
