"""Zero-copy publishing: a file in the scratch directory of an attempt becomes a blob by a rename.

No process may write to a blob, so the rename needs a read lease from Linux. The kernel refuses the lease while a
process has the file mapped or open for writing, and breaks the lease when a process later opens the file for writing.
The scratch directory is removed after the attempt, so the file is not needed there. In other cases files are copied.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from paglets.core.content import copy_hashed, hash_file, no_room
from paglets.core.errors import FileChanged, Invalid, NoRoom, PagletsError
from paglets.core.refs import BlobRef
from paglets.core.text import printable
from paglets.worker.child.faults import say

Reserve = Callable[[int], Path]
"""A function that reserves space for a number of bytes, and returns the path to which to move the file."""


class LeasedFile:
    """A file that was moved from `source` to `staged`. Call exactly one of `close` and `restore` afterwards.

    `descriptor`: a descriptor that is open for reading and holds the lease. Both methods close it.
    """

    def __init__(self, source: Path, staged: Path, descriptor: int) -> None:
        self._source = source
        self.staged = staged
        self._descriptor = descriptor
        self._found = os.fstat(descriptor)

    def finish(self) -> BlobRef:
        """Hash and sync the file, and return its blob.

        Raises FileChanged if another process may still write to the file, Invalid, and NoRoom.
        """
        try:
            with ThreadPoolExecutor(max_workers=1) as disk:
                synced = disk.submit(os.fsync, self._descriptor)
                blob = hash_file(self.staged)
                synced.result()
            self._check_exclusive()
            os.fchmod(self._descriptor, 0o600)
        except OSError as error:
            problem = no_room(error, self.staged.parent)
            raise problem or Invalid(f"{printable(self._source)} cannot be moved: {error}") from error
        return blob

    def _check_exclusive(self) -> None:
        now, staged = os.fstat(self._descriptor), os.lstat(self.staged)
        is_leased = fcntl.fcntl(self._descriptor, fcntl.F_GETLEASE) == fcntl.F_RDLCK
        if not is_leased or now.st_nlink != 1 or not os.path.samestat(now, staged):
            raise FileChanged(f"{printable(self._source)} was opened or replaced while it was moved")

    def close(self) -> None:
        os.close(self._descriptor)

    def restore(self) -> None:
        """Move the file back, with its permissions and times. Errors are only written to the log."""
        try:
            self._put_back()
        except (OSError, PagletsError) as error:
            say(f"{printable(self._source)} cannot be moved back: {error}")
        finally:
            self.close()

    def _put_back(self) -> None:
        mode, times = stat.S_IMODE(self._found.st_mode), (self._found.st_atime_ns, self._found.st_mtime_ns)
        try:
            move_back(self.staged, self._source)
            os.chmod(self._source, mode)
        except FileNotFoundError:
            # The file has already become a blob, so copy it back through its descriptor.
            opened = f"/proc/self/fd/{self._descriptor}"
            try:
                copy_hashed(Path(opened), self._source)
                os.utime(self._source, ns=times)
                os.chmod(self._source, mode)
            except NoRoom:
                # The disk is full. A read-only link to the blob is better than no file.
                os.link(opened, self._source, src_dir_fd=self._descriptor)
                os.chmod(self._source, 0o400)


def move_back(staged: Path, source: Path, link: Callable[[Path, Path], None] = os.link) -> None:
    """Move a file from `staged` back to `source`.

    Raises FileExistsError if `source` exists, FileNotFoundError if `staged` is missing, and other OSErrors.
    """
    try:
        link(staged, source)
        os.unlink(staged)
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError:
        # The file system does not support links. A rename must not replace an existing file.
        if os.path.lexists(source):
            raise
        os.rename(staged, source)


def move_with_lease(source: Path, reserve: Reserve) -> LeasedFile | None:
    """Move a file to the path that `reserve` returns for its size. Return None if the file must be copied.

    Raises Invalid if the file cannot be read, and the errors of `reserve`. After an error the file is not moved.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return None
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Invalid(f"{printable(source)} cannot be read: {error.strerror}") from error
    moved = None
    try:
        found = os.fstat(descriptor)
        # If the file has another link, or another user owns it, its bytes could change later.
        if found.st_nlink == 1 and found.st_uid == os.geteuid() and _lease(source, descriptor):
            staged = reserve(found.st_size)
            # The rename fails if the paths are on different file systems. The caller then copies the file.
            with suppress(OSError):
                os.rename(source, staged)
                moved = LeasedFile(source, staged, descriptor)
    finally:
        if moved is None:
            os.close(descriptor)
    return moved


def _lease(source: Path, descriptor: int) -> bool:
    try:
        # Replace the default signal for a broken lease, SIGIO, which would end the process. SIGURG is ignored.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN and not is_open_for_writing(source):
            say(f"{printable(source)} is still open for writing: its current content is copied instead of moved")
        return False
    return True


def is_open_for_writing(path: Path) -> bool:
    """Return True if this process has the file open for writing; False if not, or if that is unknown."""
    with suppress(OSError):
        wanted = os.stat(path)
        return any(_is_writer(name, wanted) for name in os.listdir("/dev/fd"))
    return False


def _is_writer(descriptor: str, wanted: os.stat_result) -> bool:
    # One of the names is the descriptor that `listdir` itself used, which is closed by now.
    with suppress(OSError, ValueError):
        number = int(descriptor)
        is_same = os.path.samestat(os.fstat(number), wanted)
        return is_same and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    return False
