"""Remove scratch directories and logs that are no longer needed, and rows of paglets that left long ago."""

from __future__ import annotations

from functools import partial

from paglets.host.datadir.disk import CLOSED_SECONDS, is_unusable
from paglets.host.records.attempts import all_at_work
from paglets.host.records.lifecycle import expire_failed_hooks
from paglets.host.records.recovery import stale_scratch
from paglets.host.runtime.services import HostServices
from paglets.store import kept_scratch, residence
from paglets.worker.protocol import KEPT_DAYS

LOOK_SECONDS = 300.0
FORGET_SECONDS = 30 * 86400.0
"""Seconds for which the row of a paglet that left is kept, to redirect requests. A laptop may sleep for weeks."""

FORGET_ROWS = 1_000

KEEP_SCRATCH_SECONDS = KEPT_DAYS * 86400.0
KEEP_SCRATCH_SHARE = 0.1
"""Share of the disk for all scratch directories that are kept for people. The oldest are removed first."""

KEEP_LOG_BYTES = 1 << 30
"""The maximum bytes of kept job logs. Logs of running attempts are never removed."""

KEEP_LOG_ATTEMPTS = 10_000
"""Attempts with kept logs. Each takes a folder and up to two files, which each check reads."""

TRIM_SECONDS = 60.0
"""Seconds between two checks of the logs, however many attempts end: a check takes time for each kept attempt."""


class Cleanup:
    """The part `cleanup`: compares the directories on the disk with the paglets that need one."""

    name = "cleanup"

    def __init__(self, services: HostServices) -> None:
        self._services = services
        self._forget_at = 0.0
        self._trim_at = 0.0

    def tick(self, now: float) -> float | None:
        if is_unusable(self._services.disk):
            return now + CLOSED_SECONDS
        if now >= self._forget_at:
            self._give_up_kept()
        there = self._services.disk.scratch_ids()
        for agent_id in self._services.store.read(lambda tx: stale_scratch(tx, there)):
            self._services.disk.discard(agent_id)
        if now >= self._forget_at:
            self._forget_at = now + LOOK_SECONDS
            before = self._services.clock.wall() - FORGET_SECONDS
            self._services.store.write(lambda tx: residence.forget(tx, before, FORGET_ROWS))
            self._services.store.write(
                lambda tx: expire_failed_hooks(tx, self._services.clock.wall(), self._services.own)
            )
        if now >= self._trim_at:
            self._trim_at = now + TRIM_SECONDS
            at_work = partial(self._services.store.read, all_at_work)
            self._services.disk.trim_logs(KEEP_LOG_BYTES, KEEP_LOG_ATTEMPTS, at_work)
        return now + LOOK_SECONDS

    def _give_up_kept(self) -> None:
        """Give up scratch directories that were kept long enough or take too much room. The next tick removes them."""
        store, wall = self._services.store, self._services.clock.wall()
        store.write(lambda tx: kept_scratch.expire(tx, wall - KEEP_SCRATCH_SECONDS, wall))
        if there := store.read(kept_scratch.newest_first):
            self._services.disk.bound_scratch(
                there, KEEP_SCRATCH_SHARE, lambda ids: store.write(lambda tx: kept_scratch.release(tx, ids, wall))
            )
