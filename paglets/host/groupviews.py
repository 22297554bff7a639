"""Groups as this host knows them: submitted here, or with their collector here."""

from __future__ import annotations

import sqlite3
from typing import Any

from paglets.api import GroupLine, GroupView
from paglets.codec.text import loads
from paglets.core.record import from_json
from paglets.core.refs import HostRef, ProxyRef
from paglets.host.creation import collector_id, collector_ref, group_view
from paglets.host.inline import InlineHost
from paglets.store.db import Tx

DETACHED_STATUSES = ("WAITING_FOR_HOME", "RETURNING_HOME", "COMPLETE")


def view(tx: Tx, group_id: str, host: InlineHost) -> GroupView | None:
    """The group, or None where neither its home nor its collector is here."""
    row = tx.one("SELECT * FROM groups WHERE group_id = ?", group_id)
    if row is not None:
        return group_view(tx, row, host.own)
    collector = tx.one("SELECT * FROM paglets WHERE agent_id = ?", collector_id(group_id))
    return None if collector is None else _collected(tx, group_id, collector, host)


def _collected(tx: Tx, group_id: str, row: sqlite3.Row, host: InlineHost) -> GroupView:
    """What the collector's host can say for a home that may be asleep."""
    home = from_json(HostRef, loads(row["home"]))
    state = loads(row["state"])
    over = state.get("status") in DETACHED_STATUSES
    return GroupView(
        group_id=group_id,
        class_name=row["class_name"],
        created_at=float(state.get("created_at", row["created_at"])),
        home=home,
        collector=ProxyRef(agent_id=row["agent_id"], host=host.own),
        detached=over,
        detached_reason="" if over else f"only {home.name}, where the group was submitted, can tell",
    )


def lines(tx: Tx, own: HostRef) -> tuple[GroupLine, ...]:
    """One line for each group, newest first."""
    found: dict[str, GroupLine] = {}
    for row in tx.all("SELECT * FROM paglets WHERE kind = 'collector' ORDER BY agent_id"):
        line = _collector_line(row, own)
        if line is not None:
            found[line.group_id] = line
    for row in tx.all("SELECT * FROM groups ORDER BY group_id"):
        if row["group_id"] not in found:
            found[row["group_id"]] = _home_line(tx, row, own)
    return tuple(sorted(found.values(), key=lambda line: (-line.created_at, line.group_id)))


def _collector_line(row: sqlite3.Row, own: HostRef) -> GroupLine | None:
    state: dict[str, Any] = loads(row["state"])
    if not isinstance(state.get("group_id"), str) or not state["group_id"]:
        return None
    return GroupLine(
        group_id=state["group_id"],
        status=str(state.get("status", "ACTIVE")),
        created_at=float(state.get("created_at", row["created_at"])),
        home=from_json(HostRef, loads(row["home"])),
        collector=ProxyRef(agent_id=row["agent_id"], host=own),
        expected_count=state.get("expected_count"),
        completed_count=state.get("completed_count"),
        failed_count=state.get("failed_count"),
        here=True,
    )


def _home_line(tx: Tx, row: sqlite3.Row, own: HostRef) -> GroupLine:
    return GroupLine(
        group_id=row["group_id"],
        status="DETACHED" if row["detached"] else "SUBMITTED",
        created_at=row["created_at"],
        home=own,
        collector=collector_ref(tx, row, own),
    )
