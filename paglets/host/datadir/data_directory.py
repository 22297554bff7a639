"""A host's directory: its lock, its log, its database, and who it is."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from paglets.core.clock import Entropy, Mutex
from paglets.core.errors import PagletsError, StartFailed, StoreMalformed, StoreTransient
from paglets.core.text import harmless
from paglets.host.datadir import damage, permissions
from paglets.host.datadir.lock import DataDirectoryLock
from paglets.program import PROGRAM_VERSION
from paglets.store.db import Store, Tx, open_store
from paglets.store.inspection import check
from paglets.store.migrations.steps import PROGRAM_KEY
from paglets.store.sqlite_errors import to_paglets_error

POSTS_JUMPED = 1_000_000
"""Numbers of posts left out after a loss: others remember some of those that were used, and would drop the new ones."""

MISSING_WAL = (
    f"the last start was cut off, and {damage.WAL} is not there: if it was removed, and not merged by a program that "
    "opened the database, what was stored last is lost. Next: if somebody has that file, end this host now and put "
    "it back; what is stored from here on does not go with it"
)

LOG_NAME = "host.log"

MAX_LOG_BYTES = 10 << 20
"""The log is moved to host.log.1 when it is larger; so it never holds more than twice this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDirectory:
    """An open directory. `boot_count` grows with each start; `boot_id` is new for each.

    `notes`: what its person should know of earlier damage. `damaged_at`: when that was told last, "" where never.
    `take_output` gives stdout and stderr of this process to the log.
    """

    path: Path
    store: Store
    store_id: str
    boot_id: str
    boot_count: int
    log: Callable[[str], None]
    take_output: Callable[[], None]
    lock: DataDirectoryLock
    notes: tuple[str, ...] = ()
    damaged_at: str = ""


@contextmanager
def open_data_directory(
    path: Path, entropy: Entropy, fatal: Callable[[BaseException], None]
) -> Iterator[DataDirectory]:
    """The directory of one host, locked against a second one. Raises StartFailed, StoreDamaged."""
    try:
        secured = permissions.secure(path)
        permissions.tighten(path)
        lock = DataDirectoryLock(path)
    except OSError as error:
        raise StartFailed(
            f"the data directory {path} cannot be used: {error}; or choose another with --data-dir"
        ) from error
    with lock, _log(path / LOG_NAME) as log:
        try:
            with _database(path, entropy, fatal, log, lock, secured) as folder:
                yield folder
        except PagletsError as error:
            log.line(f"ended: {error.message}")
            raise


@contextmanager
def _log(path: Path) -> Iterator[LogFile]:
    try:
        log = LogFile(path)
    except OSError as error:
        raise StartFailed(f"the log {path} cannot be written: {error}; mend that, and start again") from error
    try:
        yield log
    finally:
        log.close()


@contextmanager
def _database(
    path: Path,
    entropy: Entropy,
    fatal: Callable[[BaseException], None],
    log: LogFile,
    lock: DataDirectoryLock,
    secured: permissions.Secured,
) -> Iterator[DataDirectory]:
    notes = [note for note in (secured.changed, secured.warning) if note]
    notes += [MISSING_WAL] if damage.wal_is_missing(path) else []
    try:
        damage.check_there(path)
        known = damage.read_note(path) or damage.StoreNote()
        store = open_store(path / damage.DATABASE, fatal, known.store_id)
        permissions.tighten(path)  # SQLite makes its files by the umask, which may be that of a test
    except StoreMalformed as error:
        raise damage.move_aside(path, error.message, datetime.now(UTC)) from error
    ours: tuple[int, int] | None = damage.database_identity(path)
    try:
        store_id, boots = _begun(path, store, entropy)
        _note(path, damage.StoreNote(store_id=store_id, boot_count=boots, running=True), log)
        earlier = damage.damages(path)
        yield DataDirectory(
            path=path,
            store=store,
            store_id=store_id,
            boot_id=entropy.token(),
            boot_count=boots,
            log=log.line,
            take_output=log.take_output,
            lock=lock,
            notes=(*notes, *map(damage.reminder, earlier)),
            damaged_at=earlier[-1].at if earlier else "",
        )
    except StoreMalformed as error:
        store.close()
        raise damage.move_aside(path, error.message, datetime.now(UTC)) from error
    except StoreTransient as error:
        raise type(error)(f"the host in {path} cannot start: {error.message}. Mend that, and start it again") from error
    except sqlite3.Error as error:
        raise to_paglets_error(path / damage.DATABASE, error) from error
    finally:
        store.close()
        # Not in a folder that was put in the place of this host's, nor in one that another host has by now.
        with suppress(OSError):
            ours = ours if damage.database_identity(path) == ours and not lock.is_lost() else None
        if ours and (note := damage.read_note(path)) is not None and note.running:
            _note(path, replace(note, running=False), log)
        if ours and store.is_malformed:
            _look_at_all(path)


