"""The threads behind the runner: its loop, and one that does what may take time; and locks by name."""

from __future__ import annotations

import queue
import threading
import traceback
import zlib
from collections.abc import Callable

from paglets.host.runner import Log, Runner

JOIN_SECONDS = 10.0
LOCKS = 64


class KeyedLocks:
    """A lock for each key; some keys share one. They may be taken again by the thread that has them."""

    def __init__(self) -> None:
        self._locks = tuple(threading.RLock() for _ in range(LOCKS))

    def of(self, key: str) -> threading.RLock:
        # Not `hash`, which is another one in each process: a simulation is to go the same way each time.
        return self._locks[zlib.crc32(key.encode()) % LOCKS]


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


class Later:
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
