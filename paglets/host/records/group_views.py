"""The groups that this host knows.

Such a group was submitted on this host, has its collector on this host, or has undelivered reports on this host.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from typing import Any

from paglets.api.groups import CreationError, GroupLine, GroupView, Obstacle
from paglets.codec.strict_json import loads
from paglets.core.record import from_json
from paglets.core.refs import HostRef, ProxyRef
from paglets.groups.keys import collector_id
from paglets.host.records.in_host import HostView
from paglets.slots.model import Candidate
from paglets.store import handoffs, paglets, residence, undelivered
from paglets.store.db import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The latest job counts that the home of a group knows, stored in the column `seen` of the table `groups`.

    `counted_at` is the time of the counts in epoch seconds.
    """

    status: str = ""
    expected_count: int
    completed_count: int
    failed_count: int
    counted_at: float


DETACHED_STATUSES = ("WAITING_FOR_HOME", "RETURNING_HOME", "COMPLETE")


GROUP = "SELECT * FROM groups JOIN group_jobs USING (group_id) WHERE group_id = ?"
"""The SQL query for the row of a group with the keys of its jobs."""


def view(tx: Tx, group_id: str, host: HostView) -> GroupView | None:
    """Return the view of a group, or None if this host is neither its home nor the host of its collector."""
    row = tx.one(GROUP, group_id)
    if row is not None:
        return group_view(tx, row, host.own)
    found = _collectors(tx, collector_id(group_id))
    return _collected(group_id, found[0], host) if found else None


def group_view(tx: Tx, row: sqlite3.Row, own: HostRef) -> GroupView:
    """Return the view of a group from its database row, which only its home host has."""
    return GroupView(
        group_id=row["group_id"],
        class_name=row["class_name"],
        created_at=row["created_at"],
        home=own,
        collector=collector_ref(tx, row, own),
        job_keys=tuple(loads(row["job_keys"])),
        creation_errors=tuple(from_json(CreationError, tree) for tree in loads(row["creation_errors"])),
        obstacles=tuple(from_json(Obstacle, tree) for tree in loads(row["obstacles"])),
        detached=bool(row["detached"]),
        detached_reason=row["detached_reason"],
        **_counts_here(tx, row["collector_id"]),
    )


ONLY_HOST = "this is the only host: the jobs run here"
ONLY_HOST_COMPLETE = "this is the only host: the results are here"


def on_only_host(view: GroupView, own: Candidate) -> GroupView:
    """Return the view of a group. If the mesh has only this host, add that as the reason why it is not detached.

    The view is unchanged if the mesh has other hosts, or if the group is detached, submitted or collected elsewhere.
    """
    here = own.host.store_id
    if not own.is_only or view.detached or {view.home.store_id, view.collector.host.store_id} != {here}:
        return view
    reason = ONLY_HOST_COMPLETE if view.status == "COMPLETE" else ONLY_HOST
    return replace(view, only_host=True, detached_reason=reason)


def _counts_here(tx: Tx, collector: str) -> dict[str, Any]:
    """Return the status and the job counts of a collector on this host, or an empty dict if it is elsewhere."""
    state = paglets.state(tx, collector)
    return {} if state is None else _counts(state)


def _counts(state: dict[str, Any]) -> dict[str, Any]:
    counts = {name: state.get(name) for name in ("expected_count", "completed_count", "failed_count")}
    return {"status": str(state.get("status", "")), **counts}


def collector_ref(tx: Tx, row: sqlite3.Row, own: HostRef) -> ProxyRef:
    """Return a reference to the collector of a group, with the last known host of the collector."""
    here = residence.find(tx, row["collector_id"])
    if here is None:
        return from_json(ProxyRef, loads(row["collector"]))
    host = here.peer if here.status in ("gone", "leaving") and here.peer is not None else own
    return ProxyRef(agent_id=row["collector_id"], host=host)


