"""Which blobs were promised to somebody: they stay for a while, whether something refers to them or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from paglets.core.clock import Mutex


class BlobPins:
    """Any thread. A promise by the clock lasts `seconds`; one to a run lasts until it is let go."""

    def __init__(self, seconds: float, monotonic: Callable[[], float]) -> None:
        self._seconds = seconds
        self._monotonic = monotonic
        self._lock = Mutex()
        self._until: dict[str, float] = {}
        self._held: dict[str, set[str]] = {}

    def pin(self, sha256: str) -> None:
        with self._lock:
            self._until[sha256] = self._monotonic() + self._seconds

    def hold(self, token: str, sha256: str) -> None:
        """For the run of that token, however long it takes until it says what the blob is for."""
        with self._lock:
            self._held.setdefault(token, set()).add(sha256)

    def held(self, token: str) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._held.get(token, ()))

    def let_go(self, token: str, sha256s: Iterable[str]) -> None:
        with self._lock:
            held = self._held.get(token, set())
            held.difference_update(sha256s)
            if not held:
                self._held.pop(token, None)

    def stands(self, sha256: str) -> bool:
        with self._lock:
            by_clock = self._until.get(sha256, 0.0) > self._monotonic()
            return by_clock or any(sha256 in held for held in self._held.values())

    def forget_old(self) -> None:
        with self._lock:
            now = self._monotonic()
            for sha256 in [sha256 for sha256, until in self._until.items() if until <= now]:
                del self._until[sha256]
