"""The table of artifacts, which are blobs with a name and an owner."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import replace

from paglets.codec.envelope import CarriedArtifact, WireMessage
from paglets.codec.strict_json import loads
from paglets.core.errors import Invalid
from paglets.core.record import from_json
from paglets.core.refs import ArtifactRef
from paglets.store.db import Tx

HOST = ""
"""The owner of artifacts that belong to the host itself."""


def add(tx: Tx, owner: str, artifact: CarriedArtifact, now: float) -> None:
    """Add an artifact, unless its id exists. Its blob must be on this host."""
    left = artifact.expires_in_seconds
    tx.run(
        "INSERT OR IGNORE INTO artifacts (artifact_id, owner, name, sha256, size_bytes, created_at, expires_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        artifact.artifact_id,
        owner,
        artifact.name,
        artifact.sha256,
        artifact.size_bytes,
        artifact.created_at,
        None if left is None else now + left,
    )
    if left is not None:
        tx.wake("garbage")


def create(tx: Tx, owner: str, artifact: CarriedArtifact, now: float, host_name: str) -> ArtifactRef:
    """Add an artifact and return its reference. Raises Invalid if another artifact has the id."""
    add(tx, owner, artifact, now)
    ref = find(tx, artifact.artifact_id, host_name)
    if ref is None or (ref.owner, ref.blob) != (owner, artifact.blob):
        raise Invalid(f"another artifact has the id {artifact.artifact_id}")
    return ref


def carried(tx: Tx, owner: str, now: float) -> tuple[CarriedArtifact, ...]:
    """Return all artifacts that a paglet's envelope carries. Job files, which `jobfiles` lists, are not among them."""
    rows = tx.all("SELECT * FROM artifacts WHERE owner = ? AND group_id IS NULL ORDER BY artifact_id", owner)
    return tuple(
        CarriedArtifact(
            artifact_id=row["artifact_id"],
            name=row["name"],
            sha256=row["sha256"],
            size_bytes=row["size_bytes"],
            created_at=row["created_at"],
            expires_in_seconds=None if row["expires_at"] is None else max(0.0, row["expires_at"] - now),
        )
        for row in rows
    )


def carried_of(ref: ArtifactRef) -> CarriedArtifact:
    """Convert an artifact reference in a message to the artifact to store. Its lifetime restarts at the receiver."""
    lasts = None if ref.expires_at is None else max(0.0, ref.expires_at - ref.created_at)
    return CarriedArtifact(
        artifact_id=ref.artifact_id,
        name=ref.name,
        sha256=ref.sha256,
        size_bytes=ref.size_bytes,
        created_at=ref.created_at,
        expires_in_seconds=lasts,
    )


def find(tx: Tx, artifact_id: str, host_name: str) -> ArtifactRef | None:
    row = tx.one("SELECT * FROM artifacts WHERE artifact_id = ?", artifact_id)
    return None if row is None else _ref(row, host_name)


def find_any(tx: Tx, artifact_id: str, host_name: str) -> ArtifactRef | None:
    """Return the artifact with that id if it is on this host or a post in the outbox carries it, else None."""
    return find(tx, artifact_id, host_name) or find_in_outbox(tx, artifact_id, host_name)


def find_in_outbox(tx: Tx, artifact_id: str, host_name: str) -> ArtifactRef | None:
    """Return the artifact with that id if a post in the outbox carries it to its new owner, else None."""
    text = tx.value(
        "SELECT message FROM outbox_artifacts JOIN outbox_messages USING (n) WHERE artifact_id = ? ORDER BY n LIMIT 1",
        artifact_id,
    )
    carried = () if text is None else from_json(WireMessage, loads(text)).artifacts
    return next((replace(each, host_name=host_name) for each in carried if each.artifact_id == artifact_id), None)


def page(
    tx: Tx, after: str, limit: int, host_name: str, *, owner: str | None = None, group_id: str | None = None
) -> tuple[ArtifactRef, ...]:
    """Return the artifacts on this host whose ids follow `after`, sorted by id.

    If `owner` or `group_id` is given, return only artifacts that belong to that owner or to a job of that group.
    """
    which = "1" if owner is None and group_id is None else "(owner = ? OR group_id = ?)"
    values = () if which == "1" else (owner, group_id)
    rows = tx.all(
        f"SELECT * FROM artifacts WHERE artifact_id > ? AND {which} ORDER BY artifact_id LIMIT ?", after, *values, limit
    )
    return tuple(_ref(row, host_name) for row in rows)


def count(tx: Tx, owner: str) -> int:
    return int(tx.value("SELECT count(*) FROM artifacts WHERE owner = ? AND group_id IS NULL", owner))


def delete(tx: Tx, artifact_id: str) -> bool:
    """Delete an artifact. Return False if it is not on this host, or is leaving with its owner."""
    return tx.run(f"DELETE FROM artifacts WHERE artifact_id = ? AND {_STAYS}", artifact_id) == 1


_STAYS = "NOT EXISTS (SELECT 1 FROM handoffs h WHERE h.agent_id = artifacts.owner)"


def is_leaving(tx: Tx, artifact_id: str) -> bool:
    """Return True if the artifact is on this host and is leaving with its owner."""
    return tx.value(f"SELECT 1 FROM artifacts WHERE artifact_id = ? AND NOT {_STAYS}", artifact_id) is not None


def delete_owned(tx: Tx, owner: str, artifact_ids: Iterable[str]) -> None:
    """Delete those of the artifacts that are on this host and belong to that owner."""
    rows = ((owner, artifact_id) for artifact_id in artifact_ids)
    tx.run_many("DELETE FROM artifacts WHERE owner = ? AND artifact_id = ?", rows)


def remove(tx: Tx, owner: str) -> None:
    """Delete all artifacts of a paglet that has left or ended."""
    tx.run("DELETE FROM artifacts WHERE owner = ?", owner)


def next_expiry(tx: Tx) -> float | None:
    """Return the epoch seconds when the next artifact expires, or None. Artifacts that are leaving do not count."""
    first = tx.value(
        f"SELECT expires_at FROM artifacts WHERE expires_at IS NOT NULL AND {_STAYS} ORDER BY expires_at LIMIT 1"
    )
    return None if first is None else float(first)


def expire(tx: Tx, now: float, most: int) -> int:
    """Delete at most `most` expired artifacts and return their number. Those of leaving paglets are not deleted."""
    return tx.run(
        "DELETE FROM artifacts WHERE artifact_id IN"
        f" (SELECT artifact_id FROM artifacts WHERE expires_at <= ? AND {_STAYS} LIMIT ?)",
        now,
        most,
    )


def _ref(row: sqlite3.Row, host_name: str) -> ArtifactRef:
    return ArtifactRef(
        artifact_id=row["artifact_id"],
        name=row["name"],
        size_bytes=row["size_bytes"],
        sha256=row["sha256"],
        host_name=host_name,
        owner=row["owner"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        group_id=row["group_id"],
        job_key=row["job_key"] or "",
    )
