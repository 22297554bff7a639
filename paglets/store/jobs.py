"""Read and change single columns of jobs in the tables `requests` and `job_states`."""

from __future__ import annotations

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
