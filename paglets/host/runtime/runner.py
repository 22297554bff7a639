"""The one loop of a host: events, then changes in one COMMIT, then the parts that are due.

Any thread may hand something in; only the runner runs it. In production a thread calls `step` again
and again (`paglets.host.runtime.threads`), in the simulator the virtual clock does.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from paglets.core.clock import Clock
from paglets.core.errors import StoreTransient
from paglets.core.parts import Part
from paglets.store.db import Change, Store
from paglets.store.events import record_event

T = TypeVar("T")
Log = Callable[[str], None]
Then = Callable[[Any], None]

RETRY_AFTER_FAULT_SECONDS = 1.0
"""A part whose tick raised is tried again after this: it looks at the store anew each time."""


def _raise_faults(result: Any) -> None:
    if isinstance(result, BaseException) and not isinstance(result, StoreTransient):
        raise result


class Runner:
    """`signal` is called when something was handed in from outside `step`; it may be another thread."""

    def __init__(self, store: Store, clock: Clock, log: Log) -> None:
        self._store = store
        self._clock = clock
        self._log = log
        self._parts: dict[str, Part] = {}
        self._due: dict[str, float | None] = {}
        self._events: deque[Callable[[], None]] = deque()
        self._changes: deque[tuple[Change[Any], Then]] = deque()
        self._wakes: deque[str] = deque()
        self.signal: Callable[[], None] = lambda: None

    def add(self, part: Part) -> None:
        """Drive this part from now on; it is due at once."""
        self._parts[part.name] = part
        self._due[part.name] = float("-inf")

    def wake(self, *parts: str) -> None:
        self._wakes.extend(parts)
        self.signal()

    def call_soon(self, event: Callable[[], None]) -> None:
        """Run `event` on the runner, in the order given."""
        self._events.append(event)
        self.signal()

    def change(self, change: Change[T], then: Callable[[T | BaseException], None] = _raise_faults) -> None:
        """Commit `change` together with what else waits, then call `then` with its value or error.

        The default is for what is changed again as long as it is not so: it leaves out StoreTransient, and any other
        error is a fault. A `then` that is given deals with all errors, or raises them.
        """
        self._changes.append((change, then))
        self.signal()

    def step(self) -> float | None:
        """Do what is due; gives the seconds until something is due again, or None."""
        self._run_events()
        self._run_changes()
        self._take_wakes()
        self._run_parts()
        if self._events or self._changes or self._wakes:
            return 0.0
        due = [at for at in self._due.values() if at is not None]
        return max(0.0, min(due) - self._clock.monotonic()) if due else None

    def _run_events(self) -> None:
        for _ in range(len(self._events)):
            event = self._events.popleft()
            self._guarded(event, "an event")

    def _run_changes(self) -> None:
        waiting = [self._changes.popleft() for _ in range(len(self._changes))]
        if not waiting:
            return
        results = self._store.write_all(change for change, _ in waiting)
        for (_, then), result in zip(waiting, results, strict=True):
            self._guarded(lambda then=then, result=result: then(result), "what follows a commit")  # type: ignore[misc]

    def _take_wakes(self) -> None:
        while self._wakes:
            name = self._wakes.popleft()
            if name in self._parts:
                self._due[name] = float("-inf")

    def _run_parts(self) -> None:
        now = self._clock.monotonic()
        for name, at in self._due.items():
            if at is not None and at <= now:
                self._due[name] = now + RETRY_AFTER_FAULT_SECONDS
                self._guarded(lambda name=name: self._tick(name, now), f"part {name}")  # type: ignore[misc]

    def _tick(self, name: str, now: float) -> None:
        self._due[name] = self._parts[name].tick(now)

    def _guarded(self, act: Callable[[], None], what: str) -> None:
        """A fault in one part must not stop the others; it is written to the host's log and events."""
        try:
            act()
        except Exception as error:
            text = "".join(traceback.format_exception(error))
            self._log(f"fault in {what}: {text}")
            short = repr(error)
            self._changes.append((lambda tx: record_event(tx, self._clock.wall(), "fault", what, short), _ignore))


def _ignore(result: Any) -> None:
    """The log has the fault already."""
