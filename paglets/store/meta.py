"""The identity of a database in the table `meta`: its store id, its number of starts, the program that opened it."""

from __future__ import annotations

from paglets.core.clock import Entropy
from paglets.store.db import Tx
from paglets.store.migrations.steps import PROGRAM_KEY


def identity(tx: Tx) -> tuple[str, int]:
    """Return store id and number of starts: "" and 0 for a new database."""
    store_id = tx.value("SELECT value FROM meta WHERE key = 'store_id'")
    return store_id or "", int(tx.value("SELECT value FROM meta WHERE key = 'boot_count'") or 0)


def record_start(tx: Tx, entropy: Entropy, earlier_starts: int, program: str) -> tuple[str, int]:
    """Count this start, and draw a store id for a new database. Return store id and number of starts."""
    store_id, _ = identity(tx)
    if not store_id:
        store_id = entropy.token()
        tx.run("INSERT INTO meta VALUES ('store_id', ?)", store_id)
    tx.run("INSERT OR REPLACE INTO meta VALUES ('boot_count', ?)", str(earlier_starts + 1))
    tx.run("INSERT OR REPLACE INTO meta VALUES (?, ?)", PROGRAM_KEY, program)
    return store_id, earlier_starts + 1


def rewrite(tx: Tx) -> None:
    """Write a page without a change: a COMMIT after this shows that the database can be written."""
    tx.run("UPDATE meta SET value = value WHERE key = 'boot_count'")
