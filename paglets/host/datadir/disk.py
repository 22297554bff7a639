"""The scratch directories and logs of paglets in the data directory of a host."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from paglets.core.content import SourceStat, closed
from paglets.core.text import counted, placed
from paglets.host.datadir.logs import Key, LogFolder
from paglets.host.runtime.services import Disk
from paglets.slots.amounts import bytes_text
from paglets.slots.eligibility import Reason
from paglets.store.files import Removal
from paglets.worker.logs import LogChunk
from paglets.worker.scratch import scratch_bytes

FULL = "disk_full"
CLOSED = "disk_closed"
CLOSED_SECONDS = 10.0
"""Seconds after which a part tries again to remove files if the data directory is missing or read-only."""

MOST_LEFT = 1_000
"""The maximum number of paths that are logged, each once, because they cannot be removed."""

LEAST_BYTES = 1 << 20
LEAST_FILES = 16
"""No process starts with fewer free bytes than LEAST_BYTES or fewer free inodes than LEAST_FILES, because each process
needs a directory and two short logs."""


TRASH = ".trash"
"""The folder for directories that wait for removal. It is inside `work`, because a rename needs one file system."""

FOLDERS = ("work", f"work/{TRASH}", "logs", "blobs", "blobs/incoming", "blobs/staging", "code")
"""The folders of a data directory, parents first."""


def is_unusable(disk: Disk) -> bool:
    """Return True if the data directory is missing or not writable."""
    reason = disk.blocked_reason()
    return reason is not None and reason.code == CLOSED


class HostDisk:
    """The implementation of `Disk` for a real machine.

    `later` runs a task on another thread. `lacks` returns a further reason why no process can start, or "".
    """

    def __init__(
        self,
        folder: Path,
        later: Callable[[Callable[[], None]], None],
        log: logging.Logger,
        lacks: Callable[[], str] = str,
    ) -> None:
        self._lacks = lacks
        self._work = folder / "work"
        self._trash = self._work / TRASH
        self._logs_folder = folder / "logs"
        self._logs = LogFolder(self._logs_folder)
        self._trimming = False
        self._later = later
        self._log = log.getChild("disk")
        self._discarded = 0
        self._left: set[str] = set()
        # A process needs all these folders. It writes files to `blobs` and unpacks code to `code`.
        self._folders = tuple(folder / name for name in FOLDERS)
        for path in self._folders:
            path.mkdir(mode=0o700, exist_ok=True)
        later(self._empty_trash)

    def make_folders(self) -> tuple[str, ...]:
        """Create the missing folders and return their names. Raises OSError."""
        missing = [name for name, path in zip(FOLDERS, self._folders, strict=True) if _is_missing(path)]
        for name in missing:
            (self._work.parent / name).mkdir(mode=0o700, exist_ok=True)
        return tuple(missing)

    def prepare(self, agent_id: str, fresh: bool) -> str:
        path = self._work / agent_id
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
            return str(path)
        # A job may have replaced its directory by a file or a symbolic link, even a broken one.
        if fresh or path.is_symlink() or not path.is_dir():
            self.discard(agent_id)
        path.mkdir(mode=0o700, exist_ok=True)
        return str(path)

    def discard(self, agent_id: str) -> None:
        """Remove the scratch directory if it is empty, as after most short jobs. Else move it to the trash.

        The files in the trash are removed later. Raises OSError if the move fails.
        """
        path = self._work / agent_id
        with suppress(OSError):
            path.rmdir()
            return
        while True:
            self._discarded += 1
            target = self._trash / f"{agent_id}.{os.getpid()}.{self._discarded}"
            if not os.path.lexists(target):
                break
        try:
            _rename(path, target)
        except FileNotFoundError:
            if os.path.lexists(path):  # The directory exists, so the trash folder is missing.
                raise
            return
        self._later(self._empty_trash)

    def blocked_reason(self) -> Reason | None:
        blocked = (blocked_reason_of(folder) for folder in (self._work, self._logs_folder))
        unusable = (unusable_reason_of(folder) for folder in self._folders)
        lacks = (Reason(code=CLOSED, text=text) for text in (self._lacks(),) if text)
        return next((each for each in itertools.chain(blocked, unusable, lacks) if each is not None), None)

    def log_path(self, agent_id: str, generation: int, attempt: int, stream: str) -> str:
        return self._logs.path(agent_id, generation, attempt, stream)

    def logs(self, agent_id: str) -> tuple[tuple[int, int], ...]:
        return self._logs.attempts(agent_id)

    def read_log(
        self, agent_id: str, generation: int, attempt: int, stream: str, offset: int, most_bytes: int
    ) -> LogChunk:
        return self._logs.read(agent_id, generation, attempt, stream, offset, most_bytes)

    def trim_logs(self, most_bytes: int, most_attempts: int, running: Callable[[], frozenset[Key]]) -> None:
        if not self._trimming:
            self._trimming = True
            self._later(lambda: self._trim(most_bytes, most_attempts, running))

    def _trim(self, most_bytes: int, most_attempts: int, running: Callable[[], frozenset[Key]]) -> None:
        try:
            removed = self._logs.trim(most_bytes, most_attempts, running)
        finally:
            self._trimming = False
        if removed:
            self._log.warning(
                f"removed the logs of {counted(removed, 'attempt')}: more than {bytes_text(most_bytes)} or "
                f"{most_attempts:,} attempts"
            )

    def bound_scratch(
        self, newest_first: tuple[str, ...], share: float, drop: Callable[[tuple[str, ...]], None]
    ) -> None:
        self._later(lambda: self._bound(newest_first, share, drop))

    def _bound(self, newest_first: tuple[str, ...], share: float, drop: Callable[[tuple[str, ...]], None]) -> None:
        try:
            left_bytes = shutil.disk_usage(self._work).total * share
        except OSError:
            return  # `blocked_reason` reports this error to the user.
        for count, agent_id in enumerate(newest_first):
            left_bytes -= scratch_bytes(str(self._work / agent_id))
            if left_bytes < 0:
                removed = len(newest_first) - count
                self._log.warning(
                    f"removing {removed} kept scratch directories: kept ones exceed {share:.0%} of the disk"
                )
                drop(newest_first[count:])
                return

    def run_later(self, act: Callable[[], None]) -> None:
        self._later(act)

    def remove_source(self, removal: Removal) -> str:
        try:
            found = os.lstat(removal.path)
            if not stat.S_ISREG(found.st_mode):
                return "it is no longer a regular file"
            registered = SourceStat(size_bytes=removal.size_bytes, mtime_ns=removal.mtime_ns, inode=removal.inode)
            if SourceStat.of(found) != registered:
                return "it changed since it was registered"
            os.unlink(removal.path)
        except FileNotFoundError:
            return ""
        return ""

    def scratch_ids(self) -> tuple[str, ...]:
        try:
            return tuple(sorted(name for name in os.listdir(self._work) if name != TRASH))
        except OSError:
            return ()  # `blocked_reason` reports this error to the user.

    def _empty_trash(self) -> None:
        try:
            entries = sorted(self._trash.iterdir())
        except OSError:
            return  # `blocked_reason` reports this error to the user.
        for entry in entries:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, onerror=self._make_removable)
            else:
                # A job may have replaced its directory by a file or a symbolic link.
                self._unlink(entry)

    def _unlink(self, path: Path) -> None:
        try:
            path.unlink()
        except OSError as failed:
            self._say_left(str(path), failed)

    def _make_removable(self, act: Callable[[str], object], path: str, error: object) -> None:
        """Remove `path` after restoring permissions that a job may have removed from its directories.

        `act` is the function of `os` that failed for `path`.
        """
        try:
            for place in (os.path.dirname(path), path):
                if _is_its_own(place):
                    os.chmod(place, stat.S_IRWXU)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                act(path)
        except OSError as failed:
            self._say_left(path, failed)

    def _say_left(self, path: str, failed: OSError) -> None:
        if path not in self._left and len(self._left) < MOST_LEFT:
            self._left.add(path)
            self._log.warning(f"{path} cannot be removed: {failed}; the host retries at its next start")


def _is_missing(path: Path) -> bool:
    """Return True if the path does not exist. Return False if it cannot be inspected."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return True
    except OSError:
        pass
    return False


