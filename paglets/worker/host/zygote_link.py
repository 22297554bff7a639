"""The launcher's end of one zygote: its process, its control socket, what is to be written to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from paglets.core.errors import PagletsError
from paglets.worker.frames import Unpacker, pack
from paglets.worker.host.heartbeat import Heartbeat, HeartbeatTimeouts
from paglets.worker.launch import ALONE
from paglets.worker.zygote_protocol import from_frame, to_frame

READ_BYTES = 1 << 18
BURY_SECONDS = 2.0
"""SIGKILL ends a process in milliseconds, or the kernel holds it for minutes."""


@dataclass(slots=True)
class _Outgoing:
    data: memoryview
    descriptor: int | None


class ZygoteLink:
    """Non-blocking. `fileno` for a selector; `wants_write` says whether to wait for room.

    `problem`: why it cannot be spoken to any more, once `read` has given None. `is_alone`: it serves one run.
    `under_way`: starts that were handed to it and are not answered yet. `ends_by`: when it must have ended.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log_path: str | None,
        patience: HeartbeatTimeouts,
        *,
        is_alone: bool = False,
        umask: int = -1,
    ) -> None:
        """Start the zygote with that umask (-1: that of this process). Raises OSError where it cannot be run."""
        self.is_alone = is_alone
        self.problem = ""
        self.ready = False
        self.under_way = 0
        self.heartbeat = Heartbeat(patience)
        self.ends_by: float | None = None
        self._unpacker = Unpacker()
        self._out: deque[_Outgoing] = deque()
        self._control, theirs = socket.socketpair()
        self._control.setblocking(False)
        try:
            self._process = _spawn((*command, ALONE) if is_alone else command, environment, theirs, log_path, umask)
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
        """Queue a frame; `descriptor` travels with it and is closed here once it has left."""
        self._out.append(_Outgoing(memoryview(pack(to_frame(record))), descriptor))
        self.flush()

    def flush(self) -> None:
        """Write what goes without waiting. A zygote that is gone is seen by `read`."""
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
        """The records that have come; None where the zygote is gone or does not speak its language."""
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
            self.problem = f"it sent nonsense: {error.message}"
            return None

    def hang_up(self, ends_by: float) -> None:
        """Tell the zygote to end everything; what it reports of that can still be read."""
        self.ends_by = ends_by
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
        self.resume()

    def resume(self) -> None:
        """Continue the zygote, if it is stopped."""
        self._process.send_signal(signal.SIGCONT)

    def bury(self) -> str:
        """End the zygote, if it has not ended, and free what it took; gives how it ended."""
        self._drop_outgoing()
        self._control.close()
        self._process.kill()
        try:
            return f"status {self._process.wait(BURY_SECONDS)}"
        except subprocess.TimeoutExpired:
            return f"the kernel holds process {self.pid}"

    def _drop_outgoing(self) -> None:
        for outgoing in self._out:
            if outgoing.descriptor is not None:
                os.close(outgoing.descriptor)
        self._out.clear()


def _spawn(
    command: Sequence[str], environment: Mapping[str, str], control: socket.socket, log_path: str | None, umask: int
) -> subprocess.Popen[bytes]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    log = None if log_path is None else os.open(log_path, flags, 0o600)
    try:
        # A session of its own: neither Ctrl-C nor the end of a terminal reaches it before the host decides.
        return subprocess.Popen(
            list(command),
            stdin=control.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=log,
            env=dict(environment),
            start_new_session=True,
            umask=umask,
        )
    finally:
        if log is not None:
            os.close(log)
