"""In-memory databases for machines, reused by the next run.

SQLite compiles every statement again on a new connection, which takes longer than many a run.
"""

from __future__ import annotations

import sqlite3
from functools import cache

from paglets.store.db import Tx
from tests.fakes.store import memory_database

_spare: list[sqlite3.Connection] = []


def new_database() -> sqlite3.Connection:
    """Return a migrated, empty database. Return it with `give_back`."""
    if not _spare:
        return memory_database()
    database = _spare.pop()
    _empty(database)
    return database


def give_back(database: sqlite3.Connection) -> None:
    """Return a database to the pool. No one may use it afterwards."""
    _spare.append(database)


def _empty(database: sqlite3.Connection) -> None:
    """Delete everything but the table of migrations, which a new database contains."""
    if database.in_transaction:
        database.execute("ROLLBACK")
    database.row_factory = None
    database.execute("BEGIN")
    for table in _children_first():
        database.execute(f"DELETE FROM {table}")
    database.execute("DELETE FROM sqlite_sequence")
    database.execute("COMMIT")


@cache
def _children_first() -> tuple[str, ...]:
    """Return all tables but that of the migrations, each before the tables that it refers to."""
    first = memory_database()
    tables = first.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    ).fetchall()
    refers = {name: {row[2] for row in first.execute(f"PRAGMA foreign_key_list({name})")} for (name,) in tables}
    del refers["migrations"]
    order: list[str] = []
    while refers:
        free = next(one for one in refers if not any(one in named for other, named in refers.items() if other != one))
        del refers[free]
        order.append(free)
    return tuple(order)


def begin(tx: Tx, store_id: str) -> int:
    """Store the id and count the start, like `paglets.host.datadir.data_directory`. Return the number of starts."""
    tx.run("INSERT OR IGNORE INTO meta VALUES ('store_id', ?)", store_id)
    boots = int(tx.value("SELECT value FROM meta WHERE key = 'boot_count'") or 0) + 1
    tx.run("INSERT OR REPLACE INTO meta VALUES ('boot_count', ?)", str(boots))
    return boots


def disk_full() -> sqlite3.Error:
    """Return the error that SQLite raises if the disk is full."""
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    return error
