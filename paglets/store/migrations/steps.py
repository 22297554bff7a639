"""The migrations, which are the steps from one schema to the next. All of them together produce `schema.sql`."""

from __future__ import annotations

import pkgutil
import sqlite3

MIGRATIONS = (
    "first",
    "bytes",
    "model",
    "groups",
    "moves",
    "losses",
    "unread",
    "large",
    "endings",
    "kept",
    "jobfiles",
    "lostgroups",
    "due",
    "obstacles",
    "away",
    "hosts",
    "templates",
    "ahead",
)
"""The names of the migrations, which each database records. The statements are in files `NUMBER_NAME.sql`.

Never change a name or a released file, because existing databases were made with them.
"""

PROGRAM_KEY = "program"
"""The key of the row in `meta` that names the program that last used the database."""


def apply(connection: sqlite3.Connection, number: int) -> None:
    """Run the statements of the migration with this number, which counts from 1."""
    for statement in _statements(_read(f"migrations/{number:04d}_{MIGRATIONS[number - 1]}.sql")):
        connection.execute(statement)


def migrate(connection: sqlite3.Connection) -> None:
    """Apply all missing migrations in one transaction. `inspection.check_identity` must have checked the database."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for number in range(_applied(connection) + 1, len(MIGRATIONS) + 1):
            apply(connection, number)
            connection.execute("INSERT INTO migrations VALUES (?, ?, unixepoch())", (number, MIGRATIONS[number - 1]))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite itself rolls back when the disk is full.
            connection.execute("ROLLBACK")
        raise


def _read(name: str) -> str:
    data = pkgutil.get_data("paglets.store", name)
    assert data is not None
    return data.decode()


def _applied(connection: sqlite3.Connection) -> int:
    """Return the number of the last migration that was applied to this database, or 0 if the database is empty."""
    found = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'migrations'").fetchone()
    if found is None:
        return 0
    return int(connection.execute("SELECT coalesce(max(id), 0) FROM migrations").fetchone()[0])


def _statements(text: str) -> list[str]:
    statements, current = [], ""
    for line in text.splitlines():
        if line.strip().startswith("--"):
            continue
        current += line + "\n"
        if sqlite3.complete_statement(current):
            statements.append(current.strip())
            current = ""
    return statements
