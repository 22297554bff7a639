"""Steps from one schema to the next, recorded one by one; together they lead to `schema.sql`."""

from __future__ import annotations

import pkgutil
import sqlite3
from collections.abc import Callable
from functools import partial

from paglets.core.errors import StoreNewer


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
    ("first", partial(_run, "step_first.sql")),
    ("bytes", partial(_run, "step_bytes.sql")),
    ("model", partial(_run, "step_model.sql")),
    ("groups", partial(_run, "step_groups.sql")),
    ("moves", partial(_run, "step_moves.sql")),
)
"""Never changed once it was released: stores out there are made of these."""


def migrate(connection: sqlite3.Connection) -> None:
    """Apply what is missing, all in one transaction. A schema newer than this program is refused."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        done = _applied(connection)
        if done > len(MIGRATIONS):
            raise StoreNewer(
                f"the database has schema {done}, and this program knows {len(MIGRATIONS)}: {_writer(connection)} "
                "wrote it, which is newer; start the host with that paglets.pyz. Nothing was changed"
            )
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


def _writer(connection: sqlite3.Connection) -> str:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (PROGRAM_KEY,)).fetchone()
    return "a newer paglets" if row is None else str(row[0])


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
