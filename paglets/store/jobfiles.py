"""Keep the registered files of finished group jobs as artifacts, and keep finished jobs whose hook failed.

Each artifact has the group and key of its job. `keep_files` turns the files into artifacts of the host where the job
ends. If a hook fails, the job is kept until a rerun of the hook returns, a user ends the job, or KEEP_SECONDS have
passed. Until then, the files are artifacts of the paglet (`keep_failed`).
"""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass

from paglets.api.undelivered import FailedHook, Undelivered
from paglets.codec.strict_json import loads
from paglets.core.refs import ArtifactRef, HostRef
from paglets.store import artifacts
from paglets.store.db import Tx

KEEP_SECONDS = 30 * 86400.0
"""The time in seconds that a job with a failed hook is kept.

The residence row of a paglet that has left is kept for the same time.
"""

MAX_ERROR_CHARACTERS = 2_000
MAX_TRACEBACK_CHARACTERS = 20_000
MOST_KEPT = 1_000

_HEAD = "SELECT h.*, r.group_id, r.job_key FROM failed_hooks h JOIN requests r USING (agent_id)"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupJob:
    """The group and key of a finished job."""

    group_id: str
    job_key: str


def finished_job(tx: Tx, agent_id: str) -> GroupJob | None:
    """Return group and key of a finished job that is on this host or leaving it. Return None for other paglets."""
    row = tx.one(
        "SELECT group_id, job_key FROM requests WHERE agent_id = ? AND group_id IS NOT NULL"
        " AND status IN ('COMPLETED', 'FAILED_FINAL', 'CANCELLED') UNION ALL"
        " SELECT group_id, job_key FROM handoffs WHERE agent_id = ? AND group_id IS NOT NULL"
        " AND json_extract(summary, '$.status') IN ('COMPLETED', 'FAILED_FINAL', 'CANCELLED')",
        agent_id,
        agent_id,
    )
    return None if row is None else GroupJob(group_id=row["group_id"], job_key=row["job_key"])


def keep_files(tx: Tx, agent_id: str, now: float) -> int:
    """Turn the registered files of a finished job into artifacts of this host without expiry. Return their number."""
    job = finished_job(tx, agent_id)
    if job is None:
        return 0
    count = _list(tx, agent_id, job, artifacts.HOST, now, None)
    tx.run("DELETE FROM files WHERE agent_id = ? AND registered = 1", agent_id)
    return count


def _list(tx: Tx, agent_id: str, job: GroupJob, owner: str, now: float, expires_at: float | None) -> int:
    rows = tx.all("SELECT * FROM files WHERE agent_id = ? AND registered = 1 ORDER BY name", agent_id)
    epoch = tx.value("SELECT epoch FROM residence WHERE agent_id = ?", agent_id)
    for row in rows:
        tx.run(
            "INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            _artifact_id(agent_id, epoch, row["name"]),
            owner,
            row["name"],
            row["sha256"],
            row["size_bytes"],
            now,
            expires_at,
            job.group_id,
            job.job_key,
        )
    tx.wake("garbage")
    return len(rows)


def _artifact_id(agent_id: str, epoch: int, name: str) -> str:
    """Return the id of the artifact for a file of a job. The epoch makes it differ from ids on other hosts."""
    return f"art-{hashlib.sha256(f'{agent_id} {epoch} {name}'.encode()).hexdigest()[:32]}"


# The functions below handle failed hooks of finished jobs.


def keep_failed(tx: Tx, agent_id: str, failed: FailedHook, intent: str | None) -> int:
    """Store the failure of a finished job's hook, and the pending action `intent`. Return the number of kept files."""
    tx.run(
        "INSERT OR REPLACE INTO failed_hooks VALUES (?, ?, ?, ?, ?, ?)",
        agent_id,
        failed.entry,
        failed.error,
        failed.traceback,
        failed.failed_at,
        intent,
    )
    _unlist(tx, agent_id)
    job = GroupJob(group_id=failed.group_id, job_key=failed.job_key)
    return _list(tx, agent_id, job, agent_id, failed.failed_at, failed.kept_until)


def _unlist(tx: Tx, agent_id: str) -> None:
    tx.run("DELETE FROM artifacts WHERE owner = ? AND group_id IS NOT NULL", agent_id)


def clear_failure(tx: Tx, agent_id: str) -> None:
    """Delete the failure of a paglet whose hook returned, and stop listing its files as artifacts."""
    tx.run("DELETE FROM failed_hooks WHERE agent_id = ?", agent_id)
    _unlist(tx, agent_id)


def take_failure(tx: Tx, agent_id: str) -> sqlite3.Row | None:
    """Delete the row of a failed hook before its rerun, and return it. The files stay listed until the hook returns."""
    row = tx.one("SELECT * FROM failed_hooks WHERE agent_id = ?", agent_id)
    tx.run("DELETE FROM failed_hooks WHERE agent_id = ?", agent_id)
    return row


