"""Which host gets which job: ranking for one request, and the assignment of many jobs at once."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace

from paglets.core.refs import HostRef
from paglets.slots.eligibility import Reason, judge, placement_problem
from paglets.slots.model import FIELDS, Candidate, PlacementRules, Resources, SlotRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class UnplacedJob:
    """A job that looks for a host. `home_store_id` is its home, which need not be this host.

    `avoided`: hosts, by store id, that did not take it a while ago: they are the last choice.
    """

    agent_id: str
    request: SlotRequest
    home_store_id: str
    avoided: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Placements:
    """A host or a reason for each job (by agent id)."""

    hosts: dict[str, HostRef]
    reasons: dict[str, Reason]


def preferred_matches(rules: PlacementRules, candidate: Candidate) -> int:
    """How many of the preferred tags the host has."""
    return sum(tag in candidate.tags for tag in rules.preferred_tags)


def units(wanted: Resources, there: Resources) -> int:
    """How many requests of that size `there` has room for."""
    return min((getattr(there, name) // amount for name in FIELDS if (amount := getattr(wanted, name))), default=0)


def load(candidate: Candidate) -> float:
    """Jobs that run or wait there, for each core it offers."""
    return (candidate.running_jobs + candidate.queued_jobs) / max(1, candidate.offered.cpu_cores)


def rank(request: SlotRequest, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Eligible `candidates`, the best first: preferred tags, free capacity now, load, name."""
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
    """A host while jobs are handed out: what is still free, and how many wait there."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.free = candidate.free
        self.backlog = candidate.queued_jobs
        self.load = load(candidate)

    def give(self, resources: Resources, started: int, waiting: int) -> None:
        self.free = self.free - Resources(**{name: getattr(resources, name) * started for name in FIELDS})
        self.backlog += waiting


class _Share:
    """One host's part of a batch of equal requests. `key()` says how good the next place there is.

    While there is room now, hosts fill in proportion to it; after that, they queue in proportion to
    what they offer, counting what waits there already.
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


_Wish = tuple[PlacementRules, str, frozenset[str]]
"""What jobs have in common that may go to the same hosts: rules, home, hosts to avoid."""


def place(jobs: Sequence[UnplacedJob], candidates: Sequence[Candidate], *, mesh_version: str) -> Placements:
    """A host for every job, or why there is none. Deterministic; jobs oldest first.

    Jobs that ask for the same are handed out together over a heap of hosts, and each host is judged
    once for each different set of rules: one heap step for each job, one look at each host for each
    different amount of resources.
    """
    seats = [_Seat(candidate) for candidate in candidates]
    tiers: dict[_Wish, list[list[_Seat]]] = {}
    batches: dict[tuple[_Wish, Resources], list[UnplacedJob]] = {}
    for job in jobs:
        batches.setdefault(((job.request.rules, job.home_store_id, job.avoided), job.request.resources), []).append(job)
    hosts: dict[str, HostRef] = {}
    reasons: dict[str, Reason] = {}
    for (wish, resources), batch in batches.items():
        if wish not in tiers:
            tiers[wish] = _tiers(batch[0], seats, mesh_version)
        fit = _fitting(tiers[wish], resources)
        if fit:
            hosts.update(_hand_out(batch, fit))
        else:
            reason = _why_nowhere(batch[0], candidates, mesh_version)
            reasons.update((job.agent_id, reason) for job in batch)
    return Placements(hosts=hosts, reasons=reasons)


def _tiers(job: UnplacedJob, seats: Sequence[_Seat], mesh_version: str) -> list[list[_Seat]]:
    """Hosts that the rules allow, whatever the size: those with the most preferred tags first, avoided ones last."""
    rules_only = replace(job.request, resources=Resources())
    tiers: dict[tuple[bool, int], list[_Seat]] = {}
    for seat in seats:
        judgement = judge(rules_only, seat.candidate, home_store_id=job.home_store_id, mesh_version=mesh_version)
        if judgement.eligible:
            is_avoided = seat.candidate.host.store_id in job.avoided
            tiers.setdefault((is_avoided, -preferred_matches(job.request.rules, seat.candidate)), []).append(seat)
    return [tiers[place] for place in sorted(tiers)]


def _fitting(tiers: Sequence[Sequence[_Seat]], resources: Resources) -> list[_Seat]:
    """Of the best tier where the request can ever fit, the hosts where it can."""
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
    assert reason is not None, "rules and size together are what judge() looks at"
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
