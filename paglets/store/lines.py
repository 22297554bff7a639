"""Lines: the runs that one warm worker executes one after the other.

Only the current run of a line has a lease. When it ends, the lease passes to the next run. The column `line` of `runs`
has the token of the run with which the line began.
"""

from __future__ import annotations

from paglets.store import queue
from paglets.store.db import Tx
from paglets.store.queue import QueuedJob


def join(tx: Tx, token: str, line: str) -> None:
    """Put a run into a line. `line`: the token of the run that began the line, which may be this run."""
    tx.run("UPDATE runs SET line = ? WHERE token = ?", line, token)


def lengths(tx: Tx) -> dict[str, int]:
    """Return the number of runs in each line: the current one, and those that wait."""
    rows = tx.all("SELECT line, count(*) AS runs FROM runs WHERE line != '' GROUP BY line ORDER BY line")
    return {row["line"]: row["runs"] for row in rows}


def assign(tx: Tx, queued: QueuedJob, token: str, line: str, epoch: int, now: float) -> bool:
    """Set a waiting job to ASSIGNED, and store its run at the end of a line. Return False if the job has changed."""
    if not queue.take_up(tx, queued, "ASSIGNED", token, epoch, now):
        return False
    join(tx, token, line)
    return True


def pass_on(tx: Tx, agent_id: str, token: str, now: float) -> bool:
    """Give the lease of `agent_id`, whose attempt ended, to the ASSIGNED job of the run `token`, and start that job.

    Return False, and change nothing, if there is no such lease or job.
    """
    job = tx.one(
        "SELECT q.agent_id, q.generation, r.attempt FROM runs r JOIN requests q USING (agent_id)"
        " WHERE r.token = ? AND q.status = 'ASSIGNED' AND EXISTS (SELECT 1 FROM leases WHERE agent_id = ?)",
        token,
        agent_id,
    )
    if job is None:
        return False
    tx.run(
        "INSERT INTO leases SELECT ?, ?, ?, memory_bytes, temp_storage_bytes, ? FROM leases WHERE agent_id = ?",
        job["agent_id"],
        job["generation"],
        job["attempt"],
        now,
        agent_id,
    )
    tx.run("UPDATE lease_units SET agent_id = ? WHERE agent_id = ?", job["agent_id"], agent_id)
    tx.run("UPDATE requests SET status = 'RUNNING', attempt = ? WHERE agent_id = ?", job["attempt"], job["agent_id"])
    tx.run("UPDATE job_states SET outcome = NULL WHERE agent_id = ? AND outcome IS NOT NULL", job["agent_id"])
    tx.run("UPDATE runs SET started_at = ? WHERE token = ?", now, token)
    tx.touch(job["agent_id"])
    tx.wake("reconciliation")
    return True
