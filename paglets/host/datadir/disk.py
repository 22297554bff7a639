"""Scratch directories and logs of paglets, in a host's directory."""

from __future__ import annotations

import itertools
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from paglets.core.content import SourceStat, closed
from paglets.core.text import placed
from paglets.host.datadir.logs import Key, LogFolder
from paglets.host.runtime.services import Disk
from paglets.slots.amounts import bytes_text
from paglets.slots.eligibility import Reason
from paglets.store.files import Removal
from paglets.worker.logs import LogChunk, make_folder
from paglets.worker.scratch import scratch_bytes

FULL = "disk_full"
CLOSED = "disk_closed"
CLOSED_SECONDS = 10.0
"""Time between two looks at a directory that is missing or read-only. Nothing can be removed from it until then."""

MOST_LEFT = 1_000
"""Paths that could not be removed, of which each is told once; of more nothing is told."""

LEAST_BYTES = 1 << 20
LEAST_FILES = 16
"""A process needs a directory, two logs and a few bytes in each before it does anything."""


TRASH = ".trash"
"""What is being removed lies among the scratch directories: they may be on a disk of their own, and it is renamed."""

FOLDERS = ("work", f"work/{TRASH}", "logs", "blobs", "blobs/incoming", "blobs/staging", "code")
"""Of a host's directory, those above the others first."""


def is_unusable(disk: Disk) -> bool:
    """Return True if the data directory is missing or may not be written."""
    obstacle = disk.blocked_reason()
    return obstacle is not None and obstacle.code == CLOSED


class HostDisk:
    """The `Disk` of a real machine. `later` runs slow work on another thread. `lacks` names anything else that blocks
    every process."""

    def __init__(
        self,
        folder: Path,
        later: Callable[[Callable[[], None]], None],
        log: Callable[[str], None],
        lacks: Callable[[], str] = str,
    ) -> None:
        self._lacks = lacks
        self._work = folder / "work"
        self._trash = self._work / TRASH
        self._logs_folder = folder / "logs"
        self._logs = LogFolder(self._logs_folder)
        self._trimming = False
        self._later = later
        self._log = log
        self._discarded = 0
        self._left: set[str] = set()
        # A process needs all of these; what it publishes or unpacks goes to the last four.
        self._folders = tuple(folder / name for name in FOLDERS)
        for path in self._folders:
            path.mkdir(mode=0o700, exist_ok=True)
        later(self._empty_trash)

    def make_folders(self) -> tuple[str, ...]:
        """Make anew which of its folders are not there; gives their names. Raises OSError."""
        missing = [name for name, path in zip(FOLDERS, self._folders, strict=True) if _is_missing(path)]
        for name in missing:
            (self._work.parent / name).mkdir(mode=0o700, exist_ok=True)
        return tuple(missing)

    def prepare(self, agent_id: str, fresh: bool) -> str:
        path = self._work / agent_id
        # A job may have put a file or a link in the place of its directory, a link to nowhere too.
        if os.path.lexists(path) and (fresh or path.is_symlink() or not path.is_dir()):
            self.discard(agent_id)
        path.mkdir(mode=0o700, exist_ok=True)
        return str(path)

    def discard(self, agent_id: str) -> None:
        """Out of the way at once by a rename; the files are removed later. Raises OSError where it stays."""
        path = self._work / agent_id
        while True:
            self._discarded += 1
            target = self._trash / f"{agent_id}.{os.getpid()}.{self._discarded}"
            if not os.path.lexists(target):
                break
        try:
            _rename(path, target)
        except FileNotFoundError:
            if os.path.lexists(path):  # it is the trash that is gone
                raise
            return
        self._later(self._empty_trash)

    def blocked_reason(self) -> Reason | None:
        found = (blocked_reason_of(folder) for folder in (self._work, self._logs_folder))
        shut = (unusable_reason_of(folder) for folder in self._folders)
        lacks = (Reason(code=CLOSED, text=text) for text in (self._lacks(),) if text)
        return next((each for each in itertools.chain(found, shut, lacks) if each is not None), None)

    def log_path(self, agent_id: str, generation: int, attempt: int, stream: str) -> str:
        path = self._logs.path(agent_id, generation, attempt, stream)
        make_folder(path)
        return path

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
            self._log(
                f"removed logs of {removed:,} attempts: more than {most_bytes:,} bytes or {most_attempts:,} attempts"
            )

    def bound_scratch(
        self, newest_first: tuple[str, ...], share: float, give_up: Callable[[tuple[str, ...]], None]
    ) -> None:
        self._later(lambda: self._bound(newest_first, share, give_up))

    def _bound(self, newest_first: tuple[str, ...], share: float, give_up: Callable[[tuple[str, ...]], None]) -> None:
        try:
            room = shutil.disk_usage(self._work).total * share
        except OSError:
            return  # what is the matter with it `obstacle` says
        for count, agent_id in enumerate(newest_first):
            room -= scratch_bytes(str(self._work / agent_id))
            if room < 0:
                self._log(f"{len(newest_first) - count} kept scratch directories exceed {share:.0%} of the disk")
                give_up(newest_first[count:])
                return

    def run_later(self, act: Callable[[], None]) -> None:
        self._later(act)

    def remove_source(self, removal: Removal) -> str:
        try:
            found = os.lstat(removal.path)
            if not stat.S_ISREG(found.st_mode):
                return "it is no file any more"
            registered = SourceStat(size_bytes=removal.size_bytes, mtime_ns=removal.mtime_ns, inode=removal.inode)
            if SourceStat.of(found) != registered:
                return "it is not the file that was registered any more"
            os.unlink(removal.path)
        except FileNotFoundError:
            return ""
        return ""

    def scratch_ids(self) -> tuple[str, ...]:
        try:
            return tuple(sorted(name for name in os.listdir(self._work) if name != TRASH))
        except OSError:
            return ()  # what is the matter with it `obstacle` says

    def _empty_trash(self) -> None:
        try:
            entries = sorted(self._trash.iterdir())
        except OSError:
            return  # what is the matter with it `obstacle` says
        for entry in entries:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, onerror=self._make_removable)
            else:
                # A job may have put a file or a link in the place of its directory.
                self._unlink(entry)

    def _unlink(self, path: Path) -> None:
        try:
            path.unlink()
        except OSError as failed:
            self._say_left(str(path), failed)

    def _make_removable(self, act: Callable[[str], object], path: str, error: object) -> None:
        """A job may have taken the rights from its own directories."""
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
            self._log(f"{path} cannot be removed: {failed}; it is tried again at the next start")


