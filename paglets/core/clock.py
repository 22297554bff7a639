"""Time and chance come in through these two seams, so that a simulation can replace them.

No other module of the host reads a clock or a random source (a test greps for it).
"""

from __future__ import annotations

import random
import secrets
import time
from typing import Protocol


class Clock(Protocol):
    """`monotonic` for durations and due times, in seconds; `wall` for what people read, epoch seconds."""

    def monotonic(self) -> float: ...

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


class SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()

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
