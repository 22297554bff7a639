"""The copies of group jobs on this host: the statuses reported to their collectors, and their cancellation."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from paglets.api.groups import JobCopy
from paglets.codec.strict_json import dumps, loads
from paglets.core.record import from_json, to_json
from paglets.core.refs import ProxyRef
from paglets.store import handoffs, queue, rollbacks, views
from paglets.store.db import Tx
from paglets.store.queue import JobRow

Copy = tuple[ProxyRef, JobCopy]
"""A copy of a group job: the reference to its collector, and the status that is reported to the collector."""


def copies_of(tx: Tx, agent_ids: Iterable[str]) -> list[Copy]:
    """Return the copies among these paglets that are unfinished, or whose report cannot be delivered."""
    found: list[Copy] = []
    for agent_id in agent_ids:
        for source in _SOURCES:
            found += source(tx, "= ?", agent_id, -1)
    return found


def page(tx: Tx, after: str, most: int) -> tuple[list[Copy], str]:
    """Return a page of all copies that are unfinished, or whose report cannot be delivered.

    The page starts after the agent id `after` and has about `most` copies (-1: all). Also return the `after` of the
    next page, or "" if there are no further copies.
    """
    found: list[Copy] = []
    ends: list[str] = []
    for source in _SOURCES:
        part = source(tx, "> ?", after, most)
        found += part
        if len(part) == most:
            ends.append(part[-1][1].agent_id)
    end = min(ends, default="")
    return [each for each in found if not end or each[1].agent_id <= end], end


_COPIES = (
    "SELECT r.agent_id, r.group_id, r.job_key, r.collector, r.generation, r.attempt, r.status, r.reason, r.reason_text,"
    " r.never, s.epoch"
)
"""The columns of a copy. States are left out, because all copies are read often and their states can be gigabytes."""


def _here(tx: Tx, which: str, agent_id: str, most: int) -> list[Copy]:
    # The `+` keeps SQLite from using the index on the status, for which it would sort all waiting jobs for each page.
    rows = tx.all(
        f"{_COPIES} FROM requests r JOIN residence s USING (agent_id)"
        " WHERE r.collector IS NOT NULL AND +r.status IN ('PLACING', 'WAITING_FOR_SLOT', 'ASSIGNED', 'RUNNING')"
        " AND NOT EXISTS (SELECT 1 FROM job_states j WHERE j.agent_id = r.agent_id AND j.outcome IS NOT NULL)"
        f" AND r.agent_id {which} ORDER BY r.agent_id LIMIT ?",
        agent_id,
        most,
    )
    return [(_collector(row), views.copy_here(row)) for row in rows]


def _unreported(tx: Tx, which: str, agent_id: str, most: int) -> list[Copy]:
    """Return the copies that have ended and whose report cannot be delivered."""
    rows = tx.all(
        f"{_COPIES} FROM outbox o JOIN requests r ON r.agent_id = o.report_of"
        " JOIN residence s ON s.agent_id = r.agent_id"
        " WHERE o.report_of IS NOT NULL AND o.problem != '' AND r.collector IS NOT NULL"
        f" AND o.report_of {which} ORDER BY o.report_of LIMIT ?",
        agent_id,
        most,
    )
    return [(_collector(row), _of_report(tx, views.copy_here(row))) for row in rows]


def _of_report(tx: Tx, copy: JobCopy) -> JobCopy:
    text = queue.report_problem(tx, copy.agent_id)
    return replace(copy, reason="report_waits", reason_text=text, never=False)


def _collector(row: sqlite3.Row) -> ProxyRef:
    return _proxy(row["collector"])


@lru_cache(maxsize=256)
def _proxy(text: str) -> ProxyRef:
    """Parse the reference to a collector. Thanks to the cache, it is parsed once for all copies of a group."""
    return from_json(ProxyRef, loads(text))


def _leaving(tx: Tx, which: str, agent_id: str, most: int) -> list[Copy]:
    jobs = handoffs.jobs(
        tx,
        f"group_id IS NOT NULL AND collector IS NOT NULL AND ended = 0 AND agent_id {which}",
        agent_id,
        most=most,
        order="agent_id",
    )
    return [(job.collector, job.copy) for job in jobs if job.collector is not None]


_SOURCES = (_here, _unreported, _leaving)
"""The functions that return copies sorted by agent id. `which` is `= ?` for one id, or `> ?` for all later ids."""


def unfinished(tx: Tx, group_id: str, job_keys: frozenset[str] | None) -> int:
    """Count the unfinished copies with these job keys (None: all) on this host or leaving it.

    A running copy counts until its run has ended.
    """
    rows = tx.each(
        "SELECT job_key FROM requests WHERE group_id = ?"
        " AND status IN ('PLACING', 'WAITING_FOR_SLOT', 'ASSIGNED', 'RUNNING')"
        " UNION ALL SELECT job_key FROM handoffs WHERE group_id = ? AND kind = 'job'"
        " AND ended = 0",
        group_id,
        group_id,
    )
    return sum(1 for row in rows if job_keys is None or row["job_key"] in job_keys)


def running_count(tx: Tx, group_id: str) -> int:
    """Count the jobs of a group that run on this host."""
    return int(tx.value("SELECT count(*) FROM requests WHERE group_id = ? AND status = 'RUNNING'", group_id))


def unfinished_here(tx: Tx, group_id: str, job_keys: frozenset[str] | None) -> list[JobRow]:
    """Return the copies with these job keys (None: all) that wait or run on this host and report to a collector."""
    rows = tx.all(
        "SELECT agent_id, job_key FROM requests WHERE group_id = ? AND collector IS NOT NULL"
        " AND status IN ('PLACING', 'WAITING_FOR_SLOT', 'ASSIGNED', 'RUNNING') ORDER BY job_key, agent_id",
        group_id,
    )
    found = (queue.job(tx, row["agent_id"]) for row in rows if job_keys is None or row["job_key"] in job_keys)
    return [job for job in found if job is not None]


def leaving(tx: Tx, group_id: str, job_keys: frozenset[str] | None) -> list[tuple[str, str]]:
    """Return agent id and job key of each unfinished copy with these keys (None: all) that leaves uncancelled."""
    rows = tx.all(
        "SELECT agent_id, job_key FROM handoffs WHERE group_id = ? AND kind = 'job' AND recall != ?"
        " AND ended = 0 ORDER BY job_key, agent_id",
        group_id,
        rollbacks.UNWANTED,
    )
    return [(row["agent_id"], row["job_key"]) for row in rows if job_keys is None or row["job_key"] in job_keys]


def all_ids(tx: Tx, group_id: str) -> list[str]:
    """Return the agent ids of all copies of a group that are on this host or leaving it."""
    rows = tx.all(
        "SELECT agent_id FROM requests WHERE group_id = ? AND collector IS NOT NULL"
        " UNION SELECT agent_id FROM handoffs WHERE group_id = ? AND kind = 'job'",
        group_id,
        group_id,
    )
    return [row["agent_id"] for row in rows]


def mark_unwanted(tx: Tx, agent_id: str, cause: str) -> bool:
    """Mark a copy with a run as cancelled, and store the cause. Return False if it has no run or is marked already."""
    return bool(
        tx.run(
            "UPDATE requests SET unwanted = ?"
            " WHERE agent_id = ? AND status IN ('ASSIGNED', 'RUNNING') AND unwanted IS NULL",
            cause,
            agent_id,
        )
    )


def set_collector(tx: Tx, group_id: str, collector: ProxyRef) -> None:
    """Store the reference to the collector in all copies of its group that are on this host or leaving it."""
    ref = dumps(to_json(collector))
    tx.run("UPDATE requests SET collector = ? WHERE group_id = ? AND collector IS NOT NULL", ref, group_id)
    tx.run(
        "UPDATE handoffs SET collector = ? WHERE group_id = ? AND kind = 'job' AND collector IS NOT NULL",
        ref,
        group_id,
    )
