"""Removes bytes that are over: artifacts at their end, sources of files that have moved, blobs nobody needs."""

from __future__ import annotations

from paglets.host.blobs import BlobKeeper
from paglets.host.shell import Shell
from paglets.store import artifacts, files
from paglets.store.files import Removal

COLLECT_SECONDS = 60.0
COLLECTS_A_PIN = 4
"""At least so often while a promise lasts."""

NEXT_TURN_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 3600.0
"""An end of an artifact is a wall clock time, and that clock may be set."""

EXPIRE_A_TURN = 500
REMOVALS_A_TURN = 100


class Disposal:
    """Part `disposal`."""

    name = "disposal"

    def __init__(self, shell: Shell, keeper: BlobKeeper) -> None:
        self._shell = shell
        self._keeper = keeper
        self._collect_seconds = min(COLLECT_SECONDS, shell.settings.blob_pin_seconds / COLLECTS_A_PIN)
        self._collect_at = 0.0
        self._sweep_at = 0.0

    def tick(self, now: float) -> float | None:
        self._remove_sources()
        wall = self._shell.clock.wall()
        if self._shell.store.read(artifacts.next_end) is not None:
            self._shell.store.write(lambda tx: artifacts.expire(tx, wall, EXPIRE_A_TURN))
        if now >= self._collect_at:
            more = self._keeper.collect()
            self._collect_at = now + (NEXT_TURN_SECONDS if more else self._collect_seconds)
        if now >= self._sweep_at:
            self._sweep_at = now + self._shell.settings.blob_pin_seconds
            self._shell.disk.later(self._keeper.sweep)
        return min(self._collect_at, self._next_end(now, wall))

    def _next_end(self, now: float, wall: float) -> float:
        end = self._shell.store.read(artifacts.next_end)
        return now + LONGEST_WAIT_SECONDS if end is None else now + min(LONGEST_WAIT_SECONDS, max(0.1, end - wall))

    def _remove_sources(self) -> None:
        """Each is gone, or is no longer what was registered: either way it is done with."""
        found = self._shell.store.read(lambda tx: files.removals(tx, REMOVALS_A_TURN))
        for removal in found:
            self._remove(removal)
        if found:
            self._shell.store.write(lambda tx: files.removed(tx, [removal.number for removal in found]))
            self._shell.runner.wake(self.name)

    def _remove(self, removal: Removal) -> None:
        problem = self._shell.disk.remove_source(removal)
        if problem:
            self._shell.log(f"{removal.path} has moved with its paglet and stays here: {problem}")
