"""Notes from a paglet to its user. Each note is sent as a post to the home host of the paglet."""

from __future__ import annotations

from collections.abc import Iterable

from paglets.api.limits import MAX_NOTE_CHARACTERS
from paglets.api.notes import Note
from paglets.codec.envelope import WireMessage
from paglets.codec.strict_json import loads
from paglets.core.record import from_json, to_json
from paglets.core.refs import HostRef, ProxyRef
from paglets.store import notes, posts
from paglets.store.db import Tx
from paglets.worker.requests import NewNote


def send(tx: Tx, agent_id: str, host_name: str, new_notes: Iterable[NewNote], now: float) -> None:
    """Put the notes of a paglet into the outbox, addressed to its home, even if this host is the home."""
    row = tx.one(
        "SELECT class_name, name, home, group_id, coalesce(job_key, '') AS job_key"
        " FROM paglets LEFT JOIN requests USING (agent_id) WHERE agent_id = ?",
        agent_id,
    )
    if row is None:
        return
    target = ProxyRef(agent_id=notes.READER, host=from_json(HostRef, loads(row["home"])))
    for each in new_notes:
        note = Note(
            at=each.at,
            level=each.level,
            text=each.text[:MAX_NOTE_CHARACTERS],
            host_name=host_name,
            agent_id=agent_id,
            class_name=row["class_name"],
            name=row["name"],
            group_id=row["group_id"],
            job_key=row["job_key"],
        )
        posts.send(tx, target, WireMessage(kind="note", args=to_json(note)), now)
    notes.trim_outbox(tx)
