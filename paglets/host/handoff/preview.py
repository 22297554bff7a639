"""Placement of one request, previewed: a verdict for every host known."""

from __future__ import annotations

from paglets.api.slots import PlacementCandidate, PlacementPreview
from paglets.slots import policy
from paglets.slots.model import Candidate, SlotRequest


def verdicts(known: tuple[Candidate, ...], request: SlotRequest, own: str, version: str) -> PlacementPreview:
    """Of every host known, the eligible ones by rank first."""
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
