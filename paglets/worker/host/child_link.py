"""The host's end of one child: its socket, and what the host knows about its process."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any

from paglets.api.slots import Usage
from paglets.core.errors import PagletsError
from paglets.worker import logs
from paglets.worker.frames import Unpacker
from paglets.worker.host.sampler import Sample, SampledRun, larger
from paglets.worker.host.zygote_link import ZygoteLink
from paglets.worker.launch import LaunchSpec, ProcessExit
from paglets.worker.processes import RunTree
from paglets.worker.scratch import scratch_bytes
from paglets.worker.zygote_protocol import ExitedRun

READ_BYTES = 1 << 18
MAX_READS = 16
"""Most reads in a row from one child: more than a full socket needs, yet other children get their turn."""

STDERR_TAIL_BYTES = 8192

LAST_SCRATCH_ENTRIES = 1000
"""Most files that are counted in the scratch directory when a process ends. Long runs were sampled before."""


class ChildLink:
    """The socket and state of one child. No method blocks.

    `link`: its zygote, once a start was sent to it. `channel`: its socket, once `connect` was called. `readable`: its
    end of file has not come. `protocol_error`: why the launcher ends this child; "" if the child made no error.
    `is_ending`: its end was requested.
    """

    def __init__(self, spec: LaunchSpec) -> None:
        self.spec = spec
        self.link: ZygoteLink | None = None
        self.pid: int | None = None
        self.start_time = 0.0
        self.channel: socket.socket | None = None
        self.readable = True
        self.protocol_error = ""
        self.is_ending = False
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
        """Make the socket pair. Return the descriptor of the child's end, which the caller owns. Raises OSError."""
        self.channel, theirs = socket.socketpair()
        self.channel.setblocking(False)
        return theirs.detach()

    def write(self, data: bytes = b"") -> None:
        """Queue `data`, and send as much of the queue as the socket takes."""
        self._out += data
        if self.channel is None or not self._out:
            return
        try:
            sent = self.channel.send(self._out)
        except BlockingIOError:
            return
        except OSError:  # the child is gone; the zygote reports its end
            sent = len(self._out)
        del self._out[:sent]

    def read(self) -> list[dict[str, Any]]:
        """Return the frames that have arrived. Clear `readable` at end of file. A bad frame sets `protocol_error`."""
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
            self.protocol_error = f"paglets ended this process because it sent a bad frame: {error.message}"
            self.readable = False
        return frames

    def close(self) -> None:
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def sampled_run(self) -> SampledRun | None:
        """Return what to sample; None if the process does not run."""
        if self.pid is None or self.exited is not None:
            return None
        return SampledRun(token=self.token, pid=self.pid, start_time=self.start_time, work_dir=self.spec.work_dir)

    def take_sample(self, sample: Sample) -> None:
        self._seen = sample.seen
        self.usage = larger(self.usage, sample.usage)

    def run_tree(self) -> RunTree:
        """Return its processes, as far as they are known without the zygote."""
        start_time = None if self.pid is None else self.start_time
        return RunTree(token=self.token, pid=self.pid, start_time=start_time, seen=self._seen)

    def exit_of(self, exited: ExitedRun, *, oom: bool) -> ProcessExit:
        """Return how the process ended. `oom`: the kernel killed it because memory ran out."""
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
            stderr_tail=self.stderr_tail(),
            oom=oom,
            silent=not (logs.end_of(self.spec.stdout_path) or logs.end_of(self.spec.stderr_path)),
            usage=larger(self.usage, at_end),
        )

    def stderr_tail(self) -> str:
        """Return the last whole lines that this process wrote to stderr, and its protocol error."""
        tail = logs.last_lines(self.spec.stderr_path, self._stderr_offset, STDERR_TAIL_BYTES).decode("utf-8", "replace")
        return "\n".join(part for part in (tail, self.protocol_error) if part)
