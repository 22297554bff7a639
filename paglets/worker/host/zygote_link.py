"""The host's side of the connection to one zygote: the process, the control socket, and the queue of frames to send."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from paglets.core.errors import PagletsError
from paglets.worker.frames import Unpacker, pack
from paglets.worker.host.heartbeat import Heartbeat, HeartbeatTimeouts
from paglets.worker.host.reactor import Writing
from paglets.worker.host.send_queue import SendQueue
from paglets.worker.launch import ALONE
from paglets.worker.linux import marker_placeholder
from paglets.worker.processes import ProcessTable, RunTree, same_process, send_signal
from paglets.worker.zygote_protocol import from_frame, to_frame

READ_BYTES = 1 << 18
REAP_SECONDS = 2.0
"""Time limit for a killed zygote to end. SIGKILL takes milliseconds, unless the process is blocked in the kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZygoteSettings:
    """Settings for the start of zygotes.

    `command`: the command line of a zygote, which gets the control socket as stdin. `environment`: the environment of
    the zygote and its children; it must not contain a secret key. `log_path`: the file for the zygote's stderr; None:
    the stderr of this process. `store_id`: the id that marks zygotes as those of this host. `umask`: the umask of the
    zygote and its children; -1: the umask of this process.
    """

    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    log_path: str | None = None
    store_id: str = ""
    umask: int = -1
    heartbeat: HeartbeatTimeouts = field(default_factory=HeartbeatTimeouts)


class ZygoteProcess(Protocol):
    """An interface to the process of a zygote."""

    @property
    def pid(self) -> int: ...

    def resume(self) -> None:
        """Send SIGCONT to the process, in case a signal stopped it."""
        ...

    def kill_and_reap(self) -> str:
        """Kill the process if it has not ended. Return a phrase with its exit status or its pid."""
        ...


class SpawnedZygote:
    """The process of a zygote that this process has started."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill_and_reap(self) -> str:
        """Like `ZygoteProcess.kill_and_reap`. Wait up to REAP_SECONDS for the end."""
        self._process.kill()
        try:
            return f"status {self._process.wait(REAP_SECONDS)}"
        except subprocess.TimeoutExpired:
            return f"process {self.pid} does not end after SIGKILL"


class ForkedZygote:
    """The process of a zygote that another zygote forks and reaps. `pid`: 0 until it is known."""

    def __init__(self, table: ProcessTable) -> None:
        self._table = table
        self.pid = 0
        self._start_time = 0.0

    def identify(self, pid: int, start_time: float) -> None:
        self.pid, self._start_time = pid, start_time

    def run_tree(self, token: str) -> RunTree:
        """Return the process as the tree of a run with this token, for `kill_runs`."""
        known = (self.pid, self._start_time) if self.pid else (None, None)
        return RunTree(token=token, pid=known[0], start_time=known[1], seen={})

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill_and_reap(self) -> str:
        self._signal(signal.SIGKILL)
        return f"process {self.pid}"

    def _signal(self, number: int) -> None:
        if self.pid and same_process(self._table.get(self.pid), self._start_time):
            send_signal(self.pid, number)


class ZygoteLink:
    """A zygote process and its control socket. No method but `kill_and_reap` blocks.

    `writing`: when to call `flush`, for the reactor. `problem`: the reason why `read` returned None.
    `is_alone`: True if the zygote serves a single run. `unanswered_starts`: the number of start requests without an
    answer. `ends_by`: the monotonic deadline for the end of the zygote; None if its end was not requested.
    """

    def __init__(
        self, control: socket.socket, process: ZygoteProcess, heartbeat: HeartbeatTimeouts, *, is_alone: bool = False
    ) -> None:
        self.is_alone = is_alone
        self.problem = ""
        self.ready = False
        self.unanswered_starts = 0
        self.heartbeat = Heartbeat(heartbeat)
        self.ends_by: float | None = None
        self._unpacker = Unpacker()
        self._out = SendQueue()
        self._control = control
        self._control.setblocking(False)
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def writing(self) -> Writing:
        return self._out.writing

    def fileno(self) -> int:
        return self._control.fileno()

    def send(self, record: Any, *descriptors: int) -> None:
        """Queue a record. The descriptors are sent with the record and then closed in this process."""
        self._out.add(pack(to_frame(record)), descriptors)
        self.flush()

    def flush(self) -> None:
        """Send as much of the queue as the socket accepts. Drop the queue if the zygote has ended."""
        self._out.flush(self._control)

    def read(self) -> list[Any] | None:
        """Return the records that have arrived; None if the zygote has ended or sent a bad frame."""
        try:
            data = self._control.recv(READ_BYTES)
        except BlockingIOError:
            return []
        except OSError as error:
            self.problem = f"its socket broke: {error.strerror}"
            return None
        if not data:
            self.problem = "it ended"
            return None
        try:
            return [from_frame(frame) for frame in self._unpacker.feed(data)]
        except PagletsError as error:
            self.problem = f"it sent a bad frame: {error.message}"
            return None

    def hang_up(self, ends_by: float) -> None:
        """Close the sending side of the socket, which makes the zygote end. Its frames can still be read.

        `ends_by`: the monotonic deadline for the end of the zygote.
        """
        self.ends_by = ends_by
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
        self.resume()

    def resume(self) -> None:
        """Send SIGCONT to the zygote, in case a signal stopped it."""
        self._process.resume()

    def kill_and_reap(self) -> str:
        """Close the socket, kill the process if it has not ended, and return a phrase with its exit status or pid."""
        self._out.drop()
        self._control.close()
        return self._process.kill_and_reap()


def start_zygote(settings: ZygoteSettings, *, is_alone: bool = False) -> ZygoteLink:
    """Start a zygote. Raises OSError."""
    ours, theirs = socket.socketpair()
    try:
        process = _spawn(settings, theirs, (ALONE,) if is_alone else ())
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return ZygoteLink(ours, SpawnedZygote(process), settings.heartbeat, is_alone=is_alone)


def _spawn(settings: ZygoteSettings, control: socket.socket, arguments: tuple[str, ...]) -> subprocess.Popen[bytes]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    log = None if settings.log_path is None else os.open(settings.log_path, flags, 0o600)
    try:
        # The zygote gets its own session, so that Ctrl-C and a closed terminal signal only the host. The host then
        # ends the zygote.
        return subprocess.Popen(
            [*settings.command, *arguments],
            stdin=control.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=log,
            env={**settings.environment, **marker_placeholder(settings.store_id)},
            start_new_session=True,
            umask=settings.umask,
        )
    finally:
        if log is not None:
            os.close(log)
