"""The interface of the parts of a host to its runner."""

from __future__ import annotations

from typing import Protocol


class Part(Protocol):
    """A part of the host with work of its own. Only the runner calls it, so it needs no lock.

    `tick(now)` does the work due at the monotonic second `now`. It returns when more work is due, or None to run only
    after a wake of `name` (`Tx.wake`, `Wake.wake`). A tick can come when nothing is due; it then compares the desired
    state with the actual state.
    """

    name: str

    def tick(self, now: float) -> float | None: ...


class Wake(Protocol):
    """A function that makes parts due at once. Any thread may call it."""

    def wake(self, *parts: str) -> None: ...
