"""The launcher's end of one child: its socket, and what is known of its process."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any

from paglets.api.slots import Usage
from paglets.core.errors import PagletsError
from paglets.worker import logs
from paglets.worker.frames import Unpacker
from paglets.worker.host.zygote_link import ZygoteLink
from paglets.worker.launch import LaunchSpec, ProcessExit
from paglets.worker.processes import RunTree
from paglets.worker.usage import Sample, SampledRun, larger, scratch_bytes
from paglets.worker.zygote_protocol import ExitedRun

READ_BYTES = 1 << 18
MAX_READS = 16
"""Reads in a row from one child: more than its socket holds when it has ended, yet others get their turn."""

LAST_SCRATCH_ENTRIES = 1000
"""Of the look at the scratch when a process has ended: one that runs for long was looked at before."""


class ChildLink:
    """Non-blocking. `condemned` says why the launcher ends this child by itself; "" where it does not.

    `link` is its zygote once one was asked for it. `channel` is there once `connect` has been called, and `readable`
    until its end of file.
    """

    def __init__(self, spec: LaunchSpec) -> None:
        self.spec = spec
        self.link: ZygoteLink | None = None
        self.pid: int | None = None
        self.start_time = 0.0
        self.channel: socket.socket | None = None
        self.readable = True
        self.condemned = ""
        self.asked_to_end = False
        self.exited: ExitedRun | None = None
        self.usage = Usage()
        self._seen: Mapping[int, float] = {}
        self._unpacker = Unpacker()
        self._out = bytearray()
        self._stderr_offset = logs.end_of(spec.stderr_path)

    @property
    def token(self) -> str:
        return self.spec.token

    @property
    def wants_write(self) -> bool:
        return bool(self._out) and self.channel is not None

    def connect(self) -> int:
        """Make the socket pair; gives the descriptor of the child's end, which the caller owns. Raises OSError."""
        self.channel, theirs = socket.socketpair()
        self.channel.setblocking(False)
        return theirs.detach()

    def write(self, data: bytes = b"") -> None:
        """Send `data` and what waits before it, as far as it goes without waiting."""
        self._out += data
        if self.channel is None or not self._out:
            return
        try:
            sent = self.channel.send(self._out)
        except BlockingIOError:
            return
        except OSError:  # nobody reads it any more; its end comes from the zygote
            sent = len(self._out)
        del self._out[:sent]

    def read(self) -> list[dict[str, Any]]:
        """The frames that have come. Clears `readable` when none can follow; a bad frame condemns the child."""
        frames: list[dict[str, Any]] = []
        try:
            for _ in range(MAX_READS):
                data = b"" if self.channel is None else self.channel.recv(READ_BYTES)
                if not data:
                    self.readable = False
                    break
                frames += self._unpacker.feed(data)
        except BlockingIOError:
            return frames
        except OSError:
            self.readable = False
        except PagletsError as error:
            self.condemned = f"paglets ended this process, because it sent a bad frame: {error.message}"
            self.readable = False
        return frames

    def close(self) -> None:
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def watched(self) -> SampledRun | None:
        """What to sample of it, while it runs."""
        if self.pid is None or self.exited is not None:
            return None
        return SampledRun(token=self.token, pid=self.pid, start_time=self.start_time, work_dir=self.spec.work_dir)

    def take_sample(self, sample: Sample) -> None:
        self._seen = sample.seen
        self.usage = larger(self.usage, sample.usage)

    def run(self) -> RunTree:
        """What can be known of its processes without the zygote."""
        start_time = None if self.pid is None else self.start_time
        return RunTree(token=self.token, pid=self.pid, start_time=start_time, seen=self._seen)

    def ended(self, exited: ExitedRun, stderr_tail_bytes: int, *, oom: bool) -> ProcessExit:
        """How it ended, when its tree is gone."""
        code = os.waitstatus_to_exitcode(exited.status)
        at_end = Usage(
            cpu_seconds=exited.cpu_seconds,
            rss_bytes=exited.rss_bytes,
            scratch_bytes=scratch_bytes(self.spec.work_dir, LAST_SCRATCH_ENTRIES),
            processes=1,
        )
        return ProcessExit(
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            stderr_tail=self.stderr_tail(stderr_tail_bytes),
            oom=oom,
            silent=not (logs.end_of(self.spec.stdout_path) or logs.end_of(self.spec.stderr_path)),
            usage=larger(self.usage, at_end),
        )

    def stderr_tail(self, most_bytes: int) -> str:
        """The last whole lines that this process wrote to stderr, and why it was condemned."""
        tail = logs.last_lines(self.spec.stderr_path, self._stderr_offset, most_bytes).decode("utf-8", "replace")
        return "\n".join(part for part in (tail, self.condemned) if part)
