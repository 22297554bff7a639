"""Roll back hand-offs that were recalled or make no progress, if their targets have not accepted them.

An envelope of which no byte was sent is rolled back at once. For any other, the target is asked if it has accepted the
envelope; if not, it never will. If the target cannot be asked, it may have the paglet. Then an unwanted copy of a job
ends on this host; any other paglet waits until the target answers or is removed (`paglets mesh forget`).
"""

from __future__ import annotations

from functools import partial

from paglets.api.transfers import TransferAnswer
from paglets.core.errors import PagletsError
from paglets.host.handoff.in_doubt import InDoubtResolver
from paglets.host.handoff.in_flight import InFlightTransfers
from paglets.host.handoff.placer import PlacementDenyList
from paglets.host.records.rollback import give_up, roll_back
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.store import residence, rollbacks
from paglets.store.db import Tx
from paglets.store.events import record_event
from paglets.store.rollbacks import DISPOSE, UNWANTED, Fence, UnfinishedHandoff

MOST_AT_ONCE = 50
FAILURES_TO_GIVE_UP = 3
"""Number of unanswered requests to an online target after which an unwanted copy of a job ends on this host."""


class TransferRollback:
    """The runner part `rollback`, which rolls back hand-offs that were recalled or are stuck."""

    name = "rollback"

    def __init__(
        self, services: HostServices, gossip: Gossiper, in_flight: InFlightTransfers, deny_list: PlacementDenyList
    ) -> None:
        self._services = services
        self._gossip = gossip
        self._in_flight = in_flight
        self._deny_list = deny_list
        self._resolver = InDoubtResolver(services, gossip, self.name)

    def tick(self, now: float) -> float | None:
        self._deny_list.forget(now)
        waiting = self._resolver.waiting(now)
        wished = self._services.store.read(lambda tx: rollbacks.requested(tx, MOST_AT_ONCE, sorted(waiting)))
        stuck = [key for key in self._in_flight.stuck_for_long(now) if key[0] not in waiting][:MOST_AT_ONCE]
        slow = self._services.store.read(lambda tx: rollbacks.by_keys(tx, stuck))
        for key in stuck:
            # Clear the mark now. The hand-off has ended or is handled below; if it continues, its next failure marks it
            # as stuck again.
            self._in_flight.not_stuck(key)
        self._end({each.agent_id: each for each in (*slow, *wished)})
        due = [*self._resolver.due(), self._in_flight.next_stuck(now)]
        return min((at for at in due if at is not None), default=None)

    def _end(self, found: dict[str, UnfinishedHandoff]) -> None:
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
                self._settle(each)
            else:
                self._resolver.later(each.agent_id)
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

    def _settle(self, each: UnfinishedHandoff) -> None:
        asked = Fence(agent_id=each.agent_id, epoch=each.epoch + 1, target=each.target)
        self._resolver.ask(asked, partial(self._resolved, each))

    def _resolved(self, each: UnfinishedHandoff, result: TransferAnswer | PagletsError) -> None:
        if isinstance(result, PagletsError):
            self._in_flight.not_settled(each.key)
            self._resolver.later(each.agent_id)
            return
        self._in_flight.settled(each.key)
        change = self._come_back if result.verdict == "refused" else self._acknowledged
        self._resolver.change(each.agent_id, lambda tx: change(tx, each))

    def _acknowledged(self, tx: Tx, each: UnfinishedHandoff) -> None:
        residence.acknowledged(tx, each.agent_id, each.epoch + 1, self._services.clock.wall())
        tx.wake("groups", "reconciliation", "cleanup")

    def _come_back(self, tx: Tx, each: UnfinishedHandoff) -> None:
        """Roll back one hand-off. A requested move is retried after the waiting messages have been handled."""
        now = self._services.clock.wall()
        reason = each.problem or "it was recalled"
        target = roll_back(tx, each.key, reason, now, asked_again=each.recall != DISPOSE)
        if target is not None:
            self._deny_list.avoid(each.agent_id, target.store_id, self._services.clock.monotonic())
            record_event(tx, now, "taken_back", each.agent_id, f"from the hand-off to {target.name}: {reason}")
