"""What a process printed, as files: bounded, appended to by the zygote, read by the host.

A log has a *head*, the file `PATH`, and a *tail* of segments `PATH.OFFSET`, where OFFSET (12 digits or
more) is where in the whole output the segment begins. The head keeps the first bytes for ever; of the
segments only the newest two are kept. So offsets stay true however much was printed, and what is
not kept shows as a gap between the end of one file and the beginning of the next.
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
"""With the head at most 12 MiB of a stream: what a program says first, and at least the last 4 MiB."""

# 0 where a system has none of it.
_CAREFULLY = sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"))
WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | _CAREFULLY
READ_FLAGS = os.O_RDONLY | _CAREFULLY
"""A job may put what it likes in the place of its log: a link is not followed, a FIFO not waited for."""

MOST_LOOKS = 4
"""At a log whose segments are removed while it is read, or whose folder is removed while it is opened."""

_SEGMENT = re.compile(r"[0-9]{12,18}")

Opener = Callable[[str, int, int], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A file of a log: the head (`offset` 0) or a part of the tail."""

    path: str
    offset: int
    size_bytes: int

    @property
    def end(self) -> int:
        return self.offset + self.size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """Bytes of a log. `offset`: where they begin, later than asked where bytes are not kept; `next`: where to go on;
    `size_bytes`: how much was printed so far."""

    offset: int
    data: bytes
    next: int
    size_bytes: int


def segment_path(path: str, offset: int) -> str:
    return f"{path}.{offset:012d}"


def segment_offset(suffix: str) -> int | None:
    """The offset in the last part of a segment's name; None where it is none."""
    return int(suffix) if _SEGMENT.fullmatch(suffix) else None


def segments(path: str) -> list[Segment]:
    """The files of a log that are there, in order."""
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
    """None for what is no file, or is gone."""
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def make_folder(path: str) -> None:
    """Make the folder of the log `path`. Another thread or process may remove it while it is empty. Raises OSError."""
    for left in reversed(range(MOST_LOOKS)):
        try:
            os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
            break
        except FileExistsError:  # the folder was removed between `mkdir` and the check that it is one
            if not left:
                raise


def end_of(path: str) -> int:
    """How many bytes were printed so far; 0 where there is no log."""
    found = segments(path)
    return found[-1].end if found else 0


def read(path: str, offset: int, most_bytes: int) -> LogChunk:
    """Up to `most_bytes` from `offset` on, of one file of the log; empty beyond its end."""
    for _ in range(MOST_LOOKS):
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
        # It went meanwhile: the tail is further on now.
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
    """The newest whole lines from `since` on, `most_bytes` at most; one line that is longer is cut."""
    size = end_of(path)
    begin = position = max(since, size - most_bytes)
    data = b""
    while position < size:
        piece = read(path, position, size - position)
        if not piece.data:
            break
        # What lies before a gap is not the newest any more.
        data = piece.data if piece.offset > position else data + piece.data
        begin = piece.offset if piece.offset > position else begin
        position = piece.next
    if begin > since and b"\n" in data:
        return data[data.index(b"\n") + 1 :]
    return data


class LogFile:
    """Appends to one log, in this process alone. A write never raises and never waits for room on the disk.

    What cannot be written is left out and the log goes on without it; as soon as there is room again, a line in
    the log says how much is missing; at the end, if there is none, in the place of the last bytes. `opener` is
    `os.open`, or what a test puts in its place.
    """

    def __init__(
        self,
        path: str,
        *,
        head_bytes: int = HEAD_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
        opener: Opener = os.open,
    ) -> None:
        """Open it at its end; its folder is made where missing. Raises OSError."""
        self._path = path
        self._segment_bytes = segment_bytes
        self._opener = opener
        self._tail: list[int] = []
        self._lost_bytes = 0
        self._problem = ""
        self._file = path
        self._descriptor: int | None = None
        found = segments(path)
        self._end = found[-1].end if found else 0
        self._tail = [segment.offset for segment in found if segment.path != path]
        self._limit = self._tail[-1] + segment_bytes if self._tail else head_bytes
        self._open_in_its_folder(segment_path(path, self._tail[-1]) if self._tail else path)
        # The age of a log, by which old ones are removed, is that of its newest use.
        with suppress(OSError):
            os.utime(self._descriptor or path)

    def write(self, data: memoryview) -> None:
        """Append all of `data`, or what the disk takes of it."""
        if self._problem and not self._tell_lost():
            self._lost_bytes += len(data)
            return
        written = self._append(data)
        self._lost_bytes += len(data) - written

    def close(self) -> None:
        """Close the log. One in which nothing was ever written leaves no file, nor a folder of its own."""
        problem = self._problem
        if problem and self._descriptor is not None and not self._tell_lost():
            with suppress(OSError):
                self._tell_over_the_end(problem)
        self._close()
        if not self._end and not self._lost_bytes:
            with suppress(OSError):
                os.unlink(self._path)
                os.rmdir(os.path.dirname(self._path))

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _tell_lost(self) -> bool:
        """Say in the log what is missing; False where that finds no room either."""
        text = _lost_note(self._lost_bytes, self._problem)
        self._problem = ""
        if self._append(memoryview(text)) < len(text):
            return False
        self._lost_bytes = 0
        return True

    def _tell_over_the_end(self, problem: str) -> None:
        """The same in the place of the last bytes that are there: that needs no room. Raises OSError."""
        text = _lost_note(self._lost_bytes + len(_lost_note(self._lost_bytes, problem)), problem)
        descriptor = self._opener(self._file, _CAREFULLY | os.O_WRONLY, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size >= len(text):
                os.pwrite(descriptor, text, size - len(text))
        finally:
            os.close(descriptor)

    def _append(self, data: memoryview) -> int:
        """How many bytes of it were written; where not all, `_problem` says why."""
        written = 0
        try:
            while written < len(data):
                if self._end >= self._limit or self._descriptor is None:
                    self._open_next()
                assert self._descriptor is not None
                count = os.write(self._descriptor, data[written : written + self._limit - self._end])
                written += count
                self._end += count
        except OSError as error:
            self._problem = error.strerror or str(error)
        return written

    def _open_next(self) -> None:
        """A new segment at the end; the oldest one goes."""
        self._open(segment_path(self._path, self._end))
        self._limit = self._end + self._segment_bytes
        self._tail.append(self._end)
        while len(self._tail) > KEPT_SEGMENTS:
            with suppress(OSError):
                os.unlink(segment_path(self._path, self._tail[0]))
            del self._tail[0]

    def _open_in_its_folder(self, path: str) -> None:
        """Open `path`; make its folder, again if that is removed as empty before the file is in it. Raises OSError."""
        for left in reversed(range(MOST_LOOKS)):
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


def _lost_note(count: int, problem: str) -> bytes:
    return f"\n[paglets: {count:,} bytes could not be written: {problem}]\n".encode()
