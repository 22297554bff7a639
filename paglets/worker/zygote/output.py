"""From the pipe of a run's stdout or stderr into its log: what the zygote does between forks."""

from __future__ import annotations

import os

from paglets.worker.logs import LogFile

DRAIN_BYTES = 1 << 20
"""Taken from one pipe in a turn of the zygote's loop: about a millisecond's work."""

TURN_BYTES = 4 << 20
"""Taken from all pipes in a turn: forks and ends of processes wait for no more than that."""

LAST_BYTES = 4 << 20
"""What is read at most when the processes of a run are gone: more than a pipe holds, yet a process that escaped and
goes on printing holds nothing up."""


class Output:
    """One stream of a run: the end of its pipe that is read, and the log that it goes to.

    `turn`: when it was drained last, for whoever shares out the turns. `ended`: nothing more can come.
    """

    def __init__(self, pipe: int, log: LogFile) -> None:
        self._pipe: int | None = pipe
        self._log = log
        self.turn = 0
        self.ended = False

    @property
    def is_open(self) -> bool:
        return self._pipe is not None

    def fileno(self) -> int:
        """For a selector."""
        assert self._pipe is not None
        return self._pipe

    def read_pipe(self, most_bytes: int, buffer: memoryview) -> int:
        """Move what is in the pipe, up to about `most_bytes`; gives how much it was.

        Nothing here waits, and nothing that can happen to a disk is raised.
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


def open_output(path: str) -> tuple[Output, int]:
    """The output that goes to the log `path`, and the end of its pipe for the process. Raises OSError."""
    log = LogFile(path)
    try:
        reading, writing = os.pipe()
    except OSError:
        log.close()
        raise
    os.set_blocking(reading, False)
    return Output(reading, log), writing
