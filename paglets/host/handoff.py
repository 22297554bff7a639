"""Sends envelopes that are `leaving`, again and again, until their target has answered for each."""

from __future__ import annotations

from paglets.api import (
    MAX_BATCH_ENVELOPES,
    ClosedEpoch,
    CloseTransfers,
    TransferAnswer,
    TransferAnswers,
    Transfers,
)
from paglets.codec.text import dumps
from paglets.core.errors import PagletsError, Unreachable
from paglets.core.record import to_json
from paglets.core.refs import HostRef
from paglets.host.backoff import Lanes
from paglets.host.shell import Shell
from paglets.mesh.gossip import Gossip
from paglets.remote.exchange import Request, Response, dump_json, parsed
from paglets.slots import states
from paglets.store import queue, residence
from paglets.store.db import Tx
from paglets.store.residence import ClosedHandoff, Handoff

BATCH_BYTES = 4 << 20
ANSWER_SECONDS = 30.0
SURE_SECONDS = 1.0
"""A target that was silent for longer is asked for a sign of life first: what was sent once cannot be taken back
without the target, so that a host that lost its power would keep what it never got. Before a move that was asked for
it is always asked: that paglet, a collector on its way home mostly, can as well wait where it is."""

SIGN_OF_LIFE_SECONDS = 3.0
LEFT_OUT = "it answers and could not store it (a full disk, mostly: its host.log says more); it is tried again"
CLOSE_SECONDS = 60.0
MAX_CLOSED = 2_000
GIVE_UP_FAILURES = 3
"""Refused connections in a row before an envelope that no byte of was ever sent is taken back."""


