"""The zygote: a process with a single thread. It forks the processes of paglets and reaps them.

Its only connection to the host is its control socket. It starts with this socket as stdin, unless it is a template. A
fork takes about a millisecond, because the zygote has already loaded all modules of paglets that a child needs. The
zygote reports the end of a run when all processes of the run have ended (`reaper`) and all their output is in the logs.
"""

from __future__ import annotations

import gc
import importlib
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from paglets.core.errors import PagletsError
from paglets.core.text import placed
from paglets.worker import linux
from paglets.worker.child.main import rehearse, serve
from paglets.worker.frames import Unpacker, pack
from paglets.worker.launch import ALONE, LaunchSpec
from paglets.worker.processes import ProcTable
from paglets.worker.zygote.child_setup import (
    Serve,
    allow_many_descriptors,
    fork,
    ignore_signals,
    open_descriptors,
    run_child,
)
from paglets.worker.zygote.output import LAST_BYTES, PASS_BYTES, PIPE_BYTES, OutputPipe, take_output_pipe
from paglets.worker.zygote.reaper import ForkedRun, Reaper
from paglets.worker.zygote.template import run_template
from paglets.worker.zygote.warm_worker import serve_worker
from paglets.worker.zygote_protocol import (
    CopyOutput,
    EndRun,
    ExitedRun,
    FailedRun,
    OutputEnded,
    Ping,
    Pong,
    StartedRun,
    StartTemplate,
    ZygoteReady,
    from_frame,
    to_frame,
)

PRELOAD = ("paglets.system.compute_slots",)
"""Modules that most jobs import. The zygote imports them before it forks, so that children start faster."""

GRACE_SECONDS = 1.0
"""Time between SIGTERM and SIGKILL when a run is ended. It is long enough for a process to write its last output, and
short enough to free the slot within 2 s."""

CLOSING_SECONDS = 10.0
"""Time limit to end all processes after the host has ended. At its next start, the host kills those that are left."""

REAP_PAUSE_SECONDS = 0.05
"""Time between two passes of the reaper while orphans end. SIGCHLD reports ended orphans, but not the new processes of
orphans that fork."""

MAX_DESCRIPTORS_A_READ = 64


