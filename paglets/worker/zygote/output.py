"""Pipes of the stdout and stderr of runs, which the zygote copies to their logs between forks."""

from __future__ import annotations

import os

from paglets.worker.logs import LogWriter

PIPE_BYTES = 1 << 20
"""Most bytes from one pipe in one pass of the zygote's loop: about a millisecond of work."""

PASS_BYTES = 4 << 20
"""Most bytes from all pipes in one pass. Forks and ends of processes wait for no more than that."""

LAST_BYTES = 4 << 20
"""Most bytes to read when the processes of a run are gone: more than a pipe holds. A process that escaped and still
prints cannot delay the end."""


class OutputPipe:
    """One stream of a run: the reading end of its pipe, and its log.

    `turn`: number of the last turn in which it was read. `ended`: its end of file was read.
    """

    def __init__(self, pipe: int, log: LogWriter) -> None:
        self._pipe: int | None = pipe
        self._log = log
        self.turn = 0
        self.ended = False

    @property
    def is_open(self) -> bool:
        return self._pipe is not None

    def fileno(self) -> int:
        """Return the descriptor of the pipe, for a selector."""
        assert self._pipe is not None
        return self._pipe

    def copy(self, most_bytes: int, buffer: memoryview) -> int:
        """Copy up to about `most_bytes` from the pipe to the log, through `buffer`. Return how many.

        This does not wait, and does not raise errors of the disk.
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
    """Return a pipe to the log `path`, and the descriptor of its writing end. Raises OSError."""
    log = LogWriter(path)
    try:
        reading, writing = os.pipe()
    except OSError:
        log.close()
        raise
    os.set_blocking(reading, False)
    return OutputPipe(reading, log), writing
