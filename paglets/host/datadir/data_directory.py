"""The data directory of a host: its lock, log, database and identity."""

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
from paglets.store import meta, posts
from paglets.store.db import Store, Tx, open_store
from paglets.store.inspection import check
from paglets.store.sqlite_errors import to_paglets_error

POSTS_JUMPED = 1_000_000
"""The post numbers to skip after commits were lost. Other hosts remember used numbers and drop reused ones."""

MISSING_WAL = (
    f"the previous run crashed and {damage.WAL} is missing: the newest commits may be lost\n"
    "hint: if you have that file, stop this host now and put the file back\n"
    "hint: ignore this if another program has opened the database since, because that merges the file"
)

LOG_NAME = "host.log"

MAX_LOG_BYTES = 10 << 20
"""The size at which host.log is renamed to host.log.1. Both together stay below twice this size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDirectory:
    """An open data directory. Each start increments `boot_count` and draws a new `boot_id`.

    `notes` are warnings for the user. `damaged_at` is the time of the latest entry in `damaged/`, or "".
    `take_output` redirects stdout and stderr of this process to the log.
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
    """Lock and open the data directory of a host. Raises StartFailed, StoreDamaged."""
    try:
        secured = permissions.secure(path)
        permissions.tighten(path)
        lock = DataDirectoryLock(path)
    except OSError as error:
        raise StartFailed(
            f"the data directory {path} cannot be used: {error}", hint=["choose another one with --data-dir"]
        ) from error
    with lock, _log(path / LOG_NAME) as log:
        try:
            with _database(path, entropy, fatal, log, lock, secured) as folder:
                yield folder
        except PagletsError as error:
            log.line(f"stopped: {error.message}")
            raise


@contextmanager
def _log(path: Path) -> Iterator[LogFile]:
    try:
        log = LogFile(path)
    except OSError as error:
        raise StartFailed(f"the log {path} cannot be written: {error}") from error
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
        permissions.tighten(path)  # SQLite creates its files by the umask, which a test may have set
    except StoreMalformed as error:
        raise damage.move_aside(path, error.message, datetime.now(UTC)) from error
    ours: tuple[int, int] | None = damage.database_identity(path)
    try:
        store_id, boots = _record_start(path, store, entropy)
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
        raise type(error)(f"the host in {path} cannot start: {error.message}") from error
    except sqlite3.Error as error:
        raise to_paglets_error(path / damage.DATABASE, error) from error
    finally:
        store.close()
        # Only if the folder was not replaced, and no other host has locked it since.
        with suppress(OSError):
            ours = ours if damage.database_identity(path) == ours and not lock.is_lost() else None
        if ours and (note := damage.read_note(path)) is not None and note.running:
            _note(path, replace(note, running=False), log)
        if ours and store.is_malformed:
            _check_all(path)


def _check_all(path: Path) -> None:
    """Check the whole database after damage was found at run time, and move it aside. Raises StoreDamaged."""
    try:
        damage.check_there(path)
        check(path / damage.DATABASE, thorough=True)
    except StoreMalformed as error:
        raise damage.move_aside(path, error.message, datetime.now(UTC)) from error


def _note(path: Path, note: damage.StoreNote, log: LogFile) -> None:
    """Write the note. Only log a failure: an older note is still correct, but less precise."""
    try:
        damage.write_note(path, note)
    except OSError as error:
        log.line(f"{path / damage.NOTE} cannot be written: {error}")


def _record_start(path: Path, store: Store, entropy: Entropy) -> tuple[str, int]:
    """Record this start. Return store id and start count. Raises StoreDamaged for an outdated database."""
    note = damage.read_note(path)
    store_id, boots = store.read(meta.identity)
    damage.check_filled(path, note, store_id)
    older = damage.is_outdated(note, store_id, boots)
    if older and note is not None and note.accepted_boots != boots:
        raise damage.refuse_older(path, note, boots, datetime.now(UTC))
    known = note.boot_count if older and note is not None else boots

    def record(tx: Tx) -> tuple[str, int]:
        if older:
            posts.skip_numbers(tx, POSTS_JUMPED)
        return meta.record_start(tx, entropy, known, f"paglets {PROGRAM_VERSION}")

    return store.write(record)


class LogFile:
    """The log file of a host, bounded in size: one line per event, with the local time. Any thread.

    If the disk is full the line is dropped, because a caller must not fail for want of a log line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Unbuffered, so that a line that could not be written is not written again with the next one.
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
        """Redirect stdout and stderr of the process to this file, also after the log is renamed or closed."""
        with self._turn:
            self._outputs = outputs
            self._give(self._file.fileno())

    def _give(self, file: int) -> None:
        for output in self._outputs:
            os.dup2(file, output)

    def _keep_bounded(self) -> None:
        if self._is_long():
            with self._turn:
                if self._is_long():  # Check again: another thread may just have renamed it.
                    self._move()

    def _is_long(self) -> bool:
        return self._path.stat().st_size > MAX_LOG_BYTES

    def _move(self) -> None:
        os.replace(self._path, self._path.with_suffix(".log.1"))
        with os.fdopen(_open_log(self._path), "ab", buffering=0) as new:
            # Keep the descriptor number, because another thread may be writing to it.
            os.dup2(new.fileno(), self._file.fileno(), inheritable=False)
            self._give(new.fileno())

    def close(self) -> None:
        self._file.close()


def _open_log(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
