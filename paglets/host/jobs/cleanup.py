"""Removes what nobody needs any more: scratch directories, and rows of paglets that are long gone."""

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
"""How long a paglet that left can be asked for here; a laptop may sleep for weeks."""

FORGET_ROWS = 1_000

KEEP_SCRATCH_SECONDS = KEPT_DAYS * 86400.0
KEEP_SCRATCH_SHARE = 0.1
"""Of the disk, for all directories that are kept for people; the oldest go first."""

KEEP_LOG_BYTES = 1 << 30
"""Of all that jobs printed here; the logs of attempts at work are kept whatever they take."""

KEEP_LOG_ATTEMPTS = 10_000
"""Of all attempts that printed something: each takes a folder and up to two files, which a look reads."""

TRIM_SECONDS = 60.0
"""Between two looks at the logs, however many attempts end: a look takes a moment for each that is kept."""


class Cleanup:
    """Part `cleanup`: compares the directories that are there with the paglets that need one."""

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
        """Scratch directories that were kept long enough, or that take too much room: the next tick removes them."""
        store, wall = self._services.store, self._services.clock.wall()
        store.write(lambda tx: kept_scratch.expire(tx, wall - KEEP_SCRATCH_SECONDS, wall))
        if there := store.read(kept_scratch.newest_first):
            self._services.disk.bound_scratch(
                there, KEEP_SCRATCH_SHARE, lambda ids: store.write(lambda tx: kept_scratch.release(tx, ids, wall))
            )
