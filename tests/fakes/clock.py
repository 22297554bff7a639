"""Virtual time and chance from a seed, in place of `SystemClock` and `SystemEntropy`."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

WALL_AT_START = 1_700_000_000.0


class FakeClock:
    """Time that moves only when told, with actions that are due at times on the way.

    `wall_error_seconds` may be set to make the wall clock wrong. `suspend`: the machine sleeps.
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
        """The machine sleeps for so long: nothing is run, and the monotonic clock stands still."""
        self._asleep_seconds += seconds

    def call_at(self, at: float, action: Callable[[], None]) -> None:
        """Run `action` when the time is `at`, after those asked for earlier for the same time."""
        self._count += 1
        heapq.heappush(self._actions, (max(at, self._now), self._count, action))

    def next_due(self) -> float | None:
        """When the next action is due."""
        return self._actions[0][0] if self._actions else None

    def step(self) -> bool:
        """Go to the next action and run it; False where there is none."""
        if not self._actions:
            return False
        at, _, action = heapq.heappop(self._actions)
        self._now = max(self._now, at)
        action()
        return True

    def advance(self, seconds: float) -> None:
        """Run all that is due in the next `seconds`, each at its time."""
        end = self._now + seconds
        while self._actions and self._actions[0][0] <= end:
            self.step()
        self._now = end

    def advance_until(self, condition: Callable[[], object], within_seconds: float) -> float:
        """Run what is due until `condition()` holds; gives the seconds it took.

        Raises AssertionError with what was last seen when it does not hold in time.
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
    """The same seed gives the same ids, nonces and jitter."""

    def __init__(self, seed: int | str) -> None:
        self._random = random.Random(seed)

    def token(self, nbytes: int = 16) -> str:
        return self._random.randbytes(nbytes).hex()

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)

    def pick(self, count: int) -> int:
        return self._random.randrange(count)
