"""The lock of a host's directory: one host in it at a time."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from paglets.core.errors import StartFailed, StoreUndecided
from paglets.core.plain import NotPlain, kind_of, open_plain

LOCK = "lock"

MOST_TRIES = 10
"""Each fails only where the file was removed or replaced within the moment since it was opened."""


class DataDirectoryLock:
    """Held until it is closed, or its process ends.

    Raises StartFailed where another host has it, OSError where its file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        file = _take(self._path)
        if file is None:
            hint = ["paglets stop NAME ends that one", "or choose another --name or --data-dir"]
            raise StartFailed(f"another host runs in {folder}", hint=hint)
        self._file = file

    def __enter__(self) -> DataDirectoryLock:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def repair(self) -> str:
        """Lock a new file where ours was removed, as it would keep no second host out; gives what to say of that.

        Raises OSError, and StoreUndecided where another host was quicker: the folder is that one's by now.
        """
        if _is_at(self._file, self._path):
            return ""
        made = _take(self._path)
        if made is None:
            raise StoreUndecided(
                f"{self._path} was removed while this host ran, and another host runs in this folder by now: it took "
                "the jobs over, and this one ends. Next: leave it so; or end that one, and start this one again"
            )
        self._file.close()
        self._file = made
        return f"{self._path} was removed: it was made anew"

    def is_lost(self) -> bool:
        """Whether another file is in the place of ours, and so another host in the folder. Raises OSError."""
        try:
            return not (kind_of(os.lstat(self._path).st_mode) or _is_at(self._file, self._path))
        except FileNotFoundError:
            return False


def _take(path: Path) -> IO[str] | None:
    """The file of that name, locked; None where another process has it. Raises OSError.

    Between the two steps it may be removed, and made anew by a host that had it: what is locked then keeps nobody out.
    """
    for _ in range(MOST_TRIES):
        with ExitStack() as stack:
            file = stack.enter_context(_open(path))
            if not _lock(file):
                return None
            if _is_at(file, path):
                stack.pop_all()
                return file
    raise OSError(f"{path} is removed or replaced again and again")


def _open(path: Path) -> IO[str]:
    """The file of that name, made where there is none. Raises OSError; it says what else lies there."""
    try:
        return os.fdopen(open_plain(path, os.O_RDWR | os.O_CREAT, 0o600, through_links=False), "a")
    except NotPlain as error:
        raise OSError(f"{path} cannot be locked: {error}. Remove it") from error


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether the path still names this open file. Raises OSError."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(path))
    except FileNotFoundError:
        return False


def _lock(file: IO[str]) -> bool:
    """Whether it is ours now; not where another process has it. Raises OSError where none could be had."""
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
