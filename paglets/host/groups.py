"""Groups at home: when the submitter may leave for good (`detached`), and why not yet."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from paglets.core.refs import HostRef
from paglets.host.shell import Shell
from paglets.store import residence
from paglets.store.db import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """One thing that still needs the submitter's host: a query that counts, and its words."""

    sql: str
    text: str


OBSTACLES = (
    Obstacle(
        sql="SELECT count(*) FROM handoffs WHERE kind = 'job' AND group_id = ?",
        text="{count} jobs are on their way to other hosts",
    ),
    Obstacle(
        sql="SELECT count(*) FROM requests WHERE status = 'PLACING' AND group_id = ?",
        text="{count} jobs have no host yet",
    ),
    Obstacle(
        sql="SELECT count(*) FROM requests WHERE status IN ('WAITING_FOR_SLOT', 'RUNNING') AND group_id = ?",
        text="{count} jobs wait or run on this host",
    ),
    Obstacle(
        sql="SELECT count(*) FROM outbox WHERE group_id = ?",
        text="{count} reports have not reached the collector",
    ),
)


LOOK_AGAIN_SECONDS = 10.0
"""What hinders a group tells this part when it ends; this is for what could not."""


class Groups:
    """Part `groups`."""

    name = "groups"

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def tick(self, now: float) -> float | None:
        if self._shell.store.read(_open_groups):
            self._shell.store.write(lambda tx: _look(tx, self._shell.own))
        if self._shell.store.read(_over):
            self._shell.store.write(_release)
        return now + LOOK_AGAIN_SECONDS if self._shell.store.read(_open_groups) else None


def _open_groups(tx: Tx) -> list[sqlite3.Row]:
    return tx.all("SELECT group_id, collector_id, detached_reason FROM groups WHERE detached = 0 ORDER BY group_id")


def _over(tx: Tx) -> list[str]:
    """Groups that are complete and home, and whose jobs are still kept to be submitted again."""
    rows = tx.all(
        "SELECT group_id FROM groups g JOIN paglets p ON p.agent_id = g.collector_id"
        " WHERE g.spec IS NOT NULL AND json_extract(p.state, '$.status') = 'COMPLETE' ORDER BY group_id"
    )
    return [row["group_id"] for row in rows]


def _release(tx: Tx) -> None:
    for group_id in _over(tx):
        tx.run("UPDATE groups SET spec = NULL WHERE group_id = ?", group_id)


def _look(tx: Tx, own: HostRef) -> None:
    for row in _open_groups(tx):
        reason = _why_attached(tx, row, own)
        if reason != row["detached_reason"]:
            tx.run(
                "UPDATE groups SET detached = ?, detached_reason = ? WHERE group_id = ? AND detached = 0",
                int(not reason),
                reason,
                row["group_id"],
            )


def _why_attached(tx: Tx, row: sqlite3.Row, own: HostRef) -> str:
    """What still needs this host for the group; empty where nothing does."""
    collector = residence.find(tx, row["collector_id"])
    if collector is not None and collector.status == "leaving" and collector.peer is not None:
        problem = tx.value("SELECT problem FROM handoffs WHERE agent_id = ?", row["collector_id"])
        return f"the collector is on its way to {collector.peer.name}" + (f" ({problem})" if problem else "")
    if collector is not None and collector.status == "here":
        return f"the collector lives on this host, {own.name}"
    for obstacle in OBSTACLES:
        count = tx.value(obstacle.sql, row["group_id"])
        if count:
            return obstacle.text.format(count=count)
    return ""
