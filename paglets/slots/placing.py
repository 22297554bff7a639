"""The placement of jobs: the ranking of hosts for one request, and the assignment of many jobs to hosts."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace

from paglets.core.refs import HostRef
from paglets.slots.eligibility import Reason, judge, placement_problem
from paglets.slots.model import FIELDS, Candidate, PlacementRules, Resources, SlotRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class UnplacedJob:
    """A job for which a host is to be chosen. `home_store_id`: the store id of its home, which may be another host.

    `avoided`: the store ids of hosts that recently did not take the job. They are the last choice.
    """

    agent_id: str
    request: SlotRequest
    home_store_id: str
    avoided: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Placements:
    """The result of a placement: for each job, by agent id, its host or the reason why it has none."""

    hosts: dict[str, HostRef]
    reasons: dict[str, Reason]


def preferred_matches(rules: PlacementRules, candidate: Candidate) -> int:
    """Return the number of preferred tags that the host has."""
    return sum(tag in candidate.tags for tag in rules.preferred_tags)


def units(wanted: Resources, there: Resources) -> int:
    """Return how many requests of the size `wanted` fit into the resources `there`."""
    return min((getattr(there, name) // amount for name in FIELDS if (amount := getattr(wanted, name))), default=0)


def load(candidate: Candidate) -> float:
    """Return the number of running and waiting jobs of a host per offered core."""
    return (candidate.running_jobs + candidate.queued_jobs) / max(1, candidate.offered.cpu_cores)


def rank(request: SlotRequest, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return `candidates` sorted by preferred tags, free capacity, load and name, best first. All must be eligible."""
    return tuple(
        sorted(
            candidates,
            key=lambda each: (
                -preferred_matches(request.rules, each),
                -units(request.resources, each.free),
                load(each),
                each.host.name,
                each.host.store_id,
            ),
        )
    )


class _Seat:
    """A host during an assignment, with its remaining free resources and its number of waiting jobs."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.free = candidate.free
        self.backlog = candidate.queued_jobs
        self.load = load(candidate)

    def give(self, resources: Resources, started: int, waiting: int) -> None:
        self.free = self.free - Resources(**{name: getattr(resources, name) * started for name in FIELDS})
        self.backlog += waiting


class _Share:
    """The share of one host in a batch of equal requests. The host with the lowest `key()` gets the next job.

    Hosts with free resources get jobs in proportion to the free resources. The remaining jobs are queued so that the
    number of waiting jobs on each host, earlier ones included, is in proportion to the resources that the host offers.
    """

    def __init__(self, seat: _Seat, resources: Resources) -> None:
        self.seat = seat
        self.room = units(resources, seat.free)
        self.offered = max(1, units(resources, seat.candidate.offered))
        self.given = 0

    def key(self) -> tuple[int, float, int, float, str, str]:
        host = self.seat.candidate.host
        has_room = self.given < self.room
        waiting = self.seat.backlog + max(0, self.given - self.room)
        filled = (self.given + 1) / self.room if has_room else (waiting + 1) / self.offered
        return (not has_room, filled, -self.room, self.seat.load, host.name, host.store_id)


_HostRules = tuple[PlacementRules, str, frozenset[str]]
"""The values of a job that decide which hosts may get it: its rules, its home, and its avoided hosts."""


def place(jobs: Sequence[UnplacedJob], candidates: Sequence[Candidate], *, mesh_version: str) -> Placements:
    """Choose hosts for jobs. Jobs that get no host get a reason. Equal arguments give equal results.

    `jobs`: the jobs, oldest first. Jobs with equal requests form a batch. The cost is one pass over the hosts for each
    batch, and one heap operation for each job.
    """
    seats = [_Seat(candidate) for candidate in candidates]
    tiers: dict[_HostRules, list[list[_Seat]]] = {}
    batches: dict[tuple[_HostRules, Resources], list[UnplacedJob]] = {}
    for job in jobs:
        batches.setdefault(((job.request.rules, job.home_store_id, job.avoided), job.request.resources), []).append(job)
    hosts: dict[str, HostRef] = {}
    reasons: dict[str, Reason] = {}
    for (rules, resources), batch in batches.items():
        if rules not in tiers:
            tiers[rules] = _tiers(batch[0], seats, mesh_version)
        fit = _fitting(tiers[rules], resources)
        if fit:
            hosts.update(_hand_out(batch, fit))
        else:
            reason = _why_nowhere(batch[0], candidates, mesh_version)
            reasons.update((job.agent_id, reason) for job in batch)
    return Placements(hosts=hosts, reasons=reasons)


def _tiers(job: UnplacedJob, seats: Sequence[_Seat], mesh_version: str) -> list[list[_Seat]]:
    """Return the hosts that the rules of the job allow, regardless of resources, in groups by preference.

    Hosts with the most preferred tags come first, and avoided hosts come last.
    """
    rules_only = replace(job.request, resources=Resources())
    tiers: dict[tuple[bool, int], list[_Seat]] = {}
    for seat in seats:
        judgement = judge(rules_only, seat.candidate, home_store_id=job.home_store_id, mesh_version=mesh_version)
        if judgement.eligible:
            is_avoided = seat.candidate.host.store_id in job.avoided
            tiers.setdefault((is_avoided, -preferred_matches(job.request.rules, seat.candidate)), []).append(seat)
    return [tiers[place] for place in sorted(tiers)]


def _fitting(tiers: Sequence[Sequence[_Seat]], resources: Resources) -> list[_Seat]:
    """Return the hosts that offer enough resources, all from the first tier that has any such host."""
    for tier in tiers:
        fit = [seat for seat in tier if resources.fits(seat.candidate.offered)]
        if fit:
            return fit
    return []


def _why_nowhere(job: UnplacedJob, candidates: Sequence[Candidate], mesh_version: str) -> Reason:
    reason = placement_problem(
        [
            judge(job.request, candidate, home_store_id=job.home_store_id, mesh_version=mesh_version)
            for candidate in candidates
        ]
    )
    assert reason is not None, "a host that judge() allows is in a tier and fits"
    return reason


def _hand_out(batch: Sequence[UnplacedJob], seats: Sequence[_Seat]) -> dict[str, HostRef]:
    resources = batch[0].request.resources
    heap = [(share.key(), index, share) for index, share in enumerate(_Share(seat, resources) for seat in seats)]
    heapq.heapify(heap)
    hosts: dict[str, HostRef] = {}
    for job in batch:
        _, index, share = heap[0]
        hosts[job.agent_id] = share.seat.candidate.host
        share.given += 1
        heapq.heapreplace(heap, (share.key(), index, share))
    for _, _, share in heap:
        if share.given:
            started = min(share.given, share.room)
            share.seat.give(resources, started, share.given - started)
    return hosts
