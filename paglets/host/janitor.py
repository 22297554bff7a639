"""Removes the scratch directories of paglets that ended or left."""

from __future__ import annotations

from paglets.host.recovery import stale_scratch
from paglets.host.shell import Shell

LOOK_SECONDS = 300.0


class Janitor:
    """Part `janitor`: compares the directories that are there with the paglets that need one."""

    name = "janitor"

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def tick(self, now: float) -> float | None:
        there = self._shell.disk.left_over()
        for agent_id in self._shell.store.read(lambda tx: stale_scratch(tx, there)):
            self._shell.disk.discard(agent_id)
        return now + LOOK_SECONDS
