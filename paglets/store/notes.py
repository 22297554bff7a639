"""What paglets tell their users: a post to their home, which keeps the newest ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from paglets.api.limits import MAX_NOTE_CHARACTERS
from paglets.api.notes import Note, Notes
from paglets.codec.strict_json import dumps, loads
from paglets.core.errors import Invalid
from paglets.core.record import from_json, to_json
from paglets.store.db import Tx

READER = "user-notes"
"""Addressee of such posts on every host: the one id that no paglet has."""

MAX_NOTES = 2_000
MAX_NOTE_BYTES = 4 << 20
"""Of all that are kept; those on their way from here are bounded by their number."""

LATEST_AT = 253_402_214_400.0
"""The last day of the year 9999, in seconds since the epoch: later times cannot be shown."""


def keep(tx: Tx, args: dict[str, Any]) -> None:
    """Keep a note that came; what is no note is dropped, for its sender would send it again and again."""
    try:
        note = from_json(Note, args, "note")
    except Invalid:
        return
    at = min(max(note.at, 0.0), LATEST_AT)
    text = dumps(to_json(replace(note, at=at, text=note.text[:MAX_NOTE_CHARACTERS])))
    new = tx.insert(
        "INSERT INTO notes (group_id, note, size_bytes) VALUES (?, ?, ?)", note.group_id, text, len(text.encode())
    )
    tx.run(
        "DELETE FROM notes WHERE id <= max(?, (SELECT coalesce(max(id), 0) FROM"
        " (SELECT id, sum(size_bytes) OVER (ORDER BY id DESC) AS total FROM notes) WHERE total > ?))",
        new - MAX_NOTES,
        MAX_NOTE_BYTES,
    )


def trim_outbox(tx: Tx) -> None:
    """Of the notes that lie in the outbox, for homes that are away, the newest MAX_NOTES stay."""
    tx.run(
        "DELETE FROM outbox WHERE n IN (SELECT n FROM outbox WHERE agent_id = ? ORDER BY n DESC LIMIT -1 OFFSET ?)",
        READER,
        MAX_NOTES,
    )


def page(tx: Tx, after: int | None, limit: int, group_id: str | None) -> Notes:
    """See `api.Notes`."""
    order = "DESC" if after is None else "ASC"
    rows = tx.all(
        f"SELECT id, note FROM notes WHERE id > ? AND (? IS NULL OR group_id = ?) ORDER BY id {order} LIMIT ?",
        after or 0,
        group_id,
        group_id,
        limit,
    )
    rows.sort(key=lambda row: row["id"])
    last = rows[-1]["id"] if rows else after or tx.value("SELECT coalesce(max(id), 0) FROM notes")
    return Notes(notes=tuple(from_json(Note, loads(row["note"])) for row in rows), next=last)
