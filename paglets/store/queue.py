"""The queue of one host: its compute jobs, their statuses, outcomes and leases.

A function that changes a status takes the expected old status, and some take the expected attempt. If the row differs,
the function changes nothing and returns False. `paglets.slots.states` defines the allowed transitions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from paglets.codec.strict_json import dumps, loads
from paglets.core.record import from_json
from paglets.core.refs import ProxyRef
from paglets.slots.model import Resources, SlotRequest
from paglets.store.db import Tx
from paglets.store.handoffs import SMALL_COLLECTOR_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedJob:
    """A waiting job, with the data that decides where and when it runs, and the stored reason why it waits."""

    agent_id: str
    group_id: str | None
    job_key: str
    generation: int
    attempt: int
    request: SlotRequest
    queued_at: float
    here_at: float
    stolen: bool
    home_store: str
    reason: str
    reason_text: str
    never: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """The row of a job copy, without the user's states."""

    agent_id: str
    group_id: str | None
    job_key: str
    collector: ProxyRef | None
    generation: int
    attempt: int
    status: str
    request: SlotRequest
    outcome: dict[str, Any] | None
    failed_attempts: int
    losses: int
    disk_fulls: int
    unwanted: str | None
    reason: str


@lru_cache(maxsize=4096)
def request_of(text: str) -> SlotRequest:
    """Parse a request. The cache returns one object for all equal requests, such as those of a group's jobs."""
    return from_json(SlotRequest, loads(text))


@lru_cache(maxsize=256)
def _store_of(home: str) -> str:
    """Return the store id in the JSON of a HostRef. Most waiting jobs have the same home."""
    store_id: str = loads(home)["store_id"]
    return store_id


def _queued(row: sqlite3.Row) -> QueuedJob:
    return QueuedJob(
        agent_id=row["agent_id"],
        group_id=row["group_id"],
        job_key=row["job_key"],
        generation=row["generation"],
        attempt=row["attempt"],
        request=request_of(row["request"]),
        queued_at=row["queued_at"],
        here_at=row["here_at"],
        stolen=bool(row["stolen"]),
        home_store=_store_of(row["home"]),
        reason=row["reason"],
        reason_text=row["reason_text"],
        never=bool(row["never"]),
    )


_QUEUED = (
    "SELECT r.agent_id, group_id, job_key, generation, attempt, request, queued_at, here_at, stolen, reason,"
    " reason_text, never, p.home"
    " FROM requests r JOIN paglets p USING (agent_id)"
)


Place = tuple[float, str]
"""The position of a job in the queue: the time when it was queued, and its id."""

FIRST: Place = (0.0, "")
"""The position before the oldest job."""

LAST: Place = (float("inf"), "")
"""The position after the newest job."""


SKIPPED_A_TURN = 20_000
"""The number of index rows that one call of `unplaced` may skip, which takes about 2 ms."""


def unplaced(tx: Tx, most: int, after: Place = FIRST) -> tuple[list[QueuedJob], Place]:
    """Return the next jobs that have no host, oldest first, and the position for the next call.

    The jobs follow the position `after`. After the last job, the returned position is FIRST. Jobs are left out while
    their collector is moving, unless it is small (see `handoffs.SMALL_COLLECTOR_BYTES`).
    """
    held_back = _groups_on_their_way(tx)
    last = _last_of_turn(tx, after) if held_back else None
    rows = tx.all(
        f"{_QUEUED} WHERE status = 'PLACING' AND (queued_at, r.agent_id) > (?, ?)"
        " AND (queued_at, r.agent_id) <= (?, ?)"
        " AND (group_id IS NULL OR group_id NOT IN (SELECT value FROM json_each(?)))"
        " AND p.intent IS NULL AND p.hook IS NULL"
        " AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.agent_id = r.agent_id)"
        " ORDER BY queued_at, r.agent_id LIMIT ?",
        *after,
        *(last or LAST),
        dumps(held_back),
        most,
    )
    jobs = [_queued(row) for row in rows]
    if len(jobs) == most:
        return jobs, (jobs[-1].queued_at, jobs[-1].agent_id)
    return jobs, last or FIRST


def _last_of_turn(tx: Tx, after: Place) -> Place | None:
    """Return the position that is SKIPPED_A_TURN jobs after `after`, or None if fewer jobs follow."""
    row = tx.one(
        "SELECT queued_at, agent_id FROM requests WHERE status = 'PLACING' AND (queued_at, agent_id) > (?, ?)"
        " ORDER BY queued_at, agent_id LIMIT 1 OFFSET ?",
        *after,
        SKIPPED_A_TURN - 1,
    )
    return None if row is None else (row["queued_at"], row["agent_id"])


def _groups_on_their_way(tx: Tx) -> list[str]:
    """Return the ids of groups submitted to this host whose collector is moving to another host and is not small."""
    rows = tx.all(
        "SELECT g.group_id FROM handoffs h CROSS JOIN groups g ON g.collector_id = h.agent_id"
        " WHERE h.kind = 'collector' AND h.size_bytes > ? ORDER BY g.group_id",
        SMALL_COLLECTOR_BYTES,
    )
    return [row["group_id"] for row in rows]


