"""The launcher of a host on POSIX systems: a zygote, one thread for all sockets, one that samples usage.

Everything is done on the I/O thread; the public methods only post to it, so that none of them blocks and
no lock is needed. Windows has no fork: there a host needs another launcher, which does not exist yet.

All runs share one zygote, but those whose `LaunchSpec.alone` is set: each of these gets a zygote of its own, which ends
with it (`zygotes`). If that zygote dies, nobody but its run can have done it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from paglets.core.errors import PagletsError
from paglets.worker.frames import pack
from paglets.worker.host.child_link import ChildLink
from paglets.worker.host.heartbeat import HeartbeatTimeouts
from paglets.worker.host.reactor import WRITE, Reactor
from paglets.worker.host.sampler import Sampler
from paglets.worker.host.supervisor import ZygoteSupervisor
from paglets.worker.host.zygote_link import ZygoteLink
from paglets.worker.launch import LaunchEvents, LaunchSpec, ProcessExit
from paglets.worker.linux import marker_room, oom_kills
from paglets.worker.processes import ProcessTable, kill_run, process_table
from paglets.worker.usage import Sample, SampledRun
from paglets.worker.zygote_protocol import EndRun, ExitedRun, FailedRun, StartedRun

STDERR_TAIL_BYTES = 8192
SAMPLE_SECONDS = 1.0
PATIENT = HeartbeatTimeouts()

MAX_UNDER_WAY = 32
"""Starts handed to the zygote and not yet answered; the kernel bounds descriptors in flight."""

LOST_PAUSE_SECONDS = 0.02
LOST_PASSES = 2
"""Looks that find nothing of a run before it counts as gone: one look is not atomic, and may miss what forks."""


@dataclass(slots=True, kw_only=True)
class _Lost:
    """A run that its zygote does not bury. `how` it ended is told once `passes` looks found nothing of it."""

    child: ChildLink
    how: ProcessExit
    passes: int = 0


class ZygoteLauncher:
    """Implements `launch.Launcher`.

    `command` starts the zygote, whose stdin will be its control socket; `environment` is all that the zygote,
    and with it every paglet's process, gets: no key may be in it. `table` is where processes are looked at, that of
    the platform if it is None. `log` is told when a zygote has ended; it must not raise. `zygote_log` takes the
    zygote's own stderr; None: that of the host. `store_id` marks the zygotes as those of this host. `patience`: with
    one that does not answer. `umask` is that of the processes; -1: that of the host.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        events: LaunchEvents,
        *,
        table: ProcessTable | None = None,
        log: Callable[[str], None] = lambda text: None,
        zygote_log: str | None = None,
        store_id: str = "",
        umask: int = -1,
        patience: HeartbeatTimeouts = PATIENT,
        stderr_tail_bytes: int = STDERR_TAIL_BYTES,
        sample_seconds: float = SAMPLE_SECONDS,
    ) -> None:
        self._events = events
        self._log = log
        self._table = table or process_table()
        self._stderr_tail_bytes = stderr_tail_bytes
        self._posted: deque[Callable[[], None]] = deque()
        self._children: dict[str, ChildLink] = {}
        self._waiting: deque[ChildLink] = deque()
        self._lost: dict[str, _Lost] = {}
        self._closing = False
        self._oom_before = oom_kills()
        self._handlers: dict[type, Callable[[ZygoteLink, Any], None]] = {
            StartedRun: self._on_started,
            ExitedRun: self._on_exited,
            FailedRun: self._on_failed,
        }
        self._reactor = Reactor()
        room = marker_room(store_id)
        open_zygote = partial(ZygoteLink, tuple(command), {**environment, **room}, zygote_log, patience, umask=umask)
        self._zygotes = ZygoteSupervisor(open_zygote, self._reactor, log, self)
        self._heartbeat_seconds = patience.interval_seconds
        self._wake_reader, self._wake_writer = socket.socketpair()
        for end in (self._wake_reader, self._wake_writer):
            end.setblocking(False)
        self._reactor.watch(self._wake_reader, self._on_wake)
        self._closed = threading.Event()
        self._sampler = Sampler(self._table, sample_seconds, self._watched, self._sampled)
        for name, target in (("paglets-launcher", self._run), ("paglets-usage", self._sampler.run)):
            threading.Thread(target=target, name=name, daemon=True).start()

    # Any thread.

    def start(self, spec: LaunchSpec) -> None:
        self._post(partial(self._begin, spec))

    def send(self, token: str, frame: dict[str, Any]) -> None:
        """A frame to the child. Raises TooLarge or Invalid where it cannot be one."""
        self._post(partial(self._write, token, pack(frame)))

    def end(self, token: str) -> None:
        self._post(partial(self._end, token))

    def close(self) -> None:
        """End everything and the zygote; `wait_closed` waits for it."""
        self._post(self._close)

    def wait_closed(self, timeout_seconds: float) -> bool:
        """After `close`: whether all was ended within that time."""
        return self._closed.wait(timeout_seconds)

    def _post(self, act: Callable[[], None]) -> None:
        self._posted.append(act)
        try:
            self._wake_writer.send(b"\0")
        except (BlockingIOError, OSError):  # it is full of wake-ups, or the launcher is closed
            return

    # The loop.

    def _run(self) -> None:
        while not self._is_closed():
            self._reactor.poll(self._pause())
            while self._posted:
                self._posted.popleft()()
            self._do_due()
        self._closed.set()
        self._sampler.close()
        self._reactor.close()
        self._wake_writer.close()
        self._wake_reader.close()

    def _is_closed(self) -> bool:
        return self._closing and not (self._zygotes.links or self._children)

    def _pause(self) -> float | None:
        if self._lost:
            return LOST_PAUSE_SECONDS
        due = self._zygotes.next_due()
        pause = None if due is None else max(0.0, due - time.monotonic())
        if not self._children:
            return pause
        return self._heartbeat_seconds if pause is None else min(pause, self._heartbeat_seconds)

    def _do_due(self) -> None:
        self._zygotes.do_due()
        if self._lost:
            self._look_for_lost()

    def _on_wake(self, mask: int) -> None:
        self._wake_reader.recv(1 << 16)

    def _close(self) -> None:
        self._closing = True
        while self._waiting:
            self._fail(self._waiting.popleft(), "the host is ending")
        self._zygotes.close()

    # ZygoteSupervisor: `supervisor.Owner`.

    def has_work(self, link: ZygoteLink) -> bool:
        waiting = link is self._zygotes.shared and bool(self._waiting)
        return waiting or any(child.link is link for child in self._children.values())

    def on_ready(self, link: ZygoteLink) -> None:
        for child in self._of(link):
            self._hand_over_one(child, link)
        self._hand_over()

    def on_record(self, link: ZygoteLink, record: Any) -> None:
        self._handlers[type(record)](link, record)
        self._hand_over()

    def on_silent(self, link: ZygoteLink) -> None:
        for child in self._of(link):
            if child.asked_to_end:
                self._lose(child, ProcessExit())

    def on_gone(self, link: ZygoteLink) -> int:
        """Its children get SIGKILL from the system. A run that had begun alone in it is what ended it."""
        left = self._of(link)
        died = not self._closing
        for child in left:
            is_culprit = died and link.is_alone and child.pid is not None
            self._lose(child, ProcessExit(launcher_lost=True, launcher_died=died, is_culprit=is_culprit))
        return len(left)

    def on_hopeless(self, problem: str) -> None:
        while self._waiting:
            self._fail(self._waiting.popleft(), f"the zygote, which starts processes, does not start: {problem}")

    def on_trouble(self, text: str) -> None:
        self._events.start_blocked(text)

    def _of(self, link: ZygoteLink) -> list[ChildLink]:
        return [child for child in self._children.values() if child.link is link and child.token not in self._lost]

    def _lose(self, child: ChildLink, how: ProcessExit) -> None:
        """End a child without its zygote."""
        self._take_frames(child)
        self._disconnect(child)
        self._lost[child.token] = _Lost(child=child, how=how)

    def _look_for_lost(self) -> None:
        """End what a zygote left behind when it ended, until nothing of it is seen any more."""
        alive = kill_run(self._table, [lost.child.run() for lost in self._lost.values()])
        for token, lost in list(self._lost.items()):
            lost.passes = 0 if token in alive else lost.passes + 1
            if lost.passes >= LOST_PASSES:
                del self._lost[token]
                tail = lost.child.stderr_tail(self._stderr_tail_bytes)
                usage = lost.child.usage
                self._ended(lost.child, replace(lost.how, signal=signal.SIGKILL, stderr_tail=tail, usage=usage))

    # Starting.

    def _begin(self, spec: LaunchSpec) -> None:
        child = ChildLink(spec)
        self._children[spec.token] = child
        if self._closing:
            self._fail(child, "the host is ending")
            return
        self._sampler.wake()
        if spec.alone:
            self._begin_alone(child)
            return
        self._waiting.append(child)
        self._hand_over()

    def _begin_alone(self, child: ChildLink) -> None:
        try:
            child.link = self._zygotes.open_alone()
        except OSError as error:
            self._fail(child, f"its zygote cannot be started: {error.strerror}")

    def _hand_over(self) -> None:
        link = self._zygotes.shared
        while link is not None and link.ready and self._waiting and link.under_way < MAX_UNDER_WAY:
            self._hand_over_one(self._waiting.popleft(), link)

    def _hand_over_one(self, child: ChildLink, link: ZygoteLink) -> None:
        try:
            descriptor = child.connect()
        except OSError as error:
            self._fail(child, f"no socket: {error.strerror}")
            return
        try:
            self._zygotes.tell(link, child.spec, descriptor)
        except PagletsError as error:
            os.close(descriptor)
            self._fail(child, error.message)
            return
        child.link = link
        link.under_way += 1

    def _on_started(self, link: ZygoteLink, started: StartedRun) -> None:
        link.under_way -= 1
        child = self._current(started.token)
        if child is None:
            self._zygotes.tell(link, EndRun(token=started.token))
            return
        child.pid, child.start_time = started.pid, started.start_time
        if not child.start_time and (info := self._table.get(started.pid)) is not None:
            child.start_time = info.start_time
        self._events.started(child.token, child.pid, child.start_time)
        self._watch(child)

    def _on_failed(self, link: ZygoteLink, failed: FailedRun) -> None:
        link.under_way -= 1
        child = self._current(failed.token)
        if child is not None:
            self._fail(child, failed.error)

    def _current(self, token: str) -> ChildLink | None:
        """Return that child, or None if it was ended while its zygote did not answer."""
        return None if token in self._lost else self._children.get(token)

    # Frames.

    def _on_child(self, child: ChildLink, mask: int) -> None:
        if mask & WRITE:
            child.write()
        self._take_frames(child)
        if child.condemned:
            self._end(child.token)
        self._watch(child)

    def _take_frames(self, child: ChildLink) -> None:
        for frame in child.read():
            self._events.frame(child.token, frame)

    def _write(self, token: str, data: bytes) -> None:
        child = self._children.get(token)
        if child is not None:
            child.write(data)
            self._watch(child)

    def _watch(self, child: ChildLink) -> None:
        # Not before `started`: it comes first, whatever the child says.
        if child.channel is None or child.pid is None:
            return
        if child.readable:
            self._reactor.watch(child.channel, partial(self._on_child, child), writing=child.wants_write)
        else:
            self._reactor.forget(child.channel)

    def _disconnect(self, child: ChildLink) -> None:
        if child.channel is not None:
            self._reactor.forget(child.channel)
            child.close()

    # Ending.

    def _end(self, token: str) -> None:
        child = self._children.get(token)
        if child is None or child.asked_to_end:
            return
        child.asked_to_end = True
        if child in self._waiting:
            self._waiting.remove(child)
            self._fail(child, "it was ended before it started")
        elif child.link is not None and not child.link.ready:
            self._fail(child, "it was ended before it started")
        elif child.link is not None and token not in self._lost:
            if child.link.heartbeat.is_silent:
                self._lose(child, ProcessExit())
            else:
                self._zygotes.tell(child.link, EndRun(token=token))

    def _on_exited(self, link: ZygoteLink, exited: ExitedRun) -> None:
        child = self._current(exited.token)
        if child is None:
            return
        self._take_frames(child)
        if sys.platform != "linux" and child.usage.processes > 1:
            # Without a subreaper the samples are all that is known of processes that left the session.
            kill_run(self._table, [child.run()])
        self._ended(child, child.ended(exited, self._stderr_tail_bytes, oom=self._was_oom(child, exited)))

    def _was_oom(self, child: ChildLink, exited: ExitedRun) -> bool:
        """Whether the kernel killed it for want of memory: it was killed, not by us, and the count went up."""
        if exited.status != signal.SIGKILL or child.asked_to_end or self._closing:
            return False
        return oom_kills() > self._oom_before

    def _fail(self, child: ChildLink, error: str) -> None:
        self._ended(child, ProcessExit(error=error))

    def _ended(self, child: ChildLink, how: ProcessExit) -> None:
        del self._children[child.token]
        self._disconnect(child)
        if child.link is not None and child.link.is_alone:
            self._zygotes.end(child.link)
        if not self._children:
            self._sampler.pause()
        self._events.ended(child.token, how)

    # Sampling, on its own thread; what it finds is told on the I/O thread, so that it comes before `ended`.

    def _watched(self) -> tuple[SampledRun, ...]:
        watched = (child.watched() for child in self._children.copy().values())
        return tuple(run for run in watched if run is not None)

    def _sampled(self, samples: Mapping[str, Sample], oom_before: int) -> None:
        self._post(partial(self._on_samples, samples, oom_before))

    def _on_samples(self, samples: Mapping[str, Sample], oom_before: int) -> None:
        self._oom_before = oom_before
        for token, sample in samples.items():
            child = self._children.get(token)
            if child is not None:
                child.take_sample(sample)
                self._events.sampled(token, child.usage)
