"""Functions that open only regular files, and do not block if the path names a pipe or a device."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

NOT_WAITING = getattr(os, "O_NONBLOCK", 0)
"""The flag that keeps `os.open` from waiting for the writer of a pipe. It has no effect on regular files."""

_ALWAYS = NOT_WAITING | getattr(os, "O_BINARY", 0)
_NOT_THROUGH_LINKS = getattr(os, "O_NOFOLLOW", 0)

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISLNK, "a link"),
)


class NotRegularFile(OSError):
    """An error for a path that is not a regular file. The message says what the path is, such as "a pipe"."""


def kind_of(mode: int) -> str:
    """Return a word for the kind of file with this `st_mode`, such as "a pipe", or "" for a regular file."""
    if stat.S_ISREG(mode):
        return ""
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), "a special file")


def open_regular(path: Path, flags: int, mode: int = 0o666, *, through_links: bool = True) -> int:
    """Open a regular file without blocking, and return its descriptor. Raises NotRegularFile, OSError."""
    with suppress(FileNotFoundError):  # Check the path before it is opened: opening a device can have an effect.
        _check(os.stat(path, follow_symlinks=through_links))
    descriptor = os.open(path, flags | _ALWAYS | (0 if through_links else _NOT_THROUGH_LINKS), mode)
    try:
        _check(os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def read_regular(path: Path, most_bytes: int) -> bytes:
    """Return the first `most_bytes` + 1 bytes of a regular file. Raises NotRegularFile, OSError.

    If the result is longer than `most_bytes`, the file is larger than the caller allows.
    """
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        return file.read(most_bytes + 1)


def _check(found: os.stat_result) -> None:
    if kind := kind_of(found.st_mode):
        raise NotRegularFile(f"it is {kind}, not a regular file")