def _collectors(tx: Tx, agent_id: str | None = None) -> list[dict[str, Any]]:
    """Return the rows of the collectors that are on this host or leaving it.

    Until the target accepts a leaving collector, only this host knows the collector.
    """
    only, ids = ("", ()) if agent_id is None else (" AND agent_id = ?", (agent_id,))
    here = tx.all(
        "SELECT agent_id, class_name, home, state, created_at FROM paglets JOIN paglet_states USING (agent_id)"
        f" WHERE kind = 'collector'{only} ORDER BY agent_id",
        *ids,
    )
    found = [{**dict(row), "home": loads(row["home"]), "state": loads(row["state"])} for row in here]
    return [*found, *handoffs.collectors(tx, agent_id)]


def _collected(group_id: str, row: dict[str, Any], host: HostView) -> GroupView:
    """Return the view of a group from its collector on this host. Its home, which knows more, may be offline."""
    home, state = from_json(HostRef, row["home"]), row["state"]
    over = state.get("status") in DETACHED_STATUSES
    return GroupView(
        group_id=group_id,
        class_name=str(state.get("job_class", "")),
        created_at=float(state.get("created_at", row["created_at"])),
        home=home,
        collector=ProxyRef(agent_id=row["agent_id"], host=host.own),
        detached=over,
        detached_reason="" if over else f"only {home.name}, where the group was submitted, knows if it is detached",
        **_counts(state),
    )


def lines(tx: Tx, own: HostRef) -> tuple[GroupLine, ...]:
    """Return one line for each group that this host knows, newest first."""
    found: dict[str, GroupLine] = {}
    for collector in _collectors(tx):
        line = _collector_line(collector, own)
        if line is not None:
            found[line.group_id] = line
    for row in tx.all("SELECT * FROM groups ORDER BY group_id"):
        if row["group_id"] not in found:
            found[row["group_id"]] = _home_line(tx, row, own)
    for group_id, count in undelivered.counts_by_group(tx).items():
        line = found.get(group_id) or _report_line(tx, group_id)
        if line is not None:
            found[group_id] = replace(line, waiting_reports=count)
    return tuple(sorted(found.values(), key=lambda line: (-line.created_at, line.group_id)))


UNKNOWN = "UNKNOWN"


def _report_line(tx: Tx, group_id: str) -> GroupLine | None:
    """Return the line of a group that this host knows only from copies of its jobs; None if there is no copy."""
    row = tx.one(
        "SELECT p.home, p.created_at, r.collector FROM requests r JOIN paglets p USING (agent_id)"
        " WHERE r.group_id = ? AND r.collector IS NOT NULL ORDER BY agent_id LIMIT 1",
        group_id,
    )
    if row is None:
        return None
    return GroupLine(
        group_id=group_id,
        status=UNKNOWN,
        created_at=row["created_at"],
        home=from_json(HostRef, loads(row["home"])),
        collector=from_json(ProxyRef, loads(row["collector"])),
    )


def _collector_line(row: dict[str, Any], own: HostRef) -> GroupLine | None:
    state: dict[str, Any] = row["state"]
    if not isinstance(state.get("group_id"), str) or not state["group_id"]:
        return None
    return GroupLine(
        group_id=state["group_id"],
        status=str(state.get("status", "ACTIVE")),
        created_at=float(state.get("created_at", row["created_at"])),
        home=from_json(HostRef, row["home"]),
        collector=ProxyRef(agent_id=row["agent_id"], host=own),
        expected_count=state.get("expected_count"),
        completed_count=state.get("completed_count"),
        failed_count=state.get("failed_count"),
        here=True,
    )


def _home_line(tx: Tx, row: sqlite3.Row, own: HostRef) -> GroupLine:
    """Return the line of a group from its row on its home host, with the latest known counts and their time."""
    seen: dict[str, Any] = {} if row["seen"] is None else loads(row["seen"])
    known = {"expected_count": row["job_count"], **seen}
    heard = known.pop("status", "")
    return GroupLine(
        group_id=row["group_id"],
        status=heard if heard in DETACHED_STATUSES else "DETACHED" if row["detached"] else "SUBMITTED",
        created_at=row["created_at"],
        home=own,
        collector=collector_ref(tx, row, own),
        **known,
    )
