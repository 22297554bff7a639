"""The receiver of the launcher's events about templates and warm workers.

It stores the process of each before that process runs user code.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from paglets.core.errors import StoreTransient
from paglets.host.records import templates
from paglets.host.runtime.services import HostServices


class TemplateRecords:
    """The writer of the table `templates`. `allow_import`: as in `launch.Launcher`."""

    def __init__(self, services: HostServices, allow_import: Callable[[str], None]) -> None:
        self._services = services
        self._allow_import = allow_import
        self._alive: set[str] = set()
        self._delayed: dict[str, Callable[[], None]] = {}

    @property
    def count(self) -> int:
        """Return the number of templates and warm workers whose processes have not ended."""
        return len(self._alive)

    # Events of the launcher. It may call these methods from any thread.

    def started(self, token: str, pid: int, start_time: float) -> None:
        self._services.runner.call_soon(partial(self._started, token, pid, start_time))

    def ended(self, token: str) -> None:
        self._services.runner.call_soon(partial(self._ended, token))

    # Handlers of these events. They are called on the runner. After a transient error of the store, they try again to
    # add a row, but not to remove one. A row that was not removed stays until the next start of the host.

    def retry(self) -> None:
        """Try again to store the processes that could not be stored and have not ended since."""
        delayed, self._delayed = self._delayed, {}
        for token, act in delayed.items():
            if token in self._alive:
                act()

    def _started(self, token: str, pid: int, start_time: float) -> None:
        self._alive.add(token)
        self._services.runner.wake("runs")
        self._services.runner.change(
            lambda tx: templates.add(tx, token, pid, start_time),
            lambda result: self._stored(token, result, partial(self._started, token, pid, start_time)),
        )

    def _stored(self, token: str, result: object, again: Callable[[], None]) -> None:
        if isinstance(result, StoreTransient):
            self._delayed[token] = again
            return
        if isinstance(result, BaseException):
            raise result
        self._allow_import(token)

    def _ended(self, token: str) -> None:
        self._alive.discard(token)
        self._services.runner.change(lambda tx: templates.remove(tx, token))
