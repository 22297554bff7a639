"""Records of warm workers and their jobs on the host's side, and decisions about their ends as pure functions."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from paglets.api.slots import Usage
from paglets.worker.launch import IDLE_SECONDS, LaunchSpec, ProcessExit, WorkerKey
from paglets.worker.worker_protocol import Began, JobEnded, Withdrawn, WorkerRecord


@dataclass(slots=True, kw_only=True, eq=False)
class WorkerJob:
    """A run in a worker. `over`: the frame `ended` of the run; None until it arrives.

    `go`: the packed frame `go`; empty until the host sends it. `is_sent`: True once `go` was sent to the worker.
    `is_withdrawn`: True once `withdraw` was sent. `is_ending`: True once the end of the run was requested.
    `output_ended`: True once the log is complete. `began_at`: the monotonic time at which `began` arrived.
    """

    spec: LaunchSpec
    go: bytes = b""
    is_sent: bool = False
    is_withdrawn: bool = False
    has_started: bool = False
    is_ending: bool = False
    output_ended: bool = False
    over: JobEnded | None = None
    cpu_before: float = 0.0
    began_at: float | None = None
    worker_ended: str = ""
    usage: Usage = field(default_factory=Usage)

    @property
    def token(self) -> str:
        return self.spec.token


@dataclass(slots=True, kw_only=True, eq=False)
class Worker:
    """A worker. `pid`: None until its process has started. `is_stored`: True once the host has stored the process.

    `jobs`: in the order in which the process runs them. `held`: frames to handle after the output of the previous job
    is complete. `has_worked`: True once a job started. `idle_since`: the monotonic time when it ran out of jobs.
    `kill_at`: the time to end it if it has not exited. `killed_for`: the token of the job whose requested end made the
    host end the worker; "" if there is none.
    """

    key: WorkerKey
    token: str
    pid: int | None = None
    start_time: float = 0.0
    is_stored: bool = False
    jobs: list[WorkerJob] = field(default_factory=list)
    held: deque[dict[str, Any]] = field(default_factory=deque)
    has_worked: bool = False
    is_ending: bool = False
    idle_since: float | None = None
    kill_at: float | None = None
    killed_for: str = ""

    @property
    def is_idle(self) -> bool:
        return self.idle_since is not None and not self.is_ending

    @property
    def current(self) -> WorkerJob | None:
        """Return the job that runs, if any."""
        return next((job for job in self.jobs if job.has_started and job.over is None), None)

    @property
    def waits_for_output(self) -> bool:
        return any(job.over is not None and not job.output_ended for job in self.jobs)


NOT_STARTED = "its warm worker did not start it"


def charged(worker: Worker) -> WorkerJob | None:
    """Return the job that counts as the cause of the end of a worker; None if no job does.

    If a worker ends before its very first job begins, that job is the cause, as if it had a process of its own. If the
    host ended the worker to end one job, but that job had ended before, no later job is the cause.
    """
    job = worker.current or (worker.jobs[0] if worker.jobs and not worker.has_worked else None)
    return None if job is None or worker.killed_for not in ("", job.token) else job


def is_in_order(worker: Worker, job: WorkerJob, record: WorkerRecord | None) -> bool:
    """Return True if a worker may send this frame about a job now. `record`: None if the frame is a request.

    The code of a job can write to the socket of its worker, so it could forge frames about later jobs.
    """
    if record is None:
        return job.has_started
    if isinstance(record, Began):
        return job.is_sent and not job.has_started and worker.current is None
    if isinstance(record, Withdrawn):
        return job.is_sent and not job.has_started
    return job is worker.current


def follower(worker: Worker) -> str:
    """Return the token of the job that gets the slot of a worker after its first job was removed; "" if none does."""
    job = worker.jobs[0] if worker.jobs else None
    if job is None or (worker.is_ending and job.over is None and not (job.has_started and job is charged(worker))):
        return ""
    return job.token


def due(worker: Worker) -> float | None:
    if worker.kill_at is not None:
        return worker.kill_at
    return worker.idle_since + IDLE_SECONDS if worker.is_idle and worker.idle_since is not None else None


def not_started(how: ProcessExit) -> ProcessExit:
    """Return the end of a job that its worker did not begin. This end counts neither as an attempt nor as a loss."""
    return ProcessExit(error=how.error or NOT_STARTED, launcher_lost=True)
