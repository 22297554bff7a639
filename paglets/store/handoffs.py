"""Hand-offs that their targets have not answered: their envelopes, and the data for sending and displaying them.

The module `residence` starts and ends hand-offs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from paglets.api.groups import JobCopy
from paglets.codec.envelope import Envelope
from paglets.codec.strict_json import dumps, dumps_with, loads
from paglets.core.errors import Unknown
from paglets.core.record import from_json, to_json
from paglets.core.refs import BlobRef, HostRef, ProxyRef
from paglets.store import paglets
from paglets.store.db import Tx
from paglets.store.pages import FIRST_PLACE, Budget, Page, Place, page_of

Key = tuple[str, int]
"""The key of a hand-off: the agent id and the epoch of the leaving paglet."""

MAX_PROBLEM_CHARACTERS = 500

SMALL_COLLECTOR_BYTES = 16 << 10
"""The maximum size of the envelope of a small collector, in bytes. Its group has about 20 jobs.

The jobs of a small collector may leave before it has arrived, but only to the same host. Other jobs wait until their
collector has arrived, and can then go to all hosts. In a large group, this wait is short compared with the jobs.
"""

MOVING = "moving"
"""The reason code of a job that does not run because it is moving."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handoff:
    """A hand-off with its envelope. `recall` is the requested rollback, as in the table `handoffs`."""

    agent_id: str
    epoch: int
    target: HostRef
    envelope: Envelope
    recall: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """The data for sending an envelope. `size_bytes` is the size of its JSON, and `epoch` that of the leaving paglet.

    `needs` lists the blobs that the target must have first. `asked_for` is True for a requested move, and False for the
    move of a job to a slot.
    """

    agent_id: str
    epoch: int
    size_bytes: int
    asked_for: bool
    needs: tuple[BlobRef, ...]

    @property
    def key(self) -> Key:
        return (self.agent_id, self.epoch)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeavingJob:
    """A moving job: the `copy` that is reported to its collector, and further data for display.

    `ended` is True if the job has its outcome. `waited_seconds` is the time in queues before the hand-off, which
    started at `began_at`.
    """

    copy: JobCopy
    collector: ProxyRef | None
    request: dict[str, Any]
    ended: bool
    waited_seconds: float
    began_at: float


def add(tx: Tx, envelope: Envelope, storage: str, target: HostRef, now: float) -> None:
    """Store a hand-off, whose epoch is one less than that of its envelope.

    `storage` is the storage of the paglet as JSON text. It is not parsed, because the storage of a large group's
    collector has several entries for each job.
    """
    job, text = envelope.job, dumps_with(to_json(envelope), "storage", storage)
    tx.run(
        "INSERT INTO handoffs (agent_id, epoch, target_store, target, kind, group_id, job_key, began_at, bundle, name,"
        " size_bytes, asked_for, collector, ended, summary) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        envelope.agent_id,
        envelope.epoch - 1,
        target.store_id,
        dumps(to_json(target)),
        envelope.kind,
        job.group_id if job else None,
        job.job_key if job else "",
        now,
        None if envelope.bundle is None else envelope.bundle.sha256,
        envelope.name,
        len(text.encode()),
        int(envelope.hook == "arrival"),
        dumps(to_json(job.collector)) if job and job.collector else None,
        int(job is not None and job.outcome is not None),
        dumps(_summary(envelope)),
    )
    tx.run("INSERT INTO handoff_envelopes VALUES (?, ?)", envelope.agent_id, text)
    tx.wake("handoff")


_JOB_FIELDS = ("generation", "attempt", "status", "request", "waited_seconds")
_COLLECTOR_FIELDS = ("class_name", "home", "state", "created_at")


def _summary(envelope: Envelope) -> dict[str, Any]:
    """Return the part of an envelope that is displayed: not the state of a job, and no storage."""
    if envelope.job is not None:
        return {name: to_json(getattr(envelope.job, name)) for name in _JOB_FIELDS}
    if envelope.kind == "collector":
        return {name: to_json(getattr(envelope, name)) for name in _COLLECTOR_FIELDS}
    return {}


_WHOLE = (
    "SELECT agent_id, epoch, target, collector, recall, envelope FROM handoffs JOIN handoff_envelopes USING (agent_id)"
)


