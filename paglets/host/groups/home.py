"""Track the groups that were submitted to this host: their job counts, and whether each still depends on this host."""

from __future__ import annotations

import sqlite3

from paglets.api.groups import GroupView
from paglets.core.errors import PagletsError
from paglets.core.record import to_json
from paglets.core.refs import HostRef
from paglets.host.records.group_views import Seen, collector_ref
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.store import groups, handoffs, residence, undelivered
from paglets.store.db import Tx
from paglets.wire.request import Request, Response

LOOK_AGAIN_SECONDS = 10.0
"""Seconds between two checks of the groups that still depend on this host. Most dependencies wake this part when they
end; the check finds the others."""


ASK_SECONDS = 10.0
"""Seconds between two requests for the job counts of groups. The last counts are shown while the host of the collector
is offline."""

ASK_GROUPS = 20
FORGET_SECONDS = 3600.0
KEPT_SECONDS = 30 * 86400.0
"""Seconds for which a lost collector that comes back can still learn which of its jobs were cleared."""

ANSWER_SECONDS = 5.0


class HomeGroups:
    """The runner part `groups`, which marks groups as detached and stores their latest job counts."""

    name = "groups"

    def __init__(self, services: HostServices, gossip: Gossiper) -> None:
        self._services = services
        self._gossip = gossip
        self._ask_at = services.clock.monotonic() + ASK_SECONDS
        self._forget_at = self._ask_at
        self._after = ""
        self._has_joined = False

    def join(self, tx: Tx) -> None:
        """Update the groups in the COMMIT that ends a group or its dependency on this host."""
        for group_id, reason in _new_reasons(tx, self._services.own):
            groups.set_detached_reason(tx, group_id, reason)
        for group_id in groups.complete_here(tx):
            groups.delete_specs(tx, group_id)

    def joined(self, value: None) -> None:
        self._has_joined = True

    def tick(self, now: float) -> float | None:
        if not self._has_joined and self._services.store.read(self._has_news):
            self._services.store.write(self.join)
        self._has_joined = False
        if now >= self._forget_at:
            self._forget_at = now + FORGET_SECONDS
            before = self._services.clock.wall() - KEPT_SECONDS
            self._services.store.write(lambda tx: undelivered.forget_late_reports(tx, before))
        if now >= self._ask_at:
            self._ask_at = now + ASK_SECONDS
            after = self._after
            kept = self._services.store.read(lambda tx: _kept_for_others(tx, self._services.own, after))
            self._after = kept[-1][0] if len(kept) == ASK_GROUPS else ""
            online = {mesh_host.store_id for mesh_host in self._gossip.online()}
            for group_id, collector in kept:
                if collector.store_id in online:
                    self._ask(group_id, collector)
        due = [self._forget_at]
        due += [self._ask_at] if self._services.store.read(groups.has_specs) else []
        due += [now + LOOK_AGAIN_SECONDS] if self._services.store.read(groups.not_detached) else []
        return min(due, default=None)

    def _has_news(self, tx: Tx) -> bool:
        return bool(_new_reasons(tx, self._services.own) or groups.complete_here(tx))

    def _ask(self, group_id: str, collector: HostRef) -> None:
        """Request the counts of a group from the host of its collector.

        This host keeps the jobs of the group until the group ends, so that they can be submitted again after a loss.
        """

        def answered(result: Response | PagletsError) -> None:
            if isinstance(result, Response) and result.status < 400:
                view, now = result.parse(GroupView), self._services.clock.wall()
                self._services.runner.change(lambda tx: _update(tx, view, now))

        request = Request(method="GET", target=f"/v1/groups/{group_id}?here=1")
        self._services.transport.send(
            self._gossip.address(collector), request, answered, timeout_seconds=ANSWER_SECONDS
        )


def _kept_for_others(tx: Tx, own: HostRef, after: str) -> list[tuple[str, HostRef]]:
    """Return a page of the groups whose jobs this host keeps, each with the host of its collector."""
    return [(row["group_id"], collector_ref(tx, row, own).host) for row in groups.with_specs(tx, after, ASK_GROUPS)]


def _update(tx: Tx, view: GroupView, now: float) -> None:
    """Store the counts that the collector's host reported. Delete the kept jobs of a detached group that has ended."""
    if view.expected_count is not None and view.completed_count is not None and view.failed_count is not None:
        seen = Seen(
            status=view.status,
            expected_count=view.expected_count,
            completed_count=view.completed_count,
            failed_count=view.failed_count,
            counted_at=now,
        )
        groups.set_last_counts(tx, view.group_id, to_json(seen))
    if view.detached and groups.is_detached(tx, view.group_id):
        groups.delete_specs(tx, view.group_id)


def _new_reasons(tx: Tx, own: HostRef) -> list[tuple[str, str]]:
    """Return the groups whose reason to depend on this host differs from the stored one, each with its reason."""
    found = ((row, _attached_reason(tx, row, own)) for row in groups.not_detached(tx))
    return [(row["group_id"], reason) for row, reason in found if reason != row["detached_reason"]]


def _attached_reason(tx: Tx, row: sqlite3.Row, own: HostRef) -> str:
    """Return the reason why the group still depends on this host, or ""."""
    collector = residence.find(tx, row["collector_id"])
    if collector is not None and collector.status == "leaving" and collector.peer is not None:
        problem = handoffs.problem(tx, row["collector_id"])
        return f"the collector is on its way to {collector.peer.name}" + (f" ({problem})" if problem else "")
    if collector is not None and collector.status == "here":
        return f"the collector lives on this host, {own.name}"
    return groups.dependency(tx, row["group_id"])
