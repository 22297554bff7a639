"""Requests and replies of the service `compute-slots` that every host offers to paglets.

Flat on purpose: the host writes these by hand as tagged trees, so fields are plain JSON values. The
objects within are the records of `paglets.api` (`JobView`, `PlacementCandidate`) as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SERVICE_NAME = "compute-slots"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotsStatusRequest:
    """`status`: the scheduler of the host. At most `limit` jobs are shown, oldest first."""

    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotsStatusReply:
    """Amounts are objects with `cpu_cores`, `memory_bytes`, `temp_storage_bytes`, `gpus`; `jobs` are JobViews."""

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
    """`candidates`: which hosts could run this `slots.model.SlotRequest`, submitted from the host asked?"""

    request: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidatesReply:
    """`verdicts` are `api.PlacementCandidate` records, the best host first."""

    verdicts: list[dict[str, Any]]
