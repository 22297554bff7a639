"""Removes what nobody needs any more: scratch directories, and rows of paglets that are long gone."""

from __future__ import annotations

from paglets.host.attempts import all_at_work
from paglets.host.recovery import stale_scratch
from paglets.host.shell import Disk, Shell
from paglets.store import residence

LOOK_SECONDS = 300.0
FORGET_SECONDS = 30 * 86400.0
"""How long a paglet that left can be asked for here; a laptop may sleep for weeks."""

FORGET_ROWS = 1_000

KEEP_LOG_BYTES = 1 << 30
"""Of all that jobs printed here; the logs of attempts at work are kept whatever they take."""

TRIM_SECONDS = 60.0
"""Between two looks at the logs, however many attempts end: a look takes a moment for each that is kept."""

CLOSED = "disk_closed"
CLOSED_SECONDS = 10.0
"""Between two looks at a folder that is missing or may not be written: until then nothing can be removed either."""


def is_closed(disk: Disk) -> bool:
    obstacle = disk.obstacle()
    return obstacle is not None and obstacle.code == CLOSED


class Janitor:
    """Part `janitor`: compares the directories that are there with the paglets that need one."""

    name = "janitor"

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._forget_at = 0.0
        self._trim_at = 0.0

    def tick(self, now: float) -> float | None:
        if is_closed(self._shell.disk):
            return now + CLOSED_SECONDS
        there = self._shell.disk.left_over()
        for agent_id in self._shell.store.read(lambda tx: stale_scratch(tx, there)):
            self._shell.disk.discard(agent_id)
        if now >= self._forget_at:
            self._forget_at = now + LOOK_SECONDS
            before = self._shell.clock.wall() - FORGET_SECONDS
            self._shell.store.write(lambda tx: residence.forget(tx, before, FORGET_ROWS))
        if now >= self._trim_at:
            self._trim_at = now + TRIM_SECONDS
            self._shell.disk.trim_logs(KEEP_LOG_BYTES, lambda: self._shell.store.read(all_at_work))
        return now + LOOK_SECONDS
