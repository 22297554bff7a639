"""HomeGroups at home: when the submitter may leave for good (`detached`), why not yet, and the last counts heard of."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from paglets.api.groups import GroupView
from paglets.codec.strict_json import dumps
from paglets.core.errors import PagletsError
from paglets.core.record import to_json
from paglets.core.refs import HostRef
from paglets.core.text import counted
from paglets.host.records.group_views import Seen, collector_ref
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.store import residence, undelivered
from paglets.store.db import Tx
from paglets.wire.request import Request, Response


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """One thing that still needs the submitter's host: a query that counts, and its words."""

    sql: str
    one: str
    many: str


DEPENDENCIES = (
    Dependency(
        sql="SELECT count(*) FROM handoffs WHERE kind = 'job' AND group_id = ?",
        one="job is on its way to another host",
        many="jobs are on their way to other hosts",
    ),
    Dependency(
        sql="SELECT count(*) FROM requests WHERE status = 'PLACING' AND group_id = ?",
        one="job has no host yet",
        many="jobs have no host yet",
    ),
    Dependency(
        sql="SELECT count(*) FROM requests WHERE status IN ('WAITING_FOR_SLOT', 'RUNNING') AND group_id = ?",
        one="job waits or runs on this host",
        many="jobs wait or run on this host",
    ),
    Dependency(
        sql="SELECT count(*) FROM outbox WHERE group_id = ?",
        one="report has not reached the collector",
        many="reports have not reached the collector",
    ),
)


LOOK_AGAIN_SECONDS = 10.0
"""What hinders a group tells this part when it ends; this is for what could not."""


ASK_SECONDS = 10.0
"""The last counts are shown when the collector's host is away; with many groups each has its turn."""

ASK_GROUPS = 20
FORGET_SECONDS = 3600.0
KEPT_SECONDS = 30 * 86400.0
"""For so long a collector that was lost may come back and be told which of its jobs were cleared."""

ANSWER_SECONDS = 5.0


class HomeGroups:
    """Part `groups`."""

    name = "groups"

    def __init__(self, services: HostServices, gossip: Gossiper) -> None:
        self._services = services
        self._gossip = gossip
        self._ask_at = services.clock.monotonic() + ASK_SECONDS
        self._forget_at = self._ask_at
        self._after = ""

    def tick(self, now: float) -> float | None:
        if self._services.store.read(_open_groups):
            self._services.store.write(lambda tx: _look(tx, self._services.own))
        home = self._services.store.read(_over_at_home)
        if home:
            self._services.store.write(lambda tx: _release(tx, home))
        if now >= self._forget_at:
            self._forget_at = now + FORGET_SECONDS
            before = self._services.clock.wall() - KEPT_SECONDS
            self._services.store.write(lambda tx: undelivered.forget_late_reports(tx, before))
        if now >= self._ask_at:
            self._ask_at = now + ASK_SECONDS
            after = self._after
            kept = self._services.store.read(lambda tx: _kept_for_others(tx, self._services.own, after))
            self._after = kept[-1][0] if len(kept) == ASK_GROUPS else ""
            online = {member.store_id for member in self._gossip.online()}
            for group_id, collector in kept:
                if collector.store_id in online:
                    self._ask(group_id, collector)
        due = [self._forget_at]
        due += [self._ask_at] if self._services.store.read(_any_kept) else []
        due += [now + LOOK_AGAIN_SECONDS] if self._services.store.read(_open_groups) else []
        return min(due, default=None)

    def _ask(self, group_id: str, collector: HostRef) -> None:
        """How far is that group? Its jobs are kept here until it is over, to be submitted again if all else is lost."""

        def answered(result: Response | PagletsError) -> None:
            if isinstance(result, Response) and result.status < 400:
                view, now = result.parse(GroupView), self._services.clock.wall()
                self._services.runner.change(lambda tx: _heard(tx, view, now))

        request = Request(method="GET", target=f"/v1/groups/{group_id}?here=1")
        self._services.transport.send(
            self._gossip.address(collector), request, answered, timeout_seconds=ANSWER_SECONDS
        )


def _open_groups(tx: Tx) -> list[sqlite3.Row]:
    return tx.all("SELECT group_id, collector_id, detached_reason FROM groups WHERE detached = 0 ORDER BY group_id")


def _any_kept(tx: Tx) -> bool:
    return tx.value("SELECT 1 FROM group_specs LIMIT 1") is not None


def _kept_for_others(tx: Tx, own: HostRef, after: str) -> list[tuple[str, HostRef]]:
    """HomeGroups whose jobs are still kept here, a page of them, and the host of their collector."""
    rows = tx.all(
        "SELECT group_id, collector_id, collector FROM group_specs JOIN groups USING (group_id) WHERE group_id > ?"
        " ORDER BY group_id LIMIT ?",
        after,
        ASK_GROUPS,
    )
    return [(row["group_id"], collector_ref(tx, row, own).host) for row in rows]


def _over_at_home(tx: Tx) -> list[str]:
    """HomeGroups that are complete and home, and whose jobs are still kept to be submitted again."""
    rows = tx.all(
        "SELECT group_id FROM group_specs JOIN groups g USING (group_id) JOIN paglet_states p"
        " ON p.agent_id = g.collector_id WHERE json_extract(p.state, '$.status') = 'COMPLETE' ORDER BY group_id"
    )
    return [row["group_id"] for row in rows]


def _heard(tx: Tx, view: GroupView, now: float) -> None:
    """What the collector's host said of a group of ours."""
    if view.expected_count is not None and view.completed_count is not None and view.failed_count is not None:
        seen = Seen(
            status=view.status,
            expected_count=view.expected_count,
            completed_count=view.completed_count,
            failed_count=view.failed_count,
            counted_at=now,
        )
        tx.run("UPDATE groups SET seen = ? WHERE group_id = ?", dumps(to_json(seen)), view.group_id)
    if view.detached and tx.value("SELECT detached FROM groups WHERE group_id = ?", view.group_id):
        _release(tx, [view.group_id])


def _release(tx: Tx, group_ids: list[str]) -> None:
    for group_id in group_ids:
        tx.run("DELETE FROM group_specs WHERE group_id = ?", group_id)
        tx.run("DELETE FROM group_blobs WHERE group_id = ?", group_id)


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
    for each in DEPENDENCIES:
        count = tx.value(each.sql, row["group_id"])
        if count:
            return counted(count, each.one, each.many)
    return ""
