"""Recovery at the start of a host: clean up the rows of processes that the previous start left in the database."""

from __future__ import annotations

from paglets.core.refs import HostRef
from paglets.host.records import outcomes, templates
from paglets.host.records.outcomes import Attempt
from paglets.slots import states
from paglets.store import kept_scratch, queue, residence
from paglets.store.db import Tx
from paglets.worker.launch import ProcessExit


def survivors(tx: Tx) -> list[tuple[int | None, float | None, str]]:
    """Return (pid, start time, token) of each run, template and worker that an earlier start may have left.

    A pid that was not stored is None. The caller must kill these processes before it calls `close_runs`.
    """
    rows = tx.all(
        "SELECT pid, start_time, token FROM runs UNION ALL SELECT pid, start_time, token FROM templates ORDER BY token"
    )
    return [(row["pid"], row["start_time"], row["token"]) for row in rows]


def close_runs(tx: Tx, own: HostRef, now: float) -> int:
    """Close the runs and leases that an earlier start left open. Return the number of processes that had these runs.

    All jobs of a warm worker have one process. A run whose process is not stored counts as one process.

    All processes of that start must have ended, also templates and warm workers. An attempt without an outcome counts
    as lost.
    """
    rows = tx.all("SELECT * FROM runs ORDER BY started_at, token")
    for row in rows:
        tx.run("DELETE FROM runs WHERE token = ?", row["token"])
        if row["entry"] == "attempt":
            attempt = Attempt(
                agent_id=row["agent_id"],
                attempt=row["attempt"],
                host=own,
                runtime_seconds=max(0.0, now - row["started_at"]),
                cut_off=True,
            )
            templates.suspect(tx, row["agent_id"])
            outcomes.ended(tx, attempt, ProcessExit(launcher_lost=True), now)
        outcomes.retire(tx, row["agent_id"], now)
    tx.run("DELETE FROM templates")
    _close_stray_leases(tx)
    return len({row["token"] if row["pid"] is None else row["pid"] for row in rows})


def _close_stray_leases(tx: Tx) -> None:
    """Release each lease that has no run, and queue its job again. Such leases should not exist."""
    for row in tx.all("SELECT agent_id FROM leases ORDER BY agent_id"):
        queue.release(tx, row["agent_id"])
        queue.move(tx, row["agent_id"], "RUNNING", states.move("RUNNING", "lost"))


def stale_scratch(tx: Tx, agent_ids: tuple[str, ...]) -> list[str]:
    """Return the ids from `agent_ids` whose scratch directory is no longer needed."""
    return [agent_id for agent_id in agent_ids if not _needs_scratch(tx, agent_id)]


def _needs_scratch(tx: Tx, agent_id: str) -> bool:
    """Return True if the scratch directory of a paglet is kept for the user, or if the paglet still needs it.

    A leaving paglet needs it, because the target may refuse the paglet. A finished job needs it only while an action or
    a hook is pending or a process runs.
    """
    if kept_scratch.is_kept(tx, agent_id):
        return True
    row = residence.find(tx, agent_id)
    if row is None or row.status not in ("here", "leaving"):
        return False
    job = queue.job(tx, agent_id)
    if row.status == "leaving" or job is None or job.status not in states.FINAL:
        return True
    return (
        tx.value(
            "SELECT 1 FROM paglets p WHERE agent_id = ? AND (intent IS NOT NULL OR hook IS NOT NULL OR"
            " EXISTS (SELECT 1 FROM runs WHERE runs.agent_id = p.agent_id))",
            agent_id,
        )
        is not None
    )
