"""Send the envelopes of paglets that are `leaving`, and retry until the target has answered for each envelope."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from paglets.api.limits import LARGE_ENVELOPE_BYTES, MAX_BATCH_ENVELOPES
from paglets.api.transfers import ClosedEpoch, CloseTransfers, LargeEnvelope, TransferAnswer, TransferAnswers, Transfers
from paglets.core.errors import PagletsError, Unreachable
from paglets.core.failpoints import reach
from paglets.core.refs import BlobRef, HostRef
from paglets.host.blobs.blob_store import BlobStore
from paglets.host.blobs.pusher import BlobPusher
from paglets.host.handoff.in_flight import InFlightTransfers
from paglets.host.records.rollback import replacement_of, roll_back
from paglets.host.runtime.backoff import Backoff
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.store import handoffs, residence
from paglets.store.db import Tx
from paglets.store.handoffs import Key, Leaving
from paglets.store.pages import FIRST_PLACE, Place
from paglets.store.residence import ClosedHandoff
from paglets.wire.request import Request, Response, dump_json, parsed

BATCH_BYTES = 4 << 20
ANSWER_SECONDS = 30.0
PROBE_AFTER_SECONDS = 1.0
"""A target that was not seen for this many seconds is probed before envelopes are sent. An envelope that was sent
cannot be rolled back without its target, so one sent to a host that lost power would be stuck. Before a requested
move, the target is always probed."""

PROBE_SECONDS = 3.0
LEFT_OUT = "the host answers but could not store it (see its host.log; mostly a full disk); this is retried"
LOOK_AGAIN_SECONDS = 5.0
NEXT_PAGE_SECONDS = 0.1
"""Seconds between two pages of envelopes. If the target lacks blobs of every envelope of a page, the next page is
tried, so that envelopes whose blobs cannot be pushed do not block the others."""

CLOSE_SECONDS = 60.0
MAX_CLOSED = 2_000
BEING_WRITTEN = "its envelope is being written to the disk"
GIVE_UP_FAILURES = 3
"""An envelope of which no byte was sent is rolled back after this many failures in a row to reach its target."""


class HandoffSender:
    """The runner part `handoff`, which sends paglets and jobs to other hosts."""

    name = "handoff"

    def __init__(
        self,
        services: HostServices,
        gossip: Gossiper,
        blob_pusher: BlobPusher,
        blob_store: BlobStore,
        in_flight: InFlightTransfers,
    ) -> None:
        self._services = services
        self._in_flight = in_flight
        self._gossip = gossip
        self._blob_pusher = blob_pusher
        self._blob_store = blob_store
        self._large: dict[Key, BlobRef | str] = {}
        self._after: dict[str, Place] = {}
        self._backoff = Backoff(services.entropy)
        self._refused: dict[str, int] = {}
        self._close_at = services.clock.monotonic() + CLOSE_SECONDS

    def tick(self, now: float) -> float | None:
        due = [self._close(now)]
        for target in self._services.store.read(handoffs.targets):
            if self._gossip.is_forgotten(target.store_id):
                self._services.runner.wake("removal")
                continue
            self._backoff.contacted(target.store_id, self._gossip.last_seen_at(target.store_id))
            if self._backoff.may_send(target.store_id, now) and not self._send(target):
                due.append(now + (NEXT_PAGE_SECONDS if target.store_id in self._after else LOOK_AGAIN_SECONDS))
            else:
                due.append(self._backoff.next_due([target.store_id], now) or float("inf"))
        return min(due)

    def _close(self, now: float) -> float:
        """Report closed hand-offs to their targets every CLOSE_SECONDS, so that the targets can delete their rows."""
        if now >= self._close_at:
            self._close_at = now + CLOSE_SECONDS
            under_way = self._services.store.read(handoffs.keys)
            self._in_flight.keep(under_way)
            self._large = {key: blob for key, blob in self._large.items() if key in under_way}
            self._after = {key: place for key, place in self._after.items() if self._gossip.by_store(key)}
            self._refused = {key: count for key, count in self._refused.items() if self._gossip.by_store(key)}
            closed = self._services.store.read(lambda tx: residence.closed_handoffs(tx, MAX_CLOSED))
            for store_id in dict.fromkeys(handoff.target.store_id for handoff in closed):
                self._close_at_target([handoff for handoff in closed if handoff.target.store_id == store_id])
        return self._close_at

    def _close_at_target(self, closed: list[ClosedHandoff]) -> None:
        epochs = tuple(ClosedEpoch(agent_id=each.agent_id, epoch=each.epoch) for each in closed)
        body = dump_json(CloseTransfers(source=self._services.own, closed=epochs))
        request = Request(method="POST", target="/v1/transfers/close", body=body, repeatable=True)

        def answered(result: Response | PagletsError) -> None:
            if isinstance(result, Response) and result.status < 400:
                self._services.runner.change(lambda tx: residence.target_acknowledged(tx, closed))

        self._services.transport.send(
            self._gossip.address(closed[0].target), request, answered, timeout_seconds=ANSWER_SECONDS
        )

    def _send(self, target: HostRef) -> bool:
        """Send the envelopes that are ready, or a probe.

        Return False if nothing was sent, because all envelopes wait for blobs (see `BlobPusher`).
        """
        rows = self._page(target)
        batch = self._chosen(target, rows)
        if not batch:
            self._after.pop(target.store_id, None)
            if len(rows) == MAX_BATCH_ENVELOPES:
                self._after[target.store_id] = rows[-1].place
            if not rows or self._gossip.is_online(target.store_id):
                return False
            # The target is offline, so no blobs can be pushed and no envelope becomes ready. Send a probe, because its
            # failure counts towards the rollback. Otherwise the envelopes would wait forever.
        self._backoff.sent(target.store_id)
        asked_for = any(each.asked_for for each in batch)
        if batch and self._gossip.seconds_since_seen(target.store_id) <= PROBE_AFTER_SECONDS and not asked_for:
            self._transfer(target, batch)
            return True
        self._services.transport.send(
            self._gossip.address(target),
            Request(method="GET", target="/v1/host"),
            lambda result: self._probed(target, batch or rows, result),
            timeout_seconds=PROBE_SECONDS,
        )
        return True

    def _probed(self, target: HostRef, batch: list[Leaving], result: Response | PagletsError) -> None:
        if isinstance(result, PagletsError):
            unreachable = Unreachable(f"{target.name} does not answer: {result.message}")
            self._failed(target, batch, unreachable)
        else:
            self._transfer(target, self._chosen(target, self._page(target)))

    def _page(self, target: HostRef) -> list[Leaving]:
        after = self._after.get(target.store_id, FIRST_PLACE)
        return self._services.store.read(
            lambda tx: handoffs.next_leaving(tx, target.store_id, MAX_BATCH_ENVELOPES, after)
        )

    def _chosen(self, target: HostRef, rows: list[Leaving]) -> list[Leaving]:
        """Return a batch of the envelopes whose blobs the target has. Request a push of the blobs of the others."""
        batch: list[Leaving] = []
        waiting: dict[Key, str] = {}
        total = 0
        for each in rows:
            problem = self._problem(target, each)
            if problem:
                waiting[each.key] = problem
                self._note_stuck(target, each, self._blob_pusher.is_stuck(target, each.needs))
            elif not batch or total + each.size_bytes <= BATCH_BYTES:
                # Large envelopes count as well, because the target holds a complete batch in memory.
                batch.append(each)
                total += each.size_bytes
        if waiting:
            self._services.runner.change(lambda tx: _say_problems(tx, waiting))
        return batch

    def _note_stuck(self, target: HostRef, leaving: Leaving, is_stuck: bool) -> None:
        """Record if an envelope is stuck. It counts as stuck only while its target is online.

        An envelope that is stuck for long is rolled back.
        """
        if not is_stuck or not self._gossip.is_online(target.store_id):
            self._in_flight.not_stuck(leaving.key)
        elif self._in_flight.stuck(leaving.key, self._services.clock.monotonic()):
            self._services.runner.wake("rollback")

    def _problem(self, target: HostRef, leaving: Leaving) -> str:
        """Return why the envelope cannot be sent yet, or "".

        The target must first have the blobs of the paglet. A large envelope is sent as a blob, too.
        """
        needs = leaving.needs
        if _is_large(leaving):
            blob = self._as_blob(leaving)
            if isinstance(blob, str):
                return blob
            needs = (*needs, blob)
        return "" if self._blob_pusher.ready(target, needs) else self._blob_pusher.reason(target, needs)

    def _as_blob(self, leaving: Leaving) -> BlobRef | str:
        """Return the blob of a large envelope, or the reason why its background write is not complete."""
        key = leaving.key
        made = self._large.get(key, "")
        if isinstance(made, BlobRef):
            self._blob_store.pin(made.sha256)
        elif made != BEING_WRITTEN:
            self._large[key] = BEING_WRITTEN
            self._blob_store.run_in_background(partial(self._write_blob, key), partial(self._written, key))
        return made or BEING_WRITTEN

    def _write_blob(self, key: Key) -> BlobRef:
        return self._blob_store.put(self._services.store.read(lambda tx: handoffs.envelope_text(tx, *key)).encode())

    def _written(self, key: Key, made: BlobRef | BaseException) -> None:
        if isinstance(made, BlobRef):
            self._large[key] = made
            self._services.runner.wake(self.name)
        else:
            self._large[key] = f"its envelope cannot be written to the disk: {made}"

    def _transfer(self, target: HostRef, batch: list[Leaving]) -> None:
        self._after.pop(target.store_id, None)
        if not batch:
            # The target answers, but the envelopes for it wait for blobs: retry after a pause.
            self._backoff.failed(target.store_id, self._services.clock.monotonic())
            self._services.runner.wake(self.name)
            return
        # From now on, these envelopes count as sent. This is undone only if the first try certainly did not arrive.
        first_sent = {leaving.key for leaving in batch} - self._in_flight.perhaps_sent
        self._in_flight.perhaps_sent |= first_sent

        def answered(result: Response | PagletsError) -> None:
            if isinstance(result, Unreachable):
                self._in_flight.perhaps_sent -= first_sent
            self._answered(target, batch, result)

        request = Request(
            method="POST", target="/v1/transfers", body=dump_json(self._transfers(batch)), repeatable=True
        )
        self._services.transport.send(self._gossip.address(target), request, answered, timeout_seconds=ANSWER_SECONDS)

    def _transfers(self, batch: list[Leaving]) -> Transfers:
        small = [each.agent_id for each in batch if not _is_large(each)]
        return Transfers(
            source=self._services.own,
            envelopes=tuple(each.envelope for each in self._services.store.read(lambda tx: handoffs.by_ids(tx, small))),
            large=tuple(
                LargeEnvelope(agent_id=each.agent_id, epoch=each.epoch + 1, blob=blob)
                for each in batch
                if isinstance(blob := self._large.get(each.key), BlobRef)
            ),
        )

    def _answered(self, target: HostRef, batch: list[Leaving], result: Response | PagletsError) -> None:
        try:
            answers = parsed(result, TransferAnswers)
        except PagletsError as error:
            self._failed(target, batch, error)
            return
        self._refused.pop(target.store_id, None)
        if any(each.asked_for for each in batch):
            reach("mid-return-home")
        self._note_bytes(target, batch, answers.answers)
        answered = {answer.agent_id for answer in answers.answers}
        for each in batch:
            if each.agent_id not in answered:
                self._note_stuck(target, each, True)
        self._services.runner.change(
            lambda tx: self._settle(tx, batch, answers.answers),
            lambda outcome: self._settled(target, outcome, len(answers.answers) == len(batch)),
        )

    def _note_bytes(self, target: HostRef, batch: list[Leaving], answers: tuple[TransferAnswer, ...]) -> None:
        lacking = {answer.agent_id for answer in answers if answer.verdict == "missing"}
        for each in batch:
            if each.agent_id in lacking:
                own = self._large.get(each.key)
                self._blob_pusher.not_there(target, (*each.needs, own) if isinstance(own, BlobRef) else each.needs)

    def _settled(self, target: HostRef, outcome: object, complete: bool) -> None:
        now = self._services.clock.monotonic()
        if isinstance(outcome, BaseException):
            self._backoff.failed(target.store_id, now)
            self._services.runner.wake(self.name)
            raise outcome
        self._services.logger(self.name).debug(f"{target.name} answered a batch of hand-offs")
        if complete:
            self._backoff.succeeded(target.store_id)
        else:
            # The target could not store all envelopes of the batch: send the others again after a pause.
            self._backoff.failed(target.store_id, now)
        self._services.runner.wake(self.name)

    def _settle(self, tx: Tx, batch: list[Leaving], answers: tuple[TransferAnswer, ...]) -> None:
        now = self._services.clock.wall()
        answered = {answer.agent_id for answer in answers}
        _say_problems(tx, {each.key: LEFT_OUT for each in batch if each.agent_id not in answered})
        for answer in answers:
            if answer.verdict == "refused":
                roll_back(tx, (answer.agent_id, answer.epoch - 1), answer.reason, now)
            elif answer.verdict != "missing":
                residence.acknowledged(tx, answer.agent_id, answer.epoch, now)
        tx.wake("placer", "groups", "reconciliation", "cleanup")

    def _failed(self, target: HostRef, batch: list[Leaving], error: PagletsError) -> None:
        self._backoff.failed(target.store_id, self._services.clock.monotonic())
        if isinstance(error, Unreachable):
            self._refused[target.store_id] = self._refused.get(target.store_id, 0) + 1
        else:
            self._refused.pop(target.store_id, None)
        for each in batch:
            self._note_stuck(target, each, not isinstance(error, Unreachable))
        self._services.runner.change(lambda tx: self._note_problem(tx, target, batch, error))
        self._services.runner.wake(self.name)
        if isinstance(error, Unreachable):
            # This comes last because it writes to the store, which fails if the disk is full.
            self._gossip.record_failure(target.store_id)

    def _note_problem(self, tx: Tx, target: HostRef, batch: list[Leaving], error: PagletsError) -> None:
        give_up = self._refused.get(target.store_id, 0) >= GIVE_UP_FAILURES
        for each in batch:
            if give_up and each.key not in self._in_flight.perhaps_sent:
                roll_back(tx, each.key, error.message, self._services.clock.wall(), asked_again=True)
        text = _wiped(self._gossip, target) or error.message
        handoffs.set_target_problem(tx, target.store_id, error.message, jobs=True)
        handoffs.set_target_problem(tx, target.store_id, text, jobs=False)


def _wiped(gossip: Gossiper, target: HostRef) -> str:
    """Return why a move waits if the data directory of the target seems to be new and empty, else ""."""
    if replacement_of(gossip, target) is None:
        return ""
    return (
        f"target_wiped: {target.name} has an empty data directory now; if the old one is gone for good: "
        f"paglets mesh forget {target.store_id}"
    )


def _is_large(leaving: Leaving) -> bool:
    return leaving.size_bytes > LARGE_ENVELOPE_BYTES


def _say_problems(tx: Tx, texts: Mapping[Key, str]) -> None:
    for key, text in texts.items():
        handoffs.set_problem(tx, key, text)
