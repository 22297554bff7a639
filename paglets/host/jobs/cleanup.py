"""Removes what nobody needs any more: scratch directories, and rows of paglets that are long gone."""

from __future__ import annotations

from functools import partial

from paglets.host.datadir.disk import CLOSED_SECONDS, is_closed
from paglets.host.records.attempts import all_at_work
from paglets.host.records.hooks import end_held
from paglets.host.records.recovery import stale_scratch
from paglets.host.runtime.shell import Shell
from paglets.store import kept, residence
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

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._forget_at = 0.0
        self._trim_at = 0.0

    def tick(self, now: float) -> float | None:
        if is_closed(self._shell.disk):
            return now + CLOSED_SECONDS
        if now >= self._forget_at:
            self._give_up_kept()
        there = self._shell.disk.left_over()
        for agent_id in self._shell.store.read(lambda tx: stale_scratch(tx, there)):
            self._shell.disk.discard(agent_id)
        if now >= self._forget_at:
            self._forget_at = now + LOOK_SECONDS
            before = self._shell.clock.wall() - FORGET_SECONDS
            self._shell.store.write(lambda tx: residence.forget(tx, before, FORGET_ROWS))
            self._shell.store.write(lambda tx: end_held(tx, self._shell.clock.wall(), self._shell.own))
        if now >= self._trim_at:
            self._trim_at = now + TRIM_SECONDS
            at_work = partial(self._shell.store.read, all_at_work)
            self._shell.disk.trim_logs(KEEP_LOG_BYTES, KEEP_LOG_ATTEMPTS, at_work)
        return now + LOOK_SECONDS

    def _give_up_kept(self) -> None:
        """Scratch directories that were kept long enough, or that take too much room: the next tick removes them."""
        store, wall = self._shell.store, self._shell.clock.wall()
        store.write(lambda tx: kept.expire(tx, wall - KEEP_SCRATCH_SECONDS, wall))
        if there := store.read(kept.newest_first):
            self._shell.disk.bound_scratch(
                there, KEEP_SCRATCH_SHARE, lambda ids: store.write(lambda tx: kept.give_up(tx, ids, wall))
            )