def _look_at_all(path: Path) -> None:
    """Damage was met while the host ran: it is moved aside now, as at a start. Raises StoreDamaged."""
    try:
        damage.check_there(path)
        check(path / damage.DATABASE, thorough=True)
    except StoreMalformed as error:
        raise damage.move_aside(path, error.message, datetime.now(UTC)) from error


def _note(path: Path, note: damage.StoreNote, log: LogFile) -> None:
    """An older one is right enough: it says less."""
    try:
        damage.write_note(path, note)
    except OSError as error:
        log.line(f"{path / damage.NOTE} cannot be written: {error}")


def _begun(path: Path, store: Store, entropy: Entropy) -> tuple[str, int]:
    """Who this host is, and the how-manyeth start it is. Raises StoreDamaged for a database of an earlier moment."""
    note = damage.read_note(path)
    store_id, boots = store.read(_known)
    damage.check_filled(path, note, store_id)
    older = damage.is_of_earlier_moment(note, store_id, boots)
    if older and note is not None and note.accepted_boots != boots:
        raise damage.refuse_older(path, note, boots, datetime.now(UTC))
    known = note.boot_count if older and note is not None else boots
    return store.write(lambda tx: _begin(tx, entropy, known, jump=older))


def _known(tx: Tx) -> tuple[str, int]:
    store_id = tx.value("SELECT value FROM meta WHERE key = 'store_id'")
    return store_id or "", int(tx.value("SELECT value FROM meta WHERE key = 'boot_count'") or 0)


def _begin(tx: Tx, entropy: Entropy, boots: int, *, jump: bool) -> tuple[str, int]:
    store_id = tx.value("SELECT value FROM meta WHERE key = 'store_id'")
    if store_id is None:
        store_id = entropy.token()
        tx.run("INSERT INTO meta VALUES ('store_id', ?)", store_id)
    tx.run("INSERT OR REPLACE INTO meta VALUES ('boot_count', ?)", str(boots + 1))
    tx.run("INSERT OR REPLACE INTO meta VALUES (?, ?)", PROGRAM_KEY, f"paglets {PROGRAM_VERSION}")
    if jump and not tx.run("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'outbox'", POSTS_JUMPED):
        tx.run("INSERT INTO sqlite_sequence VALUES ('outbox', ?)", POSTS_JUMPED)
    return store_id, boots + 1


class LogFile:
    """A host's log file, a line with a local time for each event; bounded. Any thread.

    A line for which the disk has no room is dropped: whoever has something to say must not fail for it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Unbuffered: what could not be written is not tried again with the next line.
        self._file = os.fdopen(_open_log(path), "ab", buffering=0)
        self._outputs: tuple[int, ...] = ()
        self._turn = Mutex()

    def line(self, text: str) -> None:
        time = datetime.now().astimezone().isoformat(timespec="milliseconds")
        data = f"{time} {harmless(text)}\n".encode(errors="replace")
        with suppress(OSError):
            if not self._file.closed:
                self._file.write(data)
                self._keep_bounded()
            elif self._outputs:
                os.write(self._outputs[0], data)

    def take_output(self, outputs: tuple[int, ...] = (1, 2)) -> None:
        """Make this file stdout and stderr of the process for good: also once the log is moved or closed."""
        with self._turn:
            self._outputs = outputs
            self._give(self._file.fileno())

    def _give(self, file: int) -> None:
        for output in self._outputs:
            os.dup2(file, output)

    def _keep_bounded(self) -> None:
        if self._is_long():
            with self._turn:
                if self._is_long():  # or another thread has just moved it, and this would put a new one in its place
                    self._move()

    def _is_long(self) -> bool:
        return self._path.stat().st_size > MAX_LOG_BYTES

    def _move(self) -> None:
        os.replace(self._path, self._path.with_suffix(".log.1"))
        with os.fdopen(_open_log(self._path), "ab", buffering=0) as new:
            # Under the same number: another thread may be writing to it.
            os.dup2(new.fileno(), self._file.fileno(), inheritable=False)
            self._give(new.fileno())

    def close(self) -> None:
        self._file.close()


def _open_log(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
