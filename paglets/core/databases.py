"""Copies of SQLite databases, including the rows that only their `-wal` or `-journal` file has.

A program that does not close its connection leaves rows in these files. So the database and its companion files are
copied together while none of them changes, and SQLite recovers the copy as after a crash. This writes nothing to the
originals, waits for no lock, and works in a read-only folder. Only a database in WAL mode that changes all the time is
copied by SQLite's backup, which blocks no writer in that mode.
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
from paglets.core.regular_files import read_regular
from paglets.core.text import printable

HEADER = b"SQLite format 3\0"
"""The first bytes of each database: https://www.sqlite.org/fileformat2.html, section 1.3.1."""

WITH_ROWS = ("-wal", "-journal")
BESIDE = (*WITH_ROWS, "-shm")

WAIT_SECONDS = 30.0
"""The time limit for copying a database that changes, similar to SQLite's own time-outs."""

LOOK_AGAIN_SECONDS = 0.25

TRIES_AT_REST = 4
"""The number of attempts, about a second, to copy the files before SQLite's backup is used.

They suffice for a database with pauses between writes.
"""

SETTLED_SECONDS = 0.02
"""The age in seconds from which a file's mtime is reliable.

Two writes within one tick of the file system's clock, at most 10 ms, can leave the same mtime.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A database and its non-empty companion files, with the state of each file at one moment."""

    path: Path
    main: SourceStat
    beside: tuple[tuple[str, SourceStat], ...]

    @property
    def size_bytes(self) -> int:
        """The total size of the files, which is the maximum size of a copy."""
        return self.main.size_bytes + sum(stat.size_bytes for _, stat in self.beside)

    @property
    def has_wal(self) -> bool:
        return any(suffix == "-wal" for suffix, _ in self.beside)

    @property
    def mtime_ns(self) -> int:
        return max(self.main.mtime_ns, *(stat.mtime_ns for _, stat in self.beside))

    def advice(self, what: str) -> str:
        """Return an error message: the path, `what` happened (a predicate such as "was written to"), and what to do."""
        beside = " and ".join(f"{self.path.name}{suffix}" for suffix, _ in self.beside)
        rows = f"some of its rows are only in {printable(beside)}"
        return f"{printable(self.path)} {what}; {rows}: close its connection first"


def database_at(path: Path) -> Database | None:
    """Return the database at `path` if it has a non-empty companion file. Return None for any other file."""
    real = Path(os.path.realpath(path))  # SQLite, too, looks for companion files beside the target of a link
    beside = tuple((suffix, stat) for suffix in WITH_ROWS if (stat := _stat_of(beside_of(real, suffix))) is not None)
    if not beside:
        return None
    with suppress(OSError, Invalid):
        if read_regular(real, len(HEADER))[: len(HEADER)] == HEADER:
            return Database(path=real, main=stat_of(real), beside=beside)
    return None


def beside_of(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _stat_of(path: Path) -> SourceStat | None:
    """Return the SourceStat of the file at `path` if it is regular and not empty, else None."""
    with suppress(Invalid):
        found = stat_of(path)
        return found if found.size_bytes else None
    return None


def copy_database(
    path: Path, target: Path, *, clock: Clock | None = None, pause: Callable[[float], None] = system_pause
) -> Database:
    """Copy the database at `path` to the new file `target`, and sync the copy. Return the database that was copied.

    Retry for up to WAIT_SECONDS if the database changes. Raise FileChanged if it keeps changing or if its program
    closes it during the copy, Invalid if SQLite cannot read it, and NoRoom if the disk is full. Errors that would
    recur in a retry have the detail `field` with the value "database". After an error, an incomplete target is removed.
    """
    clock = clock or SystemClock()
    until = clock.monotonic() + WAIT_SECONDS
    for tries in itertools.count(1):
        found = database_at(path)
        if found is None:
            raise FileChanged(f"{printable(path)} changed while it was read: a program closed the database")
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
    raise AssertionError("the loop ends only by return or raise")


@contextmanager
def _whole_or_nothing(found: Database, target: Path) -> Iterator[None]:
    """Sync `target` after the block, or remove it after an error. Remove its companion files in both cases."""
    import sqlite3  # Import it only here: few processes need sqlite3, and its import takes 5 ms.

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
    """Copy the database and its companion files, and let SQLite recover the copy. Raises FileChanged if one changed."""
    import sqlite3

    copy_hashed(found.path, target)
    for suffix, _ in found.beside:
        copy_hashed(beside_of(found.path, suffix), beside_of(target, suffix))
    if database_at(found.path) != found:
        raise FileChanged(found.advice("was written to"))
    with closing(sqlite3.connect(target, isolation_level=None)) as database:
        database.execute("PRAGMA locking_mode=EXCLUSIVE")  # In this mode, SQLite creates no -shm file.
        database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def _back_up(found: Database, target: Path) -> None:
    """Copy all committed rows with SQLite's backup. The connection is read-only, so the original is not changed."""
    import sqlite3

    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    reading = sqlite3.connect(f"{found.path.as_uri()}?mode=ro", uri=True, timeout=WAIT_SECONDS, isolation_level=None)
    with closing(reading) as source, closing(sqlite3.connect(target)) as copy:
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
        source.backup(copy)


@contextmanager
def whole_file(path: Path) -> Iterator[tuple[Path, Database | None]]:
    """Yield `path`, or for a database with companion files a temporary copy that is removed after the block."""
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
    """Create a folder for the copy beside the database, where space is likely, or else in the temporary directory."""
    with suppress(OSError):
        return Path(tempfile.mkdtemp(prefix=".paglets-", dir=path.parent))
    try:
        return Path(tempfile.mkdtemp(prefix="paglets-"))
    except OSError as error:
        raise Invalid(f"{printable(path)} cannot be copied: no folder can be created for the copy ({error})") from error


def remove_file(path: Path, database: Database | None) -> None:
    """Remove a file. If it is a database, remove its companion files first. Raises OSError."""
    for suffix in BESIDE if database is not None else ():
        with suppress(FileNotFoundError):
            os.unlink(beside_of(path, suffix))
    os.unlink(path)
