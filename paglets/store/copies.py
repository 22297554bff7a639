"""Reads the unfinished copies of group jobs on this host, for the census."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from paglets.api.groups import JobCopy
from paglets.codec.strict_json import loads
from paglets.core.record import from_json
from paglets.core.refs import ProxyRef
from paglets.store import handoffs, queue, views
from paglets.store.db import Tx

Copy = tuple[ProxyRef, JobCopy]
"""The collector of a copy, and what is told of the copy."""


def copies_of(tx: Tx, agent_ids: Iterable[str]) -> list[Copy]:
    """Return the unfinished copies of group jobs, here or leaving, among these paglets."""
    found: list[Copy] = []
    for agent_id in agent_ids:
        for source in _SOURCES:
            found += source(tx, "= ?", agent_id, -1)
    return found


def page(tx: Tx, after: str, most: int) -> tuple[list[Copy], str]:
    """Return the copies with the next ids, about `most` (-1: all), and the id to go on after: "" after the last."""
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
"""Not the states, of which there may be gigabytes: all copies are read again and again."""


def _here(tx: Tx, which: str, agent_id: str, most: int) -> list[Copy]:
    rows = tx.all(
        f"{_COPIES} FROM requests r JOIN residence s USING (agent_id)"
        " WHERE r.collector IS NOT NULL AND r.status IN ('PLACING', 'WAITING_FOR_SLOT', 'RUNNING')"
        " AND NOT EXISTS (SELECT 1 FROM job_states j WHERE j.agent_id = r.agent_id AND j.outcome IS NOT NULL)"
        f" AND r.agent_id {which} ORDER BY r.agent_id LIMIT ?",
        agent_id,
        most,
    )
    return [(_collector(row), views.copy_here(row)) for row in rows]


def _unreported(tx: Tx, which: str, agent_id: str, most: int) -> list[Copy]:
    """Copies that have ended and whose report does not get to the collector's host."""
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
    """All copies of a group have the same collector: it is parsed once."""
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
"""Each reads copies in the order of their ids: those whose id is, or is beyond, the one given."""
