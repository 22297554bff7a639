"""The threads behind the runner: its loop, and one that does what may take time; and locks by name."""

from __future__ import annotations

import queue
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from paglets.host.runtime.runner import Log, Runner

JOIN_SECONDS = 10.0


@dataclass(slots=True)
class _Lock:
    """`users`: who has it or waits for it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0


class KeyedLocks:
    """A lock for each key, there as long as somebody has it or waits for it."""

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
    """Runs `runner.step` until `stop`. `fatal` is called with an error that ends the loop."""

    def __init__(self, runner: Runner, fatal: Callable[[BaseException], None]) -> None:
        self._runner = runner
        self._fatal = fatal
        self._signal = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="paglets-runner", daemon=True)
        runner.signal = self._signal.set

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the present step."""
        self._ending = True
        self._signal.set()
        self._thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        try:
            while not self._ending:
                # Cleared before the step: what is handed in during it leads to one more.
                self._signal.clear()
                pause = self._runner.step()
                if pause != 0.0:
                    self._signal.wait(pause)
        except BaseException as error:
            self._fatal(error)
            raise


class MonitorThread:
    """Looks at what the host stands on, now and each so many seconds until `stop`. A look that raises is in the log."""

    def __init__(self, seconds: float, look: Callable[[], None], log: Log) -> None:
        self._seconds = seconds
        self._look = look
        self._log = log
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="paglets-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._look()
            except Exception:
                self._log(f"fault in a look at what this host stands on: {traceback.format_exc()}")
            self._ended.wait(self._seconds)


class BackgroundWorker:
    """One thread for acts that take time and have no hurry, in order."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._acts: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="paglets-later", daemon=True)
        self._thread.start()

    def __call__(self, act: Callable[[], None]) -> None:
        self._acts.put(act)

    def stop(self) -> None:
        """End when all acts are done."""
        self._acts.put(None)
        self._thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        while (act := self._acts.get()) is not None:
            try:
                act()
            except Exception:
                self._log(f"fault in a background act: {traceback.format_exc()}")
