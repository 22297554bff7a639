"""Remove duplicates of paglets that were rolled back from removed hosts.

The removed host may have passed such a paglet on to a host that was offline during the removal. So this host asks
each online host for these paglets at regular intervals. If two copies exist, the one with the lower epoch ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from paglets.api.paglets import Locate, Located, ResidenceRow
from paglets.api.transfers import TransferVerdict
from paglets.core.errors import PagletsError
from paglets.core.refs import HostRef
from paglets.host.blobs.pusher import BlobPusher
from paglets.host.handoff.in_doubt import InDoubtTraffic
from paglets.host.runtime.delivery import DeliveryLanes
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.mesh.locator import MAX_IDS
from paglets.store import residence, rollbacks
from paglets.store.db import Tx
from paglets.store.events import record_event
from paglets.store.pages import Budget, Page, Place
from paglets.store.rollbacks import Fence
from paglets.wire.request import Request, Response, dump_json, parsed

BUDGET = Budget(items=50, size_bytes=4 << 20)
AGAIN_SECONDS = 5.0
ANSWER_SECONDS = 10.0

ROUND_SECONDS = 60.0
"""Seconds after which a host is asked for the same paglets again. A host that comes online is asked at once."""


class DuplicateEvictor(InDoubtTraffic):
    """The runner part `eviction`, which ends the older of two copies of a paglet."""

    name = "eviction"

    def __init__(self, services: HostServices, gossip: Gossiper, blob_pusher: BlobPusher) -> None:
        super().__init__(services)
        self._gossip = gossip
        self._lanes = DeliveryLanes(services, gossip, blob_pusher, self)
        # Maps the store id of a host to the ids of the paglets that it was asked for in this round.
        self._asked: dict[str, set[str]] = {}
        self._round_ends_at = float("-inf")
        # Maps the store id of a host to the monotonic time of the retry after a failed request.
        self._again: dict[str, float] = {}
        # Fences whose targets answered that they accepted this or a newer epoch. They are asked for the paglets again.
        self._found: list[Fence] = []

    def tick(self, now: float) -> float | None:
        while self._found:
            found = self._found.pop()
            self._asked.get(found.target.store_id, set()).discard(found.agent_id)
            self._look(self._gossip.address(found.target), {found.agent_id: found.epoch})
        fenced = self._services.store.read(rollbacks.fenced)
        if not fenced:
            return None
        if now >= self._round_ends_at:
            self._asked.clear()
            self._round_ends_at = now + ROUND_SECONDS
        online = {mesh_host.store_id: mesh_host.ref for mesh_host in self._gossip.online()}
        self._asked = {store_id: ids for store_id, ids in self._asked.items() if store_id in online}
        self._again = {store_id: at for store_id, at in self._again.items() if at > now and store_id in online}
        for store_id, host in online.items():
            if store_id not in self._again:
                self._look(host, fenced)
        return min((self._round_ends_at, *self._again.values(), self._lanes.tick(now)))

    # Methods that find copies.

    def _look(self, host: HostRef, fenced: Mapping[str, int]) -> None:
        seen = self._asked.setdefault(host.store_id, set())
        ids = [agent_id for agent_id in fenced if agent_id not in seen][:MAX_IDS]
        if not ids:
            return
        seen |= set(ids)
        request = Request(
            method="POST", target="/v1/paglets/locate", body=dump_json(Locate(agent_ids=tuple(ids))), repeatable=True
        )
        answered = partial(self._located, host, {agent_id: fenced[agent_id] for agent_id in ids})
        self._services.transport.send(host, request, answered, timeout_seconds=ANSWER_SECONDS)

    def _located(self, host: HostRef, asked: dict[str, int], result: Response | PagletsError) -> None:
        try:
            rows = parsed(result, Located).rows
        except PagletsError:
            self._not_asked(host, asked)
            return
        found = [row for row in rows if row.agent_id in asked and row.status in ("here", "leaving")]
        self._services.runner.wake(self.name)
        if found:
            self._services.runner.change(
                lambda tx: self._judge_all(tx, host, found, asked), partial(self._judged, host, asked)
            )

    def _judged(self, host: HostRef, asked: dict[str, int], result: object) -> None:
        if isinstance(result, BaseException):
            self._not_asked(host, asked)
            raise result

    def _not_asked(self, host: HostRef, asked: Mapping[str, int]) -> None:
        """Mark these paglets as not asked for, so that the host is asked for them again after a pause."""
        self._asked.get(host.store_id, set()).difference_update(asked)
        self._again[host.store_id] = self._services.clock.monotonic() + AGAIN_SECONDS
        self._services.runner.wake(self.name)

    def _judge_all(self, tx: Tx, host: HostRef, found: list[ResidenceRow], asked: dict[str, int]) -> None:
        for theirs in found:
            self._judge(tx, host, theirs, asked[theirs.agent_id])

    def _judge(self, tx: Tx, host: HostRef, theirs: ResidenceRow, epoch: int) -> None:
        """End the older of two copies of a paglet.

        `theirs` is the row of the remote copy, and `epoch` the epoch of the fence.
        """
        agent_id, now = theirs.agent_id, self._services.clock.wall()
        if theirs.epoch < epoch:
            if rollbacks.fence(tx, Fence(agent_id=agent_id, epoch=epoch, target=host)):
                text = f"{host.name} has a copy of epoch {theirs.epoch}: it ends, because epoch {epoch} replaced it"
                record_event(tx, now, "conflict", agent_id, text)
            return
        mine = residence.find(tx, agent_id)
        if mine is not None and mine.status == "here" and mine.epoch < theirs.epoch and theirs.status == "here":
            residence.settle(tx, agent_id, theirs.epoch, host, now)
            text = f"{host.name} has a copy of epoch {theirs.epoch}: the copy of epoch {mine.epoch} on this host ended"
            record_event(tx, now, "conflict", agent_id, text)

    # Methods that end copies.

    def hosts(self, tx: Tx) -> list[HostRef]:
        fenced = set(rollbacks.fenced_stores(tx))
        return [mesh_host.ref for mesh_host in self._gossip.online() if mesh_host.store_id in fenced]

    def select(self, tx: Tx, host: HostRef, after: Place, skip: Sequence[str]) -> Page[Fence]:
        return rollbacks.fences(tx, host.store_id, BUDGET, after)

    def failed(self, host: HostRef, items: Sequence[Fence], error: PagletsError, *, sent: bool) -> None:
        """Do nothing: the fences stay in the store, and are sent again."""

    def resolved(self, tx: Tx, asked: Fence, verdict: TransferVerdict) -> None:
        if verdict != "refused":
            # The host has accepted this epoch or a higher one. Ask it for the paglet again, to decide which copy ends.
            self._found.append(asked)
        rollbacks.unfence(tx, asked)
