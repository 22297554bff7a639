"""The lock of a host's directory: one host in it at a time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from paglets.core.errors import StartFailed

LOCK = "lock"


class FolderLock:
    """Held until it is closed, or its process ends.

    Raises StartFailed where another host has it, OSError where its file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        self._file = self._path.open("a")
        try:
            _lock(self._file)
        except OSError as error:
            self._file.close()
            raise StartFailed(
                f"another host runs in {folder}: end that one, or choose another --name or --data-dir"
            ) from error

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def mend(self) -> str:
        """Lock a new file where ours was removed, as it would keep no second host out; gives what to say of that.

        Raises OSError, also where another host was quicker.
        """
        if self._is_there():
            return ""
        made = self._path.open("a")
        try:
            _lock(made)
        except OSError as error:
            made.close()
            raise OSError("another host runs in this folder by now; end one of the two at once") from error
        self._file.close()
        self._file = made
        return f"{self._path} was removed: it was made anew"

    def _is_there(self) -> bool:
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return False
        ours = os.fstat(self._file.fileno())
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def _lock(file: IO[str]) -> None:
    """Raises OSError where another process has it."""
    if os.name == "posix":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
