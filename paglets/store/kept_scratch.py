"""Kept scratch directories: files of attempts whose result, or second report, could not be sent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from paglets.store.db import Tx

MOST_ROWS = 10_000
"""The number of rows kept for removed directories, so that commands can report the removal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptScratch:
    """A kept scratch directory. `removed_at`: epoch seconds; None while the directory exists."""

    generation: int
    attempt: int
    path: str
    removed_at: float | None


def keep(tx: Tx, agent_id: str, path: str, now: float) -> None:
    """Keep the scratch directory of the job's present attempt beyond the end of the job."""
    tx.run(
        "INSERT OR REPLACE INTO kept_scratch (agent_id, generation, attempt, path, kept_at)"
        " SELECT agent_id, generation, attempt, ?, ? FROM requests WHERE agent_id = ?",
        path,
        now,
        agent_id,
    )


def is_kept(tx: Tx, agent_id: str) -> bool:
    """Return True while the scratch directory of this paglet must stay."""
    row = "SELECT 1 FROM kept_scratch WHERE agent_id = ? AND removed_at IS NULL"
    return tx.value(row, agent_id) is not None


def find(tx: Tx, agent_id: str) -> KeptScratch | None:
    """Return the kept directory of this paglet, or None."""
    row = tx.one("SELECT generation, attempt, path, removed_at FROM kept_scratch WHERE agent_id = ?", agent_id)
    return None if row is None else KeptScratch(**dict(row))


def newest_first(tx: Tx) -> tuple[str, ...]:
    """Return the ids of paglets with a kept directory, the newest first."""
    rows = tx.all("SELECT agent_id FROM kept_scratch WHERE removed_at IS NULL ORDER BY kept_at DESC, agent_id")
    return tuple(row["agent_id"] for row in rows)


def expire(tx: Tx, before: float, now: float) -> None:
    """Release directories kept before `before`, and delete the oldest rows of removed directories."""
    tx.run("UPDATE kept_scratch SET removed_at = ? WHERE removed_at IS NULL AND kept_at < ?", now, before)
    tx.run(
        "DELETE FROM kept_scratch WHERE agent_id IN (SELECT agent_id FROM kept_scratch WHERE removed_at IS NOT NULL"
        " ORDER BY removed_at DESC LIMIT -1 OFFSET ?)",
        MOST_ROWS,
    )


def release(tx: Tx, agent_ids: Iterable[str], now: float) -> None:
    """Let the cleanup remove these directories."""
    for agent_id in agent_ids:
        tx.run("UPDATE kept_scratch SET removed_at = ? WHERE agent_id = ? AND removed_at IS NULL", now, agent_id)
    tx.wake("cleanup")
