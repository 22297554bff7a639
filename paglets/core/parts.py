"""The interface between the runner of a host and the host's parts, which do its periodic work."""

from __future__ import annotations

from typing import Protocol


class Part(Protocol):
    """A part of the host that the runner calls to do its work. Only the runner calls it, so it needs no lock.

    `tick(now)` does the work that is due at the monotonic time `now`. It returns the time when more work is due, or
    None to be called only after `Tx.wake` or `Wake.wake` with the part's `name`. The runner may also call it when no
    work is due. So it has to compare the desired state with the actual state.
    """

    name: str

    def tick(self, now: float) -> float | None: ...


class Wake(Protocol):
    """An object whose `wake` makes the runner call the named parts soon. `wake` may be called from any thread."""

    def wake(self, *parts: str) -> None: ...
