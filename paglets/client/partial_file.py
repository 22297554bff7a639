"""Partial files of downloads: a hidden file in the folder of the target, renamed to the target when it is complete."""

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
    """A partial file. It has the first `offset` bytes of `blob`, and becomes the file `target` when it is complete.

    Only `sync` may be called while another thread uses the object.
    """

    def __init__(self, target: Path, blob: BlobRef, path: Path, descriptor: int) -> None:
        self._target = target
        self._blob = blob
        self._path = path
        self._descriptor = descriptor
        self._hash = hashlib.sha256()
        self.offset = 0
        self._sync_error: OSError | None = None

    def resume(self, progress: Callable[[int], None]) -> None:
        """Hash the bytes of an earlier attempt; `progress` gets their count. Raises NoRoom if the rest has no room."""
        with _as_paglets_error(self._target):
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
        """Write the next piece. If the disk is full, remove the partial file and raise NoRoom."""
        with self._removing_if_full():
            os.lseek(self._descriptor, self.offset, os.SEEK_SET)
            write_all(self._descriptor, piece)
        self._take(piece)

    def sync(self) -> None:
        """Sync the bytes received so far to the disk, so that `finish` needs less time. `finish` raises any error."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            self._sync_error = error

    def restart(self) -> None:
        """Discard all received bytes, so that the download starts again."""
        with self._removing_if_full():
            os.ftruncate(self._descriptor, 0)
        self._hash = hashlib.sha256()
        self.offset = 0

    def is_right(self) -> bool:
        """Return True if the file has all bytes of the blob, and they match its hash."""
        return (self._hash.hexdigest(), self.offset) == (self._blob.sha256, self._blob.size_bytes)

    def finish(self, *, replace: bool) -> None:
        """Sync the complete file and rename it to the target. Without `replace`, an existing target raises Conflict."""
        with self._removing_if_full():
            if self._sync_error is not None:
                # Linux reports a failed write once. The next sync would succeed without the lost bytes.
                self.remove()
                raise self._sync_error
            os.fsync(self._descriptor)
            try:
                put_in_place(self._path, self._target, replace=replace)
            except Conflict:
                self.remove()
                raise
            sync_folder(self._target.parent)

    def remove(self) -> None:
        with suppress(OSError):  # the file is already removed, or its folder is now read-only
            self._path.unlink()

    def _take(self, piece: bytes) -> None:
        self._hash.update(piece)
        self.offset += len(piece)

    def _check_room(self) -> None:
        """Raise NoRoom before the download starts, if the file does not fit on the disk."""
        needed = self._blob.size_bytes - self.offset
        with _as_paglets_error(self._target):
            usage = shutil.disk_usage(self._target.parent)
        if usage.total and needed > usage.free:
            self.remove()
            raise NoRoom(
                f"{_folder(self._target)} has {usage.free:,} bytes free; the download needs {needed:,}",
                hint=["free disk space, or choose another target"],
            )

    @contextmanager
    def _removing_if_full(self) -> Iterator[None]:
        """Map system errors like `_as_paglets_error`, and remove the partial file if the disk is full."""
        try:
            with _as_paglets_error(self._target):
                yield
        except NoRoom:
            self.remove()
            raise


@contextmanager
def partial_file(target: Path, blob: BlobRef) -> Iterator[PartialFile]:
    """Open and lock the partial file of `blob` for `target`.

    Raises Invalid if `target` cannot be written. Raises Conflict if `target` is a folder, or if another download to it
    is in progress.
    """
    path = target.with_name(partial_name(target.name, blob.sha256))
    with _as_paglets_error(target):
        check_replaceable(target)
        descriptor = _open(path)
    try:
        with _as_paglets_error(target):
            _lock(descriptor, path, target)
        yield PartialFile(target, blob, path, descriptor)
    finally:
        os.close(descriptor)


def partial_name(name: str, sha256: str) -> str:
    """Return `.NAME.HASH.part`, with the first 8 digits of the hash. A long name is cut."""
    short = name.encode("utf-8", "surrogateescape")[:MAX_FILE_NAME_BYTES].decode("utf-8", "ignore")
    return f".{short}.{sha256[:8]}.part"


def _open(path: Path) -> int:
    # O_NONBLOCK is needed, because opening a named pipe would block.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Invalid(f"{printable(path)} is not a regular file and blocks the download", hint=["remove it"])
    return descriptor


def _lock(descriptor: int, path: Path, target: Path) -> None:
    # Windows has no fcntl. Two downloads to one target may then overwrite each other, which the hash check detects.
    with suppress(ImportError):
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(f"another download to {printable(target)} is in progress") from error
        there = os.stat(path, follow_symlinks=False)
        if not os.path.samestat(there, os.fstat(descriptor)):
            text = f"another download to {printable(target)} has just ended"
            raise Conflict(text, hint=["check the file, or try again"])


@contextmanager
def _as_paglets_error(target: Path) -> Iterator[None]:
    """Map OSError, and ValueError for an invalid file name, to a PagletsError that names the target."""
    try:
        yield
    except PagletsError:  # This clause must come first, because Invalid is a ValueError.
        raise
    except (OSError, ValueError) as error:
        raise _paglets_error(error, target) from error


def _paglets_error(error: OSError | ValueError, target: Path) -> PagletsError:
    if not isinstance(error, OSError):
        return Invalid(f"{printable(target)} cannot be written: {error}")
    full = no_room(error, target.parent)
    if full is not None:
        return NoRoom(f"{printable(target)} cannot be written: {full.message}; the received part was removed")
    if error.errno == errno.ENOTDIR:
        return Invalid(f"{printable(target)} cannot be written: {_folder(target)} is not a folder")
    if error.errno == errno.ENOENT and not os.path.isdir(target.parent):
        return Invalid(f"{printable(target)} cannot be written: there is no folder {_folder(target)}")
    return Invalid(f"{printable(target)} cannot be written: {error.strerror}")


def _folder(target: Path) -> str:
    return printable(target.parent.absolute())