class Handoffs:
    """Part `handoff`."""

    name = "handoff"

    def __init__(self, shell: Shell, gossip: Gossip) -> None:
        self._shell = shell
        self._gossip = gossip
        self._lanes = Lanes(shell.entropy)
        self._refused: dict[str, int] = {}
        self._close_at = shell.clock.monotonic() + CLOSE_SECONDS
        self._perhaps_sent = shell.store.read(_under_way)

    def tick(self, now: float) -> float | None:
        targets = self._shell.store.read(residence.targets)
        for target in targets:
            self._lanes.heard(target.store_id, self._gossip.heard_at(target.store_id))
            if self._lanes.open(target.store_id, now):
                self._send(target)
        due = self._lanes.next_due([target.store_id for target in targets], now)
        return min(each for each in (due, self._close(now)) if each is not None)

    def _close(self, now: float) -> float:
        """Now and then tell targets which hand-offs are over for good, so that they may forget them one day."""
        if now >= self._close_at:
            self._close_at = now + CLOSE_SECONDS
            self._perhaps_sent &= self._shell.store.read(_under_way)
            closed = self._shell.store.read(lambda tx: residence.untold(tx, MAX_CLOSED))
            for store_id in dict.fromkeys(handoff.target.store_id for handoff in closed):
                self._tell([handoff for handoff in closed if handoff.target.store_id == store_id])
        return self._close_at

    def _tell(self, closed: list[ClosedHandoff]) -> None:
        epochs = tuple(ClosedEpoch(agent_id=each.agent_id, epoch=each.epoch) for each in closed)
        body = dump_json(CloseTransfers(source=self._shell.own, closed=epochs))
        request = Request(method="POST", target="/v1/transfers/close", body=body, repeatable=True)

        def answered(result: Response | PagletsError) -> None:
            if isinstance(result, Response) and result.status < 400:
                self._shell.runner.change(lambda tx: residence.told(tx, closed))

        self._shell.transport.send(
            self._gossip.address(closed[0].target), request, answered, timeout_seconds=ANSWER_SECONDS
        )

    def _send(self, target: HostRef) -> None:
        self._lanes.sent(target.store_id)
        batch = self._next_batch(target)
        asked_for = any(handoff.envelope.hook == "arrival" for handoff in batch)
        if self._gossip.silent_seconds(target.store_id) <= SURE_SECONDS and not asked_for:
            self._transfer(target, batch)
            return
        self._shell.transport.send(
            self._gossip.address(target),
            Request(method="GET", target="/v1/host"),
            lambda result: self._heard(target, result),
            timeout_seconds=SIGN_OF_LIFE_SECONDS,
        )

    def _heard(self, target: HostRef, result: Response | PagletsError) -> None:
        if isinstance(result, PagletsError):
            silent = Unreachable(f"{target.name} gives no sign of life: {result.message}")
            self._failed(target, self._next_batch(target), silent)
        else:
            self._transfer(target, self._next_batch(target))

    def _next_batch(self, target: HostRef) -> list[Handoff]:
        return self._shell.store.read(
            lambda tx: residence.next_handoffs(tx, target.store_id, MAX_BATCH_ENVELOPES, BATCH_BYTES)
        )

    def _transfer(self, target: HostRef, batch: list[Handoff]) -> None:
        if not batch:
            self._lanes.succeeded(target.store_id)
            return
        # From here on they count as sent, whatever is answered and whether or not the answer can be stored; only a
        # first try of which certainly nothing was taken lets them go again.
        first_sent = {(handoff.agent_id, handoff.epoch) for handoff in batch} - self._perhaps_sent
        self._perhaps_sent |= first_sent

        def answered(result: Response | PagletsError) -> None:
            if isinstance(result, Unreachable):
                self._perhaps_sent -= first_sent
            self._answered(target, batch, result)

        transfers = Transfers(source=self._shell.own, envelopes=tuple(handoff.envelope for handoff in batch))
        request = Request(method="POST", target="/v1/transfers", body=dump_json(transfers), repeatable=True)
        self._shell.transport.send(
            self._gossip.address(target),
            request,
            answered,
            timeout_seconds=ANSWER_SECONDS,
        )

    def _answered(self, target: HostRef, batch: list[Handoff], result: Response | PagletsError) -> None:
        try:
            answers = parsed(result, TransferAnswers)
        except PagletsError as error:
            self._failed(target, batch, error)
            return
        self._refused.pop(target.store_id, None)
        self._shell.runner.change(
            lambda tx: self._settle(tx, batch, answers.answers),
            lambda outcome: self._settled(target, outcome, len(answers.answers) == len(batch)),
        )

    def _settled(self, target: HostRef, outcome: object, complete: bool) -> None:
        now = self._shell.clock.monotonic()
        if isinstance(outcome, BaseException):
            self._lanes.failed(target.store_id, now)
            self._shell.runner.wake(self.name)
            raise outcome
        if complete:
            self._lanes.succeeded(target.store_id)
        else:
            # What it could not store is sent again, not at once.
            self._lanes.failed(target.store_id, now)
        self._shell.runner.wake(self.name)

    def _settle(self, tx: Tx, batch: list[Handoff], answers: tuple[TransferAnswer, ...]) -> None:
        now = self._shell.clock.wall()
        for left_out in sorted({each.agent_id for each in batch} - {answer.agent_id for answer in answers}):
            tx.run("UPDATE handoffs SET problem = ? WHERE agent_id = ?", LEFT_OUT, left_out)
        for answer in answers:
            if answer.verdict == "refused":
                _come_back(tx, answer, now)
            else:
                residence.acknowledged(tx, answer.agent_id, answer.epoch, now)
        tx.wake("placer", "groups", "census", "janitor")

    def _failed(self, target: HostRef, batch: list[Handoff], error: PagletsError) -> None:
        self._lanes.failed(target.store_id, self._shell.clock.monotonic())
        if isinstance(error, Unreachable):
            self._gossip.saw_unreachable(target.store_id)
            self._refused[target.store_id] = self._refused.get(target.store_id, 0) + 1
        else:
            self._refused.pop(target.store_id, None)
        self._shell.runner.change(lambda tx: self._note_problem(tx, target, batch, error))
        self._shell.runner.wake(self.name)

    def _note_problem(self, tx: Tx, target: HostRef, batch: list[Handoff], error: PagletsError) -> None:
        give_up = self._refused.get(target.store_id, 0) >= GIVE_UP_FAILURES
        for handoff in batch:
            if give_up and (handoff.agent_id, handoff.epoch) not in self._perhaps_sent:
                answer = TransferAnswer(
                    agent_id=handoff.agent_id, epoch=handoff.epoch + 1, verdict="refused", reason=error.message
                )
                _come_back(tx, answer, self._shell.clock.wall())
                _try_later(tx, handoff)
        tx.run("UPDATE handoffs SET problem = ? WHERE target_store = ?", error.message[:500], target.store_id)
        tx.wake("groups")


def _come_back(tx: Tx, answer: TransferAnswer, now: float) -> None:
    """The target will never have this epoch: the paglet is here again, and looks for a host anew."""
    handoff = residence.put_back(tx, answer.agent_id, answer.epoch, now)
    if handoff is None:
        return
    job = handoff.envelope.job
    if job is not None and job.status == "WAITING_FOR_SLOT":
        queue.move(tx, answer.agent_id, "WAITING_FOR_SLOT", states.move("WAITING_FOR_SLOT", "taken_back"))
    if job is not None:
        text = f"{handoff.target.name} did not take it: {answer.reason}"
        queue.say_why(tx, answer.agent_id, "refused", text, False, now)
    tx.wake("placer", "groups", "mailbox")


def _try_later(tx: Tx, handoff: Handoff) -> None:
    """A move that was asked for stays asked for. (A collector's `on_arrival` sees where it is, and asks anew.)"""
    if handoff.envelope.hook == "arrival" and handoff.envelope.kind != "collector":
        intent = dumps({"move": to_json(handoff.target)})
        tx.run("UPDATE paglets SET hook = NULL, intent = ? WHERE agent_id = ?", intent, handoff.agent_id)


def _under_way(tx: Tx) -> set[tuple[str, int]]:
    """Hand-offs that an earlier start of this host began: they may have been sent."""
    rows = tx.all("SELECT agent_id, epoch FROM handoffs ORDER BY agent_id")
    return {(row["agent_id"], row["epoch"]) for row in rows}
