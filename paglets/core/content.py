"""Hash and copy files in one pass and in constant memory.

Clients, hosts and processes of paglets share this module. It maps each OSError to a PagletsError with a message of one
line: Invalid for a path that cannot be read or written, FileChanged for a file that changed during the call, NoRoom for
a full disk, and Conflict for an existing target.
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
from paglets.core.record import INT_BOUND
from paglets.core.refs import BlobRef
from paglets.core.regular_files import NOT_WAITING, kind_of
from paglets.core.text import placed, printable

PIECE_BYTES = 1 << 20
"""The number of bytes read, hashed and written at a time. They fit into the processor's cache."""

Progress = Callable[[int], None]
"""A function that is called after each piece with the number of bytes done so far."""

_FULL = {
    errno.ENOSPC: "the disk of {} is full",
    errno.EDQUOT: "the disk quota of {} is used up",
    errno.EFBIG: "a limit of the system forbids files of that size in {}",
}

_REASONS = {
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.EROFS: "read-only file system",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStat:
    """The size, mtime and inode of a file, of which at least one changes if the file is written to or replaced."""

    size_bytes: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, found: os.stat_result) -> SourceStat:
        """Return the SourceStat of a stat result. The inode is reduced to 63 bits, the limit of integers in records."""
        return cls(size_bytes=found.st_size, mtime_ns=found.st_mtime_ns, inode=found.st_ino % INT_BOUND)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """An open file, with its path for messages and its state when it was opened."""

    path: Path
    file: io.FileIO
    stat: SourceStat


def stat_of(path: Path) -> SourceStat:
    """Return the SourceStat of the regular file at `path`, after following links. Raises Invalid for anything else."""
    with _reading(path):
        found = os.stat(path)
    return _checked(path, found)


def hash_file(path: Path, progress: Progress | None = None) -> BlobRef:
    """Return hash and size of a regular file, after following links. Raises Invalid, FileChanged."""
    with _opened(path) as source:
        return _hashed(source, lambda piece: None, progress)


def copy_hashed(source: Path, target: Path, progress: Progress | None = None) -> BlobRef:
    """Copy `source` to the new file `target` (mode 0600) and return its hash and size.

    The target is synced to disk, but its folder is not. After an error, an incomplete target is removed. If a rename
    replaces the source during the copy, the old file is copied. Raises Invalid, FileChanged, NoRoom, Conflict.
    """
    with _opened(source) as opened:
        return _copied(opened, target, progress)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data` at the current position, in as many system calls as needed. Raises OSError."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def sync_folder(path: Path) -> None:
    """Sync a folder, so that a file created or renamed in it survives a power failure. Raises OSError."""
    if os.name == "nt":
        return  # Windows cannot open folders, and NTFS journals renames.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def no_room(error: OSError, place: Path) -> NoRoom | None:
    """Return NoRoom if `error` reports a full disk, an exceeded quota or a size limit, else None."""
    text = _FULL.get(error.errno or 0)
    if text is None:
        return None
    free = ""
    with suppress(OSError):
        free = f": {shutil.disk_usage(place).free:,} bytes free"
    never = {"never": True} if error.errno == errno.EFBIG else {}
    return NoRoom(text.format(printable(place)) + free, **never)


def disk_error(error: OSError, place: Path) -> NoRoom:
    """Return NoRoom for any error in a folder of the host, because the folder works again once the disk is fixed."""
    return no_room(error, place) or NoRoom(closed(place) or f"{printable(place)} cannot be used: {placed(error)}")


def closed(folder: Path) -> str:
    """Return the reason why no file can be created in `folder`, or "" if one can.

    The reason names the first folder on the path that is missing or not accessible. Free space is not checked. Raises
    OSError for a disk error.
    """
    if os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK):
        return ""
    for place in (*reversed(folder.parents), folder):
        try:
            found = os.stat(place)
        except FileNotFoundError:
            return f"{printable(place)} does not exist"
        if not stat.S_ISDIR(found.st_mode):
            return f"{printable(place)} is not a folder"
        if not os.access(place, os.X_OK):
            return f"there is no permission to enter {printable(place)}"
    if hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY:
        return f"the file system of {printable(folder)} is read-only"
    return "" if os.access(folder, os.W_OK) else f"there is no permission to write to {printable(folder)}"


@contextmanager
def _opened(path: Path) -> Iterator[_Source]:
    stat_of(path)  # Check the path before it is opened: opening a device can have an effect.
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
    """Read and hash the file, and pass each piece to `take`.

    Stop one byte after its original size, because the file could grow faster than it is read.
    """
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
        change = f"its size is {was.size_bytes:,} bytes, but {done:,} bytes were read"
    else:
        return
    raise FileChanged(f"{printable(source.path)} changed while it was read: {change}")


def _copied(source: _Source, target: Path, progress: Progress | None) -> BlobRef:
    size = source.stat.size_bytes
    with _writing(source.path, target, size):
        # Mode "x" raises FileExistsError for an existing file or link.
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
    """Map an OSError of the block, and the ValueError for a path with a zero byte, to Invalid."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise Invalid(f"{printable(path)} cannot be read: {_reason(error)}") from error


@contextmanager
def _writing(source: Path, target: Path, size_bytes: int) -> Iterator[None]:
    """Map an OSError of the block to Conflict if the target exists, to NoRoom if the disk is full, else to Invalid."""
    try:
        yield
    except FileExistsError as error:
        raise Conflict(f"{printable(target)} exists already and was not overwritten") from error
    except (OSError, ValueError) as error:
        what = f"{printable(source)} ({size_bytes:,} bytes) cannot be written to {printable(target.parent)}"
        full = no_room(error, target.parent) if isinstance(error, OSError) else None
        raise (NoRoom(f"{what}: {full.message}") if full else Invalid(f"{what}: {_reason(error)}")) from error


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        return _REASONS.get(error.errno or 0) or (error.strerror or str(error)).lower()
    return str(error)
