"""Place each job that was submitted or resubmitted on this host, as soon as some host is eligible."""

from __future__ import annotations

from collections.abc import Callable

from paglets.api.slots import PlacementCandidate, PlacementPreview
from paglets.host.records import outcomes
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.slots import policy, states
from paglets.slots.model import Candidate, SlotRequest
from paglets.store import handoffs, queue, residence
from paglets.store import jobs as jobs_of_store
from paglets.store.db import Tx
from paglets.store.queue import QueuedJob

AVOID_SECONDS = 600.0
"""Seconds for which a job avoids a host after a rollback or a full disk, while another host is eligible."""


class PlacementDenyList:
    """The hosts that each job avoids after a rollback or a full disk, and the pauses before jobs are placed again.

    All methods run on the runner's thread.
    """

    def __init__(self) -> None:
        self._until: dict[str, dict[str, float]] = {}
        self._paused: dict[str, float] = {}

    def avoid(self, agent_id: str, store_id: str, now: float) -> None:
        """Make the job avoid the host for AVOID_SECONDS."""
        self._until.setdefault(agent_id, {})[store_id] = now + AVOID_SECONDS

    def by(self, agent_id: str, now: float) -> frozenset[str]:
        """Return the store ids of the hosts that this job avoids while another host is eligible."""
        return frozenset(store_id for store_id, end in self._until.get(agent_id, {}).items() if end > now)

    def pause(self, agent_id: str, until: float) -> None:
        """Do not place this job before the monotonic time `until`."""
        self._paused[agent_id] = until

    def is_paused(self, agent_id: str, now: float) -> bool:
        return self._paused.get(agent_id, now) > now

    def next_end(self, now: float) -> float:
        """Return the time at which the first pause ends, or infinity if no job is paused."""
        return min((end for end in self._paused.values() if end > now), default=float("inf"))

    def forget(self, now: float) -> None:
        """Remove entries and pauses that have expired."""
        self._paused = {agent_id: end for agent_id, end in self._paused.items() if end > now}
        self._until = {
            agent_id: ends for agent_id, ends in self._until.items() if any(end > now for end in ends.values())
        }


JOBS_A_TURN = 2_000
"""The maximum number of jobs that a turn reads if the last turn placed none, to get past jobs that fit no host.

The limit keeps transactions short. Other turns read only as many jobs as they can place.
"""

PLACED_A_TURN = 200
"""The maximum number of jobs placed in one turn. Writing the envelope of one job takes about 0.5 ms."""

PLACED_FIRST = 32
"""The maximum number of jobs placed in the first turn, or in the COMMIT that stores them.

The hosts get these jobs early, and start them while the next turn places more.
"""

NEXT_TURN_SECONDS = 0.2
"""Seconds between two turns that place nothing, so that jobs behind thousands that fit no host are reached soon."""

LOOK_AGAIN_SECONDS = 5.0

FORGET_SECONDS = 60.0
"""Seconds between two cleanups, which drop the waiting times of jobs that are no longer in PLACING."""


