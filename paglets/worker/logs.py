"""Logs: files of limited size with the output of a process. The zygote appends to them, and the host reads them.

A log has a *head*, the file `PATH`, and a *tail*, the segments `PATH.OFFSET`. The head has the first bytes of the
output. OFFSET (12 digits or more) is the position of a segment in the whole output. Only the newest two segments are
kept. Discarded output appears as a gap between the end of one file and the offset of the next.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

HEAD_BYTES = 4 << 20
SEGMENT_BYTES = 4 << 20
KEPT_SEGMENTS = 2
"""Number of segments to keep. A log has at most 12 MiB of a stream: the first 4 MiB, and at least the last 4 MiB."""

# Flags that this system does not have count as 0.
_SAFE_FLAGS = sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"))
WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | _SAFE_FLAGS
READ_FLAGS = os.O_RDONLY | _SAFE_FLAGS
"""Flags to open a log. A job may replace its log by any file, so opening must not follow a link or wait for a FIFO."""

MAX_TRIES = 4
"""Maximum number of tries to read a segment that the zygote may remove, or to open a log whose folder may vanish."""

_SEGMENT = re.compile(r"[0-9]{12,18}")

Opener = Callable[[str, int, int], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A file of a log: the head (`offset` 0) or a segment of the tail."""

    path: str
    offset: int
    size_bytes: int

    @property
    def end(self) -> int:
        return self.offset + self.size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """A part of a log.

    `offset`: the position of the first byte; larger than the requested offset if the bytes in between were discarded.
    `next`: the offset to read from next. `size_bytes`: the bytes printed so far, kept or discarded.
    """

    offset: int
    data: bytes
    next: int
    size_bytes: int


def segment_path(path: str, offset: int) -> str:
    return f"{path}.{offset:012d}"


def segment_offset(suffix: str) -> int | None:
    """Return the offset in the suffix of a segment's file name; None if `suffix` is not an offset."""
    return int(suffix) if _SEGMENT.fullmatch(suffix) else None


def segments(path: str) -> list[Segment]:
    """Return the files of a log, sorted by offset."""
    folder, name = os.path.split(path)
    found = []
    with suppress(OSError), os.scandir(folder or ".") as entries:
        for entry in entries:
            offset = 0 if entry.name == name else None
            if entry.name.startswith(f"{name}."):
                offset = segment_offset(entry.name[len(name) + 1 :])
            if offset is not None and (size := _size_of(entry)) is not None:
                found.append(Segment(path=entry.path, offset=offset, size_bytes=size))
    return sorted(found, key=lambda segment: (segment.offset, segment.path))


def _size_of(entry: os.DirEntry[str]) -> int | None:
    """Return the size of a file; None if the file does not exist or is not regular."""
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def make_folder(path: str) -> None:
    """Create the folder of the log `path`. Another process may remove the folder while it is empty. Raises OSError."""
    for left in reversed(range(MAX_TRIES)):
        try:
            os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
            break
        except FileExistsError:
            # The folder existed when `makedirs` tried to create it, but was removed before `makedirs` checked it.
            if not left:
                raise


def end_of(path: str) -> int:
    """Return the number of bytes printed to the log so far, kept or discarded; 0 if there is no log."""
    found = segments(path)
    return found[-1].end if found else 0


def read(path: str, offset: int, most_bytes: int) -> LogChunk:
    """Read up to `most_bytes` at `offset` from one file of the log. The chunk is empty at the end of the log."""
    for _ in range(MAX_TRIES):
        found = segments(path)
        size = found[-1].end if found else 0
        holding = next((segment for segment in found if segment.end > offset), None)
        if holding is None:
            break
        begin = max(offset, holding.offset)
        with suppress(OSError):
            data = _read_at(holding.path, begin - holding.offset, min(most_bytes, holding.end - begin))
            if data:
                return LogChunk(offset=begin, data=data, next=begin + len(data), size_bytes=size)
        # The writer has removed this segment since the listing, so list the segments again.
    else:
        size = end_of(path)
    return LogChunk(offset=offset, data=b"", next=offset, size_bytes=size)


def _read_at(path: str, position: int, most_bytes: int) -> bytes:
    descriptor = os.open(path, READ_FLAGS)
    try:
        return os.pread(descriptor, most_bytes, position)
    finally:
        os.close(descriptor)


def last_lines(path: str, since: int, most_bytes: int) -> bytes:
    """Return the last complete lines after offset `since`, at most `most_bytes`. A longer single line is cut."""
    size = end_of(path)
    begin = position = max(since, size - most_bytes)
    data = b""
    while position < size:
        chunk = read(path, position, size - position)
        if not chunk.data:
            break
        # Drop the bytes before a gap, because they do not directly precede the last lines.
        data = chunk.data if chunk.offset > position else data + chunk.data
        begin = chunk.offset if chunk.offset > position else begin
        position = chunk.next
    if begin > since and b"\n" in data:
        return data[data.index(b"\n") + 1 :]
    return data