class Zygote:
    """A single-threaded event loop that handles the control socket, SIGCHLD, and the output of children."""

    def __init__(self, control: socket.socket, serve: Serve, *, grace_seconds: float) -> None:
        self._control = control
        self._serve = serve
        self._grace_seconds = grace_seconds
        self._table = ProcTable()
        self._reaper = Reaper(self._table)
        self._unpacker = Unpacker()
        self._sockets: deque[int] = deque()
        self._starts: deque[tuple[LaunchSpec, int]] = deque()
        self._job_outputs: dict[str, tuple[str, tuple[OutputPipe, ...]]] = {}
        self._out = bytearray()
        self._closing_until: float | None = None
        self._buffer = memoryview(bytearray(PIPE_BYTES))
        self._turns = 0
        self._selector = selectors.DefaultSelector()
        self._wakeup, wakeup_writer = socket.socketpair()
        for end in (control, self._wakeup, wakeup_writer):
            end.setblocking(False)
        self._wakeup_writer = wakeup_writer
        self._selector.register(control, selectors.EVENT_READ, self._read)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._woken)
        self._handlers: dict[type, Callable[[Any], None]] = {
            LaunchSpec: self._queue_start,
            StartTemplate: self._start_template,
            EndRun: self._end,
            CopyOutput: self._take_job_output,
            Ping: lambda ping: self.send(Pong()),
        }

    def run(self) -> int:
        """Run the loop until the host and all children have ended, and return the exit code.

        Stop CLOSING_SECONDS after the end of the host, even if children are left.
        """
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakeup_writer.fileno(), warn_on_full_buffer=False)
        while not self._is_done():
            readable = []
            for key, mask in self._selector.select(self._pause()):
                if isinstance(key.fileobj, OutputPipe):
                    readable.append(key.fileobj)
                    continue
                if key.fileobj is self._control and mask & selectors.EVENT_WRITE:
                    self._flush()
                if mask & selectors.EVENT_READ:
                    key.data()
            self._kill_overdue()
            self._copy_output(readable)
            # Start only one run in each pass, so that ends of runs are handled even while many starts wait.
            if self._starts:
                self._start(*self._starts.popleft())
        return 0

    def send(self, record: Any) -> None:
        """Queue a frame for the launcher, and send as much of the queue as the socket accepts."""
        self._out += pack(to_frame(record))
        self._flush()

    # The methods below are the event loop.

    def _is_done(self) -> bool:
        if self._closing_until is None:
            return False
        return time.monotonic() > self._closing_until or self._reaper.is_done

    def _pause(self) -> float | None:
        if self._starts:
            return 0.0
        if self._reaper.has_ended_runs or self._closing_until is not None:
            return REAP_PAUSE_SECONDS
        due = [run.kill_at for run in self._reaper.runs.values() if run.kill_at is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _woken(self) -> None:
        self._wakeup.recv(4096)
        # Read first, because a frame `output` for a warm worker must be handled before the end of that worker.
        self._read()
        self._reap()

    def _read(self) -> None:
        if self._closing_until is not None:
            return
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, 1 << 16, MAX_DESCRIPTORS_A_READ)
        except BlockingIOError:
            return
        except ConnectionError:
            data, descriptors = b"", []
        self._sockets.extend(descriptors)
        if not data:
            self._close()
            return
        try:
            for frame in self._unpacker.feed(data):
                record = from_frame(frame)
                self._handlers[type(record)](record)
        except PagletsError as error:
            sys.stderr.write(f"paglets zygote: the launcher sent a bad frame: {error}\n")
            self._close()

    def _flush(self) -> None:
        try:
            sent = self._control.send(self._out) if self._out else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            # The host has ended. Drop the data: the loop notices the end when it reads from the socket.
            sent = len(self._out)
        del self._out[:sent]
        if self._closing_until is None:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
            self._selector.modify(self._control, events, self._read)

    # The methods below start and end runs.

    def _queue_start(self, spec: LaunchSpec) -> None:
        self._starts.append((spec, self._sockets.popleft()))

    def _start(self, spec: LaunchSpec, child_socket: int) -> None:
        try:
            opened = open_descriptors(spec, child_socket)
        except OSError as error:
            self.send(FailedRun(token=spec.token, error=placed(error)))
            return
        zygote = os.getpid()
        try:
            pid = fork()
        except OSError as error:
            self.send(FailedRun(token=spec.token, error=f"cannot fork: {error.strerror}"))
            opened.close_all()
            return
        if pid == 0:
            run_child(spec, opened, zygote, self._serve)
        opened.close()
        for output in opened.outputs:
            self._selector.register(output, selectors.EVENT_READ)
        self._forked(ForkedRun(token=spec.token, pid=pid, outputs=opened.outputs))

    def _start_template(self, request: StartTemplate) -> None:
        control, zygote = self._sockets.popleft(), os.getpid()
        try:
            pid = fork()
        except OSError as error:
            self.send(FailedRun(token=request.token, error=f"cannot fork: {error.strerror}"))
            os.close(control)
            return
        if pid == 0:
            run_template(request, control, zygote, self._run_as_template)
        os.close(control)
        self._forked(ForkedRun(token=request.token, pid=pid, outputs=()))

    def _run_as_template(self, control: socket.socket, serve: Serve) -> int:
        return Zygote(control, serve, grace_seconds=self._grace_seconds).run()

    def _forked(self, run: ForkedRun) -> None:
        self._reaper.runs[run.pid] = run
        info = self._table.get(run.pid)
        self.send(StartedRun(token=run.token, pid=run.pid, start_time=0.0 if info is None else info.start_time))

    def _end(self, request: EndRun) -> None:
        for run in self._reaper.runs.values():
            if run.token == request.token and run.kill_at is None:
                run.kill_at = time.monotonic() + self._grace_seconds
                run.signal(signal.SIGTERM)
        for waiting in [start for start in self._starts if start[0].token == request.token]:
            self._starts.remove(waiting)
            self._refuse(*waiting)

    def _refuse(self, spec: LaunchSpec, child_socket: int) -> None:
        os.close(child_socket)
        self.send(FailedRun(token=spec.token, error="the run was ended before it started"))

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for run in self._reaper.runs.values():
            if run.kill_at is not None and run.kill_at <= now:
                run.signal(signal.SIGKILL)
                run.kill_at = None if self._closing_until is None else now + REAP_PAUSE_SECONDS
        if self._reaper.has_ended_runs or self._closing_until is not None:
            self._reap()

    def _close(self) -> None:
        """End all runs, because the host has ended, closed the socket, or sent a bad frame."""
        self._selector.unregister(self._control)
        now = time.monotonic()
        self._closing_until = now + CLOSING_SECONDS
        while self._starts:
            self._refuse(*self._starts.popleft())
        for run in self._reaper.runs.values():
            run.kill_at = now

    def _reap(self) -> None:
        """Reap children. Report to the host each run that has no process left."""
        for ended in self._reaper.reap():
            jobs = [outputs for worker, outputs in self._job_outputs.values() if worker == ended.token]
            for outputs in (ended.outputs, *jobs):
                self._copy_rest(outputs)
            self.send(
                ExitedRun(
                    token=ended.token,
                    status=ended.status,
                    cpu_seconds=ended.cpu_seconds,
                    rss_bytes=ended.rss_bytes,
                )
            )

    # The methods below copy the output of runs.

    def _copy_output(self, readable: list[OutputPipe]) -> None:
        """Copy up to PASS_BYTES from pipes to logs. Start with the pipe that was read least recently."""
        left = PASS_BYTES
        for output in sorted(readable, key=lambda output: output.turn):
            if left > 0 and output.is_open:
                self._turns += 1
                output.turn = self._turns
                left -= output.copy(PIPE_BYTES, self._buffer)
                if output.ended:
                    self._close_output(output)

    def _copy_rest(self, outputs: tuple[OutputPipe, ...]) -> None:
        """Copy the remaining output of a run whose processes have ended, and close its pipes."""
        for output in outputs:
            if output.is_open:
                output.copy(LAST_BYTES, self._buffer)
                self._close_output(output)

    def _close_output(self, output: OutputPipe) -> None:
        self._selector.unregister(output)
        output.close()
        if output.job and not any(each.is_open for each in self._job_outputs[output.job][1]):
            del self._job_outputs[output.job]
            self.send(OutputEnded(token=output.job))

    def _take_job_output(self, request: CopyOutput) -> None:
        paths = (request.stdout_path, request.stderr_path)
        outputs = tuple(take_output_pipe(self._sockets.popleft(), path, request.token) for path in paths)
        self._job_outputs[request.token] = (request.worker, outputs)
        for output in outputs:
            self._selector.register(output, selectors.EVENT_READ)


