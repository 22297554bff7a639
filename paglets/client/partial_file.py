"""A file that arrives: beside its target under another name until it is whole, so that nobody sees half of it."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from paglets.client.destination import check_replaceable, put_in_place
from paglets.core.content import no_room, sync_folder, write_all
from paglets.core.errors import Conflict, Invalid, NoRoom, PagletsError
from paglets.core.refs import MAX_FILE_NAME_BYTES, BlobRef
from paglets.core.text import printable

READ_BYTES = 1 << 20


class PartialFile:
    """The first `offset` bytes of `blob`, on their way to `target`. One thread at a time."""

    def __init__(self, target: Path, blob: BlobRef, path: Path, descriptor: int) -> None:
        self._target = target
        self._blob = blob
        self._path = path
        self._descriptor = descriptor
        self._hash = hashlib.sha256()
        self.offset = 0

    def resume(self, progress: Callable[[int], None]) -> None:
        """Take over what an earlier try left; `progress` hears how many bytes were read."""
        with _telling(self._target):
            size = os.fstat(self._descriptor).st_size
            if size > self._blob.size_bytes:
                size = 0
                os.ftruncate(self._descriptor, 0)
            while self.offset < size:
                piece = os.pread(self._descriptor, min(READ_BYTES, size - self.offset), self.offset)
                self._take(piece)
                progress(self.offset)
        self._check_room()

    def append(self, piece: bytes) -> None:
        """Raises NoRoom where the disk is full; nothing of the file is then left."""
        with self._telling():
            os.lseek(self._descriptor, self.offset, os.SEEK_SET)
            write_all(self._descriptor, piece)
        self._take(piece)

    def sync(self) -> None:
        """Let the disk take what is there so far, so that little is left at the end; what fails, fails there too."""
        with suppress(OSError):
            os.fsync(self._descriptor)

    def restart(self) -> None:
        with self._telling():
            os.ftruncate(self._descriptor, 0)
        self._hash = hashlib.sha256()
        self.offset = 0

    def is_right(self) -> bool:
        """Whether the bytes that are there are those of the blob."""
        return (self._hash.hexdigest(), self.offset) == (self._blob.sha256, self._blob.size_bytes)

    def finish(self, *, replace: bool) -> None:
        """Put the whole file in its place, in one step. Raises Conflict where something stands there by now."""
        with self._telling():
            os.fsync(self._descriptor)
            try:
                put_in_place(self._path, self._target, replace=replace)
            except Conflict:
                self.remove()
                raise
            sync_folder(self._target.parent)

    def remove(self) -> None:
        with suppress(OSError):  # it is gone already, or its folder cannot be written any more: then it stays
            self._path.unlink()

    def _take(self, piece: bytes) -> None:
        self._hash.update(piece)
        self.offset += len(piece)

    def _check_room(self) -> None:
        """Tell at once, not after hours, that it cannot fit."""
        needed = self._blob.size_bytes - self.offset
        with _telling(self._target):
            usage = shutil.disk_usage(self._target.parent)
        if usage.total and needed > usage.free:
            self.remove()
            raise NoRoom(
                f"{_place(self._target)} has {usage.free:,} bytes free; {needed:,} are needed: "
                "free some, or choose another place"
            )

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            with _telling(self._target):
                yield
        except NoRoom:
            self.remove()
            raise


@contextmanager
def partial_file(target: Path, blob: BlobRef) -> Iterator[PartialFile]:
    """The partial file of `blob` for `target`, which nobody else writes meanwhile.

    Raises Invalid where `target` cannot be written; Conflict where it is a folder, or another download to it is under
    way.
    """
    path = target.with_name(partial_name(target.name, blob.sha256))
    with _telling(target):
        check_replaceable(target)
        descriptor = _open(path)
    try:
        with _telling(target):
            _lock(descriptor, path, target)
        yield PartialFile(target, blob, path, descriptor)
    finally:
        os.close(descriptor)


def partial_name(name: str, sha256: str) -> str:
    """`.NAME.<8 digits>.part`; a name that is too long for that is cut."""
    short = name.encode("utf-8", "surrogateescape")[:MAX_FILE_NAME_BYTES].decode("utf-8", "ignore")
    return f".{short}.{sha256[:8]}.part"


def _open(path: Path) -> int:
    # Not blocking: whatever stands there, a pipe too, must not hold us up.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Invalid(f"{printable(path)} is in the way: it is not a file")
    return descriptor


def _lock(descriptor: int, path: Path, target: Path) -> None:
    # Not everywhere: where it is missing two downloads to one place may disturb each other, which their hash tells.
    with suppress(ImportError):
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(f"another download to {printable(target)} is under way") from error
        there = os.stat(path, follow_symlinks=False)
        if not os.path.samestat(there, os.fstat(descriptor)):
            raise Conflict(f"another download to {printable(target)} has just ended; look at it, or begin again")


@contextmanager
def _telling(target: Path) -> Iterator[None]:
    """The system's errors as ours, in one line that names the place. ValueError: a name that no file can have."""
    try:
        yield
    except PagletsError:  # ours already, though Invalid is a ValueError too
        raise
    except (OSError, ValueError) as error:
        raise _told(error, target) from error


def _told(error: OSError | ValueError, target: Path) -> PagletsError:
    if not isinstance(error, OSError):
        return Invalid(f"{printable(target)} cannot be written: {error}")
    full = no_room(error, target.parent)
    if full is not None:
        return NoRoom(f"{printable(target)} cannot be written: {full.message}; nothing of it was kept")
    if error.errno == errno.ENOTDIR:
        return Invalid(f"{_place(target)} is not a folder")
    if error.errno == errno.ENOENT and not os.path.isdir(target.parent):
        return Invalid(f"there is no folder {_place(target)}")
    return Invalid(f"{printable(target)} cannot be written: {error.strerror}")


def _place(target: Path) -> str:
    return printable(target.parent.absolute())
