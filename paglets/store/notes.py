"""Notes of paglets to their users. A note is sent as a post to the paglet's home host, which keeps the newest notes."""

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
"""The id to which notes are posted on every host. No paglet has this id."""

MAX_NOTES = 2_000
MAX_NOTE_BYTES = 4 << 20
"""The maximum total size of received notes. Only MAX_NOTES limits the notes in the outbox."""

LATEST_AT = 253_402_214_400.0
"""The last day of the year 9999, in epoch seconds. Later times cannot be displayed."""


def keep(tx: Tx, args: dict[str, Any]) -> None:
    """Store a received note. A malformed note is dropped, because an error would make its sender retry endlessly."""
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
    """Delete all but the newest MAX_NOTES notes in the outbox, where notes wait for unreachable home hosts."""
    tx.run(
        "DELETE FROM outbox WHERE n IN (SELECT n FROM outbox WHERE agent_id = ? ORDER BY n DESC LIMIT -1 OFFSET ?)",
        READER,
        MAX_NOTES,
    )


def page(tx: Tx, after: int | None, limit: int, group_id: str | None) -> Notes:
    """Return up to `limit` notes with numbers above `after`, or the newest notes if `after` is None."""
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
