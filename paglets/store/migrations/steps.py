"""Steps from one schema to the next, recorded one by one; together they lead to `schema.sql`."""

from __future__ import annotations

import pkgutil
import sqlite3
from collections.abc import Callable
from functools import partial


def schema() -> str:
    """The text of `schema.sql`: what all steps together lead to."""
    return _read("schema.sql")


def _read(name: str) -> str:
    data = pkgutil.get_data("paglets.store", name)
    assert data is not None
    return data.decode()


def _run(step: str, connection: sqlite3.Connection) -> None:
    for statement in _statements(_read(step)):
        connection.execute(statement)


MIGRATIONS: tuple[tuple[str, Callable[[sqlite3.Connection], None]], ...] = (
    ("first", partial(_run, "migrations/0001_first.sql")),
    ("bytes", partial(_run, "migrations/0002_bytes.sql")),
    ("model", partial(_run, "migrations/0003_model.sql")),
    ("groups", partial(_run, "migrations/0004_groups.sql")),
    ("moves", partial(_run, "migrations/0005_moves.sql")),
    ("losses", partial(_run, "migrations/0006_losses.sql")),
    ("unread", partial(_run, "migrations/0007_unread.sql")),
    ("large", partial(_run, "migrations/0008_large.sql")),
    ("endings", partial(_run, "migrations/0009_endings.sql")),
    ("kept", partial(_run, "migrations/0010_kept.sql")),
    ("jobfiles", partial(_run, "migrations/0011_jobfiles.sql")),
    ("lostgroups", partial(_run, "migrations/0012_lostgroups.sql")),
    ("due", partial(_run, "migrations/0013_due.sql")),
    ("obstacles", partial(_run, "migrations/0014_obstacles.sql")),
    ("away", partial(_run, "migrations/0015_away.sql")),
)
"""Never changed once it was released: stores out there are made of these."""


def migrate(connection: sqlite3.Connection) -> None:
    """Apply all missing migrations in one transaction. `inspection.check_identity` refuses a newer schema."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        done = _applied(connection)
        for number, (name, step) in enumerate(MIGRATIONS[done:], start=done + 1):
            step(connection)
            connection.execute("INSERT INTO migrations VALUES (?, ?, unixepoch())", (number, name))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk ends it by itself
            connection.execute("ROLLBACK")
        raise


PROGRAM_KEY = "program"
"""Of the row in `meta` that says which program used the database last."""


def _applied(connection: sqlite3.Connection) -> int:
    there = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'migrations'").fetchone()
    if there is None:
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