def blocked_reason_of(folder: Path) -> Reason | None:
    """Return the reason why nothing can be written to this folder now, or None.

    It is called for each grant of a slot, so it never writes. Therefore it cannot detect a used-up disk quota.
    """
    try:
        return unusable_reason_of(folder) or _full_reason_of(folder)
    except OSError as error:
        return Reason(code=CLOSED, text=f"the disk of the host cannot be used: {error}")


def unusable_reason_of(folder: Path) -> Reason | None:
    """Return the reason why this folder cannot be used, or None. Do not check the free space."""
    try:
        text = closed(folder)
    except OSError as error:
        text = f"{folder} cannot be used: {placed(error)}"
    return Reason(code=CLOSED, text=text) if text else None


def _full_reason_of(folder: Path) -> Reason | None:
    if shutil.disk_usage(folder).free < LEAST_BYTES:
        return Reason(code=FULL, text=f"the disk of {folder} is full: less than {bytes_text(LEAST_BYTES)} free")
    if hasattr(os, "statvfs"):
        found = os.statvfs(folder)
        if found.f_files and found.f_favail < LEAST_FILES:
            return Reason(code=FULL, text=f"the disk of {folder} has no inodes left: remove some files, of any size")
    return None


def _rename(path: Path, target: Path) -> None:
    try:
        path.rename(target)
    except PermissionError:
        # A rename updates the `..` entry of the directory, and needs write permission for this. A job may have removed
        # that permission from its directory.
        if not _is_its_own(str(path)):
            raise
        path.chmod(stat.S_IRWXU)
        path.rename(target)


def _is_its_own(path: str) -> bool:
    """Return True if a chmod of this path affects nothing outside the scratch directory.

    A symbolic link or a hard link could share its permissions with a file outside. Only on Windows do files themselves
    need a permission to be removed; elsewhere return False for files.
    """
    found = os.lstat(path)
    return stat.S_ISDIR(found.st_mode) or (os.name == "nt" and stat.S_ISREG(found.st_mode) and found.st_nlink == 1)
