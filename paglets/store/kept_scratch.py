"""Scratch directories that are kept because a result in them could not be sent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from paglets.store.db import Tx

MOST_ROWS = 10_000
"""The maximum number of rows for removed directories. The rows let commands report that a directory was removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptScratch:
    """A kept scratch directory. `removed_at` is in epoch seconds, and None while the directory is kept."""

    generation: int
    attempt: int
    path: str
    removed_at: float | None


def keep(tx: Tx, agent_id: str, path: str, now: float) -> None:
    """Keep the scratch directory of a job's current attempt beyond the end of the job."""
    tx.run(
        "INSERT OR REPLACE INTO kept_scratch (agent_id, generation, attempt, path, kept_at)"
        " SELECT agent_id, generation, attempt, ?, ? FROM requests WHERE agent_id = ?",
        path,
        now,
        agent_id,
    )


def is_kept(tx: Tx, agent_id: str) -> bool:
    """Return True if the scratch directory of this paglet must not be removed yet."""
    row = "SELECT 1 FROM kept_scratch WHERE agent_id = ? AND removed_at IS NULL"
    return tx.value(row, agent_id) is not None


def find(tx: Tx, agent_id: str) -> KeptScratch | None:
    """Return the row of this paglet's kept directory, also of a removed one, or None."""
    row = tx.one("SELECT generation, attempt, path, removed_at FROM kept_scratch WHERE agent_id = ?", agent_id)
    return None if row is None else KeptScratch(**dict(row))


def newest_first(tx: Tx) -> tuple[str, ...]:
    """Return the ids of the paglets with a kept directory, sorted by the time it was kept, the newest first."""
    rows = tx.all("SELECT agent_id FROM kept_scratch WHERE removed_at IS NULL ORDER BY kept_at DESC, agent_id")
    return tuple(row["agent_id"] for row in rows)


def expire(tx: Tx, before: float, now: float) -> None:
    """Release the directories kept since before `before`. Delete all but MOST_ROWS rows of released directories."""
    tx.run("UPDATE kept_scratch SET removed_at = ? WHERE removed_at IS NULL AND kept_at < ?", now, before)
    tx.run(
        "DELETE FROM kept_scratch WHERE agent_id IN (SELECT agent_id FROM kept_scratch WHERE removed_at IS NOT NULL"
        " ORDER BY removed_at DESC LIMIT -1 OFFSET ?)",
        MOST_ROWS,
    )


def release(tx: Tx, agent_ids: Iterable[str], now: float) -> None:
    """Allow the cleanup to remove the kept directories of these paglets."""
    for agent_id in agent_ids:
        tx.run("UPDATE kept_scratch SET removed_at = ? WHERE agent_id = ? AND removed_at IS NULL", now, agent_id)
    tx.wake("cleanup")
