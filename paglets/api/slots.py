"""Records of the routes about the scheduler, and how a job is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paglets.core.refs import HostRef
from paglets.slots.model import Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """What an attempt holds of its host: ids of cores and GPUs, and bytes. `granted_at`: epoch seconds."""

    agent_id: str
    attempt: int
    generation: int
    cpu_cores: tuple[int, ...]
    gpu_ids: tuple[int, ...]
    memory_bytes: int
    temp_storage_bytes: int
    granted_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Maxima over the life of an attempt; CPU seconds are a total."""

    cpu_seconds: float = 0.0
    rss_bytes: int = 0
    scratch_bytes: int = 0
    processes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job on one host: for `jobs queue`, `jobs ps` and `jobs why`. Durations by that host's clock."""

    agent_id: str
    group_id: str | None
    job_key: str
    generation: int
    attempt: int
    status: str
    residence: str
    reason: str
    reason_text: str
    never: bool
    waited_seconds: float
    running_seconds: float
    request: dict[str, Any]
    lease: Lease | None = None
    pid: int | None = None
    usage: Usage | None = None
    target: HostRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """`GET /v1/slots`: the scheduler of one host. `jobs` is bounded by `?limit=`, running ones first, then the oldest.

    `all_jobs`: how many there are without that bound.
    """

    host: HostRef
    capacity: Resources
    free: Resources
    tags: tuple[str, ...]
    queued_jobs: int
    running_jobs: int
    jobs: tuple[JobView, ...]
    all_jobs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewPlacement:
    """`POST /v1/slots/candidates`: which hosts could run this request, submitted from the receiver?"""

    request: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementCandidate:
    """Of one host: `eligible` (now or later), and why not; `never` when waiting cannot help; `rank` from 1."""

    host: HostRef
    eligible: bool
    never: bool
    reason: str
    reason_text: str
    rank: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementPreview:
    """Of every host known, the eligible ones by rank first."""

    verdicts: tuple[PlacementCandidate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Steal:
    """`POST /v1/slots/steal`: `thief` has this much free and promised to nobody for 10 s."""

    thief: HostRef
    free: Resources
    most_jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stolen:
    """The copies that will come by the ordinary hand-off."""

    agent_ids: tuple[str, ...]
