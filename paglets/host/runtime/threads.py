"""The threads of a host (runner, monitor and background worker), and a set of locks by key."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from paglets.core.errors import ShuttingDown
from paglets.host.runtime.runner import Runner, Submitted

JOIN_SECONDS = 10.0
END_CHECK_SECONDS = 1.0
"""A thread that waits for a COMMIT checks at this interval, in seconds, if the runner has ended."""


@dataclass(slots=True)
class _Lock:
    """A lock and the number of threads that hold it or wait for it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0


class KeyedLocks:
    """A lock for each key. It exists while a thread holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: dict[str, _Lock] = {}
        self._changing = threading.Lock()

    @contextmanager
    def of(self, key: str) -> Iterator[None]:
        with self._changing:
            entry = self._locks.setdefault(key, _Lock())
            entry.users += 1
        try:
            with entry.lock:
                yield
        finally:
            with self._changing:
                entry.users -= 1
                if not entry.users:
                    del self._locks[key]


class RunnerThread:
    """A thread that calls `runner.step` until `stop`. An error that ends the loop is passed to `fatal`."""

    def __init__(self, runner: Runner, fatal: Callable[[BaseException], None]) -> None:
        self._runner = runner
        self._fatal = fatal
        self._signal = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="paglets-runner", daemon=True)
        runner.signal = self._signal.set
        runner.commit = self._commit

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the current step."""
        self._ending = True
        self._signal.set()
        self._thread.join(JOIN_SECONDS)

    def _commit(self, changes: Sequence[Submitted]) -> None:
        """Commit changes, through the runner's thread, and wait for their callbacks. Raises ShuttingDown."""
        if threading.current_thread() is self._thread:
            self._runner.commit_now(changes)
            return
        done = threading.Event()
        (*first, (change, then)) = changes

        def last(result: Any) -> None:
            try:
                then(result)
            finally:
                done.set()

        for each in (*first, (change, last)):
            self._runner.change(*each)
        while not done.wait(END_CHECK_SECONDS):
            if not self._thread.is_alive():
                raise ShuttingDown("the host is shutting down", hint=["try again after it has restarted"])

    def _run(self) -> None:
        try:
            while not self._ending:
                # Clear the signal before the step, so that work submitted during the step causes another step.
                self._signal.clear()
                pause = self._runner.step()
                if pause != 0.0:
                    self._signal.wait(pause)
        except BaseException as error:
            self._fatal(error)
            raise


class MonitorThread:
    """A thread that calls `check` immediately, and then every `seconds` until `stop`. It logs errors of `check`."""

    def __init__(self, seconds: float, check: Callable[[], None], log: logging.Logger) -> None:
        self._seconds = seconds
        self._check = check
        self._log = log
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="paglets-monitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._check()
            except Exception:
                self._log.exception("internal error in the data directory monitor")
            self._ended.wait(self._seconds)


class BackgroundWorker:
    """A thread that runs slow, non-urgent tasks in the order of submission. It logs their errors."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="paglets-background", daemon=True)
        self._thread.start()

    def __call__(self, task: Callable[[], None]) -> None:
        self._tasks.put(task)

    def stop(self) -> None:
        """End the thread after all submitted tasks."""
        self._tasks.put(None)
        self._thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except Exception:
                self._log.exception("internal error in a background task")
