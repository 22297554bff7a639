"""The identity of a database in the table `meta`: store id, number of starts, and the program that last used it."""

from __future__ import annotations

from paglets.core.clock import Entropy
from paglets.store.db import Tx
from paglets.store.migrations.steps import PROGRAM_KEY


def identity(tx: Tx) -> tuple[str, int]:
    """Return the store id and the number of starts, or "" and 0 for a new database."""
    store_id = tx.value("SELECT value FROM meta WHERE key = 'store_id'")
    return store_id or "", int(tx.value("SELECT value FROM meta WHERE key = 'boot_count'") or 0)


def record_start(tx: Tx, entropy: Entropy, earlier_starts: int, program: str) -> tuple[str, int]:
    """Count this start, and generate the store id of a new database. Return store id and number of starts."""
    store_id, _ = identity(tx)
    if not store_id:
        store_id = entropy.token()
        tx.run("INSERT INTO meta VALUES ('store_id', ?)", store_id)
    tx.run("INSERT OR REPLACE INTO meta VALUES ('boot_count', ?)", str(earlier_starts + 1))
    tx.run("INSERT OR REPLACE INTO meta VALUES (?, ?)", PROGRAM_KEY, program)
    return store_id, earlier_starts + 1


def rewrite(tx: Tx) -> None:
    """Rewrite a row with the same value, so that a successful COMMIT shows that the database can be written."""
    tx.run("UPDATE meta SET value = value WHERE key = 'boot_count'")
