"""The zygote: a fresh process with one thread that forks the processes of paglets and buries them.

Its only tie to the host is its control socket, which is its stdin. It forks in about a millisecond, because
all modules that a child needs are loaded already.

How a tree ends. The first process of a run leads a session of its own and is a *subreaper*: what its
descendants orphan, in whatever session, comes to it. When it ends, all its remaining children come to the
zygote, which is a subreaper too. Hence a child of the zygote that the zygote did not fork belongs to a run
whose first process has ended, and is killed; its own children come here when it is gone. `exited` is sent
when no such child is left and all that the run printed is in its logs. A run that never forked costs one read
of the list of children, about 5 us, and no look at other processes. What can escape is named in the
guarantees: processes started by another service (at, systemd, docker) on a job's behalf.
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
from dataclasses import dataclass, field
from resource import struct_rusage
from typing import Any

from paglets.core.errors import PagletsError
from paglets.core.text import placed
from paglets.worker import linux
from paglets.worker.child.main import rehearse, serve
from paglets.worker.frames import Unpacker, pack
from paglets.worker.launch import ALONE, LaunchSpec
from paglets.worker.processes import ProcTable, freeze_and_kill, send_signal, signal_group
from paglets.worker.zygote.child_setup import allow_many_descriptors, fork, ignore_signals, open_descriptors, run_child
from paglets.worker.zygote.output import DRAIN_BYTES, LAST_BYTES, TURN_BYTES, Output
from paglets.worker.zygote_protocol import (
    EndRun,
    ExitedRun,
    FailedRun,
    Ping,
    Pong,
    StartedRun,
    ZygoteReady,
    from_frame,
    to_frame,
)

PRELOAD = ("paglets.system.compute_slots",)
"""Loaded by name where they are there: what most jobs import, so that no child pays for it."""

GRACE_SECONDS = 1.0
"""Between SIGTERM and SIGKILL when a run is ended: enough to write a last line, short of the 2 s in which a
slot must be free."""

CLOSING_SECONDS = 10.0
"""How long a zygote whose host is gone tries to end what is left, before it leaves it to the host's next start."""

LOOK_AGAIN_SECONDS = 0.05
"""While orphans are dying; their ends are told by SIGCHLD, this is for what forks meanwhile."""

PATIENT_LOOKS = 3
"""Looks at the same orphans after which all that descends from them is stopped before it is killed."""

MAX_DESCRIPTORS_A_READ = 64


@dataclass(slots=True, kw_only=True)
class _Run:
    token: str
    pid: int
    outputs: tuple[Output, ...]
    kill_at: float | None = None


@dataclass(slots=True, kw_only=True)
class _Ending:
    """A run whose first process has ended; its orphans' CPU time is added to its own."""

    outputs: tuple[Output, ...]
    status: int
    cpu_seconds: float
    rss_bytes: int


@dataclass(slots=True, kw_only=True)
class _Orphan:
    """A child that was not forked here. `token`: the run it belongs to, "" where that cannot be told."""

    token: str
    looks: int = field(default=0)


