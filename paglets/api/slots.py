"""Requests and replies of the routes for the scheduler and jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paglets.core.refs import HostRef
from paglets.slots.model import Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The resources that an attempt has on its host: ids of cores and GPUs, and bytes. `granted_at`: epoch seconds."""

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
    """The maximum resource use during an attempt. `cpu_seconds` is the total of all processes."""

    cpu_seconds: float = 0.0
    rss_bytes: int = 0
    scratch_bytes: int = 0
    processes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job on one host. Durations are measured by the host's clock. `never`: True if waiting is useless."""

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
    """The offered and free resources of a host, and its jobs: `GET /v1/slots?limit=N`.

    `jobs`: at most N jobs, sorted by status (running first), then by age. `all_jobs`: the number of all jobs.
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
    """A request for the hosts that could run a job submitted on the receiver: `POST /v1/slots/candidates`."""

    request: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementCandidate:
    """A host in a placement preview. `eligible`: it can run the job, now or later. `never`: it will never be able to.

    `reason`, `reason_text`: why it is not eligible, or why the job would wait. `rank`: 1 for the best eligible host.
    """

    host: HostRef
    eligible: bool
    never: bool
    reason: str
    reason_text: str
    rank: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementPreview:
    """The reply to `PreviewPlacement`: all known hosts, eligible ones first, sorted by rank."""

    verdicts: tuple[PlacementCandidate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Steal:
    """A request for waiting jobs: `POST /v1/slots/steal`.

    `thief`: the sender. For at most 10 s, it asks no other host for jobs. `most_jobs`: the maximum number of jobs to
    send.
    """

    thief: HostRef
    free: Resources
    most_jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stolen:
    """The reply to `Steal`: ids of the jobs that the receiver will send to the thief by hand-off."""

    agent_ids: tuple[str, ...]
