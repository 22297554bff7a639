"""Open the data directory of a host: lock it, open its log and database, and record the start of the host."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from paglets.core.clock import Entropy
from paglets.core.errors import PagletsError, StartFailed, StoreMalformed, StoreTransient
from paglets.host.datadir import damage, permissions
from paglets.host.datadir.host_log import LogFile, host_logger
from paglets.host.datadir.lock import DataDirectoryLock
from paglets.program import PROGRAM_VERSION
from paglets.store import meta, posts
from paglets.store.db import Store, Tx, open_store
from paglets.store.inspection import check
from paglets.store.sqlite_errors import to_paglets_error

POSTS_JUMPED = 1_000_000
"""The number of post numbers to skip if commits were lost, because other hosts drop posts whose number was used."""

MISSING_WAL = (
    f"the previous run crashed and {damage.WAL} is missing: the newest commits may be lost\n"
    "hint: if you have that file, stop this host now and put the file back\n"
    "hint: ignore this if another program has opened the database since: it then merged the file into the database"
)

LOG_NAME = "host.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDirectory:
    """An open data directory. Each start of the host increments `boot_count` and draws a new random `boot_id`.

    `notes` are warnings for the user. `damaged_at` is the time of the latest entry in `damaged/`, or "" if none.
    `take_output` redirects stdout and stderr of this process to the log.
    """

    path: Path
    store: Store
    store_id: str
    boot_id: str
    boot_count: int
    log: logging.Logger
    take_output: Callable[[], None]
    lock: DataDirectoryLock
    notes: tuple[str, ...] = ()
    damaged_at: str = ""


@contextmanager
def open_data_directory(
    path: Path,
    entropy: Entropy,
    fatal: Callable[[BaseException], None],
    *,
    name: str | None = None,
    log_level: str = "info",
) -> Iterator[DataDirectory]:
    """Lock and open the data directory of a host. Raises StartFailed, StoreDamaged, StoreTransient."""
    try:
        secured = permissions.secure(path)
        permissions.tighten(path)
        lock = DataDirectoryLock(path)
    except OSError as error:
        raise StartFailed(
            f"the data directory {path} cannot be used: {error}", hint=["choose another one with --data-dir"]
        ) from error
    with lock, host_logger(path / LOG_NAME, path.name if name is None else name, log_level) as (log, file):
        try:
            with _database(path, entropy, fatal, log, file, lock, secured) as folder:
                yield folder
        except PagletsError as error:
            log.warning(f"stopped: {error.message}")
            raise


@contextmanager
def _database(
    path: Path,
    entropy: Entropy,
    fatal: Callable[[BaseException], None],
    log: logging.Logger,
    file: LogFile,
    lock: DataDirectoryLock,
    secured: permissions.Secured,
) -> Iterator[DataDirectory]:
    notes = [note for note in (secured.changed, secured.warning) if note]
    notes += [MISSING_WAL] if damage.wal_is_missing(path) else []
    try:
        damage.check_there(path)
        known = damage.read_note(path) or damage.StoreNote()
        store = open_store(path / damage.DATABASE, fatal, known.store_id)
        permissions.tighten(path)  # SQLite creates its files with the modes of the umask, which a test may have set.
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
            log=log,
            take_output=file.take_output,
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
        # Write `store.json` and check the database only if this host still owns them: nobody replaced the database, and
        # no other host has locked the folder.
        with suppress(OSError):
            ours = ours if damage.database_identity(path) == ours and not lock.is_lost() else None
        if ours and (note := damage.read_note(path)) is not None and note.running:
            _note(path, replace(note, running=False), log)
        if ours and store.is_malformed:
            _check_all(path)


def _check_all(path: Path) -> None:
    """Check the whole database, because damage was found while the host ran. Move it aside if it is damaged.

    Raises StoreDamaged.
    """
    try:
        damage.check_there(path)
        check(path / damage.DATABASE, thorough=True)
    except StoreMalformed as error:
        raise damage.move_aside(path, error.message, datetime.now(UTC)) from error


def _note(path: Path, note: damage.StoreNote, log: logging.Logger) -> None:
    """Write `store.json`. Only log an error, because the host can continue with the older file."""
    try:
        damage.write_note(path, note)
    except OSError as error:
        log.warning(f"{path / damage.NOTE} cannot be written: {error}")


def _record_start(path: Path, store: Store, entropy: Entropy) -> tuple[str, int]:
    """Record this start of the host. Return the store id and the number of starts.

    Raises StoreDamaged if the database is outdated or lost its content.
    """
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