class Zygote:
    """One loop over the control socket and the signals of children. Nothing in it blocks."""

    def __init__(self, control: socket.socket, serve: Callable[[socket.socket], int], *, grace_seconds: float) -> None:
        self._control = control
        self._serve = serve
        self._grace_seconds = grace_seconds
        self._table = ProcTable()
        self._unpacker = Unpacker()
        self._sockets: deque[int] = deque()
        self._starts: deque[tuple[LaunchSpec, int]] = deque()
        self._out = bytearray()
        self._runs: dict[int, _Run] = {}
        self._endings: dict[str, _Ending] = {}
        self._orphans: dict[int, _Orphan] = {}
        self._closing_until: float | None = None
        self._buffer = memoryview(bytearray(DRAIN_BYTES))
        self._drained = 0
        self._selector = selectors.DefaultSelector()
        self._wakeup, wakeup_writer = socket.socketpair()
        for end in (control, self._wakeup, wakeup_writer):
            end.setblocking(False)
        self._wakeup_writer = wakeup_writer
        self._selector.register(control, selectors.EVENT_READ, self._read)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._woken)
        self._handlers: dict[type, Callable[[Any], None]] = {
            LaunchSpec: self._take_start,
            EndRun: self._end,
            Ping: lambda ping: self.send(Pong()),
        }

    def run(self) -> int:
        """Serve until the host is gone and every child with it."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakeup_writer.fileno(), warn_on_full_buffer=False)
        while not self._done():
            printed = []
            for key, mask in self._selector.select(self._pause()):
                if isinstance(key.fileobj, Output):
                    printed.append(key.fileobj)
                    continue
                if key.fileobj is self._control and mask & selectors.EVENT_WRITE:
                    self._flush()
                if mask & selectors.EVENT_READ:
                    key.data()
            self._kill_overdue()
            self._drain(printed)
            # One start a turn, so that ends are seen while many starts wait.
            if self._starts:
                self._start(*self._starts.popleft())
        return 0

    def send(self, record: Any) -> None:
        """Queue a frame to the launcher."""
        self._out += pack(to_frame(record))
        self._flush()

    # The loop.

    def _done(self) -> bool:
        if self._closing_until is None:
            return False
        late = time.monotonic() > self._closing_until
        return late or not (self._runs or self._endings or self._strangers())

    def _pause(self) -> float | None:
        if self._starts:
            return 0.0
        if self._endings or self._closing_until is not None:
            return LOOK_AGAIN_SECONDS
        due = [run.kill_at for run in self._runs.values() if run.kill_at is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _woken(self) -> None:
        self._wakeup.recv(4096)
        self._bury()

    def _read(self) -> None:
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
            sys.stderr.write(f"paglets zygote: the launcher sent nonsense: {error}\n")
            self._close()

    def _flush(self) -> None:
        try:
            sent = self._control.send(self._out) if self._out else 0
        except BlockingIOError:
            sent = 0
        except OSError:  # the host is gone; the end of its socket is read in this loop, too
            sent = len(self._out)
        del self._out[:sent]
        if self._closing_until is None:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
            self._selector.modify(self._control, events, self._read)

    # Starting and ending runs.

    def _take_start(self, spec: LaunchSpec) -> None:
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
        self._runs[pid] = _Run(token=spec.token, pid=pid, outputs=opened.outputs)
        info = self._table.get(pid)
        self.send(StartedRun(token=spec.token, pid=pid, start_time=0.0 if info is None else info.start_time))

    def _end(self, request: EndRun) -> None:
        for run in self._runs.values():
            if run.token == request.token and run.kill_at is None:
                run.kill_at = time.monotonic() + self._grace_seconds
                _signal_run(run, signal.SIGTERM)
        for waiting in [start for start in self._starts if start[0].token == request.token]:
            self._starts.remove(waiting)
            self._refuse(*waiting)

    def _refuse(self, spec: LaunchSpec, child_socket: int) -> None:
        os.close(child_socket)
        self.send(FailedRun(token=spec.token, error="it was ended before it started"))

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for run in self._runs.values():
            if run.kill_at is not None and run.kill_at <= now:
                _signal_run(run, signal.SIGKILL)
                run.kill_at = None if self._closing_until is None else now + LOOK_AGAIN_SECONDS
        if self._endings or self._closing_until is not None:
            self._bury()

    def _close(self) -> None:
        """The host is gone or wants no more: end everything."""
        self._selector.unregister(self._control)
        now = time.monotonic()
        self._closing_until = now + CLOSING_SECONDS
        while self._starts:
            self._refuse(*self._starts.popleft())
        for run in self._runs.values():
            run.kill_at = now

    # What runs print.

    def _drain(self, printed: list[Output]) -> None:
        """Those that had no turn for longest first, until the turn's share is taken."""
        left = TURN_BYTES
        for output in sorted(printed, key=lambda output: output.turn):
            if left > 0 and output.is_open:
                self._drained += 1
                output.turn = self._drained
                left -= output.read_pipe(DRAIN_BYTES, self._buffer)
                if output.ended:
                    self._close_output(output)

    def _drain_last(self, outputs: tuple[Output, ...]) -> None:
        """All processes of the run are gone: what is in the pipes now is the end."""
        for output in outputs:
            if output.is_open:
                output.read_pipe(LAST_BYTES, self._buffer)
                self._close_output(output)

    def _close_output(self, output: Output) -> None:
        self._selector.unregister(output)
        output.close()

    # Burying.

    def _bury(self) -> None:
        """Take in all ends of children, kill what is orphaned, and report the runs of which nothing is left."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            self._ended(pid, status, usage)
        self._kill_orphans()
        for token in list(self._endings):
            if not any(orphan.token in (token, "") for orphan in self._orphans.values()):
                ending = self._endings.pop(token)
                self._drain_last(ending.outputs)
                self.send(
                    ExitedRun(
                        token=token,
                        status=ending.status,
                        cpu_seconds=ending.cpu_seconds,
                        rss_bytes=ending.rss_bytes,
                    )
                )

    def _ended(self, pid: int, status: int, usage: struct_rusage) -> None:
        cpu_seconds = usage.ru_utime + usage.ru_stime
        run = self._runs.pop(pid, None)
        if run is None:
            orphan = self._orphans.pop(pid, None)
            if orphan is not None and orphan.token in self._endings:
                self._endings[orphan.token].cpu_seconds += cpu_seconds
            return
        # The group has no leader now; while it has members its number is not given to another.
        signal_group(pid, signal.SIGKILL)
        unit = 1 if sys.platform == "darwin" else 1024
        self._endings[run.token] = _Ending(
            outputs=run.outputs, status=status, cpu_seconds=cpu_seconds, rss_bytes=usage.ru_maxrss * unit
        )

    def _strangers(self) -> set[int]:
        """Children that were not forked here; none where orphans do not come here."""
        return self._table.children(os.getpid()) - self._runs.keys() if sys.platform == "linux" else set()

    def _kill_orphans(self) -> None:
        strangers = self._strangers()
        self._orphans = {pid: self._orphans.get(pid) or _Orphan(token=self._table.token(pid)) for pid in strangers}
        stubborn = []
        for pid, orphan in self._orphans.items():
            send_signal(pid, signal.SIGKILL)
            orphan.looks += 1
            if orphan.looks > PATIENT_LOOKS:
                stubborn.append(pid)
        if stubborn:
            freeze_and_kill(self._table, stubborn)


def _signal_run(run: _Run, number: int) -> None:
    # To the process itself as well: it may not lead a group yet.
    send_signal(run.pid, number)
    signal_group(run.pid, number)


def _preload(names: Sequence[str]) -> tuple[str, ...]:
    """Import what can be imported; gives the errors. A host without these modules still runs paglets."""
    errors = []
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            errors.append(f"{name}: {type(error).__name__}: {error}")
    return tuple(errors)


def main(argv: Sequence[str], *, grace_seconds: float = GRACE_SECONDS) -> int:
    """What the launcher's command runs; its stdin is the control socket. `grace_seconds`: from SIGTERM to SIGKILL."""
    if tuple(argv) not in ((), (ALONE,)):
        sys.stderr.write("paglets _zygote takes no arguments: a host starts it\n")
        return 2
    # Its host ends it by closing the socket. A job that signals its parent must not take its neighbours along.
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
        # Children inherit these: what a job prints is in its log at once, and never fails for its characters.
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    gc.collect()
    # Memory that the collector does not touch stays shared with the children.
    gc.freeze()
    zygote = Zygote(control, serve, grace_seconds=grace_seconds)
    zygote.send(ZygoteReady(preload_errors=errors))
    return zygote.run()
