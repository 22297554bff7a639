"""Make the views of paglets and jobs that are shown to users and other hosts."""

from __future__ import annotations

import sqlite3

from paglets.api.groups import JobCopy
from paglets.api.paglets import FoundPaglet, PagletView
from paglets.api.slots import JobView, Lease, Usage
from paglets.api.undelivered import FailedHook
from paglets.codec.strict_json import loads
from paglets.core.record import from_json
from paglets.core.refs import HostRef, ProxyRef
from paglets.core.text import duration_text
from paglets.slots import states
from paglets.store import artifacts, files, handoffs, jobfiles, paglets, queue, residence
from paglets.store.db import Tx
from paglets.store.handoffs import MOVING, LeavingJob

MAX_FOUND = 1_000

LONG_HOOK_SECONDS = 600.0
"""The time in seconds after which a running hook is reported to users, because it may never end."""

MOST_LONG_HOOKS = 10


def named(tx: Tx, name: str | None, service: str | None, own: HostRef) -> tuple[FoundPaglet, ...]:
    """Return the paglets on this host with that name or that service, sorted by id."""
    rows = tx.all(
        "SELECT agent_id, name, service FROM paglets WHERE name = ? UNION"
        " SELECT agent_id, name, service FROM paglets WHERE service = ? AND service != '' ORDER BY agent_id LIMIT ?",
        name,
        service,
        MAX_FOUND,
    )
    return tuple(
        FoundPaglet(ref=ProxyRef(agent_id=row["agent_id"], host=own), name=row["name"], service=row["service"])
        for row in rows
    )


def page_of_ids(tx: Tx, after: str, limit: int) -> tuple[str, ...]:
    """Return the ids of the paglets on this host that follow the id `after`, in order."""
    rows = tx.all("SELECT agent_id FROM paglets WHERE agent_id > ? ORDER BY agent_id LIMIT ?", after, limit)
    return tuple(row["agent_id"] for row in rows)


def paglet_view(tx: Tx, agent_id: str, own: HostRef, now: float, *, brief: bool = False) -> PagletView:
    """Return the view of a paglet on this host, without its state if `brief`."""
    here = residence.get_here(tx, agent_id)
    row = tx.one("SELECT * FROM paglets WHERE agent_id = ?", agent_id)
    assert row is not None
    waiting = tx.value("SELECT count(*) FROM inbox WHERE agent_id = ? AND status = 'waiting'", agent_id)
    dead = tx.value("SELECT count(*) FROM inbox WHERE agent_id = ? AND status = 'dead'", agent_id)
    failed = jobfiles.failed_hook(tx, agent_id, own)
    job = job_view(tx, agent_id, own, now)
    return PagletView(
        agent_id=agent_id,
        class_name=row["class_name"],
        kind=row["kind"],
        residence=here.status,
        epoch=here.epoch,
        host=own,
        name=row["name"],
        hook=row["hook"],
        reason=_reason(row["intent"], row["hook_error"], row["problem"], failed, _long_hook(tx, agent_id, own, now)),
        inbox=waiting,
        dead_posts=dead,
        state=None if brief else paglets.state(tx, agent_id),
        job=job,
        bundle=paglets.bundle_of(tx, agent_id),
        files=files.of(tx, agent_id),
        artifacts=artifacts.count(tx, agent_id),
        service=row["service"],
        inactive=bool(row["inactive"]),
        created_at=row["created_at"],
        group_id=_group_of_collector(tx, row) if job is None else job.group_id,
    )


def _group_of_collector(tx: Tx, row: sqlite3.Row) -> str | None:
    """Return the id of a collector's group, or None if the paglet is not a collector. `row` is from `paglets`."""
    if row["kind"] != "collector":
        return None
    query = "SELECT json_extract(state, '$.group_id') FROM paglet_states WHERE agent_id = ?"
    group_id = tx.value(query, row["agent_id"])
    return group_id if isinstance(group_id, str) and group_id else None


def _long_hook(tx: Tx, agent_id: str, own: HostRef, now: float) -> str:
    """Return a text such as `on_arrival has been running for 12 min on laptop`, or "" if no hook takes long."""
    run = tx.one(f"SELECT * FROM runs WHERE agent_id = ? AND {_IS_LONG_HOOK}", agent_id, now - LONG_HOOK_SECONDS)
    if run is None:
        return ""
    return f"on_{run['entry']} has been running for {duration_text(now - run['started_at'])} on {own.name}"


_IS_LONG_HOOK = "entry NOT IN ('run', 'attempt', 'message') AND started_at < ?"


def long_hooks(tx: Tx, own: HostRef, now: float) -> tuple[str, ...]:
    """Return at most MOST_LONG_HOOKS texts about long-running hooks on this host. Each names its paglet."""
    since = now - LONG_HOOK_SECONDS
    rows = tx.all(
        f"SELECT agent_id FROM runs WHERE {_IS_LONG_HOOK} ORDER BY started_at LIMIT ?", since, MOST_LONG_HOOKS
    )
    return tuple(f"{row['agent_id']}: {_long_hook(tx, row['agent_id'], own, now)}" for row in rows)


def _reason(intent: str | None, hook_error: str | None, problem: str, failed: FailedHook | None, long_hook: str) -> str:
    if failed is not None or long_hook:
        return long_hook if failed is None else failed.text
    if intent is not None:
        tree = loads(intent)
        if "move" in tree:
            return problem or f"it moves to {from_json(HostRef, tree['move']).name} when its code here has ended"
        return f"it {'becomes inactive' if 'rest' in tree else 'ends'} when its code has ended"
    return problem or ("" if hook_error is None else f"its last hook failed: {hook_error}")


