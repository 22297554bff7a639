"""Pipes for the stdout and stderr of runs. The zygote copies their data to the logs of the runs."""

from __future__ import annotations

import os

from paglets.worker.logs import LogWriter

PIPE_BYTES = 1 << 20
"""Maximum number of bytes to copy from one pipe in one pass of the zygote's loop: about a millisecond of work."""

PASS_BYTES = 4 << 20
"""Maximum number of bytes to copy from all pipes in one pass. This limits how long forks and exit reports wait."""

LAST_BYTES = 4 << 20
"""Maximum number of bytes to copy from a pipe after the processes of its run have ended: more than a pipe holds. The
limit exists because an escaped process that still prints must not delay the end of the run."""


class OutputPipe:
    """An output stream of a run: the reading end of its pipe, and its log.

    `turn`: a counter value that shows when the pipe was last read. `ended`: True after end of file. `job`: the token of
    the run if it is a job of a warm worker, else "".
    """

    def __init__(self, pipe: int, log: LogWriter, job: str = "") -> None:
        self._pipe: int | None = pipe
        self._log = log
        self.job = job
        self.turn = 0
        self.ended = False

    @property
    def is_open(self) -> bool:
        return self._pipe is not None

    def fileno(self) -> int:
        """Return the descriptor of the pipe, so that a selector can watch this object."""
        assert self._pipe is not None
        return self._pipe

    def copy(self, most_bytes: int, buffer: memoryview) -> int:
        """Copy about `most_bytes` or less from the pipe to the log, and return the number of bytes copied.

        This method does not block, and raises no error if the log cannot be written. `buffer`: scratch memory.
        """
        taken = 0
        while taken < most_bytes:
            try:
                count = os.readv(self.fileno(), [buffer])
            except BlockingIOError:
                break
            if count == 0:
                self.ended = True
                break
            self._log.write(buffer[:count])
            taken += count
        return taken

    def close(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
            self._log.close()


def open_output_pipe(path: str) -> tuple[OutputPipe, int]:
    """Create a pipe for the log `path`. Return it and the descriptor of its writing end. Raises OSError."""
    log = LogWriter(path)
    log.open()
    try:
        reading, writing = os.pipe()
    except OSError:
        log.close()
        raise
    os.set_blocking(reading, False)
    return OutputPipe(reading, log), writing


def take_output_pipe(pipe: int, path: str, job: str) -> OutputPipe:
    """Return the output stream of the run `job` in a warm worker. `pipe`: the reading end of its pipe.

    The log is opened when the job prints something, because most short jobs print nothing.
    """
    os.set_blocking(pipe, False)
    return OutputPipe(pipe, LogWriter(path), job)
