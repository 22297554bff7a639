"""The envelopes of paglets that are `leaving`, as traffic to other hosts, until the target has answered for each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from paglets.api.limits import LARGE_ENVELOPE_BYTES, MAX_BATCH_ENVELOPES
from paglets.api.transfers import LargeEnvelope, TransferAnswers, Transfers
from paglets.codec.strict_json import dumps_with
from paglets.core.errors import PagletsError, Unreachable
from paglets.core.failpoints import reach
from paglets.core.record import to_json
from paglets.core.refs import BlobRef, HostRef
from paglets.host.blobs.blob_store import BlobStore
from paglets.host.handoff.in_flight import InFlightTransfers
from paglets.host.records.rollback import replacement_of, roll_back
from paglets.host.runtime.delivery import Settled, Traffic
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.store import handoffs, residence
from paglets.store.db import Tx
from paglets.store.handoffs import Key, Leaving
from paglets.store.pages import Budget, Page, Place
from paglets.wire.request import Request

BUDGET = Budget(items=MAX_BATCH_ENVELOPES, size_bytes=4 << 20)
"""The maximum size of a batch. Large envelopes count as well, because the target holds a complete batch in memory."""

PROBE_AFTER_SECONDS = 1.0
"""A target that was not seen for this many seconds is probed before envelopes are sent. An envelope that was sent
cannot be rolled back without its target, so one sent to a host that lost power would be stuck. Before a requested
move, the target is always probed."""

LEFT_OUT = "the host could not store it, usually because its disk is full (see its host.log); this is retried"
BEING_WRITTEN = "its envelope is being written to the disk"
GIVE_UP_FAILURES = 3
"""An envelope of which no byte was sent is rolled back after this many failures in a row to reach its target."""


class HandoffTraffic(Traffic[Leaving, TransferAnswers]):
    """The traffic of the runner part `handoff`: paglets and jobs that move to other hosts."""

    name = "handoff"
    answers = TransferAnswers
    answer_seconds = 30.0

    def __init__(
        self, services: HostServices, gossip: Gossiper, blob_store: BlobStore, in_flight: InFlightTransfers
    ) -> None:
        self._services = services
        self._gossip = gossip
        self._blob_store = blob_store
        self._in_flight = in_flight
        self._large: dict[Key, BlobRef | str] = {}
        self._refused: dict[str, int] = {}
        # Maps the store id of a target to the envelopes whose first try was in the last request to that target.
        self._first_sent: dict[str, set[Key]] = {}

    # Methods that choose envelopes.

    def hosts(self, tx: Tx) -> list[HostRef]:
        targets = handoffs.targets(tx)
        left = [target for target in targets if not self._gossip.is_forgotten(target.store_id)]
        if len(left) < len(targets):
            self._services.runner.wake("removal")
        return left

    def select(self, tx: Tx, host: HostRef, after: Place, skip: Sequence[str]) -> Page[Leaving]:
        return handoffs.next_leaving(tx, host.store_id, BUDGET, after)

    def needs(self, item: Leaving) -> tuple[BlobRef, ...]:
        """Return the blobs of the paglet, and its envelope if that is large and already a blob."""
        blob = self._large.get(item.key)
        return (*item.needs, blob) if isinstance(blob, BlobRef) else item.needs

    def _as_blob(self, key: Key) -> BlobRef | str:
        """Return the blob of a large envelope. If it is not written yet, start to write it, and return why it waits."""
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

    def obstacle(self, item: Leaving) -> str:
        blob = self._as_blob(item.key) if _is_large(item) else ""
        return blob if isinstance(blob, str) else ""

    def probe(self, host: HostRef, ready: Sequence[Leaving], waiting: Sequence[Leaving]) -> Request | None:
        if ready:
            unseen = self._gossip.seconds_since_seen(host.store_id) > PROBE_AFTER_SECONDS
            needed = unseen or any(each.asked_for for each in ready)
        else:
            # An offline target gets no blobs, so no envelope becomes ready. Failures of probes lead to a rollback.
            # Otherwise the envelopes would wait forever.
            needed = bool(waiting) and not self._gossip.is_online(host.store_id)
        return Request(method="GET", target="/v1/host") if needed else None

    def encode(self, tx: Tx, host: HostRef, items: Sequence[Leaving]) -> Request:
        # From now on, these envelopes count as sent. This is undone only if the first try certainly did not arrive.
        first_sent = {leaving.key for leaving in items} - self._in_flight.perhaps_sent
        self._in_flight.perhaps_sent |= first_sent
        self._first_sent[host.store_id] = first_sent
        small = [each.agent_id for each in items if not _is_large(each)]
        large = tuple(
            LargeEnvelope(agent_id=each.agent_id, epoch=each.epoch + 1, blob=blob)
            for each in items
            if isinstance(blob := self._large.get(each.key), BlobRef)
        )
        tree = to_json(Transfers(source=self._services.own, envelopes=(), large=large))
        body = dumps_with(tree, "envelopes", f"[{','.join(handoffs.envelope_texts(tx, small))}]")
        return Request(method="POST", target="/v1/transfers", body=body.encode(), repeatable=True)

    # Methods that process answers and failures.

    def settle(self, tx: Tx, host: HostRef, items: Sequence[Leaving], answer: TransferAnswers) -> Settled[Leaving]:
        if any(each.asked_for for each in items):
            reach("mid-return-home")
        self._refused.pop(host.store_id, None)
        now = self._services.clock.wall()
        verdicts = {each.agent_id: each.verdict for each in answer.answers}
        left_out = tuple(each for each in items if each.agent_id not in verdicts)
        for each in answer.answers:
            if each.verdict == "refused":
                roll_back(tx, (each.agent_id, each.epoch - 1), each.reason, now)
            elif each.verdict != "missing":
                residence.acknowledged(tx, each.agent_id, each.epoch, now)
        self.problems(tx, [(each, LEFT_OUT) for each in left_out])
        tx.wake("placer", "groups", "reconciliation", "cleanup")
        missing = tuple(each for each in items if verdicts.get(each.agent_id) == "missing")
        return Settled(missing=missing, left_out=left_out)

    def failed(self, host: HostRef, items: Sequence[Leaving], error: PagletsError, *, sent: bool) -> None:
        unreachable = isinstance(error, Unreachable)
        self._refused[host.store_id] = self._refused.get(host.store_id, 0) + 1 if unreachable else 0
        if unreachable and sent:
            self._in_flight.perhaps_sent -= self._first_sent.get(host.store_id, set())
        self.stuck(items, host, is_stuck=not unreachable)
        self._services.runner.change(lambda tx: self._note_failure(tx, host, items, error))
        if unreachable:
            # This comes last because it writes to the store, which fails if the disk is full.
            self._gossip.record_failure(host.store_id)

    def _note_failure(self, tx: Tx, host: HostRef, items: Sequence[Leaving], error: PagletsError) -> None:
        give_up = self._refused.get(host.store_id, 0) >= GIVE_UP_FAILURES
        for each in items:
            if give_up and each.key not in self._in_flight.perhaps_sent:
                roll_back(tx, each.key, error.message, self._services.clock.wall(), asked_again=True)
        text = _wiped(self._gossip, host) or error.message
        handoffs.set_target_problem(tx, host.store_id, error.message, jobs=True)
        handoffs.set_target_problem(tx, host.store_id, text, jobs=False)

    def problems(self, tx: Tx, found: Sequence[tuple[Leaving, str]]) -> None:
        for leaving, text in found:
            handoffs.set_problem(tx, leaving.key, text)

    def stuck(self, items: Iterable[Leaving], host: HostRef, *, is_stuck: bool) -> None:
        """Record if envelopes are stuck. They count as stuck only while their target is online.

        The part `rollback` ends hand-offs that are stuck for long.
        """
        now, is_stuck = self._services.clock.monotonic(), is_stuck and self._gossip.is_online(host.store_id)
        for each in items:
            if not is_stuck:
                self._in_flight.not_stuck(each.key)
            elif self._in_flight.stuck(each.key, now):
                self._services.runner.wake("rollback")

    def tidy(self, tx: Tx) -> None:
        under_way = handoffs.keys(tx)
        self._in_flight.keep(under_way)
        self._large = {key: blob for key, blob in self._large.items() if key in under_way}
        stores = {target.store_id for target in handoffs.targets(tx)}
        self._refused = {store_id: count for store_id, count in self._refused.items() if store_id in stores}
        self._first_sent = {store_id: sent for store_id, sent in self._first_sent.items() if store_id in stores}


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
