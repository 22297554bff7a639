"""Roll back hand-offs on request or if they are stuck, unless their targets have accepted them.

An envelope of which no byte was sent is rolled back at once. For any other, the target is asked if it has accepted the
envelope; if not, it never will. If the target cannot be asked, it may have the paglet. Then an unwanted copy of a job
ends on this host; any other paglet waits until the target answers or is removed (`paglets mesh forget`).
"""

from __future__ import annotations

from collections.abc import Sequence

from paglets.api.transfers import TransferVerdict
from paglets.core.errors import PagletsError
from paglets.core.refs import HostRef
from paglets.host.blobs.pusher import BlobPusher
from paglets.host.handoff.in_doubt import InDoubtTraffic
from paglets.host.handoff.in_flight import InFlightTransfers
from paglets.host.handoff.placer import PlacementDenyList
from paglets.host.records.rollback import give_up, roll_back
from paglets.host.runtime.delivery import DeliveryLanes
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.store import residence, rollbacks
from paglets.store.db import Tx
from paglets.store.events import record_event
from paglets.store.pages import Page, Place
from paglets.store.rollbacks import DISPOSE, UNWANTED, Fence, UnfinishedHandoff

MOST_AT_ONCE = 50
AGAIN_SECONDS = 5.0
FAILURES_TO_GIVE_UP = 3
"""The number of unanswered questions to an online target after which an unwanted copy of a job ends on this host."""


class TransferRollback(InDoubtTraffic):
    """The runner part `rollback`, which ends hand-offs whose rollback was requested or that are stuck."""

    name = "rollback"

    def __init__(
        self,
        services: HostServices,
        gossip: Gossiper,
        blob_pusher: BlobPusher,
        in_flight: InFlightTransfers,
        deny_list: PlacementDenyList,
    ) -> None:
        super().__init__(services)
        self._gossip = gossip
        self._in_flight = in_flight
        self._deny_list = deny_list
        self._lanes = DeliveryLanes(services, gossip, blob_pusher, self)
        # By paglet: the hand-offs whose targets are being asked, and the ends of the pauses after failed questions.
        self._asking: dict[str, UnfinishedHandoff] = {}
        self._again: dict[str, float] = {}

    def tick(self, now: float) -> float:
        self._deny_list.forget(now)
        self._again = {agent_id: at for agent_id, at in self._again.items() if at > now}
        waiting = {*self._asking, *self._again}
        wished = self._services.store.read(lambda tx: rollbacks.requested(tx, MOST_AT_ONCE, sorted(waiting)))
        stuck = [key for key in self._in_flight.stuck_for_long(now) if key[0] not in waiting][:MOST_AT_ONCE]
        slow = self._services.store.read(lambda tx: rollbacks.by_keys(tx, stuck))
        for key in stuck:
            # Clear the mark now. The hand-off has ended or is handled below; if it continues, its next failure marks it
            # as stuck again.
            self._in_flight.not_stuck(key)
        self._end({each.agent_id: each for each in (*slow, *wished)}, now)
        due: list[float | None] = [self._lanes.tick(now), *self._again.values(), self._in_flight.next_stuck(now)]
        return min(at for at in due if at is not None)

    def _end(self, found: dict[str, UnfinishedHandoff], now: float) -> None:
        online = {mesh_host.store_id for mesh_host in self._gossip.online()}
        never_sent: list[UnfinishedHandoff] = []
        given_up: list[UnfinishedHandoff] = []
        for each in found.values():
            failures = self._in_flight.unsettled(each.key)
            is_there = each.target.store_id in online
            if each.key not in self._in_flight.perhaps_sent:
                never_sent.append(each)
            elif each.recall == UNWANTED and (not is_there or failures >= FAILURES_TO_GIVE_UP):
                given_up.append(each)
            elif is_there:
                self._asking[each.agent_id] = each
            else:
                self._again[each.agent_id] = now + AGAIN_SECONDS
        if never_sent or given_up:
            # Roll back at once, in a separate transaction, because the sender could send one of these envelopes before
            # a later commit of the runner.
            self._services.store.write(lambda tx: self._end_here(tx, never_sent, given_up))
        for each in given_up:
            self._in_flight.settled(each.key)
        if len(found) >= MOST_AT_ONCE:
            self._services.runner.wake(self.name)

    def _end_here(self, tx: Tx, never_sent: list[UnfinishedHandoff], given_up: list[UnfinishedHandoff]) -> None:
        for each in never_sent:
            self._come_back(tx, each)
        for each in given_up:
            give_up(tx, each.key, self._services.clock.wall())

    # Methods that ask targets.

    def hosts(self, tx: Tx) -> list[HostRef]:
        return list({each.target.store_id: each.target for each in self._asking.values()}.values())

    def select(self, tx: Tx, host: HostRef, after: Place, skip: Sequence[str]) -> Page[Fence]:
        found = [each for each in self._asking.values() if each.target.store_id == host.store_id]
        items = [Fence(agent_id=each.agent_id, epoch=each.epoch + 1, target=each.target) for each in found]
        return Page(items=items[:MOST_AT_ONCE])

    def failed(self, host: HostRef, items: Sequence[Fence], error: PagletsError, *, sent: bool) -> None:
        for asked in items:
            self._in_flight.not_settled(self._asking.pop(asked.agent_id).key)
            self._again[asked.agent_id] = self._services.clock.monotonic() + AGAIN_SECONDS

    def resolved(self, tx: Tx, asked: Fence, verdict: TransferVerdict) -> None:
        # If this change is not committed, the next tick finds the hand-off in the store again.
        each = self._asking.pop(asked.agent_id)
        self._in_flight.settled(each.key)
        if verdict == "refused":
            self._come_back(tx, each)
        else:
            residence.acknowledged(tx, each.agent_id, each.epoch + 1, self._services.clock.wall())
            tx.wake("groups", "reconciliation", "cleanup")

    def _come_back(self, tx: Tx, each: UnfinishedHandoff) -> None:
        """Roll back one hand-off. A requested move stays pending. The job avoids the target for a while."""
        now = self._services.clock.wall()
        reason = each.problem or "a rollback was requested"
        target = roll_back(tx, each.key, reason, now, asked_again=each.recall != DISPOSE)
        if target is not None:
            self._deny_list.avoid(each.agent_id, target.store_id, self._services.clock.monotonic())
            record_event(tx, now, "taken_back", each.agent_id, f"from the hand-off to {target.name}: {reason}")
