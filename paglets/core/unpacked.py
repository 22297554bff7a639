"""The unpacked copy of an archive: where it is, whether it can be trusted, and its lock.

The archive's first file runs this module at each start, before any other of the program. So it imports little.
"""

from __future__ import annotations

import importlib.util
import os
import stat
import sys
from collections.abc import Mapping

HOME_VARIABLE = "PAGLETS_HOME"
DEFAULT_HOME = "~/.paglets"

INSIDE = "src/"
"""The folder of an archive whose files make up the copy."""

ARCHIVE_NAME = "paglets.pyz"
"""The name of the archive in each unpacked copy. A host that lost files of its copy restores them from this archive."""

MANIFEST = "archive.json"
"""The file that only an archive and its unpacked copies have, beside the package."""


FIRST = os.path.join("paglets", "__init__.py")


def copies_folder(environment: Mapping[str, str]) -> str:
    """Return the folder of all unpacked copies, an absolute path. Raises OSError if no home directory is known."""
    home = os.path.expanduser(environment.get(HOME_VARIABLE) or DEFAULT_HOME)
    if home.startswith("~"):
        raise FileNotFoundError(f"the home directory of this user is not known: set {HOME_VARIABLE}")
    return os.path.join(os.path.abspath(home), "cache", "app")


def find(content: str, copies: str) -> str:
    """Return the copy of the archive with that content, locked until this process ends; "" if there is none.

    Raises PermissionError if another user could have changed it, and OSError.
    """
    copy = os.path.join(copies, content)
    if not os.path.isdir(copy):
        return ""
    refuse_foreign(copy)
    return copy if lock(copy) else ""


def bytecode_of(path: str) -> str:
    """Return the file of the bytecode of a module for this interpreter; "" if this interpreter keeps none."""
    try:
        return importlib.util.cache_from_source(path)
    except NotImplementedError:
        return ""


def is_compiled(copy: str) -> bool:
    """Return True if the copy has the bytecode for this interpreter. The bytecode of the package is written last."""
    bytecode = bytecode_of(os.path.join(copy, FIRST))
    return not bytecode or os.path.isfile(bytecode)


def refuse_foreign(path: str) -> None:
    """Check that only this user and root can change the file or folder `path`, because code is loaded from it.

    Raises PermissionError if other users can, and OSError. The folders above `path` are checked, too, except those that
    do not exist yet. They may be writable by others if they have the sticky bit, like /tmp, because others can then
    rename only their own files.
    """
    if os.name != "posix":
        return
    user = os.geteuid()
    for start in {os.path.abspath(path), os.path.realpath(path)}:
        place = start
        while True:
            if os.path.lexists(place):
                seen = os.stat(place)
                is_sticky = seen.st_mode & stat.S_ISVTX and place != start
                if seen.st_uid not in (0, user) or (seen.st_mode & 0o022 and not is_sticky):
                    raise PermissionError(f"{place} belongs to another user or can be written by others")
            if place == os.path.dirname(place):
                break
            place = os.path.dirname(place)


def lock(copy: str, *, inherited: bool = False) -> bool:
    """Lock a copy against removal until this process ends. Return False if the copy is gone.

    `inherited`: keep the lock after an exec, too. The descriptor is left open on purpose, because it holds the lock.
    """
    try:
        handle = os.open(copy, os.O_RDONLY)
        os.set_inheritable(handle, inherited)
        try:
            import fcntl  # Import it only here: Windows has no fcntl.

            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:  # the copy is being removed
            return False
        except (ImportError, OSError):  # On a system without locks, `unpacking.remove_unused` removes no copy.
            pass
        return os.path.samestat(os.fstat(handle), os.stat(copy))
    except PermissionError:  # Windows cannot open folders
        return sys.platform == "win32"
    except OSError:  # the copy was removed
        return False
