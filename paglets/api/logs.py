"""Records of the routes about logs and attempts of jobs."""

from __future__ import annotations

from dataclasses import dataclass

from paglets.core.refs import HostRef

MAX_LOG_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class AskAttempts:
    """A request for the attempts of a job: `POST /v1/jobs/attempts`. `job`: GROUP/KEY, or the id of a paglet."""

    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptView:
    """An attempt that ran or runs on `host`.

    `ended`: no process of it is left. `status`: RUNNING, or the status of the job after the attempt (with
    WAITING_FOR_SLOT or PLACING it is retried), or "" if only its log is left. `cause`: why it ended without a result.
    `remark`: more about its end. `kept`: its log exists, or it printed nothing. `scratch`: the scratch directory that
    was kept because the result could not be sent. `scratch_removed_at`: epoch seconds, null while it exists.
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
    """An unfinished copy of the job on this host, and the reason why it waits."""

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
    """The attempts of a job that one host knows, in order, and its unfinished copies."""

    attempts: tuple[AttemptView, ...]
    unfinished: tuple[UnfinishedJob, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPiece:
    """A piece of a log: `GET /v1/jobs/ID/log?generation=&attempt=&stream=out|err&offset=&limit=`.

    `data`: base64. `offset`: the start of the piece, later than requested if earlier bytes were deleted. `next`: the
    offset of the next piece. `size_bytes`: the bytes printed so far. `ended`: the attempt had ended before the log was
    read. If `next` then equals `size_bytes`, no more bytes follow.
    """

    offset: int
    data: str
    next: int
    size_bytes: int
    ended: bool
