"""The host's end of one zygote: its process, its control socket, and the frames to be written to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from paglets.core.errors import PagletsError
from paglets.worker.frames import Unpacker, pack
from paglets.worker.host.heartbeat import Heartbeat, HeartbeatTimeouts
from paglets.worker.launch import ALONE
from paglets.worker.linux import marker_placeholder
from paglets.worker.zygote_protocol import from_frame, to_frame

READ_BYTES = 1 << 18
REAP_SECONDS = 2.0
"""Time limit for a killed zygote to end. SIGKILL takes milliseconds, or the kernel holds the process for minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZygoteSettings:
    """Settings for the start of zygotes.

    `command`: starts a zygote, whose stdin is its control socket. `environment`: of the zygote and all its children;
    it must hold no key. `log_path`: the file for the zygote's stderr; None: the stderr of this process. `store_id`:
    marks the zygotes as those of this host. `umask`: of the zygote and its children; -1: that of this process.
    """

    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    log_path: str | None = None
    store_id: str = ""
    umask: int = -1
    heartbeat: HeartbeatTimeouts = field(default_factory=HeartbeatTimeouts)


@dataclass(slots=True)
class _Outgoing:
    """The rest of a frame to write, and a descriptor to send with its first byte."""

    data: memoryview
    descriptor: int | None


class ZygoteLink:
    """A zygote process and its control socket. No method but `kill_and_reap` blocks.

    `wants_write`: frames wait for space in the socket. `problem`: set when `read` returns None. `is_alone`: the zygote
    serves one run. `unanswered_starts`: starts that were sent and not answered yet. `ends_by`: the monotonic time by
    which the zygote must have ended; None: it is to go on.
    """

    def __init__(self, settings: ZygoteSettings, *, is_alone: bool = False) -> None:
        """Start the zygote. Raises OSError if its command cannot be run."""
        self.is_alone = is_alone
        self.problem = ""
        self.ready = False
        self.unanswered_starts = 0
        self.heartbeat = Heartbeat(settings.heartbeat)
        self.ends_by: float | None = None
        self._unpacker = Unpacker()
        self._out: deque[_Outgoing] = deque()
        self._control, theirs = socket.socketpair()
        self._control.setblocking(False)
        try:
            self._process = _spawn(settings, theirs, (ALONE,) if is_alone else ())
        except OSError:
            self._control.close()
            raise
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def wants_write(self) -> bool:
        return bool(self._out)

    def fileno(self) -> int:
        return self._control.fileno()

    def send(self, record: Any, descriptor: int | None = None) -> None:
        """Queue a record. A `descriptor` is sent with the record, then closed in this process."""
        self._out.append(_Outgoing(memoryview(pack(to_frame(record))), descriptor))
        self.flush()

    def flush(self) -> None:
        """Write as much as the socket takes. If the zygote is gone, `read` reports it."""
        while self._out:
            first = self._out[0]
            try:
                sent = self._write(first)
            except BlockingIOError:
                return
            except OSError:
                self._drop_outgoing()
                return
            if first.descriptor is not None:
                os.close(first.descriptor)
                first.descriptor = None
            first.data = first.data[sent:]
            if not first.data:
                self._out.popleft()

    def _write(self, outgoing: _Outgoing) -> int:
        if outgoing.descriptor is None:
            return self._control.send(outgoing.data)
        return socket.send_fds(self._control, [outgoing.data], [outgoing.descriptor])

    def read(self) -> list[Any] | None:
        """Return the records that have arrived; None if the zygote is gone or sent a bad frame."""
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
        """Close the sending side, so that the zygote ends all its runs. Its reports can still be read."""
        self.ends_by = ends_by
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
        self.resume()

    def resume(self) -> None:
        """Send SIGCONT to the zygote, in case it is stopped."""
        self._process.send_signal(signal.SIGCONT)

    def kill_and_reap(self) -> str:
        """Kill the zygote if it has not ended, and wait up to REAP_SECONDS. Return text about its end."""
        self._drop_outgoing()
        self._control.close()
        self._process.kill()
        try:
            return f"status {self._process.wait(REAP_SECONDS)}"
        except subprocess.TimeoutExpired:
            return f"process {self.pid} does not end after SIGKILL"

    def _drop_outgoing(self) -> None:
        for outgoing in self._out:
            if outgoing.descriptor is not None:
                os.close(outgoing.descriptor)
        self._out.clear()


def _spawn(settings: ZygoteSettings, control: socket.socket, arguments: tuple[str, ...]) -> subprocess.Popen[bytes]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    log = None if settings.log_path is None else os.open(settings.log_path, flags, 0o600)
    try:
        # In its own session, so that Ctrl-C and a closed terminal signal only the host, which then ends the zygote.
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
