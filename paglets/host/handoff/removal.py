"""Remove a host for good, at the request of a user, so that no hand-off waits for that host.

A paglet in transit to that host may have arrived there, and may have been passed on. So each such paglet is first
located in the mesh. If another host has it, the hand-off ends. Otherwise, once all online hosts have answered that they
lack the paglet, the hand-off is rolled back. A job of a group is not rolled back: it ends, and its collector may
resubmit it. Module `eviction` checks hosts that were offline during the removal.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from functools import partial

from paglets.api.hosts import Forgotten
from paglets.api.paglets import Located, ResidenceRow
from paglets.core.errors import Conflict, InternalError, Invalid, PagletsError
from paglets.host.network.locator import PagletLocator
from paglets.host.records.rollback import (
    abandon_to_removed,
    cancel_move,
    dropped_text,
    epoch_of_next_era,
    roll_back_from_removed,
)
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.mesh.table import STORE_ID
from paglets.store import handoffs, jobfiles, rollbacks
from paglets.store.db import Tx
from paglets.store.events import record_event
from paglets.store.rollbacks import UnfinishedHandoff
from paglets.wire.request import PendingResponse, reply, reply_error

PAGE = 100
"""The maximum number of paglets in one transaction and in one locate request."""

MOST_GROUPS = 100
"""The maximum number of groups named in a reply. The groups with the most files are named."""

AGAIN_SECONDS = 5.0
ANSWER_SECONDS = 20.0
"""The maximum number of seconds until the caller gets its reply. Paglets that remain are rolled back later."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Removal:
    """A request to remove a host. Used only on the runner.

    `known` is True if the host was a member of the mesh. `files_kept` counts by group the files of finished jobs on
    their way to the host, which became artifacts of this host.
    """

    store_id: str
    name: str
    known: bool
    deadline: float
    pending: PendingResponse
    taken_back: int = 0
    moves_dropped: int = 0
    files_kept: Counter[str] = field(default_factory=Counter)


