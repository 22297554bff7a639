"""Where a fetched file goes. What stands there already is never replaced unasked, not even by another fetched file."""

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

HashProgress = Callable[[int], None]
"""Is told how many bytes of a file that is there were read so far."""


def destination_for(target: str | Path, name: str) -> Path:
    """Return where the file `name` goes. A `target` that ends as a folder is created.

    In a folder the file keeps its name, but for one that begins with a dot or hyphen (`visible_name`). Raises Invalid.
    """
    path = Path(target)
    if str(target).endswith(("/", os.sep)):
        _make_folder(path)
    if not os.path.isdir(path):  # which takes a path that cannot be for none
        return path
    try:
        return path / visible_name(check_file_name(name))
    except Invalid as error:
        raise Invalid(f"{error.message}; name the file to write: {printable(path / 'NAME')}") from None


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(exist_ok=True)
    except FileNotFoundError:
        raise Invalid(f"there is no folder {printable(path.parent)}") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise Invalid(f"{printable(path)} cannot be made a folder: {why}") from None


def is_downloaded(place: Path, blob: BlobRef, hashing: HashProgress = lambda done: None) -> bool:
    """Whether the file is at `place` already, with these bytes. Raises Conflict where something else is."""
    if not os.path.lexists(place):
        return False
    check_replaceable(place)
    if not _is_same(place, blob, hashing):
        raise _stands_there(place)
    return True


def check_replaceable(place: Path) -> None:
    """A rename would replace a device or a pipe as well: nobody wants /dev/null to be a file."""
    if os.path.isdir(place):
        raise Conflict(f"{printable(place)} is a folder: name another target")
    with suppress(FileNotFoundError):  # a name that cannot be is told now, not when all is there
        mode = os.lstat(place).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            raise Invalid(f"{printable(place)} is neither a file nor a folder: name another target")


def _is_same(place: Path, blob: BlobRef, hashing: HashProgress) -> bool:
    try:
        return place.stat().st_size == blob.size_bytes and hash_file(place, hashing) == blob
    except (OSError, PagletsError):
        return False


def put_in_place(part: Path, place: Path, *, replace: bool) -> None:
    """Give a whole file its name, in one step. Raises OSError, and Conflict where something has that name."""
    if replace:
        os.replace(part, place)
        return
    try:
        os.link(part, place)  # unlike a rename it fails where the name is taken, also when it was taken just now
    except FileExistsError:
        raise _stands_there(place) from None
    except OSError:  # a file system without links
        if os.path.lexists(place):
            raise _stands_there(place) from None
        os.replace(part, place)
    else:
        os.unlink(part)


def make_durable(place: Path) -> None:
    """Not even a power cut takes it away from now on. Raises Invalid."""
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_folder(place.parent)
    except OSError as error:
        raise Invalid(f"{printable(place)} cannot be synced to its disk: {error.strerror}") from None


def _stands_there(place: Path) -> Conflict:
    text = f"{printable(place)} is there already"
    return Conflict(f"{text}: name another target, or replace it with replace=True", there=text)
