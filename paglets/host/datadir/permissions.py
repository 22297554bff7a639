"""Folders that only the user of a host may enter: judged, and made so, before the host keeps anything there."""

from __future__ import annotations

import os
import shlex
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from paglets.core.errors import StartFailed
from paglets.core.files import private_folder

UMASK = 0o077
"""Of a host process: whatever it creates is for its user only."""

_OF_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_WRITE_OF_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderAccess:
    """A folder as it is. `keeps_modes` is False on a file system without owners or modes, such as FAT."""

    owner: int
    mode: int
    is_empty: bool = False
    keeps_modes: bool = True


class Privacy(Enum):
    """What to make of a folder."""

    PRIVATE = "only this user can enter it"
    READABLE = "others can read it; a changed mode is enough"
    WRITABLE = "others can write to it, and may have put something there"
    FOREIGN = "it belongs to another user"
    UNPROTECTED = "its file system keeps no modes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Secured:
    """What the user should know of a folder. `changed`: its mode was changed just now. `warning`: it could not be."""

    changed: str = ""
    warning: str = ""


def judge(found: FolderAccess, user: int) -> Privacy:
    """Judge a folder for the user of that number. One that others can write to may be used while it is empty."""
    if not found.keeps_modes:
        return Privacy.UNPROTECTED
    if found.owner != user:
        return Privacy.FOREIGN
    if found.mode & _WRITE_OF_OTHERS and not found.is_empty:
        return Privacy.WRITABLE
    return Privacy.READABLE if found.mode & _OF_OTHERS else Privacy.PRIVATE


def _keeps_modes(path: Path) -> bool:
    """Return False if a new file is not what was asked for: for its creator only."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=".probe-", dir=path)  # mode 0600
    except OSError:
        return True  # nothing can be written there, which is told by whatever is written next
    try:
        made = os.fstat(descriptor)
        return made.st_uid == os.geteuid() and not made.st_mode & _OF_OTHERS
    finally:
        os.close(descriptor)
        os.unlink(name)


def secure(path: Path, keeps_modes: Callable[[Path], bool] = _keeps_modes) -> Secured:
    """Make the folder, or one that is there, private. A link is judged by its target.

    `keeps_modes` asks the file system of a folder that is not private yet. Raises StartFailed where the user must
    change something first, OSError where the folder cannot be used.
    """
    private_folder(path)
    if os.name != "posix":
        return Secured()
    found, user = _inspect(path, keeps_modes), os.geteuid()
    verdict = judge(found, user)
    if verdict is Privacy.READABLE:
        os.chmod(path, 0o700)
        now = _inspect(path, keeps_modes)
        was_written_to = found.mode & _WRITE_OF_OTHERS and not now.is_empty  # it was empty a moment ago
        verdict = Privacy.WRITABLE if was_written_to else judge(now, user)
        if verdict is Privacy.PRIVATE:
            return Secured(changed=f"others could enter {path} (mode {found.mode:04o}); now only you can (0700)")
    if verdict is Privacy.UNPROTECTED:
        return Secured(warning=unprotected_text(path))
    if verdict is not Privacy.PRIVATE:
        raise StartFailed(refusal(path, found, verdict))
    return Secured()


def tighten(folder: Path) -> None:
    """Take the rights of others off the files of an own folder, which an earlier version gave. Raises nothing."""
    if os.name != "posix":
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                found = entry.stat(follow_symlinks=False)
                plain = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
                if plain and found.st_mode & _OF_OTHERS and found.st_uid == os.geteuid():
                    os.chmod(entry.path, stat.S_IMODE(found.st_mode) & ~_OF_OTHERS)


def refusal(path: Path, found: FolderAccess, verdict: Privacy) -> str:
    """Say why a host does not use the folder, and which command changes that."""
    if found.mode & stat.S_ISVTX:
        return f"{path} is a folder for all users: use a folder inside it"
    place = shlex.quote(str(path))
    if verdict is Privacy.FOREIGN:
        user = user_name(os.geteuid())
        return (
            f"{path} belongs to user {user_name(found.owner)}, not to {user}: "
            f"run `sudo chown -R {user} {place}`, or use another folder"
        )
    return (
        f"other users can write to {path} (mode {found.mode & 0o777:04o}): look whether all in it is yours, then run "
        f"`chmod 700 {place}`"
    )


def unprotected_text(path: Path) -> str:
    """Say that nothing keeps others out of the folder."""
    return f"other users may read {path}: its file system keeps no owners and modes"


def inspect(path: Path) -> FolderAccess:
    """Look at a folder without writing to it; it is taken to keep modes. Raises OSError."""
    found = path.stat()
    return FolderAccess(owner=found.st_uid, mode=stat.S_IMODE(found.st_mode), is_empty=not os.listdir(path))


def _inspect(path: Path, keeps_modes: Callable[[Path], bool]) -> FolderAccess:
    """Like `look`; where the folder is not private, a file that is created shows whether modes are kept."""
    found = inspect(path)
    if judge(found, os.geteuid()) is Privacy.PRIVATE:
        return found
    return FolderAccess(owner=found.owner, mode=found.mode, is_empty=found.is_empty, keeps_modes=keeps_modes(path))


def user_name(number: int) -> str:
    """The name of a user of this machine, or the number where it has none."""
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
