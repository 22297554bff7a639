"""Destinations of downloads. An existing file is replaced only on request, even if it has just been created."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from paglets.core.content import hash_file, sync_folder
from paglets.core.errors import Conflict, Invalid, PagletsError
from paglets.core.refs import BlobRef, check_file_name, visible_name
from paglets.core.text import printable

OTHER_TARGET = "name another target"
HashProgress = Callable[[int], None]
"""A callback that gets the number of bytes of an existing file that have been hashed so far."""


def destination_for(target: str | Path, name: str) -> Path:
    """Return the path at which to store the file `name`. If `target` ends with a slash, that folder is created.

    If `target` is a folder, the file is stored in it as `name`, without a leading dot or hyphen (see `visible_name`).
    Raises Invalid.
    """
    path = Path(target)
    if str(target).endswith(("/", os.sep)):
        _make_folder(path)
    if not os.path.isdir(path):  # for an invalid path, isdir returns False instead of raising an error
        return path
    try:
        return path / visible_name(check_file_name(name))
    except Invalid as error:
        raise Invalid(error.message, hint=[f"name the file to write: {printable(path / 'NAME')}"]) from None


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(exist_ok=True)
    except FileNotFoundError:
        problem = f"there is no folder {printable(path.parent)}"
        raise Invalid(f"folder {printable(path)} cannot be created: {problem}") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise Invalid(f"folder {printable(path)} cannot be created: {why}") from None


def is_downloaded(place: Path, blob: BlobRef, hashing: HashProgress = lambda done: None) -> bool:
    """Return True if `place` is a file with the bytes of `blob`, and False if nothing exists at that path.

    Raises Conflict if another file or a folder exists at that path, and Invalid if a device or pipe does.
    """
    if not os.path.lexists(place):
        return False
    check_replaceable(place)
    if not _is_same(place, blob, hashing):
        raise _exists(place)
    return True


def check_replaceable(place: Path) -> None:
    """Check that a download may replace `place`, because a rename would replace even a device.

    Raises Conflict for a folder, and Invalid for a device or a pipe.
    """
    if os.path.isdir(place):
        raise Conflict(f"{printable(place)} is a folder", hint=[OTHER_TARGET])
    with suppress(FileNotFoundError):  # other errors, such as an invalid name, are raised before the download
        mode = os.lstat(place).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            raise Invalid(f"{printable(place)} is neither a file nor a folder", hint=[OTHER_TARGET])


def _is_same(place: Path, blob: BlobRef, hashing: HashProgress) -> bool:
    try:
        return place.stat().st_size == blob.size_bytes and hash_file(place, hashing) == blob
    except (OSError, PagletsError):
        return False


def put_in_place(part: Path, place: Path, *, replace: bool) -> None:
    """Rename the complete file `part` to `place` in one step. Raises OSError.

    Raises Conflict if `place` exists, unless `replace` is True.
    """
    if replace:
        os.replace(part, place)
        return
    try:
        os.link(part, place)  # unlike a rename, this fails if another process has just created `place`
    except FileExistsError:
        raise _exists(place) from None
    except OSError:  # the file system does not support hard links
        if os.path.lexists(place):
            raise _exists(place) from None
        os.replace(part, place)
    else:
        os.unlink(part)


def make_durable(place: Path) -> None:
    """Sync the file and its folder to the disk, so that the file survives a power failure. Raises Invalid."""
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_folder(place.parent)
    except OSError as error:
        raise Invalid(f"{printable(place)} cannot be synced to its disk: {error.strerror}") from None


def _exists(place: Path) -> Conflict:
    text = f"{printable(place)} already exists"
    return Conflict(text, hint=[f"{OTHER_TARGET}, or replace it with replace=True"], there=text)
