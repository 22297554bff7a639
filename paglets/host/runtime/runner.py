"""The event loop of a host. Each step runs events, then commits changes in one transaction, then runs due parts.

Any thread may submit work, but only the runner executes it. In production a thread calls `step` in a loop
(`paglets.host.runtime.threads`); in the simulator the virtual clock calls it.

A part that a change wakes may *join* the transaction of that change: its work is then stored by the same COMMIT.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from paglets.core.clock import Clock
from paglets.core.errors import StoreTransient
from paglets.core.parts import Part
from paglets.store.db import Change, Store, Tx
from paglets.store.events import record_event

T = TypeVar("T")
Then = Callable[[Any], None]
Submitted = tuple[Change[Any], Then]
"""A change, and the function that gets its value or its error after the COMMIT."""

RETRY_AFTER_FAULT_SECONDS = 1.0
"""The delay before a part whose tick raised runs again. Each tick reads the store, so a retry is safe."""


def _raise_faults(result: Any) -> None:
    if isinstance(result, BaseException) and not isinstance(result, StoreTransient):
        raise result


class JoiningPart(Part, Protocol):
    """A part that can do its work in the transaction of the change that wakes it.

    `join(tx)` does the work, and may be undone with the transaction. `joined` gets its value after the COMMIT. The part
    is still woken, so its tick does what `join` has left undone.
    """

    def join(self, tx: Tx) -> Any: ...

    def joined(self, value: Any) -> None: ...


class Runner:
    """The event loop. It calls `signal` after each submission of work, in the thread that submits the work.

    `commit` commits changes of another thread, and returns after their callbacks. By default it runs in the thread of
    its caller, as in the simulator, where all code runs on one thread.
    """

    def __init__(self, store: Store, clock: Clock, log: logging.Logger) -> None:
        self._store = store
        self._clock = clock
        self._log = log.getChild("runner")
        self._parts: dict[str, Part] = {}
        self._due: dict[str, float | None] = {}
        self._pauses: dict[str, float] = {}
        self._rests_until: dict[str, float] = {}
        self._events: deque[Callable[[], None]] = deque()
        self._joining: tuple[JoiningPart, ...] = ()
        self._changes: deque[Submitted] = deque()
        self._wakes: deque[str] = deque()
        self.signal: Callable[[], None] = lambda: None
        self.commit: Callable[[Sequence[Submitted]], None] = self.commit_now

    def add(self, part: Part, pause_seconds: float = 0.0) -> None:
        """Add a part of the host. It is due immediately.

        If it is woken less than `pause_seconds` after a tick, it runs when this time is over.
        """
        self._parts[part.name] = part
        self._due[part.name] = self._rests_until[part.name] = float("-inf")
        self._pauses[part.name] = pause_seconds

    def let_join(self, *parts: JoiningPart) -> None:
        """Let these parts join transactions, in this order."""
        self._joining = parts

    def wake(self, *parts: str) -> None:
        self._wakes.extend(parts)
        self.signal()

    def call_soon(self, event: Callable[[], None]) -> None:
        """Run `event` on the runner, in the order of submission."""
        self._events.append(event)
        self.signal()

    def change(self, change: Change[T], then: Callable[[T | BaseException], None] = _raise_faults) -> None:
        """Commit `change` together with other pending changes, then call `then` with its value or error.

        Without `then`, StoreTransient is ignored, because the part repeats the change, and any other error is logged as
        a fault. A custom `then` must handle all errors or raise them.
        """
        self._changes.append((change, then))
        self.signal()

    def write(self, change: Change[T]) -> T:
        """Commit `change` and the work of parts that join it. Return its value, or raise its error.

        May be called from any thread but the runner.
        """
        (result,) = self.write_all([change])
        if isinstance(result, BaseException):
            raise result
        return result

    def write_all(self, changes: Sequence[Change[T]]) -> list[T | BaseException]:
        """Like `write`, for several changes. Return the value or error of each."""
        results: list[Any] = []
        if changes:
            self.commit([(change, results.append) for change in changes])
        return results

    def step(self) -> float | None:
        """Run all work that is due. Return the seconds until more work is due, or None if no work is scheduled."""
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
            self._guarded(event, "event")

    def _run_changes(self) -> None:
        waiting = [self._changes.popleft() for _ in range(len(self._changes))]
        if waiting:
            self.commit_now(waiting)

    def commit_now(self, changes: Sequence[Submitted]) -> None:
        """Commit changes and the work of parts that join them, then call the callbacks. Called only on the runner."""
        woken: set[str] = set()
        submitted = [(partial(_run_noting_wakes, change, woken), then) for change, then in changes]
        submitted.append((partial(self._join, woken), self._joined))
        results = self._store.write_all(change for change, _ in submitted)
        for (_, then), result in zip(submitted, results, strict=True):
            self._guarded(partial(then, result), "commit callback")

    def _join(self, woken: set[str], tx: Tx) -> list[tuple[JoiningPart, Any]]:
        """Let the woken parts join. If one of them raises, none has joined, and their ticks do the work."""
        joined = []
        for part in self._joining:
            if part.name in woken:
                joined.append((part, part.join(tx)))
                woken.update(tx.wakes)
        return joined

    def _joined(self, joined: list[tuple[JoiningPart, Any]] | BaseException) -> None:
        _raise_faults(joined)
        if isinstance(joined, list):
            for part, value in joined:
                part.joined(value)

    def _take_wakes(self) -> None:
        while self._wakes:
            name = self._wakes.popleft()
            if name in self._parts:
                at = self._due[name]
                self._due[name] = self._rests_until[name] if at is None else min(at, self._rests_until[name])

    def _run_parts(self) -> None:
        now = self._clock.monotonic()
        for name, at in self._due.items():
            if at is not None and at <= now:
                self._due[name] = now + RETRY_AFTER_FAULT_SECONDS
                self._rests_until[name] = now + self._pauses[name]
                self._guarded(lambda name=name: self._tick(name, now), f"part {name}")  # type: ignore[misc]

    def _tick(self, name: str, now: float) -> None:
        self._due[name] = self._parts[name].tick(now)

    def _guarded(self, act: Callable[[], None], what: str) -> None:
        """Call `act`. Record an exception in the log and in the table of events, so that other parts still run."""
        try:
            act()
        except Exception as error:
            self._log.exception(f"internal error in {what}")
            short = repr(error)
            self._changes.append((lambda tx: record_event(tx, self._clock.wall(), "fault", what, short), _ignore))


def _run_noting_wakes(change: Change[T], woken: set[str], tx: Tx) -> T:
    value = change(tx)
    woken.update(tx.wakes)
    return value


def _ignore(result: Any) -> None:
    """Ignore the result of storing a fault in the database, because the fault is already in the log."""
