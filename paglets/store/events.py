"""The latest events of a host, such as lost jobs and dropped posts, kept in a table for diagnosis."""

from __future__ import annotations

from paglets.store.db import Tx

MAX_EVENTS = 5_000
MAX_TEXT_CHARACTERS = 2_000


def record_event(tx: Tx, now: float, kind: str, subject: str, text: str, keep: int = MAX_EVENTS) -> None:
    """Store an event and delete all but the newest `keep` events."""
    new = tx.insert(
        "INSERT INTO events (at, kind, subject, text) VALUES (?, ?, ?, ?)",
        now,
        kind,
        subject,
        text[:MAX_TEXT_CHARACTERS],
    )
    tx.run("DELETE FROM events WHERE id <= ?", new - keep)


def record_event_once(tx: Tx, now: float, kind: str, subject: str, text: str) -> None:
    """Store an event unless the table still contains one with the same kind and subject."""
    if tx.value("SELECT 1 FROM events WHERE kind = ? AND subject = ? LIMIT 1", kind, subject) is None:
        record_event(tx, now, kind, subject, text)