def _is_missing(path: Path) -> bool:
    """One that cannot be looked at is not."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return True
    except OSError:
        pass
    return False


def blocked_reason_of(folder: Path) -> Reason | None:
    """Why nothing can be put into this folder just now; None where it can.

    Looks, and writes nothing: it is asked at each grant. A quota does not show here, but where it is met.
    """
    try:
        return unusable_reason_of(folder) or _fullness(folder)
    except OSError as error:
        return Reason(code=CLOSED, text=f"the host's disk cannot be used: {error}")


def unusable_reason_of(folder: Path) -> Reason | None:
    """The same, but for how full its disk is."""
    try:
        text = closed(folder)
    except OSError as error:
        text = f"{folder} cannot be used: {placed(error)}"
    return Reason(code=CLOSED, text=text) if text else None


def _fullness(folder: Path) -> Reason | None:
    if shutil.disk_usage(folder).free < LEAST_BYTES:
        return Reason(code=FULL, text=f"the disk of {folder} is full: less than {bytes_text(LEAST_BYTES)} are free")
    if hasattr(os, "statvfs"):
        found = os.statvfs(folder)
        if found.f_files and found.f_favail < LEAST_FILES:
            return Reason(code=FULL, text=f"the disk of {folder} has no inodes left: remove files, however small")
    return None


def _rename(path: Path, target: Path) -> None:
    try:
        path.rename(target)
    except PermissionError:
        # A job may have taken the rights from its directory, whose entry for `..` changes as well.
        if not _is_its_own(str(path)):
            raise
        path.chmod(stat.S_IRWXU)
        path.rename(target)


def _is_its_own(path: str) -> bool:
    """Whether a change of rights stays within the scratch directory: through a link it would reach the file that
    the link names, and a file of several names has them all. (Only Windows asks for rights to a file itself.)"""
    found = os.lstat(path)
    return stat.S_ISDIR(found.st_mode) or (os.name == "nt" and stat.S_ISREG(found.st_mode) and found.st_nlink == 1)