class Placer:
    """The runner part `placer`, which chooses hosts for jobs."""

    name = "placer"

    def __init__(
        self,
        services: HostServices,
        gossip: Gossiper,
        deny_list: PlacementDenyList,
        older_goes_on: Callable[[QueuedJob], bool],
    ) -> None:
        self._services = services
        self._older_goes_on = older_goes_on
        self._deny_list = deny_list
        self._gossip = gossip
        self._since: dict[str, float] = {}
        self._first_expiry = float("inf")
        self._after = queue.FIRST
        self._most = PLACED_FIRST
        self._passes_by = False
        self._forget_at = 0.0

    def tick(self, now: float) -> float | None:
        placing = self._services.store.read(lambda tx: queue.has_more_than(tx, 0, "PLACING"))
        if now >= self._forget_at or not placing:
            self._forget_at = now + FORGET_SECONDS
            self._forget_ended()
        if not placing:
            self._most, self._passes_by = PLACED_FIRST, False
            return None
        candidates = self._gossip.candidates()
        began = self._after
        placed, left, self._after = self._services.store.write(lambda tx: self._place(tx, candidates, began))
        self._passes_by = not placed
        if placed:
            self._most = PLACED_A_TURN
            self._services.runner.wake(self.name)
            return now
        if self._after != queue.FIRST:
            return now + NEXT_TURN_SECONDS
        if left or began != queue.FIRST:
            return min(now + LOOK_AGAIN_SECONDS, self._first_expiry)
        pause_end = self._deny_list.next_end(now)
        return pause_end if pause_end < float("inf") else None

    def join(self, tx: Tx) -> None:
        """Place jobs in the COMMIT that stores them, if at most PLACED_FIRST jobs have no host."""
        if not queue.has_more_than(tx, PLACED_FIRST, "PLACING"):
            self._place(tx, self._gossip.candidates(), queue.FIRST)

    def joined(self, value: None) -> None:
        """Do nothing: `tick` handles the jobs that were not placed."""

    def _forget_ended(self) -> None:
        """Drop the waiting times of jobs that no longer wait for a placement."""
        if not self._since:
            return
        left = self._services.store.read(lambda tx: queue.with_status(tx, "PLACING", self._since))
        self._since = {agent_id: self._since[agent_id] for agent_id in left}

    def _place(self, tx: Tx, candidates: tuple[Candidate, ...], began: queue.Place) -> tuple[int, int, queue.Place]:
        """Place a batch of jobs. Return how many were placed, how many fit no host, and where the next turn starts."""
        now = self._services.clock.wall()
        found, after = queue.unplaced(tx, JOBS_A_TURN if self._passes_by else self._most, began)
        jobs = self._expire(tx, found, now)
        clock = self._services.clock.monotonic()
        to_place = [self._to_place(job) for job in jobs if not self._deny_list.is_paused(job.agent_id, clock)]
        placements = policy.place(to_place, candidates, mesh_version=self._services.settings.mesh_version)
        fit = [job for job in jobs if job.agent_id in placements.hosts]
        moving = handoffs.small_collectors(tx)
        # While a small collector moves (SMALL_COLLECTOR_BYTES), place jobs of that group only on its target host.
        # A job elsewhere could end before the collector has arrived, and the report would have to wait.
        fit = [job for job in fit if moving.get(job.group_id or "") in (None, placements.hosts[job.agent_id].store_id)]
        placed = fit[: self._most]
        if len(placed) < len(fit):
            after = (placed[-1].queued_at, placed[-1].agent_id)
        self._carry_out(tx, placements, [job.agent_id for job in placed], now)
        return len(placed), len(placements.reasons), after

    def _carry_out(self, tx: Tx, placements: policy.Placements, placed: list[str], now: float) -> None:
        for agent_id, reason in placements.reasons.items():
            queue.set_reason(tx, agent_id, reason.code, reason.text, reason.never, now)
        for agent_id in placed:
            host = placements.hosts[agent_id]
            self._since.pop(agent_id, None)
            queue.move(tx, agent_id, "PLACING", states.move("PLACING", "queued"))
            if host.store_id != self._services.own.store_id:
                residence.leave(tx, agent_id, host, now)

    def _to_place(self, job: QueuedJob) -> policy.UnplacedJob:
        avoided = self._deny_list.by(job.agent_id, self._services.clock.monotonic())
        return policy.UnplacedJob(
            agent_id=job.agent_id, request=job.request, home_store_id=job.home_store, avoided=avoided
        )

    def _expire(self, tx: Tx, jobs: list[QueuedJob], now: float) -> list[QueuedJob]:
        """Fail jobs that exceed their `placement_timeout_seconds`. Return the others.

        A resubmitted copy does not fail while an older copy of the job still runs.
        """
        left = []
        waited = self._waited(jobs, now)
        clock = self._services.clock.monotonic()
        limits = {job.agent_id: job.request.placement_timeout_seconds for job in jobs}
        still = (clock + limits[agent_id] - seconds for agent_id, seconds in waited.items())
        self._first_expiry = min((at for at in still if at > clock), default=float("inf"))
        for job in jobs:
            limit = job.request.placement_timeout_seconds
            if limit and waited[job.agent_id] >= limit and not self._older_goes_on(job):
                del self._since[job.agent_id]
                why = jobs_of_store.reason_text(tx, job.agent_id)
                text = f"no host within placement_timeout_seconds = {limit:g}: {why}"
                outcomes.fail_waiting(tx, job.agent_id, "placement_timeout", text, self._services.own, now)
            else:
                left.append(job)
        return left

    def _waited(self, jobs: list[QueuedJob], now: float) -> dict[str, float]:
        """Return how many seconds each job with a timeout has waited, by the monotonic clock."""
        clock = self._services.clock.monotonic()
        bounded = {job.agent_id: job for job in jobs if job.request.placement_timeout_seconds}
        for agent_id, job in bounded.items():
            self._since.setdefault(agent_id, clock - max(0.0, now - job.queued_at))
        return {agent_id: clock - self._since[agent_id] for agent_id in bounded}


def preview_placement(known: tuple[Candidate, ...], request: SlotRequest, own: str, version: str) -> PlacementPreview:
    """Return a verdict for each known host. Eligible hosts come first, in the order of their rank."""
    judged = [(each, policy.judge(request, each, home_store_id=own, mesh_version=version)) for each in known]
    ranked = policy.rank(request, [each for each, judgement in judged if judgement.eligible])
    order = {each.host.store_id: number for number, each in enumerate(ranked, start=1)}
    found = [_verdict(each, judgement, order.get(each.host.store_id)) for each, judgement in judged]
    return PlacementPreview(
        verdicts=tuple(sorted(found, key=lambda v: (v.rank is None, v.rank or 0, v.never, v.host.name)))
    )


def _verdict(candidate: Candidate, judgement: policy.Judgement, rank: int | None) -> PlacementCandidate:
    return PlacementCandidate(
        host=candidate.host,
        eligible=judgement.eligible,
        never=judgement.never,
        reason=judgement.reason,
        reason_text=judgement.text,
        rank=rank,
    )
