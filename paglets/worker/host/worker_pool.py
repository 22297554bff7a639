"""The warm workers of a host: processes that run jobs with the same key, one after the other.

The pool is a layer between a launcher and its host. To the host, each job in a worker is a run like any other: it
starts, sends frames, and ends. To the launcher, a worker is a process like any other. All methods run on the launcher's
I/O thread.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

from paglets.api.slots import Usage
from paglets.core.errors import PagletsError
from paglets.worker.frames import pack
from paglets.worker.host.sampler import larger
from paglets.worker.host.worker_jobs import Worker, WorkerJob, charged, due, follower, is_in_order, not_started
from paglets.worker.launch import HAS_WORKERS, LaunchEvents, LaunchSpec, ProcessExit, TemplateEvents, WorkerKey
from paglets.worker.linux import worker_mark
from paglets.worker.worker_protocol import Began, JobEnded, WorkerLeaves, from_frame

FINISH_SECONDS = 10.0
"""Time limit for a worker to exit, which includes up to five seconds for the `atexit` functions of user code."""

FINISH = pack({"finish": True})


class WorkerProcesses(Protocol):
    """An interface to the processes of a launcher. The token of a process is that of its warm worker, or of its run."""

    def start_process(self, spec: LaunchSpec) -> None: ...

    def write(self, token: str, data: bytes) -> None:
        """Send packed frames to a process."""
        ...

    def write_job(self, worker: str, data: bytes, spec: LaunchSpec) -> None:
        """Send the packed frame `go` to a worker, with pipes for the output of the run `spec`. Raises OSError."""
        ...

    def begin_job(self, worker: str, work_dir: str) -> None:
        """Attribute the resource use of a worker to the job with this scratch directory from now on."""
        ...

    def exit_of_job(self, spec: LaunchSpec, how: ProcessExit) -> ProcessExit:
        """Return `how` with values from the log and the scratch directory of the job."""
        ...

    def end_process(self, token: str) -> None: ...

    def now(self) -> float:
        """Return the monotonic time in seconds."""
        ...


class WorkerPool:
    """The warm workers of a launcher. The pool passes on requests of the host, and receives events of processes."""

    def __init__(self, processes: WorkerProcesses, events: LaunchEvents) -> None:
        self._processes = processes
        self._events = events
        self._workers: dict[str, Worker] = {}
        self._by_job: dict[str, Worker] = {}

    # The methods below handle requests of the host.

    def start(self, spec: LaunchSpec) -> None:
        if spec.is_ahead:
            self._start_ahead(spec)
            return
        if spec.worker is None or not HAS_WORKERS:
            if spec.threads:
                self._retire_oldest()
            self._processes.start_process(spec)
            return
        worker = self._idle(spec.worker) or self._open(spec, spec.worker)
        worker.idle_since = None
        self._add(worker, spec)

    def _start_ahead(self, spec: LaunchSpec) -> None:
        """Add a job to the worker whose runs have the same `LaunchSpec.line`. If none takes it, it does not start."""
        lines = (each for each in self._workers.values() if any(job.spec.line == spec.line for job in each.jobs))
        worker = next(lines, None)
        if worker is None or worker.is_ending or worker.key != spec.worker:
            self._events.ended(spec.token, not_started(ProcessExit()))
        else:
            self._add(worker, spec)

    def _add(self, worker: Worker, spec: LaunchSpec) -> None:
        worker.jobs.append(WorkerJob(spec=spec))
        self._by_job[spec.token] = worker
        self._announce(worker, spec)

    def _idle(self, key: WorkerKey) -> Worker | None:
        """Return the worker with this key that became idle last: the processor may still cache its memory."""
        idle = [worker for worker in self._workers.values() if worker.is_idle and worker.key == key]
        return max(idle, key=lambda worker: worker.idle_since or 0.0, default=None)

    def _open(self, spec: LaunchSpec, key: WorkerKey) -> Worker:
        self._retire_oldest()
        worker = Worker(key=key, token=worker_mark(spec.token))
        self._workers[worker.token] = worker
        process = replace(
            spec, token=worker.token, agent_id="", attempt=0, work_dir="/", stdout_path="", stderr_path=""
        )
        self._processes.start_process(replace(process, worker=None, line="", is_worker=True))
        return worker

    def _retire_oldest(self) -> None:
        """End the worker that has been idle longest, because another process starts in its place.

        So the number of workers never exceeds the largest number of jobs that had slots at one time.
        """
        idle = [worker for worker in self._workers.values() if worker.is_idle]
        if idle:
            self._retire(min(idle, key=lambda worker: worker.idle_since or 0.0))

    def end_idle(self) -> None:
        """End the workers without a job, because their memory is needed."""
        for worker in [each for each in self._workers.values() if each.is_idle]:
            self._retire(worker)

    def _retire(self, worker: Worker) -> None:
        worker.is_ending, worker.kill_at = True, self._processes.now() + FINISH_SECONDS
        self._processes.write(worker.token, FINISH)

    def _announce(self, worker: Worker, spec: LaunchSpec) -> None:
        if worker.pid is not None and worker.is_stored:
            self._events.started(spec.token, worker.pid, worker.start_time)

    def send(self, token: str, data: bytes, *, is_go: bool) -> None:
        worker = self._by_job.get(token)
        if worker is None:
            self._processes.write(token, data)
        elif is_go:
            self._job(worker, token).go = data
            self._send_jobs(worker)
        else:
            self._processes.write(worker.token, data)

    def _send_jobs(self, worker: Worker) -> None:
        """Send the unsent jobs whose frame `go` the host has sent, if the process of the worker is stored."""
        if worker.pid is not None and worker.is_stored:
            for job in [job for job in worker.jobs if job.go and not job.is_sent]:
                self._send_job(worker, job)

    def _send_job(self, worker: Worker, job: WorkerJob) -> None:
        job.is_sent = True
        try:
            self._processes.write_job(worker.token, job.go, job.spec)
        except OSError as error:
            how = ProcessExit(error=f"cannot create pipes for its output: {error.strerror}")
            self._report(worker, job, not_started(how) if job.spec.is_ahead else how)

    def end(self, token: str) -> None:
        worker = self._by_job.get(token)
        if worker is None:
            self._processes.end_process(token)
            return
        job = self._job(worker, token)
        if job.is_ending:
            return
        job.is_ending = True
        if job is worker.jobs[0]:
            # Do this even if the job is over: a process outside this worker may hold its output open forever.
            worker.killed_for = token
            self._end_process(worker)
        else:
            self._take_back(worker, job)

    def withdraw(self, token: str) -> None:
        worker = self._by_job.get(token)
        if worker is not None and (job := self._job(worker, token)) is not worker.jobs[0] and not job.has_started:
            self._take_back(worker, job)

    def _take_back(self, worker: Worker, job: WorkerJob) -> None:
        if not job.is_sent:
            self._report(worker, job, not_started(ProcessExit()))
        elif not job.is_withdrawn:
            job.is_withdrawn = True
            self._processes.write(worker.token, pack({"withdraw": job.token}))

    def _end_process(self, worker: Worker) -> None:
        worker.is_ending = True
        self._processes.end_process(worker.token)

    def allow(self, token: str) -> None:
        """Let a worker run jobs, because its process is stored."""
        worker = self._workers.get(token)
        if worker is not None:
            worker.is_stored = True
            for job in worker.jobs:
                self._announce(worker, job.spec)
            self._send_jobs(worker)

    def _job(self, worker: Worker, token: str) -> WorkerJob:
        return next(job for job in worker.jobs if job.token == token)

    # The methods below handle events of the launcher's processes.

    @property
    def templates(self) -> TemplateEvents:
        return self._events.templates

    def start_blocked(self, text: str) -> None:
        self._events.start_blocked(text)

    def started(self, token: str, pid: int, start_time: float) -> None:
        worker = self._workers.get(token)
        if worker is None:
            self._events.started(token, pid, start_time)
            return
        worker.pid, worker.start_time = pid, start_time
        self._events.templates.started(token, pid, start_time)

    def frame(self, token: str, frame: dict[str, Any]) -> None:
        worker = self._workers.get(token)
        if worker is None:
            self._events.frame(token, frame)
            return
        worker.held.append(frame)
        self._work_off(worker)

    def output_ended(self, token: str) -> None:
        """Record that the output of a job is complete in its log."""
        worker = self._by_job.get(token)
        if worker is None:
            return
        job = self._job(worker, token)
        job.output_ended = True
        if job.over is not None:
            self._finish(worker, job, job.over)
        self._work_off(worker)

    def sampled(self, token: str, usage: Usage) -> None:
        worker = self._workers.get(token)
        if worker is None:
            self._events.sampled(token, usage)
        elif (job := worker.current) is not None:
            job.usage = replace(usage, cpu_seconds=max(0.0, usage.cpu_seconds - job.cpu_before))
            self._events.sampled(job.token, job.usage)

    def ended(self, token: str, how: ProcessExit) -> None:
        worker = self._workers.pop(token, None)
        if worker is None:
            self._events.ended(token, how)
            return
        worker.is_ending = True
        while worker.held:
            self._handle(worker, worker.held.popleft())
        for job in [job for job in worker.jobs if job.over is not None]:
            self._finish(worker, job, job.over or JobEnded(token=job.token, cpu_seconds=0.0, rss_bytes=0))
        guilty = charged(worker)
        if worker.pid is not None:
            self._events.templates.ended(token)
        for job in list(worker.jobs):
            self._report(worker, job, self._exit_of(job, how) if job is guilty else not_started(how))

    def _exit_of(self, job: WorkerJob, how: ProcessExit) -> ProcessExit:
        cpu_seconds = max(0.0, how.usage.cpu_seconds - job.cpu_before)
        usage = replace(larger(how.usage, job.usage), cpu_seconds=cpu_seconds)
        return self._processes.exit_of_job(
            job.spec, replace(how, usage=usage, in_worker=True, worker_ended=job.worker_ended)
        )

    # The methods below handle frames of workers.

    def _work_off(self, worker: Worker) -> None:
        """Handle held frames in order. Those after `ended` wait until the log of the ended job is complete."""
        while worker.held and not worker.waits_for_output:
            self._handle(worker, worker.held.popleft())

    def _handle(self, worker: Worker, frame: dict[str, Any]) -> None:
        try:
            record = from_frame(frame)
        except PagletsError:
            self._end_process(worker)
            return
        job = self._job_of(worker, frame.get("stamp") if record is None else record)
        if job is None or not is_in_order(worker, job, record):
            self._end_process(worker)
        elif record is None:
            self._events.frame(job.token, frame)
        elif isinstance(record, Began):
            self._begin(worker, job, record)
        elif isinstance(record, JobEnded):
            job.over = record
            if job.output_ended:
                self._finish(worker, job, record)
        elif isinstance(record, WorkerLeaves):
            worker.is_ending, job.worker_ended = True, record.difference
        else:
            self._report(worker, job, not_started(ProcessExit()))

    def _job_of(self, worker: Worker, named: Any) -> WorkerJob | None:
        token = named.get("token") if isinstance(named, dict) else getattr(named, "token", None)
        return next((job for job in worker.jobs if job.token == token), None)

    def _begin(self, worker: Worker, job: WorkerJob, record: Began) -> None:
        worker.has_worked = job.has_started = True
        job.cpu_before, job.began_at = record.cpu_before, self._processes.now()
        self._processes.begin_job(worker.token, job.spec.work_dir)
        if job.is_ending:
            worker.killed_for = job.token
            self._end_process(worker)

    def _finish(self, worker: Worker, job: WorkerJob, over: JobEnded) -> None:
        used = Usage(cpu_seconds=over.cpu_seconds, rss_bytes=over.rss_bytes, processes=1)
        how = ProcessExit(exit_code=0, in_worker=True, usage=larger(job.usage, used))
        self._report(worker, job, self._processes.exit_of_job(job.spec, how))

    def _report(self, worker: Worker, job: WorkerJob, how: ProcessExit) -> None:
        was_first = job is worker.jobs[0]
        worker.jobs.remove(job)
        del self._by_job[job.token]
        now = self._processes.now()
        if not worker.jobs:
            worker.idle_since = now
        seconds = None if job.began_at is None else now - job.began_at
        after = follower(worker) if was_first else ""
        self._events.ended(job.token, replace(how, next_token=after, job_seconds=seconds))

    # The methods below apply time limits.

    def next_due(self) -> float | None:
        """Return the monotonic time by which `do_due` must be called; None if nothing is scheduled."""
        times = (due(worker) for worker in self._workers.values())
        return min((at for at in times if at is not None), default=None)

    def do_due(self, now: float) -> None:
        """End the workers that were idle for too long, and those that do not exit."""
        for worker in list(self._workers.values()):
            at = due(worker)
            if at is None or now < at:
                continue
            if worker.kill_at is None:
                self._retire(worker)
            else:
                worker.kill_at = None
                self._processes.end_process(worker.token)
