"""The host's side of the connection to one child: the socket, and the known state of the child process."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from paglets.api.slots import Usage
from paglets.core.errors import PagletsError
from paglets.worker import logs
from paglets.worker.frames import Unpacker
from paglets.worker.host.reactor import Writing
from paglets.worker.host.sampler import Sample, SampledRun, larger
from paglets.worker.host.send_queue import SendQueue
from paglets.worker.host.zygote_link import ZygoteLink
from paglets.worker.launch import LaunchSpec, ProcessExit
from paglets.worker.processes import RunTree
from paglets.worker.scratch import scratch_bytes
from paglets.worker.zygote_protocol import ExitedRun

READ_BYTES = 1 << 18
MAX_READS = 16
"""Maximum number of consecutive reads from one child: enough to empty a full socket without starving other children."""

STDERR_TAIL_BYTES = 8192

LAST_SCRATCH_ENTRIES = 1000
"""Maximum number of files to count in a scratch directory when its run ends. Samples of long runs count more."""


class ChildLink:
    """The socket and state of one child process. No method blocks.

    `link`: the zygote that forks the child; None until one is chosen. `channel`: the host's end of the socket pair;
    None before `connect` and after `close`. `readable`: False after end of file or an error. `protocol_error`: the
    error of a bad frame, for which the launcher ends the child. `is_ending`: True once its end was requested.
    `no_template`: as in `launch.ProcessExit`. `work_dir`: the scratch directory to measure.
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
        self.no_template = ""
        self.exited: ExitedRun | None = None
        self.usage = Usage()
        self.work_dir = spec.work_dir
        self._seen: Mapping[int, float] = {}
        self._unpacker = Unpacker()
        self._out = SendQueue()
        self._stderr_offset = 0 if spec.is_worker else logs.end_of(spec.stderr_path)

    @property
    def token(self) -> str:
        return self.spec.token

    @property
    def writing(self) -> Writing:
        return self._out.writing if self.channel is not None else ""

    def connect(self) -> int:
        """Create the socket pair. Return the descriptor of the child's end. The caller closes it. Raises OSError."""
        self.channel, theirs = socket.socketpair()
        self.channel.setblocking(False)
        return theirs.detach()

    def write(self, data: bytes = b"", descriptors: Sequence[int] = ()) -> None:
        """Queue `data`, and send as much of the queue as the socket accepts. The descriptors go with the first byte.

        If the child has ended, the data is dropped: the zygote reports the end.
        """
        if data:
            self._out.add(data, descriptors)
        if self.channel is not None:
            self._out.flush(self.channel)

    def read(self) -> list[dict[str, Any]]:
        """Return the frames that have arrived.

        End of file and errors set `readable` to False. A bad frame also sets `protocol_error`.
        """
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
        self._out.drop()
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def sampled_run(self) -> SampledRun | None:
        """Return the process and the directory to sample; None if the process is not running."""
        if self.pid is None or self.exited is not None:
            return None
        return SampledRun(token=self.token, pid=self.pid, start_time=self.start_time, work_dir=self.work_dir)

    def begin_job(self, work_dir: str) -> None:
        """Measure a job of this warm worker from now on."""
        self.work_dir, self.usage = work_dir, Usage()

    def take_sample(self, sample: Sample) -> None:
        self._seen = sample.seen
        self.usage = larger(self.usage, sample.usage)

    def run_tree(self) -> RunTree:
        """Return the known processes of the run: the first process, and those in the last sample."""
        start_time = None if self.pid is None else self.start_time
        return RunTree(token=self.token, pid=self.pid, start_time=start_time, seen=self._seen)

    def exit_of(self, exited: ExitedRun, *, oom: bool) -> ProcessExit:
        """Return the end of the run from the zygote's frame. `oom`: True if the kernel killed it to free memory."""
        code = os.waitstatus_to_exitcode(exited.status)
        at_end = Usage(cpu_seconds=exited.cpu_seconds, rss_bytes=exited.rss_bytes, processes=1)
        how = ProcessExit(
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            stderr_tail=self.protocol_error,
            oom=oom,
            usage=larger(self.usage, at_end),
        )
        return how if self.spec.is_worker else with_files(self.spec, how, self._stderr_offset)

    def stderr_tail(self) -> str:
        """Return the last complete lines that the process wrote to stderr, followed by `protocol_error`."""
        tail = "" if self.spec.is_worker else _stderr_tail(self.spec, self._stderr_offset)
        return "\n".join(part for part in (tail, self.protocol_error) if part)


def with_files(spec: LaunchSpec, how: ProcessExit, stderr_offset: int = 0) -> ProcessExit:
    """Return `how` with values from the files of the run: `stderr_tail`, `silent`, and the size of the scratch folder.

    `stderr_offset`: the size of the log of stderr at the start of the run.
    """
    tail = _stderr_tail(spec, stderr_offset)
    scratch = Usage(scratch_bytes=scratch_bytes(spec.work_dir, LAST_SCRATCH_ENTRIES))
    return replace(
        how,
        stderr_tail="\n".join(part for part in (tail, how.stderr_tail) if part),
        silent=not (logs.end_of(spec.stdout_path) or logs.end_of(spec.stderr_path)),
        usage=larger(how.usage, scratch),
    )


def _stderr_tail(spec: LaunchSpec, offset: int) -> str:
    return logs.last_lines(spec.stderr_path, offset, STDERR_TAIL_BYTES).decode("utf-8", "replace")
