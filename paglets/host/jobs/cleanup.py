"""The removal of scratch directories that no paglet needs, of old logs, and of old rows.

Old rows are those of paglets that left this host long ago, and of finished jobs whose failed hook was not rerun.
"""

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
"""Seconds for which the row of a paglet is kept after it left this host, to redirect requests to its new host.

The time is long because a sender, such as a laptop that sleeps, may be offline for weeks.
"""

FORGET_ROWS = 1_000

KEEP_SCRATCH_SECONDS = KEPT_DAYS * 86400.0
KEEP_SCRATCH_SHARE = 0.1
"""The maximum share of the disk for scratch directories kept for inspection by users. The oldest are removed first."""

KEEP_LOG_BYTES = 1 << 30
"""The maximum size of all kept logs, in bytes. Logs of running attempts are never removed."""

KEEP_LOG_ATTEMPTS = 10_000
"""The maximum number of attempts with kept logs. Each check reads a folder and up to two files for each attempt."""

TRIM_SECONDS = 60.0
"""The minimum time between two checks of the logs, in seconds.

The time that a check takes grows with the number of logs.
"""


class Cleanup:
    """The runner part `cleanup`."""

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
        """Release the kept scratch directories that are too old, and the oldest if the rest is too large.

        `tick` then removes them.
        """
        store, wall = self._services.store, self._services.clock.wall()
        store.write(lambda tx: kept_scratch.expire(tx, wall - KEEP_SCRATCH_SECONDS, wall))
        if there := store.read(kept_scratch.newest_first):
            self._services.disk.bound_scratch(
                there, KEEP_SCRATCH_SHARE, lambda ids: store.write(lambda tx: kept_scratch.release(tx, ids, wall))
            )