# The functions below make the views of jobs.


def job_view(tx: Tx, agent_id: str, own: HostRef, now: float) -> JobView | None:
    row = tx.one("SELECT * FROM requests WHERE agent_id = ?", agent_id)
    return None if row is None else _view_here(tx, row, own, now)


_UNFINISHED = ("RUNNING", "ASSIGNED", "WAITING_FOR_SLOT", "PLACING")
"""The statuses of unfinished jobs, in the order in which the jobs are shown."""

_OLDEST = "SELECT * FROM requests WHERE status = ? ORDER BY queued_at, agent_id LIMIT ?"

_FINISHED = (
    "FROM requests WHERE status IN ('COMPLETED', 'FAILED_FINAL', 'CANCELLED') AND agent_id IN"
    " (SELECT agent_id FROM paglets WHERE intent IS NOT NULL UNION SELECT agent_id FROM failed_hooks"
    " UNION SELECT report_of FROM outbox WHERE report_of IS NOT NULL AND problem != '')"
)
"""The finished jobs that are shown: they wait for a move or the delivery of their report, or a hook failed."""


def shown_count(tx: Tx) -> int:
    """Return the number of jobs that `job_views` and `leaving_views` would return together without a limit."""
    return queue.count(tx, *_UNFINISHED) + int(tx.value(f"SELECT count(*) {_FINISHED}")) + handoffs.job_count(tx)


def job_views(tx: Tx, own: HostRef, now: float, most: int) -> tuple[JobView, ...]:
    """Return the views of unfinished jobs, sorted by status with the running ones first, and by age.

    The jobs of `_FINISHED` follow. At most `most` rows are read.
    """
    rows: list[sqlite3.Row] = []
    for status in _UNFINISHED:
        rows += tx.all(_OLDEST, status, most - len(rows))
    rows += tx.all(f"SELECT * {_FINISHED} ORDER BY queued_at, agent_id LIMIT ?", most - len(rows))
    return tuple(_view_here(tx, row, own, now) for row in rows)


def leaving_views(tx: Tx, now: float, most: int) -> tuple[JobView, ...]:
    """Return the views of jobs that are moving to another host."""
    return tuple(_leaving_view(job, now) for job in handoffs.jobs(tx, most=most))


def _view_here(tx: Tx, row: sqlite3.Row, own: HostRef, now: float) -> JobView:
    """Return the view of a job on this host. `row` is its row of `requests`."""
    agent_id = row["agent_id"]
    reason, text = queue.reason_of(row)
    if not reason and row["status"] in states.FINAL:
        text = tx.value("SELECT problem FROM paglets WHERE agent_id = ? AND intent IS NOT NULL", agent_id) or ""
        reason = MOVING if text else ""
    waits = queue.report_problem(tx, agent_id)
    reason, text = ("report_waits", waits) if waits else (reason, text)
    failed = jobfiles.failed_hook(tx, agent_id, own)
    reason, text = (reason, text) if failed is None else ("hook_failed", failed.text)
    run = tx.one("SELECT * FROM runs WHERE agent_id = ?", agent_id)
    running = now - run["started_at"] if run is not None and row["status"] == "RUNNING" else 0.0
    return JobView(
        agent_id=agent_id,
        group_id=row["group_id"],
        job_key=row["job_key"],
        generation=row["generation"],
        attempt=row["attempt"],
        status=row["status"],
        residence="here",
        reason=reason,
        reason_text=text,
        never=bool(row["never"]),
        waited_seconds=max(0.0, now - row["queued_at"]),
        running_seconds=max(0.0, running),
        request=loads(row["request"]),
        lease=_lease(tx, agent_id),
        pid=None if run is None else run["pid"],
        usage=None if run is None or run["usage"] is None else from_json(Usage, loads(run["usage"])),
    )


def _lease(tx: Tx, agent_id: str) -> Lease | None:
    row = tx.one("SELECT * FROM leases WHERE agent_id = ?", agent_id)
    if row is None:
        return None
    units = tx.all("SELECT kind, unit FROM lease_units WHERE agent_id = ? ORDER BY kind, unit", agent_id)
    return Lease(
        agent_id=agent_id,
        attempt=row["attempt"],
        generation=row["generation"],
        cpu_cores=tuple(unit["unit"] for unit in units if unit["kind"] == "core"),
        gpu_ids=tuple(unit["unit"] for unit in units if unit["kind"] == "gpu"),
        memory_bytes=row["memory_bytes"],
        temp_storage_bytes=row["temp_storage_bytes"],
        granted_at=row["granted_at"],
    )


def _leaving_view(job: LeavingJob, now: float) -> JobView:
    copy = job.copy
    return JobView(
        agent_id=copy.agent_id,
        group_id=copy.group_id or None,
        job_key=copy.job_key,
        generation=copy.generation,
        attempt=copy.attempt,
        status=copy.status,
        residence=copy.residence,
        reason=copy.reason,
        reason_text=copy.reason_text,
        never=copy.never,
        waited_seconds=job.waited_seconds + max(0.0, now - job.began_at),
        running_seconds=0.0,
        request=job.request,
        target=copy.target,
    )


def copy_here(row: sqlite3.Row) -> JobCopy:
    """Return the copy of a job that is reported to its collector. `row` is from `requests`, with the epoch added."""
    reason, text = queue.reason_of(row)
    return JobCopy(
        agent_id=row["agent_id"],
        group_id=row["group_id"] or "",
        job_key=row["job_key"],
        generation=row["generation"],
        attempt=row["attempt"],
        epoch=row["epoch"],
        status=row["status"],
        residence="here",
        reason=reason,
        reason_text=text,
        never=bool(row["never"]),
    )
