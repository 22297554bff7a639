"""A host's store without a file."""

from __future__ import annotations

import sqlite3
from functools import cache

from paglets.store.db import Store
from paglets.store.migrations.steps import migrate


def memory_store() -> Store:
    """Return a real store on a freshly migrated in-memory database."""
    return store_on(memory_database())


def memory_database(factory: type[sqlite3.Connection] = sqlite3.Connection) -> sqlite3.Connection:
    """Return a migrated in-memory database. It outlives the stores opened on it, as a disk outlives its hosts.

    Migrating takes 40 ms and copying a migrated database 0.3 ms, while thousands of tests need one.
    """
    connection = _connect(factory)
    _migrated().backup(connection)
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


@cache
def _migrated() -> sqlite3.Connection:
    """Return the database that all others of this process are copies of."""
    connection = _connect()
    migrate(connection)
    return connection


def _connect(factory: type[sqlite3.Connection] = sqlite3.Connection) -> sqlite3.Connection:
    return sqlite3.connect(
        ":memory:", check_same_thread=False, isolation_level=None, cached_statements=512, factory=factory
    )


def store_on(connection: sqlite3.Connection) -> Store:
    """Open a store on this database, as a host does when it starts."""
    return Store(connection)