def _preload(names: Sequence[str]) -> tuple[str, ...]:
    """Import modules and return the errors. They are not fatal: paglets that do not need the module still run."""
    errors = []
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            errors.append(f"{name}: {type(error).__name__}: {error}")
    return tuple(errors)


def serve_child(connection: socket.socket, is_worker: bool) -> int:
    """Run the process of a paglet, or a warm worker, forked from a zygote without user code. Return the exit code."""
    return serve_worker(connection, None) if is_worker else serve(connection)


def main(argv: Sequence[str], *, grace_seconds: float = GRACE_SECONDS) -> int:
    """Run a zygote whose control socket is stdin, and return its exit code.

    `grace_seconds`: the time from SIGTERM to SIGKILL.
    """
    if tuple(argv) not in ((), (ALONE,)):
        sys.stderr.write("paglets _zygote is started by a host, not by users\n")
        return 2
    # Ignore signals, because a job that signals its parent, the zygote, must not end other jobs. The host ends a zygote
    # by closing the socket.
    ignore_signals()
    linux.resume_when_parent_ends()
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    linux.become_subreaper()
    allow_many_descriptors()
    gc.disable()
    errors = _preload(PRELOAD)
    rehearse()
    for stream in (sys.stdout, sys.stderr):
        # Children inherit these settings: each line is written to the log at once, and any character can be encoded.
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    gc.collect()
    # Frozen objects are not touched by the garbage collector, so their memory pages stay shared with the children.
    gc.freeze()
    zygote = Zygote(control, serve_child, grace_seconds=grace_seconds)
    zygote.send(ZygoteReady(preload_errors=errors))
    return zygote.run()
