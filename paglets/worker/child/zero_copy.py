"""A file of an attempt's scratch directory that becomes a blob without a copy.

Nobody may write to it from then on. So it goes from its place by a rename, and only if Linux grants a read lease on it:
that is refused while anybody has the file open for writing, or mapped, and is taken back when somebody opens it after
all. An attempt that dies takes its scratch with it, so nobody misses the file. Everywhere else files are copied.
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

Room = Callable[[int], Path]
"""Gives to where a file of so many bytes may be moved."""


class Taken:
    """A file that has gone from `source` to `staged`. Exactly one of `close` and `give_back` follows.

    `descriptor` is open for reading and holds the lease; it is closed then.
    """

    def __init__(self, source: Path, staged: Path, descriptor: int) -> None:
        self._source = source
        self.staged = staged
        self._descriptor = descriptor
        self._found = os.fstat(descriptor)

    def finish(self) -> BlobRef:
        """Hash and sync it. Raises FileChanged where somebody has it open or can reach it still; Invalid, NoRoom."""
        try:
            with ThreadPoolExecutor(max_workers=1) as disk:
                synced = disk.submit(os.fsync, self._descriptor)
                blob = hash_file(self.staged)
                synced.result()
            self._check_ours_alone()
            os.fchmod(self._descriptor, 0o600)
        except OSError as error:
            problem = no_room(error, self.staged.parent)
            raise problem or Invalid(f"{printable(self._source)} cannot be moved: {error}") from error
        return blob

    def _check_ours_alone(self) -> None:
        now, staged = os.fstat(self._descriptor), os.lstat(self.staged)
        is_leased = fcntl.fcntl(self._descriptor, fcntl.F_GETLEASE) == fcntl.F_RDLCK
        if not is_leased or now.st_nlink != 1 or not os.path.samestat(now, staged):
            raise FileChanged(f"{printable(self._source)} was opened or replaced while it was moved")

    def close(self) -> None:
        os.close(self._descriptor)

    def give_back(self) -> None:
        """The file is in its place again, one of its own with its old rights and time. A problem is said in the log."""
        try:
            self._put_back()
        except (OSError, PagletsError) as error:
            say(f"{printable(self._source)} cannot be put back in its place: {error}")
        finally:
            self.close()

    def _put_back(self) -> None:
        mode, times = stat.S_IMODE(self._found.st_mode), (self._found.st_atime_ns, self._found.st_mtime_ns)
        try:
            move_back(self.staged, self._source)
            os.chmod(self._source, mode)
        except FileNotFoundError:  # it is a blob by now
            opened = f"/proc/self/fd/{self._descriptor}"
            try:
                copy_hashed(Path(opened), self._source)
                os.utime(self._source, ns=times)
                os.chmod(self._source, mode)
            except NoRoom:  # the blob itself, to be read only, is better than nothing
                os.link(opened, self._source, src_dir_fd=self._descriptor)
                os.chmod(self._source, 0o400)


def move_back(staged: Path, source: Path, link: Callable[[Path, Path], None] = os.link) -> None:
    """Replaces nothing that has come there meanwhile. Raises OSError, FileNotFoundError where nothing is staged."""
    try:
        link(staged, source)
        os.unlink(staged)
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError:  # a file system without links
        if os.path.lexists(source):
            raise
        os.rename(staged, source)


def take(source: Path, room: Room) -> Taken | None:
    """Take a file from its place to where `room` says for its size; None where it must be copied.

    Raises what `room` raises, and Invalid; the file is where it was then.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return None
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Invalid(f"{printable(source)} cannot be read: {error.strerror}") from error
    taken = None
    try:
        found = os.fstat(descriptor)
        # By another name, or by another user, it could be changed later.
        if found.st_nlink == 1 and found.st_uid == os.geteuid() and _lease(source, descriptor):
            staged = room(found.st_size)
            with suppress(OSError):  # another file system
                os.rename(source, staged)
                taken = Taken(source, staged, descriptor)
    finally:
        if taken is None:
            os.close(descriptor)
    return taken


def _lease(source: Path, descriptor: int) -> bool:
    try:
        # The signal that the lease is to end: by default one that would end the process.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN and not is_open_for_writing(source):
            say(f"{printable(source)} is still open for writing: what is moved is a copy of what is in it now")
        return False
    return True


def is_open_for_writing(path: Path) -> bool:
    """Return True if this process has the file open for writing, and False if the system does not tell."""
    with suppress(OSError):
        wanted = os.stat(path)
        return any(_is_writer(name, wanted) for name in os.listdir("/dev/fd"))
    return False


def _is_writer(descriptor: str, wanted: os.stat_result) -> bool:
    with suppress(OSError, ValueError):  # the descriptor of the listing itself is closed by now
        number = int(descriptor)
        is_same = os.path.samestat(os.fstat(number), wanted)
        return is_same and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    return False
