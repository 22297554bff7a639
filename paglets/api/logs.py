"""Records of the routes about what jobs print."""

from __future__ import annotations

from dataclasses import dataclass

from paglets.core.refs import HostRef

MAX_LOG_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class AskAttempts:
    """`POST /v1/jobs/attempts`: what does the host know of this job? `job`: GROUP/KEY, or the id of a paglet."""

    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptView:
    """An attempt that was or is at work on `host`.

    `ended`: no process of it is left. `status`: RUNNING, or what the job came to with its end (WAITING_FOR_SLOT,
    PLACING: it is tried again), or "" where only its log is left. `cause`: why it ended without a result. `remark`:
    what else there is to say of its end. `kept`: its log is there, so far as it is kept, or it printed nothing.
    `scratch`: the scratch directory that was kept because the result could not travel, until `scratch_removed_at`
    (epoch seconds, null while it is there).
    """

    agent_id: str
    group_id: str | None
    job_key: str
    generation: int
    attempt: int
    status: str
    ended: bool
    kept: bool
    host: HostRef
    runtime_seconds: float | None = None
    cause: str = ""
    remark: str = ""
    scratch: str = ""
    scratch_removed_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedJob:
    """A copy of the job on this host that has not come to its end, and why it waits."""

    agent_id: str
    generation: int
    attempt: int
    status: str
    residence: str
    reason: str
    reason_text: str
    never: bool
    host: HostRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """What one host knows of a job: attempts by generation and attempt, and copies that are not finished."""

    attempts: tuple[AttemptView, ...]
    unfinished: tuple[UnfinishedJob, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPiece:
    """`GET /v1/jobs/ID/log?generation=&attempt=&stream=out|err&offset=&limit=`.

    `data`: base64. `offset`: where it begins: later than asked where bytes are not kept. `next`: where to go on.
    `size_bytes`: how much was printed so far. `ended`: that was looked up before the log was read, so with `next`
    at `size_bytes` nothing will follow.
    """

    offset: int
    data: str
    next: int
    size_bytes: int
    ended: bool
