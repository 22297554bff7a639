"""The log file of a host, written with the `logging` module of the standard library.

Each part of the host has its own logger below `paglets`, such as `paglets.scheduler`. A line contains the time, level,
host, part and text. It ends with the job and the attempt if the log call passed them (`about`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from paglets.core.clock import Mutex
from paglets.core.errors import StartFailed
from paglets.core.text import escaped

ROOT = "paglets"

MAX_LOG_BYTES = 10 << 20
"""The size at which host.log is renamed to host.log.1, so that both files together take at most twice this size."""


def about(job: str, attempt: int) -> dict[str, object]:
    """Return the argument `extra` for a log call about an attempt. `job` is GROUP/KEY, or the id of another paglet."""
    return {"job": job, "attempt": attempt}


class HostLogFormatter(logging.Formatter):
    """The formatter of a line in the log of a host. It omits the time, because `LogFile` adds it."""

    def __init__(self, host: str) -> None:
        super().__init__()
        self._host = host

    def format(self, record: logging.LogRecord) -> str:
        part = record.name.removeprefix(ROOT).lstrip(".")
        text = record.getMessage()
        job, attempt = getattr(record, "job", ""), getattr(record, "attempt", "")
        if job:
            text = f"{text} (job {job}, attempt {attempt})"
        # Indent further lines of the text. Otherwise an error from another host could imitate a line of the log.
        text = text.replace("\n", "\n    ")
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        return f"{record.levelname.lower()} {self._host}{part and ' '}{part}: {text}"


class LogFileHandler(logging.Handler):
    """A handler that writes to the log file of a host."""

    def __init__(self, file: LogFile, host: str) -> None:
        super().__init__()
        self._file = file
        self.setFormatter(HostLogFormatter(host))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._file.line(self.format(record))
        except Exception:  # A log call, such as one with a wrong argument, must not raise an error in its caller.
            self.handleError(record)


@contextmanager
def host_logger(path: Path, host: str, level: str) -> Iterator[tuple[logging.Logger, LogFile]]:
    """Open the log of a host and yield its logger, which writes lines of that level or above. Raises StartFailed."""
    try:
        file = LogFile(path)
    except OSError as error:
        hint = ["make it writable, or choose another folder with --data-dir"]
        raise StartFailed(f"the log {path} cannot be written: {error}", hint=hint) from error
    logger = logging.getLogger(ROOT)
    handler = LogFileHandler(file, host)
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False
    try:
        yield logger, file
    finally:
        logger.removeHandler(handler)
        file.close()


class LogFile:
    """The log file of a host, with a limited size. Each event has a line with the local time.

    The methods may be called from any thread. If the disk is full, a line is dropped, because logging must not make its
    caller fail.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Do not buffer, because a buffer would keep a line that could not be written, and write it with the next line.
        self._file = os.fdopen(_open_log(path), "ab", buffering=0)
        self._outputs: tuple[int, ...] = ()
        self._turn = Mutex()

    def line(self, text: str) -> None:
        time = datetime.now().astimezone().isoformat(timespec="milliseconds")
        data = f"{time} {escaped(text)}\n".encode(errors="replace")
        with suppress(OSError):
            if not self._file.closed:
                self._file.write(data)
                self._keep_bounded()
            elif self._outputs:
                os.write(self._outputs[0], data)

    def take_output(self, outputs: tuple[int, ...] = (1, 2)) -> None:
        """Redirect stdout and stderr of the process to this file, also after the log is renamed or closed."""
        with self._turn:
            self._outputs = outputs
            self._give(self._file.fileno())

    def _give(self, file: int) -> None:
        for output in self._outputs:
            os.dup2(file, output)

    def _keep_bounded(self) -> None:
        if self._is_long():
            with self._turn:
                if self._is_long():  # Check again, because another thread may just have renamed the file.
                    self._move()

    def _is_long(self) -> bool:
        return self._path.stat().st_size > MAX_LOG_BYTES

    def _move(self) -> None:
        os.replace(self._path, self._path.with_suffix(".log.1"))
        with os.fdopen(_open_log(self._path), "ab", buffering=0) as new:
            # Keep the descriptor number, because another thread may be writing to it.
            os.dup2(new.fileno(), self._file.fileno(), inheritable=False)
            self._give(new.fileno())

    def close(self) -> None:
        self._file.close()


def _open_log(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
