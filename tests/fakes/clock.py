"""Virtual time and seeded randomness, in place of `SystemClock` and `SystemEntropy`."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

WALL_AT_START = 1_700_000_000.0


class FakeClock:
    """A clock that moves only on request, and runs the actions due on the way.

    `wall_error_seconds` may be set to make the wall clock wrong. `suspend` lets the machine sleep.
    """

    def __init__(self, at: float = 1_000.0) -> None:
        self._now = at
        self._start = at
        self._actions: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._asleep_seconds = 0.0
        self.wall_error_seconds = 0.0

    def monotonic(self) -> float:
        return self._now

    def boottime(self) -> float:
        return self._now + self._asleep_seconds

    def wall(self) -> float:
        return WALL_AT_START + self.boottime() - self._start + self.wall_error_seconds

    def suspend(self, seconds: float) -> None:
        """Let the machine sleep for this long: nothing runs, and the monotonic clock stands still."""
        self._asleep_seconds += seconds

    def call_at(self, at: float, action: Callable[[], None]) -> None:
        """Run `action` at the time `at`, after earlier actions of the same time."""
        self._count += 1
        heapq.heappush(self._actions, (max(at, self._now), self._count, action))

    def next_due(self) -> float | None:
        """Return the time of the next action, or None."""
        return self._actions[0][0] if self._actions else None

    def step(self) -> bool:
        """Go to the time of the next action and run it. Return False if there is none."""
        if not self._actions:
            return False
        at, _, action = heapq.heappop(self._actions)
        self._now = max(self._now, at)
        action()
        return True

    def advance(self, seconds: float) -> None:
        """Run all actions of the next `seconds`, each at its time."""
        end = self._now + seconds
        while self._actions and self._actions[0][0] <= end:
            self.step()
        self._now = end

    def advance_until(self, condition: Callable[[], object], within_seconds: float) -> float:
        """Run due actions until `condition()` holds. Return the seconds this took.

        Raises AssertionError with the last value if it does not hold in time.
        """
        start = self._now
        while True:
            seen = condition()
            if seen:
                return self._now - start
            due = self.next_due()
            if due is None or due > start + within_seconds:
                raise AssertionError(f"not so within {within_seconds:g} virtual seconds; last saw {seen!r}")
            self.step()


class SeededEntropy:
    """A source of ids, nonces and jitter. The same seed gives the same values."""

    def __init__(self, seed: int | str) -> None:
        self._random = random.Random(seed)

    def token(self, nbytes: int = 16) -> str:
        return self._random.randbytes(nbytes).hex()

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)

    def pick(self, count: int) -> int:
        return self._random.randrange(count)
