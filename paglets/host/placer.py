"""Finds a host for each job that was submitted here, as soon as there is one."""

from __future__ import annotations

from paglets.host import outcomes
from paglets.host.shell import Shell
from paglets.mesh.gossip import Gossip
from paglets.slots import policy, states
from paglets.slots.model import Candidate
from paglets.store import queue, residence
from paglets.store.db import Tx
from paglets.store.queue import QueuedJob

JOBS_A_TURN = 2_000
"""A submission of 100,000 jobs is placed in turns, so that no transaction grows with it."""

LOOK_AGAIN_SECONDS = 5.0


class Placer:
    """Part `placer`."""

    name = "placer"

    def __init__(self, shell: Shell, gossip: Gossip) -> None:
        self._shell = shell
        self._gossip = gossip

    def tick(self, now: float) -> float | None:
        if not self._shell.store.read(lambda tx: queue.count(tx, "PLACING")):
            return None
        candidates = self._gossip.candidates()
        placed, left = self._shell.store.write(lambda tx: self._place(tx, candidates))
        if placed:
            self._shell.runner.wake(self.name)
            return now
        return now + LOOK_AGAIN_SECONDS if left else None

    def _place(self, tx: Tx, candidates: tuple[Candidate, ...]) -> tuple[int, int]:
        now = self._shell.clock.wall()
        jobs = self._expire(tx, queue.to_place(tx, JOBS_A_TURN), now)
        to_place = [policy.ToPlace(agent_id=j.agent_id, request=j.request, home_store_id=j.home_store) for j in jobs]
        placements = policy.place(to_place, candidates, mesh_version=self._shell.settings.mesh_version)
        for agent_id, reason in placements.reasons.items():
            queue.say_why(tx, agent_id, reason.code, reason.text, reason.never, now)
        for agent_id, host in placements.hosts.items():
            queue.move(tx, agent_id, "PLACING", states.move("PLACING", "queued"))
            if host.store_id != self._shell.own.store_id:
                residence.leave(tx, agent_id, host, now)
        return len(placements.hosts), len(placements.reasons)

    def _expire(self, tx: Tx, jobs: list[QueuedJob], now: float) -> list[QueuedJob]:
        """Fail what found no host within its `placement_timeout_seconds`; gives the others."""
        left = []
        for job in jobs:
            limit = job.request.placement_timeout_seconds
            if limit and now - job.queued_at > limit:
                why = tx.value("SELECT reason_text FROM requests WHERE agent_id = ?", job.agent_id)
                text = f"no host within placement_timeout_seconds = {limit:g}: {why}"
                outcomes.fail_waiting(tx, job.agent_id, "placement_timeout", text, self._shell.own, now)
            else:
                left.append(job)
        return left
