"""Requests and replies of the service `compute-slots`, which every host offers to paglets.

Fields are plain JSON values, because the host itself writes the records as tagged JSON. Nested objects are records of
`paglets.api.slots` (`JobView`, `PlacementCandidate`) as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SERVICE_NAME = "compute-slots"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotsStatusRequest:
    """The request `status`: show the host's scheduler and at most `limit` jobs, running ones first, then the oldest."""

    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotsStatusReply:
    """The reply to `status`. `capacity` and `free` have the fields of `slots.model.Resources`; `jobs` are JobViews."""

    host_name: str
    host_url: str
    capacity: dict[str, int]
    free: dict[str, int]
    tags: list[str]
    queued_jobs: int
    running_jobs: int
    jobs: list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidatesRequest:
    """The request `candidates`: rank the hosts for a `slots.model.SlotRequest`.

    The ranking is that of a job submitted to the answering host.
    """

    request: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidatesReply:
    """The reply to `candidates`. `verdicts`: a `PlacementCandidate` for each host, the best first."""

    verdicts: list[dict[str, Any]]
