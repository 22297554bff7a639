"""Brings bytes to other hosts before what needs them goes there: asked for by blob, sent once for each host.

Whoever wants to send a paglet or a post asks `ready`, again and again; a no is also the wish. The wish of nobody
is forgotten. What a target said that it has is believed for half the time that it keeps it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlencode

from paglets.api.blobs import AskBlobs, BlobState, BlobStates
from paglets.api.limits import MAX_ASKED_BLOBS
from paglets.core.errors import Conflict, FileChanged, PagletsError, Unreachable
from paglets.core.refs import BlobRef, HostRef
from paglets.host.blobs.blob_store import BlobStore
from paglets.host.runtime.backoff import FIRST_SECONDS, MOST_SECONDS, Backoff
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.slots.amounts import bytes_text
from paglets.wire.request import Request, Response, dump_json, parsed

ASK_SECONDS = 30.0
PIECE_SECONDS = 120.0
"""For one piece. The last one is answered when the whole is safe on the disk; after a restart the target first
hashes what it has."""

WISH_SECONDS = 60.0
"""Wishes are repeated every few seconds while they last."""

BAD_TRIES = 3
"""So often a target may say that the bytes are not those of the hash before the fault is looked for here."""

TELL_SHARE = 20
"""Progress is told to those who wait in so many steps of the whole."""


@dataclass(slots=True, kw_only=True)
class _Wish:
    """`offset`: how much the host has, where that is known. After a refusal of these bytes it waits until `due`."""

    blob: BlobRef
    wished_at: float
    offset: int | None = None
    due: float = 0.0
    refusals: int = 0
    bad_tries: int = 0
    problem: str = ""

    def refused(self, now: float) -> None:
        """Wait, each time longer: what the host has against it lasts, and others are to have their turn."""
        self.due = now + min(MOST_SECONDS, FIRST_SECONDS * 2 ** min(self.refusals, 10))
        self.refusals += 1


@dataclass(slots=True, kw_only=True)
class _Road:
    """What is to go to one host, in the order of the wishes; `problem`: what went wrong last, "" after a success."""

    host: HostRef
    wishes: dict[str, _Wish] = field(default_factory=dict)
    has_until: dict[str, float] = field(default_factory=dict)
    problem: str = ""


class BlobPusher:
    """Part `blob_pusher`. `wakes` are the parts that wait for bytes to arrive."""

    name = "blob_pusher"

    def __init__(self, services: HostServices, gossip: Gossiper, blob_store: BlobStore, wakes: tuple[str, ...]) -> None:
        self._services = services
        self._gossip = gossip
        self._blob_store = blob_store
        self._wakes = wakes
        self._backoff = Backoff(services.entropy)
        self._roads: dict[str, _Road] = {}
        self._wished: deque[tuple[HostRef, BlobRef]] = deque()

    # For those who wait; any thread.

    def ready(self, host: HostRef, needed: Iterable[BlobRef]) -> bool:
        """Whether that host has all of these, as far as it said; what it lacks is on its way from now on."""
        road = self._roads.get(host.store_id)
        now = self._services.clock.monotonic()
        known = {} if road is None else road.has_until
        lacking = [blob for blob in needed if known.get(blob.sha256, 0.0) <= now]
        if lacking and host.store_id != self._services.own.store_id:
            self._wished.extend((host, blob) for blob in lacking)
            self._services.runner.wake(self.name)
            return False
        return True

    def why(self, host: HostRef, needed: Iterable[BlobRef]) -> str:
        """Why these are not there yet, in words."""
        left, wishes = self._left(host, needed)
        problem = self._problem(host, wishes)
        if problem:
            return f"its files cannot be sent to {host.name}: {problem}"
        total = sum(blob.size_bytes for blob in left)
        sent = sum(wish.offset or 0 for wish in wishes)
        return f"its files are being sent to {host.name}: {bytes_text(sent)} of {bytes_text(total)}"

    def is_stuck(self, host: HostRef, needed: Iterable[BlobRef]) -> bool:
        """Whether something else than time is in the way of these, as far as the last tries say."""
        return bool(self._problem(host, self._left(host, needed)[1]))

    def _left(self, host: HostRef, needed: Iterable[BlobRef]) -> tuple[list[BlobRef], list[_Wish]]:
        road = self._roads.get(host.store_id) or _Road(host=host)
        left = [blob for blob in needed if blob.sha256 not in road.has_until]
        return left, [wish for blob in left if (wish := road.wishes.get(blob.sha256)) is not None]

    def _problem(self, host: HostRef, wishes: list[_Wish]) -> str:
        road = self._roads.get(host.store_id)
        common = "" if road is None else road.problem
        return next((wish.problem for wish in wishes if wish.problem), common)

    def not_there(self, host: HostRef, lacking: Iterable[BlobRef]) -> None:
        """The host says that it has not got these (any more); on the runner."""
        road = self._roads.get(host.store_id)
        if road is not None:
            for blob in lacking:
                road.has_until.pop(blob.sha256, None)

    # The part.

    def tick(self, now: float) -> float | None:
        self._take_wishes(now)
        busy = []
        for store_id, road in self._roads.items():
            road.has_until = {sha256: until for sha256, until in road.has_until.items() if until > now}
            road.wishes = {w.blob.sha256: w for w in road.wishes.values() if now - w.wished_at < WISH_SECONDS}
            self._backoff.contacted(store_id, self._gossip.last_seen_at(store_id))
            due = [wish for wish in road.wishes.values() if wish.due <= now]
            if due:
                busy.append(store_id)
                if self._backoff.may_send(store_id, now):
                    self._go_on(road, due)
            elif not road.wishes:
                road.problem = ""
        self._roads = {key: road for key, road in self._roads.items() if road.wishes or road.has_until}
        paused = [wish.due for road in self._roads.values() for wish in road.wishes.values() if wish.due > now]
        first = self._backoff.next_due(busy, now)
        return min(paused if first is None else [first, *paused], default=None)

    def _take_wishes(self, now: float) -> None:
        for _ in range(len(self._wished)):
            host, blob = self._wished.popleft()
            road = self._roads.setdefault(host.store_id, _Road(host=host))
            if road.has_until.get(blob.sha256, 0.0) <= now:
                road.wishes.setdefault(blob.sha256, _Wish(blob=blob, wished_at=now)).wished_at = now

    def _go_on(self, road: _Road, due: list[_Wish]) -> None:
        """The next piece of the first blob of which it is known how much the host has; where there is none, ask."""
        self._backoff.sent(road.host.store_id)
        known = next((wish for wish in due if wish.offset is not None), None)
        if known is None:
            self._ask(road, due)
        else:
            self._send_piece(road, known)

    def _ask(self, road: _Road, due: list[_Wish]) -> None:
        wished = tuple(wish.blob.sha256 for wish in due[:MAX_ASKED_BLOBS])
        request = Request(
            method="POST", target="/v1/blobs/state", body=dump_json(AskBlobs(sha256s=wished)), repeatable=True
        )

        def answered(result: Response | PagletsError) -> None:
            try:
                states = parsed(result, BlobStates).blobs
            except PagletsError as error:
                self._failed(road, error)
                return
            for state in states:
                self._heard(road, state)
            self._succeeded(road)

        self._services.transport.send(self._gossip.address(road.host), request, answered, timeout_seconds=ASK_SECONDS)

    def _heard(self, road: _Road, state: BlobState) -> None:
        """How much of one blob the host has."""
        wish = road.wishes.get(state.sha256)
        if wish is None:
            return
        if state.complete:
            half = self._services.settings.blob_pin_seconds / 2
            road.has_until[state.sha256] = self._services.clock.monotonic() + half
            del road.wishes[state.sha256]
            self._services.runner.wake(*self._wakes)
        else:
            before = wish.offset or 0
            wish.offset = min(state.offset, wish.blob.size_bytes)
            step = max(1, wish.blob.size_bytes // TELL_SHARE)
            if wish.offset // step != before // step:
                self._services.runner.wake(*self._wakes)

    def _send_piece(self, road: _Road, wish: _Wish) -> None:
        blob, offset = wish.blob, wish.offset or 0
        length = min(self._services.settings.piece_bytes, blob.size_bytes - offset)
        request = Request(
            method="PUT",
            target=f"/v1/blobs/{blob.sha256}?{urlencode({'offset': offset, 'size': blob.size_bytes})}",
            load=lambda: self._blob_store.read(blob.sha256, offset, length),
            repeatable=True,
        )

        def answered(result: Response | PagletsError) -> None:
            try:
                state = parsed(result, BlobState)
                if not state.complete and state.offset <= offset:
                    raise PagletsError(f"{road.host.name} took nothing of the {length} bytes of a piece")
            except PagletsError as error:
                self._refused(road, wish, error)
            else:
                if not wish.bad_tries:
                    wish.problem = ""
                self._heard(road, state)
                self._succeeded(road)

        self._services.transport.send(self._gossip.address(road.host), request, answered, timeout_seconds=PIECE_SECONDS)

    def _refused(self, road: _Road, wish: _Wish, error: PagletsError) -> None:
        there = error.details.get("offset")
        if isinstance(error, Conflict) and isinstance(there, int) and 0 <= there <= wish.blob.size_bytes:
            wish.offset = there
            self._succeeded(road)
            return
        wish.offset, wish.problem = None, error.message
        if not error.retryable:
            wish.refused(self._services.clock.monotonic())
        if isinstance(error, FileChanged):
            wish.bad_tries += 1
            if wish.bad_tries == BAD_TRIES:
                self._blob_store.run_in_background(
                    lambda: self._blob_store.check(wish.blob.sha256), lambda result: None
                )
        self._failed(road, error)

    def _succeeded(self, road: _Road) -> None:
        road.problem = ""
        self._backoff.succeeded(road.host.store_id)
        self._services.runner.wake(self.name)

    def _failed(self, road: _Road, error: PagletsError) -> None:
        self._backoff.failed(road.host.store_id, self._services.clock.monotonic())
        road.problem = error.message
        self._services.runner.wake(self.name, *self._wakes)
        if isinstance(error, Unreachable):
            # Last: it writes to the store, which may be full.
            self._gossip.record_failure(road.host.store_id)
