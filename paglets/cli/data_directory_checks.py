"""The checks of `paglets doctor` on the data directory of a host. They change no data; the host may be running."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from paglets.core.errors import PagletsError, StoreMalformed
from paglets.core.text import counted
from paglets.host.datadir import damage, permissions
from paglets.host.datadir.disk import FOLDERS, blocked_reason_of
from paglets.host.datadir.lock import LOCK
from paglets.slots.amounts import bytes_text
from paglets.store.inspection import (
    DatabaseInfo,
    blob_sizes,
    check,
    check_identity,
    connect_read_only,
    inspect,
    is_checkpointed,
    size_of,
)
from paglets.store.migrations.steps import MIGRATIONS
from paglets.store.sqlite_errors import to_paglets_error
from paglets.wire.local_hosts import RunningHost


@dataclass(frozen=True, slots=True, kw_only=True)
class LockHolder:
    """The process that uses a data directory, if any.

    `runs`: True if there is such a process; None if this system cannot tell. `pid`: 0 if there is none, or if its id is
    hidden, for example inside a container. `is_locked`: False if a host runs there although its lock file was removed.
    """

    runs: bool | None
    pid: int = 0
    is_locked: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Folder:
    """A data directory to check, with the process that uses it. `deep`: read all bytes of its database and files."""

    path: Path
    holder: LockHolder
    deep: bool

    @property
    def database(self) -> Path:
        return self.path / damage.DATABASE

    @property
    def immutable(self) -> bool:
        """True if no host is known to run here, and the database has no WAL file."""
        return not self.holder.runs and is_checkpointed(self.database)


def folder_checks(path: Path, *, deep: bool, running: Sequence[RunningHost] = ()) -> Iterator[Check]:
    """Run all CHECKS on a data directory, and yield their outcomes.

    `deep`: read all bytes of databases and files. `running`: the running hosts of this machine.
    """
    if not path.is_dir():
        found = f"no folder {path}"
        advice = "name another host with --name, or another folder with --data-dir"
        yield Check(name=f"data {path.name}", state=BAD, found=found, advice=advice)
        return
    folder = _Folder(path=path, holder=holder_of(path, running), deep=deep)
    for name, check_of in CHECKS:
        try:
            for each in check_of(folder):
                yield Check(name=f"{path.name} {name}", state=each.state, found=each.found, advice=each.advice)
        except OSError as error:
            advice = "make this user the owner of the folder and its content, and make them readable"
            yield Check(name=f"{path.name} {name}", state=BAD, found=str(error), advice=advice)


def holder_of(folder: Path, running: Iterable[RunningHost] = ()) -> LockHolder:
    """Return the process that holds the lock of a data directory, else the host that has its database open."""
    found = _lock_holder(folder / LOCK)
    if found.runs:
        return found
    pids = (host.pid for host in running if _has_open(host.pid, folder / damage.DATABASE))
    opener = next(pids, 0)
    return LockHolder(runs=True, pid=opener, is_locked=found.runs is None) if opener else found


def _has_open(pid: int, path: Path) -> bool:
    """Return True if /proc shows that the process has the file open."""
    with suppress(OSError):
        wanted = path.stat()
        for opened in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if os.path.samestat(opened.stat(), wanted):
                    return True
    return False


def _lock_holder(lock: Path) -> LockHolder:
    """Return the holder of a lock file, from /proc/locks."""
    if not lock.exists():
        return LockHolder(runs=False)
    try:
        found = lock.stat()
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return LockHolder(runs=None)
    locks = [(int(words[4]), words[5]) for words in map(str.split, lines) if words[1] == "FLOCK"]
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    pids = [pid for pid, at in locks if at == place]
    if pids:
        return LockHolder(runs=True, pid=max(0, pids[0]))
    # On some file systems, such as btrfs, /proc/locks and stat report different devices: compare only the inode.
    maybe = any(at.rpartition(":")[2] == str(found.st_ino) for _, at in locks)
    return LockHolder(runs=None if maybe else False)


def _running_host(folder: _Folder) -> Iterator[Check]:
    if folder.holder.runs is None:
        yield Check(name="", found=f"this system cannot tell whether a host runs in {folder.path}")
    elif not folder.holder.is_locked:
        found = f"a host runs in {folder.path}, process {folder.holder.pid}, but its file {LOCK} was removed"
        advice = (
            "start no other host in this folder: nothing would stop it, and two hosts would corrupt the data. "
            "The host recreates the file within seconds; if it does not, restart it"
        )
        yield Check(name="", state=BAD, found=found, advice=advice)
    elif folder.holder.runs:
        yield Check(name="", found=f"a host runs in {folder.path}, process {folder.holder.pid or 'unknown'}")
    else:
        yield Check(name="", found=f"no host runs in {folder.path}")


def privacy_checks(path: Path, user: int) -> Iterator[Check]:
    """Yield a check if a host of this user would refuse the folder, or would change its mode to 700. Raises OSError."""
    found = permissions.inspect(path)
    verdict = permissions.judge(found, user) if os.name == "posix" else permissions.Privacy.PRIVATE
    if verdict in (permissions.Privacy.FOREIGN, permissions.Privacy.WRITABLE):
        yield Check(
            name="",
            state=BAD,
            found=permissions.refusal(path, found, verdict),
            advice="fix the permissions: until then no host can start",
        )
    elif verdict is permissions.Privacy.READABLE:
        message = f"other users can enter {path} (mode {found.mode:04o})"
        yield Check(
            name="", state=WARNING, found=message, advice=f"run chmod 700 {path}, as the next start of a host does"
        )


def _permissions(folder: _Folder) -> Iterator[Check]:
    owner = folder.path.stat().st_uid
    yield from privacy_checks(folder.path, owner)
    for entry in (folder.path, *sorted(folder.path.iterdir())):
        foreign = entry.lstat().st_uid != owner
        if foreign or not os.access(entry, os.R_OK | os.W_OK):
            found = f"{entry} has another owner than {folder.path}" if foreign else f"{entry} cannot be written"
            advice = f"the host's user must own all files in {folder.path}, on a writable file system"
            yield Check(name="", state=BAD, found=found, advice=advice)
            return


def _disk(folder: _Folder) -> Iterator[Check]:
    """Check the disk of each folder in the data directory, as the host does: scratch and logs may be on other disks."""
    inside = (folder.path / name for name in FOLDERS)
    # If no host runs, some of these folders may not exist: the next start creates them.
    places = [folder.path, *(each for each in inside if folder.holder.runs or os.path.lexists(each))]
    obstacle = next(filter(None, map(blocked_reason_of, places)), None)
    free = shutil.disk_usage(folder.path).free
    if obstacle is not None:
        advice = "fix the disk: until then the host accepts nothing or starts no jobs; accepted data is kept"
        yield Check(name="", state=BAD, found=obstacle.text, advice=advice)
    elif free < FEW_BYTES:
        yield Check(name="", state=WARNING, found=f"{bytes_text(free)} free", advice="delete or move files soon")
    else:
        yield Check(name="", found=f"{bytes_text(free)} free")


def _database(folder: _Folder) -> Iterator[Check]:
    note = damage.read_note(folder.path)
    if note is None and not size_of(folder.database):
        yield _none_yet(folder)
        return
    try:
        damage.check_there(folder.path)
        seen = inspect(folder.database, immutable=folder.immutable)
        check_identity(folder.database, seen, note.store_id if note else "")
        check(folder.database, thorough=folder.deep, immutable=folder.immutable)
        yield _age(folder, seen)
    except sqlite3.Error as error:
        yield Check(name="", state=BAD, found=to_paglets_error(folder.database, error).message)
    except StoreMalformed as error:
        advice = "copy the folder first: the next start moves the database aside, the one after it starts empty"
        yield Check(name="", state=BAD, found=error.message, advice=advice)
    except PagletsError as error:
        yield Check(name="", state=BAD, found=error.message)
    if folder.holder.runs is False and damage.wal_is_missing(folder.path):
        found = f"the previous run crashed, and {damage.WAL} is missing"
        advice = "if somebody removed that file, put it back before the host starts: it has the newest data"
        yield Check(name="", state=WARNING, found=found, advice=advice)


def _none_yet(folder: _Folder) -> Check:
    if not any(each.moved for each in damage.damages(folder.path)):
        return Check(name="", found="not created yet: no host was started in this folder")
    advice = "if you have a backup of the whole folder, restore it first"
    return Check(name="", state=WARNING, found="moved aside; the next start creates an empty database", advice=advice)


def _reading(folder: _Folder) -> sqlite3.Connection:
    return connect_read_only(folder.database, immutable=folder.immutable)


def _age(folder: _Folder, seen: DatabaseInfo) -> Check:
    """Check that the database is as new as `store.json` says."""
    boots = seen.boot_count
    if damage.is_outdated(damage.read_note(folder.path), seen.store_id, boots):
        advice = "restore the newest files: a second start accepts the old ones, and newer data is lost"
        found = f"older than the host's last run: it records only {counted(boots, 'start')}"
        return Check(name="", state=BAD, found=found, advice=advice)
    size = bytes_text(size_of(folder.database) + size_of(folder.path / damage.WAL))
    return Check(name="", found=f"sound, {size}, schema {seen.schema} of {len(MIGRATIONS)}, {counted(boots, 'start')}")


def _damages(folder: _Folder) -> Iterator[Check]:
    for each in damage.damages(folder.path):
        size = sum(file.lstat().st_size for file in each.path.rglob("*") if file.is_file())
        has = f"has the moved files, {bytes_text(size)}" if each.moved else "has only this message"
        advice = f"{each.path} {has}: remove it when you no longer need it"
        yield Check(name="", state=WARNING, found=f"{each.at}: {each.why}", advice=advice)


def _blobs(folder: _Folder) -> Iterator[Check]:
    """Check the files of all blobs. Yield nothing if the database cannot be read: the check `database` reports that."""
    try:
        rows = _blob_rows(folder)
        wrong = {row for row in rows if not _is_right(folder, *row)}
        if wrong:
            # A running host may remove blobs during this check, first the row and then the file. Ignore removed blobs.
            wrong &= set(_blob_rows(folder))
    except sqlite3.Error:
        return
    if wrong:
        names = ", ".join(sha256 for sha256, _ in sorted(wrong)[:3])
        advice = "hosts that still have these bytes send them again when needed; otherwise restore the files"
        found = f"{len(wrong)} of {len(rows)} are damaged or missing: {names}"
        yield Check(name="", state=BAD, found=found, advice=advice)
    elif rows:
        right = "all bytes correct" if folder.deep else "all sizes correct"
        yield Check(name="", found=f"{len(rows)}, {right}")


def _blob_rows(folder: _Folder) -> list[tuple[str, int]]:
    """Return SHA-256 and size of each blob. Close the connection, so that no transaction is open during long checks."""
    with closing(_reading(folder)) as base:
        return blob_sizes(base)


def _is_right(folder: _Folder, sha256: str, size_bytes: int) -> bool:
    path = folder.path / "blobs" / sha256[:2] / sha256
    if not path.is_file() or path.stat().st_size != size_bytes:
        return False
    if not folder.deep:
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


CHECKS: tuple[tuple[str, Callable[[_Folder], Iterator[Check]]], ...] = (
    ("host", _running_host),
    ("permissions", _permissions),
    ("disk", _disk),
    ("database", _database),
    ("damage", _damages),
    ("blobs", _blobs),
)


GOOD, WARNING, BAD = "ok", "warning", "bad"


FEW_BYTES = 1 << 30
"""The free disk space below which a check warns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The outcome of one check: its subject, its state (`ok`, `warning` or `bad`), the finding, and advice."""

    name: str
    state: str = GOOD
    found: str
    advice: str = ""