def waiting_for_slot(tx: Tx, most: int) -> Iterator[QueuedJob]:
    """Yield the jobs that wait for a slot on this host and have no pending hook, action or run, oldest first."""
    rows = tx.each(
        f"{_QUEUED} WHERE status = 'WAITING_FOR_SLOT' AND p.intent IS NULL AND p.hook IS NULL AND r.unwanted IS NULL"
        " AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.agent_id = r.agent_id)"
        " ORDER BY queued_at, r.agent_id LIMIT ?",
        most,
    )
    return (_queued(row) for row in rows)


def count(tx: Tx, *statuses: str) -> int:
    marks = ",".join("?" * len(statuses))
    return int(tx.value(f"SELECT count(*) FROM requests WHERE status IN ({marks})", *statuses))


def has_more_than(tx: Tx, count: int, status: str) -> bool:
    """Return True if more than `count` jobs have this status. At most one more is read."""
    return tx.value("SELECT 1 FROM requests WHERE status = ? LIMIT 1 OFFSET ?", status, count) is not None


def with_status(tx: Tx, status: str, agent_ids: Iterable[str]) -> list[str]:
    """Return those of `agent_ids` that are jobs with that status."""
    sql = "SELECT 1 FROM requests WHERE agent_id = ? AND status = ?"
    return [agent_id for agent_id in agent_ids if tx.value(sql, agent_id, status)]


def job(tx: Tx, agent_id: str) -> JobRow | None:
    row = tx.one(
        "SELECT *, (SELECT outcome FROM job_states j WHERE j.agent_id = r.agent_id) AS outcome"
        " FROM requests r WHERE agent_id = ?",
        agent_id,
    )
    if row is None:
        return None
    return JobRow(
        agent_id=agent_id,
        group_id=row["group_id"],
        job_key=row["job_key"],
        collector=None if row["collector"] is None else from_json(ProxyRef, loads(row["collector"])),
        generation=row["generation"],
        attempt=row["attempt"],
        status=row["status"],
        request=request_of(row["request"]),
        outcome=None if row["outcome"] is None else loads(row["outcome"]),
        failed_attempts=row["failed_attempts"],
        losses=row["losses"],
        disk_fulls=row["disk_fulls"],
        unwanted=row["unwanted"],
        reason=row["reason"],
    )


def move(tx: Tx, agent_id: str, old: str, new: str, attempt: int | None = None) -> bool:
    """Change the status of a job from `old` to `new`. Return False if it has another status or attempt."""
    changed = tx.run(
        "UPDATE requests SET status = ?, reason = '', reason_text = '', never = 0"
        " WHERE agent_id = ? AND status = ? AND (? IS NULL OR attempt = ?)",
        new,
        agent_id,
        old,
        attempt,
        attempt,
    )
    if changed:
        tx.touch(agent_id)
        tx.wake("reconciliation", "scheduler")
    return changed == 1


def set_reason(tx: Tx, agent_id: str, reason: str, text: str, never: bool, now: float) -> None:
    """Store the reason why a job does not run. `reason_at` is set to `now` only if the reason is a new one."""
    changed = tx.run(
        "UPDATE requests SET reason_at = CASE WHEN reason = ? THEN reason_at ELSE ? END,"
        " reason = ?, reason_text = ?, never = ?"
        " WHERE agent_id = ? AND (reason != ? OR reason_text != ? OR never != ?)",
        reason,
        now,
        reason,
        text,
        int(never),
        agent_id,
        reason,
        text,
        int(never),
    )
    if changed:
        tx.touch(agent_id)
        tx.wake("reconciliation")


def set_blocked(tx: Tx, agent_id: str, attempt: int, reason: str, text: str, now: float) -> None:
    """Store the reason why a running attempt makes no progress, or "" if it does."""
    changed = tx.run(
        "UPDATE requests SET reason = ?, reason_text = ?, reason_at = ?"
        " WHERE agent_id = ? AND status = 'RUNNING' AND attempt = ? AND reason_text != ?",
        reason,
        text,
        now,
        agent_id,
        attempt,
        text,
    )
    if changed:
        tx.touch(agent_id)
        tx.wake("reconciliation")


DEFAULT_REASONS = {
    "PLACING": ("placing", "it was submitted a moment ago; the collector of its group must be placed first"),
    "WAITING_FOR_SLOT": ("queued", "its host has not checked yet if a slot is free for it"),
    "ASSIGNED": ("assigned", "it waits in a warm worker behind another job"),
}
"""The reason and its text for a job with this status for which no reason is stored."""


def reason_of(row: sqlite3.Row) -> tuple[str, str]:
    """Return the reason why a job waits, and its text. They are not empty for a waiting job.

    `row` is the job's row of `requests`.
    """
    if row["reason"]:
        return row["reason"], row["reason_text"]
    return DEFAULT_REASONS.get(row["status"], ("", ""))


