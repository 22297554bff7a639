"""Files as bytes: hashed and copied in one pass and in constant memory.

Clients, processes of paglets and hosts share these. Whatever a file or a disk does wrong comes out of here as one error
of paglets with one clear line: Invalid for what cannot be read or written, FileChanged for a file that was written to
meanwhile, NoRoom for a full disk, Conflict for a target that is there already.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from paglets.core.errors import Conflict, FileChanged, Invalid, NoRoom
from paglets.core.plain import NOT_WAITING, kind_of
from paglets.core.record import INT_BOUND
from paglets.core.refs import BlobRef
from paglets.core.text import placed, printable

PIECE_BYTES = 1 << 20
"""Read, hashed and written at a time: large enough that calls cost nothing, small enough to stay in a cache."""

Progress = Callable[[int], None]
"""Is called after each piece with the bytes that are done so far."""

_FULL = {
    errno.ENOSPC: "the disk of {} is full",
    errno.EDQUOT: "the disk quota of {} is used up",
    errno.EFBIG: "a limit of the system forbids files of that size in {}",
}

_REASONS = {
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "a part of the path is no folder",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.EROFS: "read-only file system",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStat:
    """Which file a path named, and as of when: one that was written to or replaced differs in some of these."""

    size_bytes: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, found: os.stat_result) -> SourceStat:
        """The inode as a record can hold it: some file systems use all 64 bits."""
        return cls(size_bytes=found.st_size, mtime_ns=found.st_mtime_ns, inode=found.st_ino % INT_BOUND)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """An open file. `path` is what people know it by."""

    path: Path
    file: io.FileIO
    stat: SourceStat


def stat_of(path: Path) -> SourceStat:
    """The regular file at `path`; links are followed. Raises Invalid for anything else."""
    with _reading(path):
        found = os.stat(path)
    return _checked(path, found)


def hash_file(path: Path, progress: Progress | None = None) -> BlobRef:
    """Read a regular file once; links are followed. Raises Invalid, FileChanged."""
    with _opened(path) as source:
        return _hashed(source, lambda piece: None, progress)


def copy_hashed(source: Path, target: Path, progress: Progress | None = None) -> BlobRef:
    """Copy to a new file (mode 0600) and hash on the way; synced, its folder is not. On any error there is no target.

    A source that is replaced by a rename meanwhile is copied as it was. Raises Invalid, FileChanged, NoRoom, Conflict.
    """
    with _opened(source) as opened:
        return _copied(opened, target, progress)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write on from where the file is; the system may take less at a time. Raises OSError."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def sync_folder(path: Path) -> None:
    """Make names in a folder durable: after a rename the file is there even if the power goes. Raises OSError."""
    if os.name == "nt":
        return  # Folders cannot be opened there; renames are in the journal.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def no_room(error: OSError, place: Path) -> NoRoom | None:
    """What a full disk, quota or limit means to people; None for an error of another kind."""
    text = _FULL.get(error.errno or 0)
    if text is None:
        return None
    free = ""
    with suppress(OSError):
        free = f": {shutil.disk_usage(place).free:,} bytes free"
    never = {"never": True} if error.errno == errno.EFBIG else {}
    return NoRoom(text.format(printable(place)) + free, **never)


def no_place(error: OSError, place: Path) -> NoRoom:
    """The same of whatever the disk has against a file in a folder of a host: it is mended, and it goes on."""
    return no_room(error, place) or NoRoom(closed(place) or f"{printable(place)} cannot be used: {placed(error)}")


def closed(folder: Path) -> str:
    """Why nothing can be put into this folder, naming the one of its path that is at fault; "" where it can.

    How much room there is, is another question. Raises OSError for what the disk itself has.
    """
    if os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK):
        return ""
    for place in (*reversed(folder.parents), folder):
        try:
            found = os.stat(place)
        except FileNotFoundError:
            return f"{printable(place)} is not there"
        if not stat.S_ISDIR(found.st_mode):
            return f"{printable(place)} is no folder"
        if not os.access(place, os.X_OK):
            return f"there is no permission to enter {printable(place)}"
    if hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY:
        return f"the file system of {printable(folder)} is read-only"
    return "" if os.access(folder, os.W_OK) else f"there is no permission to write to {printable(folder)}"


@contextmanager
def _opened(path: Path) -> Iterator[_Source]:
    stat_of(path)  # to open a device may already do something
    with _reading(path):
        file = io.FileIO(path, "r", opener=lambda at, flags: os.open(at, flags | NOT_WAITING))
    with file:
        with _reading(path):
            found = os.fstat(file.fileno())
        yield _Source(path=path, file=file, stat=_checked(path, found))


def _checked(path: Path, found: os.stat_result) -> SourceStat:
    if kind := kind_of(found.st_mode):
        raise Invalid(f"{printable(path)} is {kind}: name a regular file")
    return SourceStat.of(found)


def _hashed(source: _Source, take: Callable[[memoryview], None], progress: Progress | None) -> BlobRef:
    """Read all of it, and no more than one byte beyond the size that it had: it might grow faster than it is read."""
    digest, done, size = hashlib.sha256(), 0, source.stat.size_bytes
    buffer = memoryview(bytearray(min(PIECE_BYTES, size + 1)))
    while done <= size:
        with _reading(source.path):
            count = source.file.readinto(buffer[: size + 1 - done])
        if not count:
            break
        digest.update(buffer[:count])
        take(buffer[:count])
        done += count
        if progress is not None:
            progress(done)
    _check_unchanged(source, done)
    return BlobRef(sha256=digest.hexdigest(), size_bytes=done)


def _check_unchanged(source: _Source, done: int) -> None:
    with _reading(source.path):
        now = os.fstat(source.file.fileno())
    was = source.stat
    if now.st_size != was.size_bytes:
        change = f"it had {was.size_bytes:,} bytes and has {now.st_size:,} now"
    elif now.st_mtime_ns != was.mtime_ns:
        change = "it was written to"
    elif done != was.size_bytes:
        change = f"it has {was.size_bytes:,} bytes by its size, and other than that were read"
    else:
        return
    raise FileChanged(f"{printable(source.path)} changed while it was read: {change}")


def _copied(source: _Source, target: Path, progress: Progress | None) -> BlobRef:
    size = source.stat.size_bytes
    with _writing(source.path, target, size):
        # "x": neither a file nor a link that is there already is written to.
        out = io.FileIO(target, "x", opener=lambda at, flags: os.open(at, flags, 0o600))

    def write(piece: memoryview) -> None:
        with _writing(source.path, target, size):
            write_all(out.fileno(), piece)

    try:
        with out:
            blob = _hashed(source, write, progress)
            with _writing(source.path, target, size):
                os.fsync(out.fileno())
            return blob
    except BaseException:
        with suppress(OSError):
            os.unlink(target)
        raise


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Only around calls of the system. ValueError: a path that no file can have, as with a zero byte in it."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise Invalid(f"{printable(path)} cannot be read: {_reason(error)}") from error


@contextmanager
def _writing(source: Path, target: Path, size_bytes: int) -> Iterator[None]:
    """Only around calls of the system."""
    try:
        yield
    except FileExistsError as error:
        raise Conflict(f"{printable(target)} is there already: nothing is written over it") from error
    except (OSError, ValueError) as error:
        what = f"{printable(source)} ({size_bytes:,} bytes) cannot be written to {printable(target.parent)}"
        full = no_room(error, target.parent) if isinstance(error, OSError) else None
        raise (NoRoom(f"{what}: {full.message}") if full else Invalid(f"{what}: {_reason(error)}")) from error


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        return _REASONS.get(error.errno or 0) or (error.strerror or str(error)).lower()
    return str(error)
