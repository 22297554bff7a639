"""The lock of a data directory: at most one host uses it at a time."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from paglets.core.errors import StartFailed, StoreUndecided
from paglets.core.regular_files import NotRegularFile, kind_of, open_regular

LOCK = "lock"

MOST_TRIES = 10
"""The maximum number of tries to lock the file. A try fails if the file is removed or replaced during the try."""


class DataDirectoryLock:
    """The lock on a data directory, held until it is closed or the process exits.

    The constructor raises StartFailed if another host holds the lock, and OSError if the lock file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        file = _take(self._path)
        if file is None:
            hint = ["stop it with `paglets stop NAME`, or choose another --name or --data-dir"]
            raise StartFailed(f"another host is running in {folder}", hint=hint)
        self._file = file

    def __enter__(self) -> DataDirectoryLock:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def repair(self) -> str:
        """Create and lock a new file if the locked file was removed, because its lock then excludes no other host.

        Return a message, or "" if the file was not removed. Raises StoreUndecided if another host has locked a new
        file, because that host now owns the directory. Raises OSError.
        """
        if _is_at(self._file, self._path):
            return ""
        made = _take(self._path)
        if made is None:
            raise StoreUndecided(
                f"{self._path} was removed while this host ran, and another host now runs in this folder",
                hint=["the other host took over the jobs; to undo this, stop it and start this host again"],
            )
        self._file.close()
        self._file = made
        return f"{self._path} was removed and has been recreated"

    def is_lost(self) -> bool:
        """Return True if another regular file replaced the locked one, so that another host may use the folder.

        Raises OSError.
        """
        try:
            return not (kind_of(os.lstat(self._path).st_mode) or _is_at(self._file, self._path))
        except FileNotFoundError:
            return False


def _take(path: Path) -> IO[str] | None:
    """Open and lock the file. Return None if another process holds the lock. Raises OSError.

    Between opening and locking, another host may replace the file. A lock on the replaced file excludes nobody, so the
    path is checked again.
    """
    for _ in range(MOST_TRIES):
        with ExitStack() as stack:
            file = stack.enter_context(_open(path))
            if not _lock(file):
                return None
            if _is_at(file, path):
                stack.pop_all()
                return file
    raise OSError(f"{path} was replaced {MOST_TRIES} times while it was being locked")


def _open(path: Path) -> IO[str]:
    """Open the lock file, and create it if it is missing. Raises OSError, also if the path is not a regular file."""
    try:
        return os.fdopen(open_regular(path, os.O_RDWR | os.O_CREAT, 0o600, through_links=False), "a")
    except NotRegularFile as error:
        raise OSError(f"{path} cannot be locked: {error}; remove it") from error


def _is_at(file: IO[str], path: Path) -> bool:
    """Return True if the path still names this open file. Raises OSError."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(path))
    except FileNotFoundError:
        return False


def _lock(file: IO[str]) -> bool:
    """Lock the file. Return False if another process holds it. Raises OSError if locking is not supported."""
    try:
        if os.name == "posix":
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except (BlockingIOError, PermissionError):
        return False
    return True
