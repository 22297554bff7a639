"""Read and change single columns of jobs in the tables `requests` and `job_states`."""

from __future__ import annotations

from collections.abc import Iterable

from paglets.codec.strict_json import dumps
from paglets.store.db import Tx


def reason_text(tx: Tx, agent_id: str) -> str:
    """Return the text of the reason why a job waits."""
    return str(tx.value("SELECT reason_text FROM requests WHERE agent_id = ?", agent_id))


def disk_fulls(tx: Tx, agent_id: str) -> int:
    """Return the number of attempts of a job that failed on a full disk."""
    return int(tx.value("SELECT disk_fulls FROM requests WHERE agent_id = ?", agent_id) or 0)


def has_collector(tx: Tx, agent_id: str) -> bool:
    """Return True if a job reports to a collector."""
    return bool(tx.value("SELECT collector IS NOT NULL FROM requests WHERE agent_id = ?", agent_id))


def set_stolen(tx: Tx, agent_id: str) -> None:
    """Mark a job as stolen, so that it is not stolen again."""
    tx.run("UPDATE requests SET stolen = 1 WHERE agent_id = ?", agent_id)


def set_checkpoint(tx: Tx, agent_id: str) -> None:
    """Store the current state of a job as its checkpoint."""
    tx.run(
        "UPDATE job_states SET checkpoint = (SELECT state FROM paglet_states p WHERE p.agent_id = job_states.agent_id)"
        " WHERE agent_id = ?",
        agent_id,
    )


def clear_reasons(tx: Tx, reasons: Iterable[str]) -> None:
    """Clear the reason of waiting jobs if it is one of `reasons`. The scheduler then stores a new reason."""
    tx.run(
        "UPDATE requests SET reason = '', reason_text = ''"
        " WHERE status = 'WAITING_FOR_SLOT' AND reason IN (SELECT value FROM json_each(?))",
        dumps(list(reasons)),
    )


DEFAULTS_A_PASS = 1_000
"""The maximum number of jobs that get the default reason in one transaction, which takes a few milliseconds."""


def set_default_reason(tx: Tx, reason: str, text: str, now: float) -> bool:
    """Store this reason for waiting jobs that have none because the scheduler has not checked them yet.

    Return True if it was stored for DEFAULTS_A_PASS jobs, so that another call may find more.
    """
    rows = tx.all(
        "UPDATE requests SET reason = ?, reason_text = ?, reason_at = ? WHERE agent_id IN (SELECT agent_id"
        " FROM requests INDEXED BY requests_untold WHERE status = 'WAITING_FOR_SLOT' AND reason = '' LIMIT ?)"
        " RETURNING agent_id",
        reason,
        text,
        now,
        DEFAULTS_A_PASS,
    )
    for row in rows:
        tx.touch(row["agent_id"])
    if rows:
        tx.wake("reconciliation")
    return len(rows) == DEFAULTS_A_PASS
