"""Plain files, opened so that what else may lie in their place holds nobody up: a pipe, a device, a link to nothing."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

NOT_WAITING = getattr(os, "O_NONBLOCK", 0)
"""To open a pipe without a writer would wait for one. Regular files do not mind."""

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


class NotPlain(OSError):
    """What a path names is no regular file; the message says what it is."""


def kind_of(mode: int) -> str:
    """What has this mode, in words; "" for a regular file."""
    if stat.S_ISREG(mode):
        return ""
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), "no regular file")


def open_plain(path: Path, flags: int, mode: int = 0o666, *, through_links: bool = True) -> int:
    """The descriptor of a regular file, opened at once. Raises NotPlain, OSError."""
    with suppress(FileNotFoundError):  # before it is opened, as to open a device may already do something
        _check(os.stat(path, follow_symlinks=through_links))
    descriptor = os.open(path, flags | _ALWAYS | (0 if through_links else _NOT_THROUGH_LINKS), mode)
    try:
        _check(os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def read_plain(path: Path, most_bytes: int) -> bytes:
    """What is in a regular file; of one with more than `most_bytes` only one byte more. Raises NotPlain, OSError."""
    with os.fdopen(open_plain(path, os.O_RDONLY), "rb") as file:
        return file.read(most_bytes + 1)


def _check(found: os.stat_result) -> None:
    if kind := kind_of(found.st_mode):
        raise NotPlain(f"it is {kind}, not a plain file")
