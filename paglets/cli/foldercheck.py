"""`paglets doctor` on the data directory of a host, running or not: a table of checks, which change nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from paglets.cli.checks import BAD, FEW_BYTES, WARNING, Check
from paglets.core.errors import PagletsError
from paglets.core.text import counted
from paglets.host import damage
from paglets.host.disk import LEAST_BYTES, LEAST_FILES
from paglets.slots.amounts import bytes_text
from paglets.store.db import check, open_reading
from paglets.store.migrations import MIGRATIONS
from paglets.store.trouble import told


@dataclass(frozen=True, slots=True, kw_only=True)
class _Folder:
    """`holder`: the process of the host that runs there, 0 where it cannot be told, None where none does."""

    path: Path
    holder: int | None
    deep: bool

    @property
    def database(self) -> Path:
        return self.path / damage.DATABASE

    @property
    def at_rest(self) -> bool:
        return self.holder is None and not (self.path / damage.WAL).exists()


def folder_checks(path: Path, *, deep: bool) -> Iterator[Check]:
    """All of CHECKS that have something to say; `deep`: all bytes are read."""
    if not path.is_dir():
        found = f"there is no folder {path}"
        yield Check(name=f"data {path.name}", state=BAD, found=found, advice="name another: --name, --data-dir")
        return
    folder = _Folder(path=path, holder=holder_of(path / "lock"), deep=deep)
    for name, look in CHECKS:
        try:
            for each in look(folder):
                yield Check(name=f"{path.name} {name}", state=each.state, found=each.found, advice=each.advice)
        except OSError as error:
            advice = "make the folder and all in it this user's, and readable"
            yield Check(name=f"{path.name} {name}", state=BAD, found=str(error), advice=advice)


def holder_of(lock: Path) -> int | None:
    """The process that holds the lock of a data directory, as Linux tells it; None where nobody does."""
    try:
        found = lock.stat()
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    pids = [int(words[4]) for words in map(str.split, lines) if words[1] == "FLOCK" and words[5] == place]
    return max(0, pids[0]) if pids else None


def _runs(folder: _Folder) -> Iterator[Check]:
    if folder.holder is None:
        yield Check(name="", found=f"no host runs in {folder.path}")
    else:
        yield Check(name="", found=f"a host runs in {folder.path}, process {folder.holder or 'unknown'}")


def _rights(folder: _Folder) -> Iterator[Check]:
    mode = stat.S_IMODE(folder.path.stat().st_mode)
    if mode & 0o077:
        yield Check(
            name="", state=WARNING, found=f"others may look into {folder.path}", advice=f"chmod 700 {folder.path}"
        )
    for entry in (folder.path, *sorted(folder.path.iterdir())):
        foreign = os.name == "posix" and entry.lstat().st_uid != os.geteuid()
        if foreign or not os.access(entry, os.R_OK | os.W_OK):
            found = f"{entry} is another user's" if foreign else f"{entry} cannot be written"
            advice = f"the host's user must own all in {folder.path}, on a file system that is not read-only"
            yield Check(name="", state=BAD, found=found, advice=advice)
            return


def _disk(folder: _Folder) -> Iterator[Check]:
    free = shutil.disk_usage(folder.path).free
    files = os.statvfs(folder.path) if hasattr(os, "statvfs") else None
    if files is not None and files.f_files and files.f_favail < LEAST_FILES:
        yield Check(name="", state=BAD, found="no inodes left", advice="remove files: nothing new can be kept there")
    elif free < LEAST_BYTES:
        advice = "free some: until then nothing is taken and no job starts; what was accepted is kept"
        yield Check(name="", state=BAD, found=f"full: {bytes_text(free)} free", advice=advice)
    elif free < FEW_BYTES:
        yield Check(name="", state=WARNING, found=f"{bytes_text(free)} free", advice="free some before it is full")
    else:
        yield Check(name="", found=f"{bytes_text(free)} free")


def _database(folder: _Folder) -> Iterator[Check]:
    there = folder.database.exists() and folder.database.stat().st_size
    if damage.read_note(folder.path) is None and not there:
        yield Check(name="", found="none yet: no host was started there")
        return
    try:
        damage.check_there(folder.path)
        check(folder.database, thorough=folder.deep, at_rest=folder.at_rest)
        with closing(_reading(folder)) as base:
            yield _age(folder, base)
    except sqlite3.Error as error:
        yield Check(name="", state=BAD, found=told(folder.database, error).message)
    except PagletsError as error:
        advice = "copy the folder first: the next start moves the database aside, and the one after it begins anew"
        yield Check(name="", state=BAD, found=error.message, advice=advice)
    if folder.holder is None and damage.wal_is_missing(folder.path):
        found = f"the last start was cut off, and there is no {damage.WAL}"
        advice = "if somebody removed that file, put it back before the host starts: it has what was stored last"
        yield Check(name="", state=WARNING, found=found, advice=advice)


def _reading(folder: _Folder) -> sqlite3.Connection:
    return open_reading(folder.database, at_rest=folder.at_rest)


def _age(folder: _Folder, base: sqlite3.Connection) -> Check:
    """Its schema, and whether it is of the moment that the note beside it says."""
    (schema,) = base.execute("SELECT coalesce(max(id), 0) FROM migrations").fetchone()
    meta = dict(base.execute("SELECT key, value FROM meta"))
    if schema > len(MIGRATIONS):
        writer = meta.get("program", "a newer paglets")
        found = f"schema {schema}, written by {writer}; this program knows {len(MIGRATIONS)}"
        return Check(name="", state=BAD, found=found, advice="start the host with that paglets.pyz")
    boots = int(meta.get("boot_count", 0))
    if damage.is_of_earlier_moment(damage.read_note(folder.path), meta.get("store_id", ""), boots):
        advice = "put the right files there; a second start goes on with what there is, and what came since is lost"
        return Check(name="", state=BAD, found=f"of an earlier moment: it knows of {boots} starts only", advice=advice)
    files = [folder.database, folder.path / damage.WAL]
    size = bytes_text(sum(file.stat().st_size for file in files if file.exists()))
    return Check(name="", found=f"sound, {size}, schema {schema} of {len(MIGRATIONS)}, {counted(boots, 'start')}")


def _damages(folder: _Folder) -> Iterator[Check]:
    for each in damage.damages(folder.path):
        size = sum(file.lstat().st_size for file in each.path.rglob("*") if file.is_file())
        advice = f"{each.path} has what was moved, {bytes_text(size)}: remove it when you need it no more"
        yield Check(name="", state=WARNING, found=f"{each.at}: {each.why}", advice=advice)


def _blobs(folder: _Folder) -> Iterator[Check]:
    """Of a database that cannot be read nothing is said: another check does."""
    try:
        with closing(_reading(folder)) as base:
            rows = base.execute("SELECT sha256, size_bytes FROM blobs ORDER BY sha256")
            wrong = [sha256 for sha256, size in rows if not _is_right(folder, sha256, size)]
            (count,) = base.execute("SELECT count(*) FROM blobs").fetchone()
    except sqlite3.Error:
        return
    if wrong:
        found = f"{len(wrong)} of {count} are damaged or not there: {', '.join(wrong[:3])}"
        advice = "who still has these bytes sends them again when they are needed; else put the files there anew"
        yield Check(name="", state=BAD, found=found, advice=advice)
    elif count:
        yield Check(name="", found=f"{count}, {'their bytes are right' if folder.deep else 'their sizes are right'}")


def _is_right(folder: _Folder, sha256: str, size_bytes: int) -> bool:
    path = folder.path / "blobs" / sha256[:2] / sha256
    if not path.is_file() or path.stat().st_size != size_bytes:
        return False
    if not folder.deep:
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


CHECKS: tuple[tuple[str, Callable[[_Folder], Iterator[Check]]], ...] = (
    ("host", _runs),
    ("rights", _rights),
    ("disk", _disk),
    ("database", _database),
    ("damage", _damages),
    ("blobs", _blobs),
)
