"""Checks of the permissions of private folders. They run before the host stores anything in such a folder."""

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
"""The umask of a host process: only its user can access the files it creates."""

_OF_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_WRITE_OF_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderAccess:
    """The owner and mode of a folder. `keeps_modes` is False on a file system without owners or modes, such as FAT."""

    owner: int
    mode: int
    is_empty: bool = False
    keeps_modes: bool = True


class Privacy(Enum):
    """A class of folders, by the users who can access them."""

    PRIVATE = "only this user can enter it"
    READABLE = "others can read it; a chmod is enough"
    WRITABLE = "others can write to it, and may have added files"
    FOREIGN = "it belongs to another user"
    UNPROTECTED = "its file system has no modes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Secured:
    """Messages for the user about a folder. `changed` reports a changed mode, `warning` an unprotected folder."""

    changed: str = ""
    warning: str = ""


def judge(found: FolderAccess, user: int) -> Privacy:
    """Classify a folder for the user with the id `user`.

    An empty folder that others can write to is READABLE, because nobody has added files to it.
    """
    if not found.keeps_modes:
        return Privacy.UNPROTECTED
    if found.owner != user:
        return Privacy.FOREIGN
    if found.mode & _WRITE_OF_OTHERS and not found.is_empty:
        return Privacy.WRITABLE
    return Privacy.READABLE if found.mode & _OF_OTHERS else Privacy.PRIVATE


def _keeps_modes(path: Path) -> bool:
    """Return False if a new file does not get mode 0600 and this user as its owner."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=".probe-", dir=path)  # `mkstemp` uses mode 0600.
    except OSError:
        return True  # The folder cannot be written to. The next write of the host reports the error.
    try:
        made = os.fstat(descriptor)
        return made.st_uid == os.geteuid() and not made.st_mode & _OF_OTHERS
    finally:
        os.close(descriptor)
        os.unlink(name)


def secure(path: Path, keeps_modes: Callable[[Path], bool] = _keeps_modes) -> Secured:
    """Create the folder, or make an existing one private. If `path` is a symbolic link, its target counts.

    `keeps_modes` tests if the file system keeps the modes of files. Raises StartFailed if the user must change
    something first, and OSError if the folder cannot be used.
    """
    private_folder(path)
    if os.name != "posix":
        return Secured()
    found, user = _inspect(path, keeps_modes), os.geteuid()
    verdict = judge(found, user)
    if verdict is Privacy.READABLE:
        os.chmod(path, 0o700)
        now = _inspect(path, keeps_modes)
        # A READABLE folder that others could write to was empty, so a file in it now may come from another user.
        was_written_to = found.mode & _WRITE_OF_OTHERS and not now.is_empty
        verdict = Privacy.WRITABLE if was_written_to else judge(now, user)
        if verdict is Privacy.PRIVATE:
            return Secured(changed=f"other users could enter {path} (mode {found.mode:04o}); changed to 0700")
    if verdict is Privacy.UNPROTECTED:
        return Secured(warning=unprotected_text(path))
    if verdict is not Privacy.PRIVATE:
        raise StartFailed(refusal(path, found, verdict))
    return Secured()


def tighten(folder: Path) -> None:
    """Remove the permissions of other users, set by earlier versions, from the entries of a folder. Never raises."""
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
    """Return a text that says why a host refuses to use the folder, and how to fix it."""
    if found.mode & stat.S_ISVTX:
        return f"{path} is shared by all users: use a folder inside it"
    place = shlex.quote(str(path))
    if verdict is Privacy.FOREIGN:
        user = user_name(os.geteuid())
        return (
            f"{path} belongs to user {user_name(found.owner)}, not to {user}: "
            f"run `sudo chown -R {user} {place}`, or use another folder"
        )
    return (
        f"other users can write to {path} (mode {found.mode & 0o777:04o}): check that all its files are yours, "
        f"then run `chmod 700 {place}`"
    )


def unprotected_text(path: Path) -> str:
    """Return the warning about a folder whose file system has no owners and modes."""
    return f"other users may be able to read {path}: its file system has no owners and modes"


def inspect(path: Path) -> FolderAccess:
    """Return the owner and mode of a folder without writing to it. Raises OSError.

    `keeps_modes` of the result is always True, because only a write can test it.
    """
    found = path.stat()
    return FolderAccess(owner=found.st_uid, mode=stat.S_IMODE(found.st_mode), is_empty=not os.listdir(path))


def _inspect(path: Path, keeps_modes: Callable[[Path], bool]) -> FolderAccess:
    """Return the owner and mode of a folder. If it is not private, call `keeps_modes` to test its file system."""
    found = inspect(path)
    if judge(found, os.geteuid()) is Privacy.PRIVATE:
        return found
    return FolderAccess(owner=found.owner, mode=found.mode, is_empty=found.is_empty, keeps_modes=keeps_modes(path))


def user_name(number: int) -> str:
    """Return the name of a user of this machine, or the id if it has none."""
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
