"""Store the reasons why runs are blocked, such as a full disk of the host, so that users see them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from paglets.core.errors import StoreTransient
from paglets.host.records import backpressure
from paglets.host.records.run_repository import Run
from paglets.host.runtime.services import HostServices

REPLACE_SECONDS = 10.0
"""Seconds for which a stored reason is not replaced by another one, because each costs a write."""


class BlockedReasons:
    """The writer of the reasons. `later` runs a function at the next tick."""

    def __init__(self, services: HostServices, later: Callable[[Callable[[], None]], None]) -> None:
        self._services = services
        self._later = later

    def note(self, run: Run, text: str | None) -> None:
        """Store why the run is blocked ("": not blocked, None: unchanged). See REPLACE_SECONDS."""
        now = self._services.clock.monotonic()
        is_news = text is not None and text != run.blocked_by
        if text is None or not is_news or (text and run.blocked_by and now < run.blocked_at + REPLACE_SECONDS):
            return
        run.blocked_by, run.blocked_at = text, now
        self._store(run)

    def _store(self, run: Run) -> None:
        """Store the reason why the run is blocked. Retry while the disk is full, because users need the reason then."""
        self._services.runner.change(
            partial(backpressure.store, run=run, now=self._services.clock.wall()), partial(self._stored, run)
        )

    def _stored(self, run: Run, result: object) -> None:
        if isinstance(result, StoreTransient):
            self._later(partial(self._store, run))
        elif isinstance(result, BaseException):
            raise result
