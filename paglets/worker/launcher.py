"""The launcher of a host on POSIX systems: one zygote, one thread for all sockets, one that samples usage.

Everything is done on the I/O thread; the public methods only post to it, so that none of them blocks and
no lock is needed. Windows has no fork: there a host needs another launcher, which does not exist yet.
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
from functools import partial
from typing import Any

from paglets.core.errors import PagletsError
from paglets.worker.child_link import ChildLink
from paglets.worker.control import EndRun, ExitedRun, FailedRun, Ready, StartedRun
from paglets.worker.frames import pack
from paglets.worker.launch import Ended, LaunchEvents, LaunchSpec
from paglets.worker.linux import oom_kills
from paglets.worker.polling import WRITE, Poller
from paglets.worker.process import ProcessTable, kill_run, process_table
from paglets.worker.restarts import Restarts
from paglets.worker.usage import SCRATCH_EVERY, Sample, sample_runs
from paglets.worker.zygote_link import ZygoteLink

STDERR_TAIL_BYTES = 8192
SAMPLE_SECONDS = 1.0
SAMPLE_SHARE = 0.02
"""Sampling takes no more than this share of one core: on a machine with very many processes it is done less often.
By processor time: after a look that the machine held up for a second, the next would be a minute away."""

MAX_UNDER_WAY = 32
"""Starts handed to the zygote and not yet answered; the kernel bounds descriptors in flight."""

LOST_PAUSE_SECONDS = 0.02
LOST_PASSES = 2
"""Looks that find nothing of a run before it counts as gone: one look is not atomic, and may miss what forks."""

CLOSE_SECONDS = 12.0
"""More than the zygote takes by itself (`zygote.CLOSING_SECONDS`)."""


class ZygoteLauncher:
    """Implements `launch.Launcher`.

    `command` starts the zygote, whose stdin will be its control socket; `environment` is all that the zygote,
    and with it every paglet's process, gets: no key may be in it. `table` is where processes are looked at, that of
    the platform if it is None. `log` is told when a zygote has ended; it must not raise. `zygote_log` takes the
    zygote's own stderr; None: that of the host.
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
        stderr_tail_bytes: int = STDERR_TAIL_BYTES,
        sample_seconds: float = SAMPLE_SECONDS,
    ) -> None:
        self._open_zygote = partial(ZygoteLink, tuple(command), dict(environment), zygote_log)
        self._events = events
        self._log = log
        self._table = table or process_table()
        self._stderr_tail_bytes = stderr_tail_bytes
        self._sample_seconds = sample_seconds
        self._posted: deque[Callable[[], None]] = deque()
        self._children: dict[str, ChildLink] = {}
        self._waiting: deque[ChildLink] = deque()
        self._lost: dict[str, tuple[ChildLink, int]] = {}
        self._link: ZygoteLink | None = None
        self._ready = False
        self._under_way = 0
        self._restarts = Restarts()
        self._open_at: float | None = 0.0
        self._close_at: float | None = None
        self._oom_before = oom_kills()
        self._handlers: dict[type, Callable[[Any], None]] = {
            Ready: self._on_ready,
            StartedRun: self._on_started,
            ExitedRun: self._on_exited,
            FailedRun: self._on_failed,
        }
        self._poller = Poller()
        self._wake_reader, self._wake_writer = socket.socketpair()
        for end in (self._wake_reader, self._wake_writer):
            end.setblocking(False)
        self._poller.watch(self._wake_reader, self._on_wake)
        self._busy = threading.Event()
        self._closed = threading.Event()
        for name, target in (("paglets-launcher", self._run), ("paglets-usage", self._sample)):
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
            self._poller.poll(self._pause())
            while self._posted:
                self._posted.popleft()()
            self._do_due()
        self._closed.set()
        self._busy.set()
        self._poller.close()
        self._wake_writer.close()
        self._wake_reader.close()

    def _is_closed(self) -> bool:
        return self._close_at is not None and not (self._link or self._children)

    def _pause(self) -> float | None:
        if self._lost:
            return LOST_PAUSE_SECONDS
        due = [at for at in (self._open_at, self._close_at) if at is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _do_due(self) -> None:
        now = time.monotonic()
        if self._open_at is not None and self._open_at <= now:
            self._open(now)
        if self._close_at is not None and self._close_at <= now and self._link is not None:
            self._on_zygote_gone("it did not end in time")
        if self._lost:
            self._look_for_lost()

    def _on_wake(self, mask: int) -> None:
        self._wake_reader.recv(1 << 16)

    def _close(self) -> None:
        self._close_at = time.monotonic() + CLOSE_SECONDS
        self._open_at = None
        while self._waiting:
            self._fail(self._waiting.popleft(), "the host is ending")
        if self._link is not None:
            self._link.hang_up()

    # The zygote.

    def _open(self, now: float) -> None:
        self._open_at = None
        self._restarts.opened(now)
        try:
            self._link = self._open_zygote()
        except OSError as error:
            self._open_again(f"{error.filename or 'its command'}: {error.strerror}")
        else:
            self._poller.watch(self._link, self._on_zygote)

    def _open_again(self, problem: str) -> None:
        self._open_at = self._restarts.ended(time.monotonic(), was_ready=self._ready)
        self._ready = False
        self._under_way = 0
        self._log(f"the zygote is gone ({problem}); a new one is started")
        while self._restarts.hopeless and self._waiting:
            self._fail(self._waiting.popleft(), f"the zygote, which starts processes, does not start: {problem}")

    def _on_zygote(self, mask: int) -> None:
        assert self._link is not None
        if mask & WRITE:
            self._link.flush()
        records = self._link.read()
        if records is None:
            self._on_zygote_gone(self._link.problem)
            return
        for record in records:
            self._handlers[type(record)](record)
        self._hand_over()
        self._poller.watch(self._link, self._on_zygote, writing=self._link.wants_write)

    def _tell_zygote(self, record: Any, descriptor: int | None = None) -> None:
        assert self._link is not None
        self._link.send(record, descriptor)
        self._poller.watch(self._link, self._on_zygote, writing=self._link.wants_write)

    def _on_ready(self, ready: Ready) -> None:
        self._ready = True
        for problem in ready.preload_errors:
            self._log(f"the zygote could not load {problem}")

    def _on_zygote_gone(self, problem: str) -> None:
        assert self._link is not None
        self._poller.forget(self._link)
        status = self._link.bury()
        self._link = None
        for child in self._children.values():
            if child not in self._waiting and child.token not in self._lost:
                self._take_frames(child)
                self._disconnect(child)
                self._lost[child.token] = (child, 0)
        if self._close_at is None:
            self._open_again(f"{problem}, status {status}")

    def _look_for_lost(self) -> None:
        """End what a zygote left behind when it ended, until nothing of it is seen any more."""
        alive = kill_run(self._table, [child.run() for child, _ in self._lost.values()])
        for token, (child, passes) in list(self._lost.items()):
            passes = 0 if token in alive else passes + 1
            self._lost[token] = (child, passes)
            if passes >= LOST_PASSES:
                del self._lost[token]
                tail = child.stderr_tail(self._stderr_tail_bytes)
                self._ended(
                    child, Ended(signal=signal.SIGKILL, launcher_lost=True, stderr_tail=tail, usage=child.usage)
                )

    # Starting.

    def _begin(self, spec: LaunchSpec) -> None:
        child = ChildLink(spec)
        self._children[spec.token] = child
        if self._close_at is not None:
            self._fail(child, "the host is ending")
            return
        self._busy.set()
        self._waiting.append(child)
        self._hand_over()

    def _hand_over(self) -> None:
        while self._ready and self._waiting and self._under_way < MAX_UNDER_WAY:
            child = self._waiting.popleft()
            error = self._hand_over_one(child)
            if error:
                self._fail(child, error)

    def _hand_over_one(self, child: ChildLink) -> str:
        """What went wrong, if it did."""
        try:
            descriptor = child.connect()
        except OSError as error:
            return f"no socket: {error.strerror}"
        try:
            self._tell_zygote(child.spec, descriptor)
        except PagletsError as error:
            os.close(descriptor)
            return error.message
        self._under_way += 1
        return ""

    def _on_started(self, started: StartedRun) -> None:
        self._under_way -= 1
        child = self._children[started.token]
        child.pid, child.start_time = started.pid, started.start_time
        if not child.start_time and (info := self._table.get(started.pid)) is not None:
            child.start_time = info.start_time
        self._events.started(child.token, child.pid, child.start_time)
        self._watch(child)

    def _on_failed(self, failed: FailedRun) -> None:
        self._under_way -= 1
        self._fail(self._children[failed.token], failed.error)

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
            self._poller.watch(child.channel, partial(self._on_child, child), writing=child.wants_write)
        else:
            self._poller.forget(child.channel)

    def _disconnect(self, child: ChildLink) -> None:
        if child.channel is not None:
            self._poller.forget(child.channel)
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
        elif self._link is not None and token not in self._lost:
            self._tell_zygote(EndRun(token=token))

    def _on_exited(self, exited: ExitedRun) -> None:
        child = self._children[exited.token]
        self._take_frames(child)
        if sys.platform != "linux" and child.usage.processes > 1:
            # Without a subreaper the samples are all that is known of processes that left the session.
            kill_run(self._table, [child.run()])
        self._ended(child, child.ended(exited, self._stderr_tail_bytes, oom=self._was_oom(child, exited)))

    def _was_oom(self, child: ChildLink, exited: ExitedRun) -> bool:
        """Whether the kernel killed it for want of memory: it was killed, not by us, and the count went up."""
        if exited.status != signal.SIGKILL or child.asked_to_end or self._close_at is not None:
            return False
        return oom_kills() > self._oom_before

    def _fail(self, child: ChildLink, error: str) -> None:
        self._ended(child, Ended(error=error))

    def _ended(self, child: ChildLink, how: Ended) -> None:
        del self._children[child.token]
        self._disconnect(child)
        if not self._children:
            self._busy.clear()
        self._events.ended(child.token, how)

    # Sampling, on its own thread; what it finds is told on the I/O thread, so that it comes before `ended`.

    def _sample(self) -> None:
        rounds, oom_before = 0, 0
        while True:
            idle = not self._busy.is_set()
            self._busy.wait()
            if self._closed.is_set():
                return
            began = time.thread_time()
            oom_count = oom_kills()
            oom_before = oom_count if idle else oom_before
            watched = (child.watched() for child in self._children.copy().values())
            runs = tuple(run for run in watched if run is not None)
            samples = sample_runs(self._table, runs, with_scratch=rounds % SCRATCH_EVERY == 0) if runs else {}
            self._post(partial(self._on_samples, samples, oom_before))
            rounds, oom_before = rounds + 1, oom_count
            self._closed.wait(max(self._sample_seconds, (time.thread_time() - began) / SAMPLE_SHARE))

    def _on_samples(self, samples: Mapping[str, Sample], oom_before: int) -> None:
        self._oom_before = oom_before
        for token, sample in samples.items():
            child = self._children.get(token)
            if child is not None:
                child.take_sample(sample)
                self._events.sampled(token, child.usage)
