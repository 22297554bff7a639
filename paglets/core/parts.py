"""What the one runner of a host drives."""

from __future__ import annotations

from typing import Protocol


class Part(Protocol):
    """A piece of the host with work of its own. Only the runner calls it, so it needs no lock.

    `tick(now)` does what is due at monotonic second `now` and gives when it is due next, or None to
    be called only when woken by `name` (`Tx.wake`, `Wake.wake`). Ticks are also run where nothing is due: they
    compare what should be with what is.
    """

    name: str

    def tick(self, now: float) -> float | None: ...


class Wake(Protocol):
    """Makes a part due at once; may be called from any thread."""

    def wake(self, *parts: str) -> None: ...
