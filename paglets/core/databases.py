"""SQLite databases as one file, with the rows that only a `-wal` or `-journal` file beside them has.

A program that does not close its connection leaves rows in these files. So the database and the files beside it are
copied together, at a moment when none of them changes, and SQLite recovers the copy as after a crash. Nothing is
written to the originals, no lock is waited for, and a read-only folder will do. Only a database in WAL mode that never
rests is copied by SQLite's own backup, which holds up no writer there.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from paglets.core.clock import Clock, SystemClock, system_pause
from paglets.core.content import SourceStat, copy_hashed, no_room, stat_of
from paglets.core.errors import FileChanged, Invalid
from paglets.core.plain import read_plain
from paglets.core.text import printable

HEADER = b"SQLite format 3\0"
"""The first bytes of each database: https://www.sqlite.org/fileformat2.html, section 1.3.1."""

WITH_ROWS = ("-wal", "-journal")
BESIDE = (*WITH_ROWS, "-shm")

WAIT_SECONDS = 30.0
"""For a database that is written to. SQLite's own time-outs are of this order."""

LOOK_AGAIN_SECONDS = 0.25

TRIES_AT_REST = 4
"""For a database that rests now and then. It takes a second."""

SETTLED_SECONDS = 0.02
"""A file that is written to twice within a tick of its file system's clock (10 ms at most) may show one time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A database and the files beside it that are not empty, each as it was at one moment."""

    path: Path
    main: SourceStat
    beside: tuple[tuple[str, SourceStat], ...]

    @property
    def size_bytes(self) -> int:
        """The bytes of all files, which are those of a copy at most."""
        return self.main.size_bytes + sum(stat.size_bytes for _, stat in self.beside)

    @property
    def has_wal(self) -> bool:
        return any(suffix == "-wal" for suffix, _ in self.beside)

    @property
    def mtime_ns(self) -> int:
        return max(self.main.mtime_ns, *(stat.mtime_ns for _, stat in self.beside))

    def advice(self, what: str) -> str:
        """Return `what` happened to this database and what to do."""
        beside = " and ".join(f"{self.path.name}{suffix}" for suffix, _ in self.beside)
        return f"{printable(self.path)} {what}; rows of it are in {printable(beside)}: close its connection first"


def database_at(path: Path) -> Database | None:
    """Return the database at `path` if files beside it have rows of it. Return None for any other file."""
    real = Path(os.path.realpath(path))  # where SQLite looks for the other files, too
    beside = tuple((suffix, stat) for suffix in WITH_ROWS if (stat := _stat_of(beside_of(real, suffix))) is not None)
    if not beside:
        return None
    with suppress(OSError, Invalid):
        if read_plain(real, len(HEADER))[: len(HEADER)] == HEADER:
            return Database(path=real, main=stat_of(real), beside=beside)
    return None


def beside_of(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _stat_of(path: Path) -> SourceStat | None:
    """The file at `path` if it is a regular one that is not empty."""
    with suppress(Invalid):
        found = stat_of(path)
        return found if found.size_bytes else None
    return None


def copy_database(
    path: Path, target: Path, *, clock: Clock | None = None, pause: Callable[[float], None] = system_pause
) -> Database:
    """Copy all of the database at `path` to the new file `target`, synced. Return what was copied.

    Wait up to WAIT_SECONDS for a database that is written to. Raise FileChanged if it does not rest or is closed
    meanwhile, Invalid for one that SQLite does not read, NoRoom. An error that another try would meet again has the
    detail `field` "database". On any error there is no target.
    """
    clock = clock or SystemClock()
    until = clock.monotonic() + WAIT_SECONDS
    for tries in itertools.count(1):
        found = database_at(path)
        if found is None:
            raise FileChanged(f"{printable(path)} changed while it was read: its connection was closed")
        if 0 <= clock.wall() - found.mtime_ns / 1e9 < SETTLED_SECONDS:
            pause(SETTLED_SECONDS)
        try:
            with _whole_or_nothing(found, target):
                (_back_up if found.has_wal and tries > TRIES_AT_REST else _copy)(found, target)
            return found
        except FileChanged:
            if clock.monotonic() >= until:
                text = found.advice(f"was written to for {WAIT_SECONDS:g} s")
                raise FileChanged(text, field="database") from None
        pause(LOOK_AGAIN_SECONDS)
    raise AssertionError("a last try returns or raises")


@contextmanager
def _whole_or_nothing(found: Database, target: Path) -> Iterator[None]:
    """Around what writes `target`, which is synced then, or gone after an error, and alone in any case."""
    import sqlite3  # few processes need it, and each would take 5 ms more to start

    try:
        yield
        descriptor = os.open(target, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(target)
        if isinstance(error, sqlite3.Error):
            full = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
            room = no_room(OSError(errno.ENOSPC, ""), target.parent) if full else None
            raise room or Invalid(found.advice(f"cannot be copied ({error})"), field="database") from error
        raise
    finally:
        for suffix in BESIDE:
            with suppress(OSError):
                os.unlink(beside_of(target, suffix))


def _copy(found: Database, target: Path) -> None:
    """Copy the files while they rest. SQLite then rolls back or takes over what those beside the copy have."""
    import sqlite3

    copy_hashed(found.path, target)
    for suffix, _ in found.beside:
        copy_hashed(beside_of(found.path, suffix), beside_of(target, suffix))
    if database_at(found.path) != found:
        raise FileChanged(found.advice("was written to"))
    with closing(sqlite3.connect(target, isolation_level=None)) as database:
        database.execute("PRAGMA locking_mode=EXCLUSIVE")  # no -shm file
        database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def _back_up(found: Database, target: Path) -> None:
    """Copy what a reader sees now. Without a right to write SQLite changes nothing in the original."""
    import sqlite3

    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    reading = sqlite3.connect(f"{found.path.as_uri()}?mode=ro", uri=True, timeout=WAIT_SECONDS, isolation_level=None)
    with closing(reading) as source, closing(sqlite3.connect(target)) as copy:
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
        source.backup(copy)


@contextmanager
def whole_file(path: Path) -> Iterator[tuple[Path, Database | None]]:
    """Give `path` itself, or for a database with files beside it a copy that is there within the block."""
    if database_at(path) is None:
        yield path, None
        return
    folder = _new_folder(path)
    try:
        target = folder / "database"
        found = copy_database(path, target)
        yield target, found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _new_folder(path: Path) -> Path:
    """Beside the database, where there probably is room for another one; else where temporary files go."""
    with suppress(OSError):
        return Path(tempfile.mkdtemp(prefix=".paglets-", dir=path.parent))
    try:
        return Path(tempfile.mkdtemp(prefix="paglets-"))
    except OSError as error:
        raise Invalid(f"{printable(path)} cannot be copied: no folder can be made for the copy ({error})") from error


def remove_file(path: Path, database: Database | None) -> None:
    """Remove a file, and before it the files beside a database. Raise OSError."""
    for suffix in BESIDE if database is not None else ():
        with suppress(FileNotFoundError):
            os.unlink(beside_of(path, suffix))
    os.unlink(path)