def give_to_host(tx: Tx, agent_id: str) -> int:
    """Transfer the artifacts of an ending job to this host, with their expiry unchanged. Return their number."""
    return tx.run("UPDATE artifacts SET owner = '' WHERE owner = ? AND group_id IS NOT NULL", agent_id)


def has_failed_hook(tx: Tx, agent_id: str) -> bool:
    return tx.value("SELECT 1 FROM failed_hooks WHERE agent_id = ?", agent_id) is not None


def failed_hook(tx: Tx, agent_id: str, own: HostRef) -> FailedHook | None:
    row = tx.one(f"{_HEAD} WHERE h.agent_id = ?", agent_id)
    return None if row is None else _read(row, own)


def failed_hooks(tx: Tx, group_id: str, job_key: str, own: HostRef) -> tuple[FailedHook, ...]:
    """Return at most MOST_KEPT failed hooks of a group's jobs on this host; `job_key` selects one job, "" all jobs."""
    rows = tx.all(
        f"{_HEAD} WHERE r.group_id = ? AND (? = '' OR r.job_key = ?) ORDER BY r.job_key, h.agent_id LIMIT ?",
        group_id,
        job_key,
        job_key,
        MOST_KEPT,
    )
    return tuple(_read(row, own) for row in rows)


def files_of(tx: Tx, group_id: str, job_key: str, host_name: str) -> tuple[ArtifactRef, ...]:
    """Return at most MOST_KEPT artifacts of a group's jobs on this host; `job_key` selects one job, "" all."""
    rows = tx.all(
        "SELECT artifact_id FROM artifacts WHERE group_id = ? AND (? = '' OR job_key = ?) ORDER BY artifact_id LIMIT ?",
        group_id,
        job_key,
        job_key,
        MOST_KEPT,
    )
    found = (artifacts.find(tx, row["artifact_id"], host_name) for row in rows)
    return tuple(each for each in found if each is not None)


def undelivered(tx: Tx, group_id: str, job_key: str, own: HostRef) -> tuple[Undelivered, ...]:
    """Return at most MOST_KEPT finished jobs of a group that have a hook or move pending, or leave this host.

    `job_key` selects one job, and "" all jobs.
    """
    rows = tx.all(
        "SELECT agent_id, r.job_key, p.hook, p.intent, p.problem, '' AS target, EXISTS"
        " (SELECT 1 FROM runs WHERE runs.agent_id = r.agent_id) AS runs FROM requests r JOIN paglets p USING (agent_id)"
        " WHERE r.group_id = ?1 AND ?2 IN ('', r.job_key) AND r.status IN ('COMPLETED', 'FAILED_FINAL', 'CANCELLED')"
        " AND (p.hook IS NOT NULL OR json_extract(p.intent, '$.move') IS NOT NULL)"
        " UNION ALL SELECT agent_id, job_key, NULL, NULL, problem, json_extract(target, '$.name'), 0 FROM handoffs"
        " WHERE group_id = ?1 AND ?2 IN ('', job_key)"
        " AND json_extract(summary, '$.status') IN ('COMPLETED', 'FAILED_FINAL', 'CANCELLED')"
        " ORDER BY job_key, agent_id LIMIT ?3",
        group_id,
        job_key,
        MOST_KEPT,
    )
    count = "SELECT count(*) FROM files WHERE agent_id = ? AND registered = 1"
    return tuple(
        Undelivered(
            agent_id=row["agent_id"],
            group_id=group_id,
            job_key=row["job_key"],
            host=own,
            text=_to_come(row, own),
            file_count=tx.value(count, row["agent_id"]),
        )
        for row in rows
    )


def _to_come(row: sqlite3.Row, own: HostRef) -> str:
    if row["hook"] is not None:
        name = row["hook"] if row["hook"] == "run" else f"on_{row['hook']}"
        return f"{name} {'runs' if row['runs'] else 'is to run'} on {own.name}"
    target = row["target"] or loads(row["intent"])["move"]["name"]
    return str(row["problem"]) or f"it is to move from {own.name} to {target}"


def expired(tx: Tx, now: float, own: HostRef) -> tuple[FailedHook, ...]:
    """Return the failed hooks that have been kept for KEEP_SECONDS, at most MOST_KEPT."""
    rows = tx.all(f"{_HEAD} WHERE h.failed_at <= ? ORDER BY h.agent_id LIMIT ?", now - KEEP_SECONDS, MOST_KEPT)
    return tuple(_read(row, own) for row in rows)


def _read(row: sqlite3.Row, own: HostRef) -> FailedHook:
    intent = {} if row["intent"] is None else loads(row["intent"])
    return FailedHook(
        agent_id=row["agent_id"],
        group_id=row["group_id"],
        job_key=row["job_key"],
        entry=row["hook"],
        host=own,
        error=row["error"],
        traceback=row["traceback"],
        failed_at=row["failed_at"],
        kept_until=row["failed_at"] + KEEP_SECONDS,
        target=intent["move"]["name"] if "move" in intent else "",
    )
