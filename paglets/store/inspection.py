"""Inspect the owner and the integrity of a database without changing it.

This must happen before the writer opens the database: the writer creates its tables in any file that SQLite can open,
and merges the WAL file into it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from paglets.core.errors import StoreMalformed, StoreNewer, StoreUndecided
from paglets.store.migrations.steps import MIGRATIONS, PROGRAM_KEY
from paglets.store.sqlite_errors import ErrorKind, kind_of, to_paglets_error

BUSY_TIMEOUT_SECONDS = 5.0
"""The longest wait for a lock. Only programs such as backup tools lock the database, and only briefly."""

OURS = frozenset(("residence", "paglets"))
"""The tables that identify a database of paglets. Each version of the schema has at least one of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseInfo:
    """The identity of a database. An empty file has the default values.

    `foreign` lists the tables of a database of another program. `schema` is the number of migrations that were applied.
    `program` names the program that last used the database.
    """

    foreign: tuple[str, ...] = ()
    schema: int = 0
    store_id: str = ""
    boot_count: int = 0
    program: str = ""


def inspect(path: Path, *, immutable: bool) -> DatabaseInfo:
    """Return the identity of a database. `immutable` is as in `connect_read_only`.

    Raises sqlite3.Error, and StoreMalformed if the names of the tables cannot be read.
    """
    if not size_of(path):
        return DatabaseInfo()
    try:
        return _inspect(path, immutable)
    except UnicodeDecodeError as error:  # Python cannot decode SQLite's message, which quotes the damaged bytes.
        problem = f"the database {path} cannot be used: the names of its tables cannot be read"
        raise StoreMalformed(f"{problem}; the content of the file is damaged") from error


def _inspect(path: Path, immutable: bool) -> DatabaseInfo:
    with closing(connect_read_only(path, immutable=immutable)) as base:
        base.text_factory = lambda data: data.decode(errors="replace")
        names = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
        try:
            tables = tuple(name for (name,) in base.execute(names))
        except UnicodeDecodeError as error:  # As in `inspect`.
            damaged = sqlite3.DatabaseError("malformed database schema")
            damaged.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise damaged from error
        if not OURS & set(tables):
            return DatabaseInfo(foreign=tables)
        (schema,) = base.execute("SELECT coalesce(max(id), 0) FROM migrations").fetchone()
        meta = dict(
            base.execute("SELECT key, value FROM meta WHERE key IN ('store_id', 'boot_count', ?)", (PROGRAM_KEY,))
        )
    boots = meta.get("boot_count", "")
    return DatabaseInfo(
        schema=schema,
        store_id=meta.get("store_id", ""),
        boot_count=int(boots) if boots.isdecimal() else 0,
        program=meta.get(PROGRAM_KEY, "a newer paglets"),
    )


def check_identity(path: Path, seen: DatabaseInfo, store_id: str) -> None:
    """Check that this program may use the database for the host `store_id`, or for any host if that is "".

    Raises StoreUndecided for the database of another program or host, and StoreNewer for one of a newer version.
    """
    if seen.foreign:
        tables = ", ".join(seen.foreign[:3])
        raise StoreUndecided(
            f"{path} is not a database of paglets: it has the tables {tables}. Nothing was changed. Next: move "
            "it elsewhere, or choose another folder with --data-dir"
        )
    if seen.schema > len(MIGRATIONS):
        raise StoreNewer(
            f"the database {path} has schema {seen.schema}, and this program knows {len(MIGRATIONS)}: the newer "
            f"{seen.program} wrote it. Start the host with that paglets.pyz. Nothing was changed"
        )
    if store_id and seen.store_id not in ("", store_id):
        raise StoreUndecided(
            f"the database {path} belongs to store {seen.store_id}, and this folder to store {store_id}. Nothing was "
            "changed. Next: put the right database there; or, if this database and the blobs in this folder belong "
            "together, remove store.json"
        )


def is_checkpointed(path: Path) -> bool:
    """Return True if the database has no WAL and no journal, so that the file itself contains all stored data.

    The result is valid only while no host has the database open.
    """
    return not any(size_of(path.with_name(f"{path.name}{more}")) for more in ("-wal", "-journal"))


def connect_read_only(path: Path, *, immutable: bool = False) -> sqlite3.Connection:
    """Open a connection that does not change the database. With `immutable` it also creates no companion files.

    `immutable` requires that no other program has the database open. If the file cannot be opened, this call or the
    first use of the connection raises sqlite3.Error.
    """
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if immutable else ''}",
        uri=True,
        timeout=BUSY_TIMEOUT_SECONDS,
        check_same_thread=False,
        cached_statements=512,
    )


def check(path: Path, *, thorough: bool = False, immutable: bool = False) -> None:
    """Check all pages of the database, and with `thorough` also the indexes. `immutable` is as in `connect_read_only`.

    Raises StoreMalformed if the database is damaged, and sqlite3.Error if it cannot be read. The check does not find
    changed bits within a value, because SQLite keeps no checksums of pages.
    """
    reader = connect_read_only(path, immutable=immutable)
    try:
        (found,) = reader.execute("PRAGMA integrity_check(1)" if thorough else "PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        if kind_of(error) is ErrorKind.MALFORMED:
            raise to_paglets_error(path, error) from error
        raise
    finally:
        reader.close()
    if found != "ok":
        text = f"{' '.join(found.split())}; the content of the file is damaged"
        raise StoreMalformed(f"the database {path} cannot be used: {text}")


def blob_sizes(base: sqlite3.Connection) -> list[tuple[str, int]]:
    """Return SHA-256 and size in bytes of each blob that the database records."""
    return list(base.execute("SELECT sha256, size_bytes FROM blobs ORDER BY sha256"))


def size_of(path: Path) -> int:
    """Return the size of the file in bytes, or 0 if it does not exist."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