def find(tx: Tx, agent_id: str, epoch: int) -> Handoff | None:
    row = tx.one(f"{_WHOLE} WHERE agent_id = ? AND epoch = ?", agent_id, epoch)
    return None if row is None else _read(row)


def envelope_texts(tx: Tx, agent_ids: Iterable[str]) -> list[str]:
    """Return the JSON of the envelopes of these paglets, except those that have an answer by now."""
    rows = (tx.one(f"{_WHOLE} WHERE agent_id = ?", agent_id) for agent_id in agent_ids)
    return [_envelope_text(row) for row in rows if row is not None]


def _read(row: sqlite3.Row) -> Handoff:
    return Handoff(
        agent_id=row["agent_id"],
        epoch=row["epoch"],
        target=from_json(HostRef, loads(row["target"])),
        envelope=_envelope(row),
        recall=row["recall"],
    )


def _envelope_text(row: sqlite3.Row) -> str:
    """Return the JSON of the envelope in a row, as in `_envelope`. Parsing it would take a hundred times as long.

    So an envelope whose text contains the newest collector reference stays as it is. If only the state of the job
    contains it, the job keeps an older reference, which does no harm: it is a hint.
    """
    text: str = row["envelope"]
    is_new = row["collector"] is None or f'"collector":{row["collector"]}' in text
    return text if is_new else dumps(to_json(_envelope(row)))


def _envelope(row: sqlite3.Row) -> Envelope:
    """Return the envelope in a row. In the envelope of a job, replace the collector by its last known reference."""
    envelope = from_json(Envelope, loads(row["envelope"]))
    if envelope.job is None or row["collector"] is None:
        return envelope
    return replace(envelope, job=replace(envelope.job, collector=from_json(ProxyRef, loads(row["collector"]))))


def keys(tx: Tx) -> set[Key]:
    """Return the keys of all hand-offs without an answer."""
    rows = tx.all("SELECT agent_id, epoch FROM handoffs ORDER BY agent_id")
    return {(row["agent_id"], row["epoch"]) for row in rows}


def targets(tx: Tx) -> list[HostRef]:
    """Return the targets of all hand-offs. The cost grows with the number of targets, not of hand-offs."""
    rows = tx.all(
        "WITH RECURSIVE hosts (store) AS (SELECT min(target_store) FROM handoffs UNION ALL"
        " SELECT (SELECT min(target_store) FROM handoffs WHERE target_store > store) FROM hosts WHERE store NOT NULL)"
        " SELECT (SELECT target FROM handoffs WHERE target_store = store ORDER BY began_at, agent_id LIMIT 1) AS target"
        " FROM hosts WHERE store NOT NULL ORDER BY store"
    )
    return [from_json(HostRef, loads(row["target"])) for row in rows]


def next_leaving(tx: Tx, target_store: str, budget: Budget, after: Place = FIRST_PLACE) -> Page[Leaving]:
    """Return the next hand-offs to one target, oldest first, after the position `after`, without the envelopes."""
    rows = tx.each(
        "SELECT agent_id, epoch, size_bytes, bundle, began_at, asked_for FROM handoffs"
        " WHERE target_store = ? AND (began_at, agent_id) > (?, ?) ORDER BY began_at, agent_id LIMIT ?",
        target_store,
        *after,
        budget.items + 1,
    )
    page = page_of(rows, budget, lambda row: row["size_bytes"], lambda row: (row["began_at"], row["agent_id"]))
    items = [
        Leaving(
            agent_id=row["agent_id"],
            epoch=row["epoch"],
            size_bytes=row["size_bytes"],
            asked_for=bool(row["asked_for"]),
            needs=paglets.blobs_of(tx, row["agent_id"], row["bundle"]),
        )
        for row in page.items
    ]
    return Page(items=items, after=page.after)


def small_collectors(tx: Tx) -> dict[str, str]:
    """Return the target stores of small collectors that leave this host, by group id.

    Only groups that were submitted to this host count.
    """
    rows = tx.all(
        "SELECT g.group_id, h.target_store FROM handoffs h CROSS JOIN groups g ON g.collector_id = h.agent_id"
        " WHERE h.kind = 'collector' AND h.size_bytes <= ?",
        SMALL_COLLECTOR_BYTES,
    )
    return {row["group_id"]: row["target_store"] for row in rows}


