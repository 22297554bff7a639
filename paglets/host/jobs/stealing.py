"""Work stealing: an idle host requests waiting jobs from a busy one, which sends them as ordinary hand-offs."""

from __future__ import annotations

from paglets.api.hosts import MeshHost
from paglets.api.slots import Steal, Stolen
from paglets.core.errors import PagletsError
from paglets.host.blobs.pusher import BlobPusher
from paglets.host.jobs.runs import Runs
from paglets.host.jobs.scheduler import Scheduler, as_waiting
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.slots import policy
from paglets.slots.model import Resources
from paglets.store import jobs, paglets, queue, residence
from paglets.store.db import Tx
from paglets.wire.request import Request, Response, dump_json, parsed

PROMISE_SECONDS = 10.0
"""The maximum seconds for which this host waits for the jobs of a host before it asks another one.

Otherwise it could get jobs from two hosts for the same free cores.
"""

PAUSE_SECONDS = 2.0
ANSWER_SECONDS = 5.0
WINDOW_JOBS = 1_000


class WorkStealing:
    """The runner part `stealing`, which requests jobs from other hosts and answers such requests."""

    name = "stealing"

    def __init__(
        self, services: HostServices, gossip: Gossiper, scheduler: Scheduler, runs: Runs, blob_pusher: BlobPusher
    ) -> None:
        self._services = services
        self._blob_pusher = blob_pusher
        self._gossip = gossip
        self._scheduler = scheduler
        self._runs = runs
        self._promised_until = 0.0
        self._coming: tuple[str, ...] = ()
        self._asked_at: dict[str, float] = {}

    def tick(self, now: float) -> float | None:
        if now < self._promised_until and not self._has_arrived():
            return self._promised_until
        victim = self._victim(now)
        if victim is None:
            return self._next_look(now)
        free = self._services.store.read(self._free)
        if free is None:
            return None
        self._promised_until = now + PROMISE_SECONDS
        self._coming = ()
        self._asked_at[victim.store_id] = now
        steal = Steal(thief=self._services.own, free=free, most_jobs=free.cpu_cores)
        request = Request(method="POST", target="/v1/slots/steal", body=dump_json(steal))
        self._services.transport.send(victim.ref, request, self._answered, timeout_seconds=ANSWER_SECONDS)
        return self._promised_until

    def _victim(self, now: float) -> MeshHost | None:
        """Return the online host with the most waiting jobs, or None. Skip hosts asked in the last PAUSE_SECONDS."""
        self._asked_at = {store_id: at for store_id, at in self._asked_at.items() if now - at < PAUSE_SECONDS}
        online = self._gossip.online()
        due = [
            mesh_host for mesh_host in online if mesh_host.queued_jobs > 0 and mesh_host.store_id not in self._asked_at
        ]
        return max(due, key=lambda mesh_host: (mesh_host.queued_jobs, mesh_host.store_id), default=None)

    def _next_look(self, now: float) -> float | None:
        """Return the time of the next tick; None if no other host is online.

        This part checks at fixed intervals, because the heartbeats, which carry the queue lengths, do not wake it.
        """
        return now + PAUSE_SECONDS if self._gossip.online() else None

    def _free(self, tx: Tx) -> Resources | None:
        """Return the free resources of this host; None if it has no free core or if local jobs wait for a slot."""
        free = self._scheduler.free_units(tx, self._runs.running()).amounts()
        return None if free.cpu_cores == 0 or queue.has_more_than(tx, 0, "WAITING_FOR_SLOT") else free

    def _answered(self, result: Response | PagletsError) -> None:
        """Store the ids of the jobs that will arrive. If there are none, allow a request to another host at once."""
        try:
            self._coming = parsed(result, Stolen).agent_ids
        except PagletsError:
            self._coming = ()
        if self._coming:
            # The same host probably has more jobs, so it may be asked again once these jobs have slots.
            self._asked_at.clear()
        else:
            self._promised_until = 0.0
        self._services.runner.wake(self.name)

    def _has_arrived(self) -> bool:
        """Return True if all expected jobs have arrived. From then on, the scheduler counts their resources."""
        ids = self._coming
        return bool(ids) and self._services.store.read(lambda tx: all(residence.find(tx, each) for each in ids))

    def hand_over(self, tx: Tx, steal: Steal) -> Stolen:
        """Start the hand-offs of waiting jobs to a host that asked for some. Return their ids."""
        candidates = {each.host.store_id: each for each in self._gossip.candidates()}
        thief, own = candidates.get(steal.thief.store_id), candidates.get(self._services.own.store_id)
        if thief is None or own is None or not thief.online:
            return Stolen(agent_ids=())
        now = self._services.clock.wall()
        free_here = self._scheduler.free_units(tx, self._runs.running())
        chosen = policy.choose_stolen(
            (as_waiting(job, now) for job in queue.waiting_for_slot(tx, WINDOW_JOBS)),
            thief=thief,
            victim=own,
            free=steal.free,
            would_start_next=len(free_here.cores),
            most_jobs=min(steal.most_jobs, WINDOW_JOBS),
            mesh_version=self._services.settings.mesh_version,
        )
        # Exclude jobs whose blobs are still being pushed, because they may start here first. The thief asks again.
        chosen = tuple(each for each in chosen if self._blob_pusher.ready(thief.host, paglets.blobs_here(tx, each)))
        for agent_id in chosen:
            jobs.set_stolen(tx, agent_id)
            residence.leave(tx, agent_id, thief.host, now)
        return Stolen(agent_ids=chosen)