def report_problem(tx: Tx, agent_id: str) -> str:
    """Return the reason why the report of a finished copy cannot be delivered, or "" if there is no problem."""
    problem = tx.value("SELECT problem FROM outbox WHERE report_of = ? AND problem != '' ORDER BY n LIMIT 1", agent_id)
    return f"it has ended, and its report waits: {problem}" if problem else ""


def take_up(tx: Tx, queued: QueuedJob, status: str, token: str, epoch: int, now: float) -> bool:
    """Set a waiting job to RUNNING or ASSIGNED, and store its run. Return False if the job has changed."""
    attempt = queued.attempt + 1
    changed = tx.run(
        "UPDATE requests SET status = ?, attempt = ?, reason = '', reason_text = '', never = 0, reason_at = ?"
        " WHERE agent_id = ? AND status = 'WAITING_FOR_SLOT' AND attempt = ? AND unwanted IS NULL",
        status,
        attempt if status == "RUNNING" else queued.attempt,
        now,
        queued.agent_id,
        queued.attempt,
    )
    if changed:
        start_run(tx, queued.agent_id, token, "attempt", epoch, queued.generation, attempt, now)
        tx.touch(queued.agent_id)
        tx.wake("reconciliation")
    return changed == 1


def grant(
    tx: Tx, queued: QueuedJob, cores: Sequence[int], gpus: Sequence[int], token: str, epoch: int, now: float
) -> bool:
    """Set a waiting job to RUNNING, and store its lease and its run. Return False if the job has changed."""
    if not take_up(tx, queued, "RUNNING", token, epoch, now):
        return False
    tx.run("UPDATE job_states SET outcome = NULL WHERE agent_id = ? AND outcome IS NOT NULL", queued.agent_id)
    resources = queued.request.resources
    tx.run(
        "INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?)",
        queued.agent_id,
        queued.generation,
        queued.attempt + 1,
        resources.memory_bytes,
        resources.temp_storage_bytes,
        now,
    )
    units = [("core", unit) for unit in cores] + [("gpu", unit) for unit in gpus]
    tx.run_many("INSERT INTO lease_units VALUES (?, ?, ?)", ((kind, unit, queued.agent_id) for kind, unit in units))
    return True


def start_run(
    tx: Tx, agent_id: str, token: str, entry: str, epoch: int, generation: int, attempt: int, now: float
) -> None:
    """Store a new run of a paglet, before it starts. A paglet has at most one run."""
    tx.run(
        "INSERT INTO runs (agent_id, token, entry, epoch, generation, attempt, started_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        agent_id,
        token,
        entry,
        epoch,
        generation,
        attempt,
        now,
    )


def release(tx: Tx, agent_id: str) -> float | None:
    """Delete the lease of an attempt whose run has ended. Return the time when it was granted, or None."""
    granted_at: float | None = tx.value("SELECT granted_at FROM leases WHERE agent_id = ?", agent_id)
    tx.run("DELETE FROM leases WHERE agent_id = ?", agent_id)
    tx.wake("scheduler")
    return granted_at


def total_leased(tx: Tx) -> Resources:
    """Return the sum of the resources of all leases."""
    row = tx.one("SELECT total(memory_bytes) AS memory, total(temp_storage_bytes) AS disk FROM leases")
    assert row is not None
    return Resources(
        cpu_cores=int(tx.value("SELECT count(*) FROM lease_units WHERE kind = 'core'")),
        memory_bytes=int(row["memory"]),
        temp_storage_bytes=int(row["disk"]),
        gpus=int(tx.value("SELECT count(*) FROM lease_units WHERE kind = 'gpu'")),
    )


def leased_units(tx: Tx, kind: str) -> frozenset[int]:
    return frozenset(row[0] for row in tx.all("SELECT unit FROM lease_units WHERE kind = ? ORDER BY unit", kind))


def set_outcome(tx: Tx, agent_id: str, attempt: int, outcome: dict[str, Any]) -> bool:
    """Store the outcome of a running attempt. Return False if it has an outcome already or no longer runs."""
    changed = tx.run(
        "UPDATE job_states SET outcome = ? WHERE agent_id = ? AND outcome IS NULL AND EXISTS"
        " (SELECT 1 FROM requests r WHERE r.agent_id = job_states.agent_id AND status = 'RUNNING' AND attempt = ?)",
        dumps(outcome),
        agent_id,
        attempt,
    )
    return changed == 1


def leased_amounts(tx: Tx) -> dict[str, Resources]:
    """Return the memory and the disk space that each running job has leased."""
    rows = tx.all("SELECT agent_id, memory_bytes, temp_storage_bytes FROM leases ORDER BY agent_id")
    return {
        row["agent_id"]: Resources(memory_bytes=row["memory_bytes"], temp_storage_bytes=row["temp_storage_bytes"])
        for row in rows
    }