class LogWriter:
    """A log to which one process appends. The first write opens it, unless `open` was called before.

    A write raises no error, and does not wait if the disk is full. Bytes that cannot be written are dropped. When the
    disk has space again, a line in the log says how many bytes are missing. If the disk is still full when the log is
    closed, that line overwrites the last bytes. `opener`: `os.open`, or a replacement in tests.
    """

    def __init__(
        self,
        path: str,
        *,
        head_bytes: int = HEAD_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
        opener: Opener = os.open,
    ) -> None:
        self._path = path
        self._segment_bytes = segment_bytes
        self._opener = opener
        self._tail: list[int] = []
        self._lost_bytes = 0
        self._problem = ""
        self._file = path
        self._descriptor: int | None = None
        self._end = 0
        self._limit = head_bytes

    def open(self) -> None:
        """Open the log at its end, and create its folder if it is missing. Raises OSError."""
        found = segments(self._path)
        if found:
            self._end = found[-1].end
            self._tail = [segment.offset for segment in found if segment.path != self._path]
        if self._tail:
            self._limit = self._tail[-1] + self._segment_bytes
        self._open_in_its_folder(segment_path(self._path, self._tail[-1]) if self._tail else self._path)
        # Old logs are removed by age, so update the mtime of a log that is used again.
        with suppress(OSError):
            os.utime(self._descriptor or self._path)

    def write(self, data: memoryview) -> None:
        """Append `data`. Drop the bytes that cannot be written."""
        if self._problem and not self._write_loss_note():
            self._lost_bytes += len(data)
            return
        written = self._append(data)
        self._lost_bytes += len(data) - written

    def close(self) -> None:
        """Close the log. If `open` created its file and nothing was written, remove the file and an empty folder."""
        problem = self._problem
        if problem and self._descriptor is not None and not self._write_loss_note():
            with suppress(OSError):
                self._overwrite_end(problem)
        was_open = self._descriptor is not None
        self._close()
        if was_open and not self._end and not self._lost_bytes:
            with suppress(OSError):
                os.unlink(self._path)
                os.rmdir(os.path.dirname(self._path))

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write_loss_note(self) -> bool:
        """Write a line about the missing bytes. Return False if the line cannot be written."""
        text = _loss_note(self._lost_bytes, self._problem)
        self._problem = ""
        if self._append(memoryview(text)) < len(text):
            return False
        self._lost_bytes = 0
        return True

    def _overwrite_end(self, problem: str) -> None:
        """Write the line about missing bytes over the end of the log, which needs no space. Raises OSError."""
        text = _loss_note(self._lost_bytes + len(_loss_note(self._lost_bytes, problem)), problem)
        descriptor = self._opener(self._file, _SAFE_FLAGS | os.O_WRONLY, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size >= len(text):
                os.pwrite(descriptor, text, size - len(text))
        finally:
            os.close(descriptor)

    def _append(self, data: memoryview) -> int:
        """Write `data` and return the number of bytes written. If some were not, set `_problem` to the reason."""
        written = 0
        try:
            if self._descriptor is None:
                self.open()
            while written < len(data):
                if self._end >= self._limit:
                    self._open_next()
                assert self._descriptor is not None
                count = os.write(self._descriptor, data[written : written + self._limit - self._end])
                written += count
                self._end += count
        except OSError as error:
            self._problem = error.strerror or str(error)
        return written

    def _open_next(self) -> None:
        """Start a new segment, and remove the oldest segments above KEPT_SEGMENTS."""
        self._open(segment_path(self._path, self._end))
        self._limit = self._end + self._segment_bytes
        self._tail.append(self._end)
        while len(self._tail) > KEPT_SEGMENTS:
            with suppress(OSError):
                os.unlink(segment_path(self._path, self._tail[0]))
            del self._tail[0]

    def _open_in_its_folder(self, path: str) -> None:
        """Create the folder of `path` and open `path`. Retry if the folder was removed in between. Raises OSError."""
        for left in reversed(range(MAX_TRIES)):
            try:
                make_folder(path)
                self._open(path)
                break
            except FileNotFoundError:
                if not left:
                    raise

    def _open(self, path: str) -> None:
        descriptor = self._opener(path, WRITE_FLAGS, 0o600)
        self._close()
        self._descriptor = descriptor
        self._file = path


def _loss_note(count: int, problem: str) -> bytes:
    return f"\n[paglets: {count:,} bytes could not be written: {problem}]\n".encode()
