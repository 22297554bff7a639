"""A host that is gone for good, as a person says: nothing waits for it any more.

What is under way there may have arrived, and may have been passed on before that host died: so each such paglet is
looked for in the mesh first. One that is elsewhere is gone from here; any other is taken back, once every host that is
online has said that it has none. Of those that are offline see `fencing`.
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
"""Paglets of one transaction, and of one question."""

MOST_GROUPS = 100
"""Named in an answer: those with most files."""

AGAIN_SECONDS = 5.0
ANSWER_SECONDS = 20.0
"""Who asked is answered by then; what is not back yet comes later."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Wish:
    """A host that is to be forgotten; `known`: as a member. Only the runner touches it.

    `files_kept`: by group, the files of finished jobs that were to go there and became artifacts here.
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
    """Part `removal`."""

    name = "removal"

    def __init__(self, services: HostServices, gossip: Gossiper, paglet_locator: PagletLocator) -> None:
        self._services = services
        self._gossip = gossip
        self._locator = paglet_locator
        self._new: deque[_Wish] = deque()
        self._wishes: list[_Wish] = []
        self._asking: set[str] = set()
        self._again: dict[str, float] = {}

    def forget(self, store_id: str) -> PendingResponse:
        """Drop the host with that store from this host's mesh, and take back what was to go there: see `Forgotten`.

        Any thread; a repeat finds nothing more to do. Raises Conflict while that host is online, Invalid.
        """
        name, known = _may_be_forgotten(self._services, self._gossip, store_id)
        deadline = self._services.clock.monotonic() + ANSWER_SECONDS
        wish = _Wish(store_id=store_id, name=name, known=known, deadline=deadline, pending=PendingResponse())
        self._new.append(wish)
        self._services.runner.wake(self.name)
        return wish.pending

    def tick(self, now: float) -> float | None:
        for _ in range(len(self._new)):
            self._begin(self._new.popleft())
        self._again = {store_id: at for store_id, at in self._again.items() if at > now}
        targets = {target.store_id for target in self._services.store.read(handoffs.targets)}
        for store_id in sorted(targets - self._asking - self._again.keys()):
            if self._gossip.is_forgotten(store_id):
                self._ask(store_id)
        done = [wish for wish in self._wishes if wish.store_id not in targets or now >= wish.deadline]
        self._wishes = [wish for wish in self._wishes if wish not in done]
        for wish in done:
            self._done(wish)
        return min([*self._again.values(), *(wish.deadline for wish in self._wishes)], default=None)

    # Who asked.

    def _begin(self, wish: _Wish) -> None:
        try:
            self._gossip.forget(wish.store_id)
            wish.moves_dropped = self._drop_moves(wish)
        except PagletsError as error:
            wish.pending.complete(reply_error(error))
        else:
            self._wishes.append(wish)

    def _drop_moves(self, wish: _Wish) -> int:
        """Moves to that host that have not begun are not wished any more; gives how many."""
        total = 0
        while True:
            count, files = self._services.store.write(lambda tx: _drop_moves(tx, wish, self._services.clock.wall()))
            total += count
            wish.files_kept += files
            if count < PAGE:
                return total

    def _done(self, wish: _Wish) -> None:
        text = (
            f"{wish.name} was forgotten; taken back: {wish.taken_back}, moves dropped: {wish.moves_dropped}, "
            f"files kept: {wish.files_kept.total()}"
        )
        self._services.log(text)
        self._services.runner.change(
            lambda tx: _note(tx, wish.store_id, text, self._services.clock.wall()), partial(self._noted, wish)
        )

    def _noted(self, wish: _Wish, result: BaseException | None) -> None:
        if isinstance(result, BaseException):
            text = f"what is left of {wish.name} is not forgotten: it could not be stored; forget it once more"
            wish.pending.complete(reply_error(result if isinstance(result, PagletsError) else InternalError(text)))
            raise result
        answer = Forgotten(
            host=self._services.own,
            known=wish.known,
            taken_back=wish.taken_back,
            moves_dropped=wish.moves_dropped,
            files_kept=dict(wish.files_kept.most_common(MOST_GROUPS)),
        )
        wish.pending.complete(reply(answer))

    # What is under way there.

    def _ask(self, store_id: str) -> None:
        page = self._services.store.read(lambda tx: rollbacks.to_target(tx, store_id, PAGE))
        self._asking.add(store_id)
        self._locator.locate([each.agent_id for each in page], partial(self._located, store_id, page))

    def _located(self, store_id: str, page: list[UnfinishedHandoff], located: Located) -> None:
        rows = {row.agent_id: row for row in located.rows}
        silent = [host.name for host in self._gossip.online() if host.store_id not in located.answered]
        if silent:
            self._again[store_id] = self._services.clock.monotonic() + AGAIN_SECONDS

        def settle(tx: Tx) -> tuple[int, Counter[str]]:
            files: Counter[str] = Counter()
            came = sum(self._settle(tx, each, rows.get(each.agent_id), silent, files) for each in page)
            return came, files

        self._services.runner.change(settle, partial(self._settled, store_id))

    def _settle(
        self, tx: Tx, each: UnfinishedHandoff, found: ResidenceRow | None, silent: list[str], files: Counter[str]
    ) -> bool:
        """Return True if it is here again. Count the files that a finished job leaves here in `files`, by group."""
        now = self._services.clock.wall()
        if found is not None and found.epoch > each.epoch and self._is_elsewhere(found):
            if rollbacks.passed_on(tx, each, found, now):
                where = "elsewhere" if found.peer is None else f"on {found.peer.name}"
                text = f"{each.target.name}, which was forgotten, had taken it and passed it on: it is {where}"
                record_event(tx, now, "passed_on", each.agent_id, text)
            tx.wake("groups", "reconciliation", "cleanup")
            return False
        if silent:
            names = ", ".join(silent)
            text = f"{each.target.name} was forgotten; it comes back when {names} has said that it is not there"
            handoffs.set_problem(tx, each.key, text)
            return False
        job = jobfiles.finished_job(tx, each.agent_id)
        if job is not None:
            files[job.group_id] += abandon_to_removed(tx, each.key, now)
            return False
        return roll_back_from_removed(tx, each.key, epoch_of_next_era(each.epoch, self._services.entropy), now)

    def _is_elsewhere(self, found: ResidenceRow) -> bool:
        """Of a row beyond the hand-off: whether it lives on a host that is not forgotten, or has ended."""
        if found.status not in ("gone", "refused"):
            return True
        # It is where it was sent, or on the host that sent it.
        peer = self._services.own.store_id if found.peer is None else found.peer.store_id
        return peer != self._services.own.store_id and not self._gossip.is_forgotten(peer)

    def _settled(self, store_id: str, result: tuple[int, Counter[str]] | BaseException) -> None:
        self._asking.discard(store_id)
        self._services.runner.wake(self.name)
        if isinstance(result, BaseException):
            self._again[store_id] = self._services.clock.monotonic() + AGAIN_SECONDS
            raise result
        came, files = result
        for wish in self._wishes:
            if wish.store_id == store_id:
                wish.taken_back += came
                wish.files_kept += files


def _may_be_forgotten(services: HostServices, gossip: Gossiper, store_id: str) -> tuple[str, bool]:
    """Its name, or its store's id where it is no member, and whether it is one."""
    if not STORE_ID.fullmatch(store_id):
        raise Invalid(f"store_id {store_id[:80]!r} is not well formed")
    if store_id == services.own.store_id:
        raise Conflict(f"{services.own.name} is the host that was asked: a host does not forget itself")
    for view in gossip.hosts():
        if view.host.store_id == store_id:
            if view.online:
                raise Conflict(f"{view.host.name} is online, as {services.own.name} sees it; stop it first")
            return view.host.name, True
    return store_id, False


def _drop_moves(tx: Tx, wish: _Wish, now: float) -> tuple[int, Counter[str]]:
    found = rollbacks.moves_to(tx, wish.store_id, PAGE)
    files: Counter[str] = Counter()
    for agent_id in found:
        job = jobfiles.finished_job(tx, agent_id)
        count = cancel_move(tx, agent_id, dropped_text(wish.name), now)
        if job is not None:
            files[job.group_id] += count
    return len(found), +files


def _note(tx: Tx, store_id: str, text: str, now: float) -> None:
    rollbacks.stop_acknowledging(tx, store_id)
    record_event(tx, now, "host_forgotten", store_id, text)
