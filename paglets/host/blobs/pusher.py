"""Push blobs to other hosts before the paglets and posts that need them are sent.

A blob is sent to a host once, even if several paglets need it. Senders call `ready` repeatedly; a call that returns
False also requests a push. A request expires unless it is repeated. A reply that the target has a blob is trusted for
half of the time for which the target pins the blob.
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
"""The timeout for one piece, in seconds. The target answers the last piece after it has synced the blob to its disk.
After a restart, it first hashes the bytes that it has."""

REQUEST_SECONDS = 60.0
"""Seconds after which a push request expires. Senders repeat it every few seconds while they need the blob."""

BAD_TRIES = 3
"""The number of times that the target refuses wrong bytes of a blob before this host checks its own file."""

PROGRESS_STEPS = 20
"""The number of times that the progress of one blob is reported to the parts that wait for it."""


@dataclass(slots=True, kw_only=True)
class _PushRequest:
    """A request to push a blob. Times are monotonic.

    `offset` is the number of bytes that the target has, if known. `bad_tries` counts the refusals of wrong bytes.
    """

    blob: BlobRef
    requested_at: float
    offset: int | None = None
    due: float = 0.0
    refusals: int = 0
    bad_tries: int = 0
    problem: str = ""

    def refused(self, now: float) -> None:
        """Schedule the next try, with exponential back-off. Other blobs are sent during the pause."""
        self.due = now + min(MOST_SECONDS, FIRST_SECONDS * 2 ** min(self.refusals, 10))
        self.refusals += 1


@dataclass(slots=True, kw_only=True)
class _PushQueue:
    """The push requests for one host, oldest first. `problem` is the last error of that host, or "" after a success.

    `has_until` maps the hash of each blob that the host has to the monotonic time until which this is trusted.
    """

    host: HostRef
    requests: dict[str, _PushRequest] = field(default_factory=dict)
    has_until: dict[str, float] = field(default_factory=dict)
    problem: str = ""


class BlobPusher:
    """The runner part `blob_pusher`, which pushes blobs. `wakes`: the names of the parts that wait for pushed blobs."""

    name = "blob_pusher"

    def __init__(self, services: HostServices, gossip: Gossiper, blob_store: BlobStore, wakes: tuple[str, ...]) -> None:
        self._services = services
        self._gossip = gossip
        self._blob_store = blob_store
        self._wakes = wakes
        self._backoff = Backoff(services.entropy)
        self._queues: dict[str, _PushQueue] = {}
        self._requested: deque[tuple[HostRef, BlobRef]] = deque()

    # Methods for parts that wait until another host has certain blobs. `ready`, `reason` and `is_stuck` may be called
    # from any thread.

    def ready(self, host: HostRef, needed: Iterable[BlobRef]) -> bool:
        """Return True if the host has replied that it has all of these blobs. Request a push of the others."""
        queue = self._queues.get(host.store_id)
        now = self._services.clock.monotonic()
        known = {} if queue is None else queue.has_until
        lacking = [blob for blob in needed if known.get(blob.sha256, 0.0) <= now]
        if lacking and host.store_id != self._services.own.store_id:
            self._requested.extend((host, blob) for blob in lacking)
            self._services.runner.wake(self.name)
            return False
        return True

    def reason(self, host: HostRef, needed: Iterable[BlobRef]) -> str:
        """Return a sentence that says why `host` does not have these blobs yet."""
        left, requests = self._left(host, needed)
        problem = self._problem(host, requests)
        if problem:
            return f"its files cannot be sent to {host.name}: {problem}"
        total = sum(blob.size_bytes for blob in left)
        sent = sum(push.offset or 0 for push in requests)
        return f"its files are being sent to {host.name}: {bytes_text(sent)} of {bytes_text(total)}"

    def is_stuck(self, host: HostRef, needed: Iterable[BlobRef]) -> bool:
        """Return True if the last try to push one of these blobs, or the last request to `host`, failed."""
        return bool(self._problem(host, self._left(host, needed)[1]))

    def _left(self, host: HostRef, needed: Iterable[BlobRef]) -> tuple[list[BlobRef], list[_PushRequest]]:
        queue = self._queues.get(host.store_id) or _PushQueue(host=host)
        left = [blob for blob in needed if blob.sha256 not in queue.has_until]
        return left, [push for blob in left if (push := queue.requests.get(blob.sha256)) is not None]

    def _problem(self, host: HostRef, requests: list[_PushRequest]) -> str:
        queue = self._queues.get(host.store_id)
        common = "" if queue is None else queue.problem
        return next((push.problem for push in requests if push.problem), common)

    def not_there(self, host: HostRef, lacking: Iterable[BlobRef]) -> None:
        """Record the reply of the host that it lacks these blobs. Called on the runner."""
        queue = self._queues.get(host.store_id)
        if queue is not None:
            for blob in lacking:
                queue.has_until.pop(blob.sha256, None)

    # Methods that the runner calls.

    def tick(self, now: float) -> float | None:
        self._take_requests(now)
        busy = []
        for store_id, queue in self._queues.items():
            queue.has_until = {sha256: until for sha256, until in queue.has_until.items() if until > now}
            queue.requests = {
                w.blob.sha256: w for w in queue.requests.values() if now - w.requested_at < REQUEST_SECONDS
            }
            self._backoff.contacted(store_id, self._gossip.last_seen_at(store_id))
            due = [push for push in queue.requests.values() if push.due <= now]
            if due:
                busy.append(store_id)
                if self._backoff.may_send(store_id, now):
                    self._go_on(queue, due)
            elif not queue.requests:
                queue.problem = ""
        self._queues = {key: queue for key, queue in self._queues.items() if queue.requests or queue.has_until}
        paused = [push.due for queue in self._queues.values() for push in queue.requests.values() if push.due > now]
        first = self._backoff.next_due(busy, now)
        return min(paused if first is None else [first, *paused], default=None)

    def _take_requests(self, now: float) -> None:
        for _ in range(len(self._requested)):
            host, blob = self._requested.popleft()
            queue = self._queues.setdefault(host.store_id, _PushQueue(host=host))
            if queue.has_until.get(blob.sha256, 0.0) <= now:
                queue.requests.setdefault(blob.sha256, _PushRequest(blob=blob, requested_at=now)).requested_at = now

    def _go_on(self, queue: _PushQueue, due: list[_PushRequest]) -> None:
        """Send a piece of the first blob whose offset is known. If none is known, request offsets from the host."""
        self._backoff.sent(queue.host.store_id)
        known = next((push for push in due if push.offset is not None), None)
        if known is None:
            self._ask(queue, due)
        else:
            self._send_piece(queue, known)

    def _ask(self, queue: _PushQueue, due: list[_PushRequest]) -> None:
        asked = tuple(push.blob.sha256 for push in due[:MAX_ASKED_BLOBS])
        request = Request(
            method="POST", target="/v1/blobs/state", body=dump_json(AskBlobs(sha256s=asked)), repeatable=True
        )

        def answered(result: Response | PagletsError) -> None:
            try:
                states = parsed(result, BlobStates).blobs
            except PagletsError as error:
                self._failed(queue, error)
                return
            for state in states:
                self._update(queue, state)
            self._succeeded(queue)

        self._services.transport.send(self._gossip.address(queue.host), request, answered, timeout_seconds=ASK_SECONDS)

    def _update(self, queue: _PushQueue, state: BlobState) -> None:
        """Record how many bytes of one blob the host has."""
        push = queue.requests.get(state.sha256)
        if push is None:
            return
        if state.complete:
            half = self._services.settings.blob_pin_seconds / 2
            queue.has_until[state.sha256] = self._services.clock.monotonic() + half
            del queue.requests[state.sha256]
            self._services.runner.wake(*self._wakes)
        else:
            before = push.offset or 0
            push.offset = min(state.offset, push.blob.size_bytes)
            step = max(1, push.blob.size_bytes // PROGRESS_STEPS)
            if push.offset // step != before // step:
                self._services.runner.wake(*self._wakes)

    def _send_piece(self, queue: _PushQueue, push: _PushRequest) -> None:
        blob, offset = push.blob, push.offset or 0
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
                    raise PagletsError(f"{queue.host.name} stored none of the {length} bytes of a piece")
            except PagletsError as error:
                self._refused(queue, push, error)
            else:
                if not push.bad_tries:
                    push.problem = ""
                self._update(queue, state)
                self._succeeded(queue)

        self._services.transport.send(
            self._gossip.address(queue.host), request, answered, timeout_seconds=PIECE_SECONDS
        )

    def _refused(self, queue: _PushQueue, push: _PushRequest, error: PagletsError) -> None:
        there = error.details.get("offset")
        if isinstance(error, Conflict) and isinstance(there, int) and 0 <= there <= push.blob.size_bytes:
            push.offset = there
            self._succeeded(queue)
            return
        push.offset, push.problem = None, error.message
        if not error.retryable:
            push.refused(self._services.clock.monotonic())
        if isinstance(error, FileChanged):
            push.bad_tries += 1
            if push.bad_tries == BAD_TRIES:
                self._blob_store.run_in_background(
                    lambda: self._blob_store.check(push.blob.sha256), lambda result: None
                )
        self._failed(queue, error)

    def _succeeded(self, queue: _PushQueue) -> None:
        queue.problem = ""
        self._backoff.succeeded(queue.host.store_id)
        self._services.runner.wake(self.name)

    def _failed(self, queue: _PushQueue, error: PagletsError) -> None:
        self._backoff.failed(queue.host.store_id, self._services.clock.monotonic())
        queue.problem = error.message
        self._services.runner.wake(self.name, *self._wakes)
        if isinstance(error, Unreachable):
            # This comes last because it writes to the store, which fails if the disk is full.
            self._gossip.record_failure(queue.host.store_id)