class HostRemoval:
    """The runner part `removal`, which removes hosts from the mesh."""

    name = "removal"

    def __init__(self, services: HostServices, gossip: Gossiper, paglet_locator: PagletLocator) -> None:
        self._services = services
        self._gossip = gossip
        self._locator = paglet_locator
        self._new: deque[_Removal] = deque()
        self._removals: list[_Removal] = []
        self._asking: set[str] = set()
        self._again: dict[str, float] = {}

    def forget(self, store_id: str) -> PendingResponse:
        """Remove the host with that store id from the mesh, and roll back hand-offs to it.

        May be called from any thread, and again if a call fails. The reply is a `Forgotten`.
        Raises Invalid, or Conflict while that host is online.
        """
        name, known = _may_be_forgotten(self._services, self._gossip, store_id)
        deadline = self._services.clock.monotonic() + ANSWER_SECONDS
        removal = _Removal(store_id=store_id, name=name, known=known, deadline=deadline, pending=PendingResponse())
        self._new.append(removal)
        self._services.runner.wake(self.name)
        return removal.pending

    def tick(self, now: float) -> float | None:
        for _ in range(len(self._new)):
            self._begin(self._new.popleft())
        self._again = {store_id: at for store_id, at in self._again.items() if at > now}
        targets = {target.store_id for target in self._services.store.read(handoffs.targets)}
        for store_id in sorted(targets - self._asking - self._again.keys()):
            if self._gossip.is_forgotten(store_id):
                self._ask(store_id)
        done = [removal for removal in self._removals if removal.store_id not in targets or now >= removal.deadline]
        self._removals = [removal for removal in self._removals if removal not in done]
        for removal in done:
            self._done(removal)
        return min([*self._again.values(), *(removal.deadline for removal in self._removals)], default=None)

    # Methods that process a request to remove a host.

    def _begin(self, removal: _Removal) -> None:
        try:
            self._gossip.forget(removal.store_id)
            removal.moves_dropped = self._drop_moves(removal)
        except PagletsError as error:
            removal.pending.complete(reply_error(error))
        else:
            self._removals.append(removal)

    def _drop_moves(self, removal: _Removal) -> int:
        """Cancel moves to the removed host that have not started."""
        total = 0
        while True:
            count, files = self._services.store.write(lambda tx: _drop_moves(tx, removal, self._services.clock.wall()))
            total += count
            removal.files_kept += files
            if count < PAGE:
                return total

    def _done(self, removal: _Removal) -> None:
        text = (
            f"{removal.name} was forgotten; taken back: {removal.taken_back}, moves dropped: {removal.moves_dropped}, "
            f"files kept: {removal.files_kept.total()}"
        )
        self._services.logger(self.name).info(text)
        self._services.runner.change(
            lambda tx: _note(tx, removal.store_id, text, self._services.clock.wall()), partial(self._noted, removal)
        )

    def _noted(self, removal: _Removal, result: BaseException | None) -> None:
        if isinstance(result, BaseException):
            text = f"{removal.name} was not forgotten completely: the change could not be stored"
            error = result if isinstance(result, PagletsError) else InternalError(text, hint=["repeat the command"])
            removal.pending.complete(reply_error(error))
            raise result
        answer = Forgotten(
            host=self._services.own,
            known=removal.known,
            taken_back=removal.taken_back,
            moves_dropped=removal.moves_dropped,
            files_kept=dict(removal.files_kept.most_common(MOST_GROUPS)),
        )
        removal.pending.complete(reply(answer))

    # Methods that roll back hand-offs.

    def _ask(self, store_id: str) -> None:
        page = self._services.store.read(lambda tx: rollbacks.to_target(tx, store_id, PAGE))
        self._asking.add(store_id)
        self._locator.locate([each.agent_id for each in page], partial(self._located, store_id, page))

    def _located(self, store_id: str, page: list[UnfinishedHandoff], located: Located) -> None:
        rows = {row.agent_id: row for row in located.rows}
        unanswered = [host.name for host in self._gossip.online() if host.store_id not in located.answered]
        if unanswered:
            self._again[store_id] = self._services.clock.monotonic() + AGAIN_SECONDS

        def settle(tx: Tx) -> tuple[int, Counter[str]]:
            files: Counter[str] = Counter()
            came = sum(self._settle(tx, each, rows.get(each.agent_id), unanswered, files) for each in page)
            return came, files

        self._services.runner.change(settle, partial(self._settled, store_id))

    def _settle(
        self, tx: Tx, each: UnfinishedHandoff, found: ResidenceRow | None, unanswered: list[str], files: Counter[str]
    ) -> bool:
        """Settle one hand-off to a removed host, if the answers suffice. Return True if it was rolled back.

        `found` is the row of the paglet elsewhere. Add to `files` the number of files of a finished job that became
        artifacts of this host.
        """
        now = self._services.clock.wall()
        if found is not None and found.epoch > each.epoch and self._is_elsewhere(found):
            if rollbacks.passed_on(tx, each, found, now):
                where = "elsewhere" if found.peer is None else f"on {found.peer.name}"
                text = f"{each.target.name}, which was forgotten, had passed it on: it is {where}"
                record_event(tx, now, "passed_on", each.agent_id, text)
            tx.wake("groups", "reconciliation", "cleanup")
            return False
        if unanswered:
            names = ", ".join(unanswered)
            text = f"{each.target.name} was forgotten; these must first answer that they lack the paglet: {names}"
            handoffs.set_problem(tx, each.key, text)
            return False
        job = jobfiles.finished_job(tx, each.agent_id)
        if job is not None:
            files[job.group_id] += abandon_to_removed(tx, each.key, now)
            return False
        return roll_back_from_removed(tx, each.key, epoch_of_next_era(each.epoch, self._services.entropy), now)

    def _is_elsewhere(self, found: ResidenceRow) -> bool:
        """Return True if the row shows that the paglet ended or is on another host that was not removed."""
        if found.status not in ("gone", "refused"):
            return True
        # `gone`: the host sent the paglet to its peer. `refused`: the peer sent the paglet, and still has it.
        peer = self._services.own.store_id if found.peer is None else found.peer.store_id
        return peer != self._services.own.store_id and not self._gossip.is_forgotten(peer)

    def _settled(self, store_id: str, result: tuple[int, Counter[str]] | BaseException) -> None:
        self._asking.discard(store_id)
        self._services.runner.wake(self.name)
        if isinstance(result, BaseException):
            self._again[store_id] = self._services.clock.monotonic() + AGAIN_SECONDS
            raise result
        came, files = result
        for removal in self._removals:
            if removal.store_id == store_id:
                removal.taken_back += came
                removal.files_kept += files


def _may_be_forgotten(services: HostServices, gossip: Gossiper, store_id: str) -> tuple[str, bool]:
    """Return (name, True) for a known host, (store id, False) for another one. Raises Invalid or Conflict."""
    if not STORE_ID.fullmatch(store_id):
        raise Invalid(f"store_id {store_id[:80]!r} is not well formed")
    if store_id == services.own.store_id:
        raise Conflict(f"{services.own.name} cannot forget itself")
    for view in gossip.hosts():
        if view.host.store_id == store_id:
            if view.online:
                raise Conflict(f"{view.host.name} is online, as {services.own.name} sees it", hint=["stop it first"])
            return view.host.name, True
    return store_id, False


def _drop_moves(tx: Tx, removal: _Removal, now: float) -> tuple[int, Counter[str]]:
    found = rollbacks.moves_to(tx, removal.store_id, PAGE)
    files: Counter[str] = Counter()
    for agent_id in found:
        job = jobfiles.finished_job(tx, agent_id)
        count = cancel_move(tx, agent_id, dropped_text(removal.name), now)
        if job is not None:
            files[job.group_id] += count
    return len(found), +files


def _note(tx: Tx, store_id: str, text: str, now: float) -> None:
    rollbacks.stop_acknowledging(tx, store_id)
    record_event(tx, now, "host_forgotten", store_id, text)
