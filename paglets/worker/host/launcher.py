"""The launcher of a host on POSIX systems. It starts runs through zygotes: processes that fork on request.

The launcher has an I/O thread for all sockets, and a thread that samples resource use. The methods of `launch.Launcher`
only post work to the I/O thread, so they do not block and need no lock. Windows has no fork and would need another
launcher.

Most runs are forked from one shared zygote. A run with `LaunchSpec.alone` has its own zygote, which ends with the run.
If such a zygote dies, only its run can be the cause. A run with `LaunchSpec.template` is forked from a zygote that has
imported its module (`template_pool`). Runs with equal `LaunchSpec.worker` share the processes of warm workers
(`worker_pool`).
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from paglets.core.errors import PagletsError
from paglets.worker.frames import pack
from paglets.worker.host.abandoned import AbandonedRuns
from paglets.worker.host.child_link import ChildLink, with_files
from paglets.worker.host.job_output import job_output
from paglets.worker.host.reactor import WRITE, Reactor
from paglets.worker.host.sampler import Sample, SampledRun, Sampler
from paglets.worker.host.supervisor import ZygoteSupervisor
from paglets.worker.host.template_pool import TemplatePool
from paglets.worker.host.worker_pool import WorkerPool
from paglets.worker.host.zygote_link import ZygoteLink, ZygoteSettings, start_zygote
from paglets.worker.launch import LaunchEvents, LaunchSpec, ProcessExit
from paglets.worker.linux import killed_for_memory, oom_kills
from paglets.worker.processes import ProcessTable, kill_runs, process_table
from paglets.worker.zygote_protocol import EndRun, ExitedRun, FailedRun, Imported, OutputEnded, StartedRun

SAMPLE_SECONDS = 1.0

MAX_UNANSWERED_STARTS = 32
"""Maximum number of unanswered start requests of a zygote. The kernel limits how many descriptors can be in flight."""

KILL_PAUSE_SECONDS = 0.02


class ZygoteLauncher:
    """A `launch.Launcher` that forks processes from zygotes.

    `log`: the logger for the ends of zygotes; it must not raise. `table`: the process table to use; None: the one that
    `process_table` returns.
    """

    def __init__(
        self,
        zygote: ZygoteSettings,
        events: LaunchEvents,
        *,
        log: logging.Logger | None = None,
        table: ProcessTable | None = None,
        sample_seconds: float = SAMPLE_SECONDS,
    ) -> None:
        self._workers = WorkerPool(self, events)
        self._events = self._workers
        self._table = table or process_table()
        self._children: dict[str, ChildLink] = {}
        self._waiting: deque[ChildLink] = deque()
        self._abandoned = AbandonedRuns(self._table, self._ended)
        self._closing = False
        self._oom_before = oom_kills()
        self._handlers: dict[type, Callable[[ZygoteLink, Any], None]] = {
            StartedRun: self._on_started,
            ExitedRun: self._on_exited,
            FailedRun: self._on_failed,
            Imported: self._on_imported,
            OutputEnded: lambda link, ended: self._workers.output_ended(ended.token),
        }
        self._reactor = Reactor()
        self._zygotes = ZygoteSupervisor(
            partial(start_zygote, zygote), self._reactor, log or logging.getLogger("paglets"), self
        )
        self._templates = TemplatePool(self._zygotes, self._table, zygote.heartbeat, events.templates, self.has_work)
        self._heartbeat_seconds = zygote.heartbeat.interval_seconds
        self._closed = threading.Event()
        self._sampler = Sampler(self._table, sample_seconds, self._sampled_runs, self._sampled)
        for name, target in (("paglets-launcher", self._run), ("paglets-usage", self._sampler.run)):
            threading.Thread(target=target, name=name, daemon=True).start()

    # The methods below may be called from any thread.

    def start(self, spec: LaunchSpec) -> None:
        self._reactor.post(partial(self._workers.start, spec))

    def send(self, token: str, frame: dict[str, Any]) -> None:
        """Send a frame to the child. Raises TooLarge if `frame` is too large, and Invalid if it is not JSON."""
        self._reactor.post(partial(self._workers.send, token, pack({**frame, "run": token}), is_go="go" in frame))

    def end(self, token: str) -> None:
        self._reactor.post(partial(self._workers.end, token))

    def withdraw(self, token: str) -> None:
        self._reactor.post(partial(self._workers.withdraw, token))

    def allow_import(self, token: str) -> None:
        self._reactor.post(partial(self._templates.allow_import, token))
        self._reactor.post(partial(self._workers.allow, token))

    def end_idle(self) -> None:
        self._reactor.post(self._templates.end_idle)
        self._reactor.post(self._workers.end_idle)

    def close(self) -> None:
        """Request the end of all runs and zygotes. `wait_closed` waits until they have ended."""
        self._reactor.post(self._close)

    def wait_closed(self, timeout_seconds: float) -> bool:
        """Wait until all runs and zygotes have ended after `close`. Return False if the timeout expires first."""
        return self._closed.wait(timeout_seconds)

    # The methods below are the loop of the I/O thread.

    def _run(self) -> None:
        while not self._is_closed():
            self._reactor.poll(self._pause())
            self._do_due()
        self._closed.set()
        self._sampler.close()
        self._reactor.close()

    def _is_closed(self) -> bool:
        return self._closing and not (self._zygotes.links or self._children)

    def _pause(self) -> float | None:
        if self._abandoned:
            return KILL_PAUSE_SECONDS
        times = (self._zygotes.next_due(), self._templates.next_due(), self._workers.next_due())
        due = min((at for at in times if at is not None), default=None)
        pause = None if due is None else max(0.0, due - time.monotonic())
        if not self._children:
            return pause
        return self._heartbeat_seconds if pause is None else min(pause, self._heartbeat_seconds)

    def _do_due(self) -> None:
        self._zygotes.do_due()
        self._start_without_template(self._templates.do_due(time.monotonic()))
        self._workers.do_due(time.monotonic())
        if self._abandoned:
            self._abandoned.kill()

    def _close(self) -> None:
        self._closing = True
        for child in (*self._waiting, *self._templates.close()):
            self._fail(child, "the host is ending")
        self._waiting.clear()
        self._zygotes.close()

    # The methods below are the callbacks of `supervisor.ZygoteEvents`.

    def has_work(self, link: ZygoteLink) -> bool:
        waiting = link is self._zygotes.shared and bool(self._waiting)
        return waiting or any(child.link is link for child in self._children.values())

    def on_ready(self, link: ZygoteLink) -> None:
        for child in self._of(link):
            self._send_start(child, link)
        self._send_starts()

    def on_record(self, link: ZygoteLink, record: Any) -> None:
        self._handlers[type(record)](link, record)
        self._send_starts()

    def on_unresponsive(self, link: ZygoteLink) -> None:
        for child in self._of(link):
            if child.is_ending:
                self._abandon(child, ProcessExit())

    def on_gone(self, link: ZygoteLink) -> int:
        """Abandon the runs of a zygote that ended, and return their number.

        A run that had its own zygote is marked as the culprit, if its process had started. On Linux, the kernel has
        killed the first process of each run.
        """
        left = self._of(link)
        died = not self._closing
        for child in left:
            is_culprit = died and link.is_alone and child.pid is not None
            self._abandon(child, ProcessExit(launcher_lost=True, launcher_died=died, is_culprit=is_culprit))
        self._start_without_template(self._templates.on_gone(link))
        return len(left)

    def on_crash_loop(self, problem: str) -> None:
        while self._waiting:
            self._fail(self._waiting.popleft(), f"the zygote, which starts processes, does not start: {problem}")

    def on_blocked(self, text: str) -> None:
        self._events.start_blocked(text)

    def _of(self, link: ZygoteLink) -> list[ChildLink]:
        return [child for child in self._children.values() if child.link is link and child.token not in self._abandoned]

    def _abandon(self, child: ChildLink, how: ProcessExit) -> None:
        """Close the connection to a child, and let the host instead of the zygote kill its processes."""
        self._take_frames(child)
        self._disconnect(child)
        self._abandoned.add(child, how)

    # The methods below start runs. The pool of warm workers calls the public ones.

    def start_process(self, spec: LaunchSpec) -> None:
        child = ChildLink(spec)
        self._children[spec.token] = child
        if self._closing:
            self._fail(child, "the host is ending")
            return
        self._sampler.resume()
        if spec.alone:
            self._start_alone(child)
            return
        if not self._templates.take(child, time.monotonic()):
            self._waiting.append(child)
        self._send_starts()

    def _start_without_template(self, children: list[ChildLink]) -> None:
        if children:
            self._waiting.extend(children)
            self._send_starts()

    def _start_alone(self, child: ChildLink) -> None:
        try:
            child.link = self._zygotes.open_alone()
        except OSError as error:
            self._fail(child, f"cannot start a zygote for this run: {error.strerror}")

    def _send_starts(self) -> None:
        self._templates.request_forks()
        for link, waiting in ((self._zygotes.shared, self._waiting), *self._templates.queues()):
            while link is not None and link.ready and waiting and link.unanswered_starts < MAX_UNANSWERED_STARTS:
                self._send_start(waiting.popleft(), link)

    def _send_start(self, child: ChildLink, link: ZygoteLink) -> None:
        try:
            descriptor = child.connect()
        except OSError as error:
            self._fail(child, f"cannot create a socket for the process: {error.strerror}")
            return
        try:
            self._zygotes.send(link, replace(child.spec, template=None, worker=None), descriptor)
        except PagletsError as error:
            os.close(descriptor)
            self._fail(child, error.message)
            return
        child.link = link
        link.unanswered_starts += 1

    def _on_started(self, link: ZygoteLink, started: StartedRun) -> None:
        link.unanswered_starts -= 1
        if started.token in self._templates:
            self._templates.on_started(started)
            return
        child = self._current(started.token)
        if child is None:
            self._zygotes.send(link, EndRun(token=started.token))
            return
        child.pid, child.start_time = started.pid, started.start_time
        if not child.start_time and (info := self._table.get(started.pid)) is not None:
            child.start_time = info.start_time
        self._events.started(child.token, child.pid, child.start_time)
        self._watch(child)

    def _on_failed(self, link: ZygoteLink, failed: FailedRun) -> None:
        link.unanswered_starts -= 1
        child = self._current(failed.token)
        if failed.token in self._templates:
            self._start_without_template(self._templates.on_failed(failed, time.monotonic()))
        elif child is not None:
            self._fail(child, failed.error)

    def _on_imported(self, link: ZygoteLink, imported: Imported) -> None:
        self._start_without_template(self._templates.on_imported(link, imported, time.monotonic()))

    def _current(self, token: str) -> ChildLink | None:
        """Return the child of the run `token`; None if it has ended or is abandoned."""
        return None if token in self._abandoned else self._children.get(token)

    # The methods below exchange frames with children.

    def _on_child(self, child: ChildLink, mask: int) -> None:
        if mask & WRITE:
            child.write()
        self._take_frames(child)
        if child.protocol_error:
            self.end_process(child.token)
        self._watch(child)

    def _take_frames(self, child: ChildLink) -> None:
        for frame in child.read():
            self._events.frame(child.token, frame)

    def write(self, token: str, data: bytes) -> None:
        child = self._children.get(token)
        if child is not None:
            child.write(data)
            self._watch(child)

    def write_job(self, worker: str, data: bytes, spec: LaunchSpec) -> None:
        child = self._current(worker)
        if child is None or child.link is None:
            return
        output, writing = job_output(worker, spec)
        self._zygotes.send(child.link, *output)
        child.write(data, writing)
        self._watch(child)

    def begin_job(self, worker: str, work_dir: str) -> None:
        if worker in self._children:
            self._children[worker].begin_job(work_dir)

    exit_of_job = staticmethod(with_files)
    now = staticmethod(time.monotonic)

    def _watch(self, child: ChildLink) -> None:
        # Read no frames before the event `started` was reported, because it must be the first.
        if child.channel is None or child.pid is None:
            return
        if child.readable:
            self._reactor.watch(child.channel, partial(self._on_child, child), writing=child.writing)
        else:
            self._reactor.unwatch(child.channel)

    def _disconnect(self, child: ChildLink) -> None:
        if child.channel is not None:
            self._reactor.unwatch(child.channel)
            child.close()

    # The methods below end runs.

    def end_process(self, token: str) -> None:
        child = self._children.get(token)
        if child is None or child.is_ending:
            return
        child.is_ending = True
        if child in self._waiting or self._templates.remove_waiting(child):
            if child in self._waiting:
                self._waiting.remove(child)
            self._fail(child, "the run was ended before it started")
        elif child.link is not None and not child.link.ready:
            self._fail(child, "the run was ended before it started")
        elif child.link is not None and token not in self._abandoned:
            if child.link.heartbeat.is_unresponsive:
                self._abandon(child, ProcessExit())
            else:
                self._zygotes.send(child.link, EndRun(token=token))

    def _on_exited(self, link: ZygoteLink, exited: ExitedRun) -> None:
        if exited.token in self._templates:
            self._start_without_template(self._templates.on_exited(exited, time.monotonic()))
        child = self._current(exited.token)
        if child is None:
            return
        self._take_frames(child)
        if sys.platform != "linux" and child.usage.processes > 1:
            # This system has no subreapers, so only the samples know processes that left the session of the run.
            kill_runs(self._table, [child.run_tree()])
        ended_by_us = child.is_ending or self._closing
        oom = not ended_by_us and killed_for_memory(exited.status, self._oom_before)
        self._ended(child, child.exit_of(exited, oom=oom))

    def _fail(self, child: ChildLink, error: str) -> None:
        self._ended(child, ProcessExit(error=error))

    def _ended(self, child: ChildLink, how: ProcessExit) -> None:
        del self._children[child.token]
        self._disconnect(child)
        if child.link is not None and child.link.is_alone:
            self._zygotes.end(child.link)
        elif child.link is not None:
            self._templates.note_use(child.link, time.monotonic())
        if not self._children:
            self._sampler.pause()
        self._events.ended(child.token, replace(how, no_template=child.no_template))

    # The sampling thread calls the next two methods. It passes samples to the I/O thread, which reports all events.

    def _sampled_runs(self) -> tuple[SampledRun, ...]:
        runs = (child.sampled_run() for child in self._children.copy().values())
        return tuple(run for run in runs if run is not None)

    def _sampled(self, samples: Mapping[str, Sample], oom_before: int) -> None:
        self._reactor.post(partial(self._on_samples, samples, oom_before))

    def _on_samples(self, samples: Mapping[str, Sample], oom_before: int) -> None:
        self._oom_before = oom_before
        for token, sample in samples.items():
            child = self._children.get(token)
            if child is not None:
                child.take_sample(sample)
                self._events.sampled(token, child.usage)
