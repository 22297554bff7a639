"""A host's store without a file."""

from __future__ import annotations

import sqlite3

from paglets.store.db import Store
from paglets.store.migrations.steps import migrate


def memory_store() -> Store:
    """Return a real store on a freshly migrated in-memory database."""
    return store_on(memory_database())


def memory_database() -> sqlite3.Connection:
    """Return a migrated in-memory database. It outlives the stores opened on it, as a disk outlives its hosts."""
    connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None, cached_statements=512)
    connection.execute("PRAGMA foreign_keys=ON")
    migrate(connection)
    return connection


def store_on(connection: sqlite3.Connection) -> Store:
    """Open a store on this database, as a host does when it starts."""
    return Store(connection)
