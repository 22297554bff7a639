"""Where a job may run so that its report gets to its collector."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from paglets.mesh import view
from paglets.mesh.gossip import Gossip
from paglets.slots.model import Candidate


def can_report(gossip: Gossip, store_id: str, collector_store: str | None) -> bool:
    """Whether a job on that host can report to its collector's: of two hosts one must be reachable."""
    one, other = gossip.by_store(store_id), gossip.by_store(collector_store or "")
    return one is None or other is None or view.can_speak(one, other)


def in_reach_of(gossip: Gossip, candidates: Iterable[Candidate], collector_store: str | None) -> tuple[Candidate, ...]:
    """The candidates for jobs of that collector: those that could not report to it are out of reach."""
    return tuple(
        each if can_report(gossip, each.host.store_id, collector_store) else replace(each, reachable=False)
        for each in candidates
    )
