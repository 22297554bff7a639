"""A host's store without a file."""

from __future__ import annotations

import sqlite3

from paglets.store.db import Store
from paglets.store.migrations.steps import migrate


def memory_store() -> Store:
    """The real store on a database in memory, freshly migrated."""
    return store_on(memory_database())


def memory_database() -> sqlite3.Connection:
    """A migrated database in memory; it outlives the stores opened on it, like a disk its hosts."""
    connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None, cached_statements=512)
    connection.execute("PRAGMA foreign_keys=ON")
    migrate(connection)
    return connection


def store_on(connection: sqlite3.Connection) -> Store:
    """A store on that database, as a host opens it when it starts."""
    return Store(connection)