def envelope_text(tx: Tx, agent_id: str, epoch: int) -> str:
    """Return the JSON of an envelope. Raises Unknown if the paglet is not leaving under `epoch`."""
    row = tx.one(f"{_WHOLE} WHERE agent_id = ? AND epoch = ?", agent_id, epoch)
    if row is None:
        raise Unknown(f"paglet {agent_id} is not leaving this host")
    return _envelope_text(row)


# The functions below write and read the data that is displayed.


def set_problem(tx: Tx, key: Key, text: str) -> None:
    """Store the reason why a hand-off makes no progress."""
    cut = text[:MAX_PROBLEM_CHARACTERS]
    if tx.run("UPDATE handoffs SET problem = ? WHERE agent_id = ? AND epoch = ? AND problem != ?", cut, *key, cut):
        tx.wake("groups")


def set_target_problem(tx: Tx, target_store: str, text: str, *, jobs: bool) -> int:
    """Store the reason why hand-offs to that target make no progress, and return the number of changed rows.

    With `jobs`, the reason is stored for the hand-offs of jobs, otherwise for those of all other paglets. Rows that
    have this text already are not read, so that repeated calls for an offline host are cheap.
    """
    cut = text[:MAX_PROBLEM_CHARACTERS]
    others = "SELECT agent_id FROM handoffs WHERE target_store = ?2 AND (kind = 'job') = ?3 AND problem"
    sql = f"UPDATE handoffs SET problem = ?1 WHERE agent_id IN ({others} < ?1 UNION ALL {others} > ?1)"
    changed = tx.run(sql, cut, target_store, jobs)
    if changed:
        tx.wake("groups")
    return changed


_JOBS = (
    "SELECT agent_id, epoch, group_id, job_key, target, problem, began_at, collector, ended, summary"
    " FROM handoffs WHERE kind = 'job'"
)


def jobs(
    tx: Tx, condition: str = "", *values: Any, most: int = -1, order: str = "began_at, agent_id"
) -> list[LeavingJob]:
    """Return at most `most` moving jobs (-1: all), by default the oldest first, without reading envelopes.

    `condition` and `order` are SQL with columns of `handoffs`; `values` are the parameters of `condition`.
    """
    more = f" AND {condition}" if condition else ""
    rows = tx.each(f"{_JOBS}{more} ORDER BY {order} LIMIT ?", *values, most)
    return [_job(row) for row in rows]


def job_count(tx: Tx) -> int:
    """Return the number of moving jobs."""
    return int(tx.value("SELECT count(*) FROM handoffs WHERE kind = 'job'"))


def _job(row: sqlite3.Row) -> LeavingJob:
    part = loads(row["summary"])
    target = from_json(HostRef, loads(row["target"]))
    copy = JobCopy(
        agent_id=row["agent_id"],
        group_id=row["group_id"] or "",
        job_key=row["job_key"],
        generation=part["generation"],
        attempt=part["attempt"],
        epoch=row["epoch"],
        status=part["status"],
        residence="leaving",
        reason=MOVING,
        reason_text=f"on its way to {target.name}" + (f": {row['problem']}" if row["problem"] else ""),
        never=False,
        target=target,
    )
    return LeavingJob(
        copy=copy,
        collector=None if row["collector"] is None else from_json(ProxyRef, loads(row["collector"])),
        request=part["request"],
        ended=bool(row["ended"]),
        waited_seconds=part["waited_seconds"],
        began_at=row["began_at"],
    )


def collectors(tx: Tx, agent_id: str | None = None) -> list[dict[str, Any]]:
    """Return id, class, home, state and creation time of one moving collector, or of all if `agent_id` is None."""
    only, ids = ("", ()) if agent_id is None else (" AND agent_id = ?", (agent_id,))
    rows = tx.all(f"SELECT agent_id, summary FROM handoffs WHERE kind = 'collector'{only} ORDER BY agent_id", *ids)
    return [{"agent_id": row["agent_id"], **loads(row["summary"])} for row in rows]


def problem(tx: Tx, agent_id: str) -> str:
    """Return the reason why the hand-off of a paglet makes no progress, or ""."""
    return tx.value("SELECT problem FROM handoffs WHERE agent_id = ?", agent_id) or ""
