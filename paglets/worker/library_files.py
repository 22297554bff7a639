"""Recognition of the files that installed libraries keep open in a process, such as the fonts of matplotlib."""

from __future__ import annotations

import os
import site
import stat
import sysconfig
from collections.abc import Iterable
from functools import cache

_LIBRARY_PATHS = ("purelib", "platlib", "stdlib", "platstdlib")


@cache
def library_folders() -> tuple[str, ...]:
    """Return the folders of the standard library and of the packages that this interpreter imports."""
    folders = [sysconfig.get_path(name) for name in _LIBRARY_PATHS]
    if hasattr(site, "getsitepackages"):
        folders += site.getsitepackages()
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return tuple(dict.fromkeys(os.path.realpath(folder) for folder in folders if os.path.isabs(folder)))


def is_library_file(descriptor: int, target: str, not_libraries: Iterable[str]) -> bool:
    """Return True if a descriptor can only read a regular file in a folder of installed libraries.

    `target`: the path of the file. `not_libraries`: folders whose files never count. A locked file does not count
    either, since a later job could wait for its lock forever.
    """
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return False
        with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii", errors="replace") as file:
            facts = file.read().splitlines()
    except OSError:
        return False
    flags = next((int(line.split()[1], 8) for line in facts if line.startswith("flags:")), os.O_RDWR)
    is_only_read = flags & os.O_ACCMODE == os.O_RDONLY and not any(line.startswith("lock:") for line in facts)
    if not is_only_read or not _is_below(target, library_folders()):
        return False
    return not _is_below(target, (os.path.realpath(folder) for folder in not_libraries))


def _is_below(path: str, folders: Iterable[str]) -> bool:
    return any(path.startswith(os.path.join(folder, "")) for folder in folders)
