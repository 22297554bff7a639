"""The copies of the archive that hosts and scripts run from: found without reading the archive, and locked.

A copy lies in `PAGLETS_HOME/cache/app/SHA256/`. A lock keeps it from `program.collect_copies`.

Each script pays for the imports of this module, so it has few.
"""

from __future__ import annotations

import os

ARCHIVE_NAME = "paglets.pyz"

ORIGINS = "origins"
"""The name of a file beside each kept copy, with a line for each archive that the copy was found equal to."""


def known_copy(archive: os.stat_result, copies: str) -> str:
    """Return the copy that an earlier start found equal to this file, locked; "" if there is none."""
    if not os.path.isdir(copies):
        return ""
    for name in os.listdir(copies):
        copy = os.path.join(copies, name, ARCHIVE_NAME)
        if origin(archive, copy) in origins(os.path.join(copies, name, ORIGINS)) and lock(copy, inherited=True):
            return copy
    return ""


def is_own(path: str) -> bool:
    """Return True if no other user can write to the file or folder. Raises OSError."""
    seen = os.stat(path)
    return seen.st_uid == os.geteuid() and not seen.st_mode & 0o022


def origin(archive: os.stat_result, copy: str) -> str:
    """Return a line that identifies both files as they are now, so a change of either changes it; "" without a copy."""
    try:
        both = (archive, os.stat(copy))
    except OSError:
        return ""
    # `cp -p` can set the time of the last change of content (mtime), but not that of the last change of status (ctime).
    return " ".join(f"{s.st_dev} {s.st_ino} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}" for s in both)


def origins(path: str) -> list[str]:
    """Return the lines of such a file; none where it cannot be read."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def lock(copy: str, *, inherited: bool = False) -> bool:
    """Lock a copy until this process ends; return False if the copy is gone.

    `inherited`: also for as long as the program runs that this process becomes. The descriptor is left open on purpose.
    """
    try:
        handle = os.open(copy, os.O_RDONLY)
        os.set_inheritable(handle, inherited)
        try:
            import fcntl  # here, as Windows has none

            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:  # it is just being removed
            return False
        except (ImportError, OSError):  # a file system without locks: there nothing is collected either
            pass
        return os.path.samestat(os.fstat(handle), os.stat(copy))
    except OSError:  # it was removed
        return False
