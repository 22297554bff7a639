"""A warm worker and its jobs, as its host knows them, and the decisions about their ends. No function here acts."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from paglets.api.slots import Usage
from paglets.worker.launch import LaunchSpec, ProcessExit, WorkerKey
from paglets.worker.worker_protocol import JobEnded

IDLE_SECONDS = 5.0
"""Time after which a worker without a job ends: as long as the process of a paglet waits for its next message."""


@dataclass(slots=True, kw_only=True, eq=False)
class WorkerJob:
    """A run in a worker. `over`: the frame that ended it; its output may still be on its way to the log.

    `is_sent`: True once the worker has its frame `go`. `is_ending`: True once its end was requested. `began_at`: the
    monotonic time at which the worker began it.
    """

    spec: LaunchSpec
    is_sent: bool = False
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
    """A worker. `pid`: None until its process is stored. `jobs`: in the order in which the process runs them.

    `held`: frames that wait because the first job is over, but not its output. `has_worked`: True once a job started.
    `idle_since`: the monotonic time since which it has no job. `kill_at`: the time to end it if it has not exited.
    `killed_for`: the token of the job for whose end the host ended it; "": none.
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


NOT_STARTED = "its warm worker ended before it began"


def charged(worker: Worker) -> WorkerJob | None:
    """Return the job to which the end of the process of a worker is due; None if it is no job's doing.

    A process that ends before its very first job could begin is charged to that job, as a process of its own would be.
    If the host ended the process because of one job, and that job was over meanwhile, the next one is not charged.
    """
    job = worker.current or (worker.jobs[0] if worker.jobs and not worker.has_worked else None)
    return None if job is None or worker.killed_for not in ("", job.token) else job


def follower(worker: Worker) -> str:
    """Return the token of the job that has the slot of a worker after the end of its first job; "" if none has."""
    job = worker.jobs[0] if worker.jobs else None
    if job is None or (worker.is_ending and not (job.has_started and job is charged(worker))):
        return ""
    return job.token


def due(worker: Worker) -> float | None:
    if worker.kill_at is not None:
        return worker.kill_at
    return worker.idle_since + IDLE_SECONDS if worker.is_idle and worker.idle_since is not None else None


def not_started(how: ProcessExit) -> ProcessExit:
    """Return the end of a job that its worker did not begin. It counts neither as an attempt nor as a loss."""
    return ProcessExit(error=how.error or NOT_STARTED, launcher_lost=True)
