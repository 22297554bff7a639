"""Requests to hosts that accept no connections. This host keeps them until the target host polls for them.

`ReverseTransport` wraps another `Transport`, so senders see no difference. The requests are kept in memory only, and
are lost if this host ends. A request that was not fetched ends with `Unreachable`. A request that was sent to the
target, but not answered, ends with `CallOutcomeUnknown`. Each poll lists the requests that the target works on. A
request that was sent, but is not in that list, was lost on the way. It is sent again if it is repeatable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from paglets.api.hosts import MeshHost
from paglets.api.limits import MAX_PIECE_BYTES
from paglets.api.paglets import Done
from paglets.api.pull import MAX_PULL_SECONDS, MAX_PULLED_BODY_BYTES, Pull, Pulled, PulledRequest
from paglets.core.clock import Clock, Entropy
from paglets.core.errors import CallOutcomeUnknown, InternalError, NotAllowed, PagletsError, TooLarge, Unreachable
from paglets.core.refs import HostRef
from paglets.host.runtime.runner import Runner
from paglets.wire.base64_text import to_base64
from paglets.wire.fair_queue import FairQueue
from paglets.wire.request import Completion, PendingResponse, QueueKey, Request, Response, Transport, queue_of, reply

FETCH_SECONDS = 8.0
"""Seconds that a request waits for the target to poll. This is longer than the longest back-off of a poller, but
short, to detect soon that a host is gone."""

MOST_BYTES = 64 << 20
"""The maximum bytes of request bodies kept for one host. Pieces of blobs are read on demand, so they do not count."""

MOST_AT_ONCE = 22
MOST_BYTES_AT_ONCE = MAX_PIECE_BYTES
"""The maximum bytes of the requests in the reply to a poll. The last request may exceed it."""

INLINE_BYTES = 256 << 10
"""The maximum bytes of a batch that the runner itself encodes, which takes about a millisecond. A larger batch is
encoded on another thread."""

RunInBackground = Callable[[Callable[[], None]], None]


@dataclass(slots=True, kw_only=True, eq=False)
class _Sent:
    """A request in progress. `handed` is True if it was sent in the reply to a poll, so the target may have it."""

    request_id: str
    request: Request
    done: Completion
    since: float
    deadline: float
    key: QueueKey
    handed: bool = False

    @property
    def size_bytes(self) -> int:
        return MAX_PIECE_BYTES if self.request.load is not None else len(self.request.body)


@dataclass(slots=True, kw_only=True)
class _HostQueue:
    """The requests for one host, and its open poll.

    `waiting` maps ids to the requests that wait for a poll, and `out` to those that were sent. `parked` is the open
    poll, which ends at `parked_until`.
    """

    name: str
    fair_queue: FairQueue[_Sent] = field(default_factory=FairQueue)
    waiting: dict[str, _Sent] = field(default_factory=dict)
    out: dict[str, _Sent] = field(default_factory=dict)
    parked: PendingResponse | None = None
    parked_until: float = 0.0
    pulled_at: float = float("-inf")

    @property
    def is_idle(self) -> bool:
        """Return True if no request and no poll is in progress, so that this object can be removed."""
        return not (self.waiting or self.out or self.parked)

    def kept_bytes(self) -> int:
        return sum(len(each.request.body) for each in (*self.waiting.values(), *self.out.values()))


class ReverseTransport:
    """The runner part `reverse_transport`, which all other parts use as their transport. Used only on the runner.

    A request to a host that accepts no connections waits here until that host fetches it. `inner` sends all others.

    `relaying`: None if this host accepts connections. Otherwise the transport to such hosts, through a third host.
    `mesh_host`: returns the row of a host by store id, or None. `is_online`: returns True if the host with this store
    id is online. `run_in_background`: runs tasks that may wait for the disk.
    """

    name = "reverse_transport"

    def __init__(
        self,
        inner: Transport,
        *,
        clock: Clock,
        entropy: Entropy,
        runner: Runner,
        own: HostRef,
        relaying: Transport | None,
        mesh_host: Callable[[str], MeshHost | None],
        is_online: Callable[[str], bool],
        run_in_background: RunInBackground,
    ) -> None:
        self._inner = inner
        self._clock = clock
        self._entropy = entropy
        self._runner = runner
        self._own = own
        self._relaying = relaying
        self._mesh_host = mesh_host
        self._is_online = is_online
        self._run_in_background = run_in_background
        self._queues: dict[str, _HostQueue] = {}

    @property
    def is_idle(self) -> bool:
        """Return True if no request is in progress."""
        return not any(queue.waiting or queue.out for queue in self._queues.values())

    # The methods of a `Transport`.

    def send(self, host: HostRef, request: Request, done: Completion, *, timeout_seconds: float) -> None:
        mesh_host = self._mesh_host(host.store_id) if host.store_id else None
        if mesh_host is None or mesh_host.reachable or mesh_host.store_id == self._own.store_id:
            self._inner.send(host, request, done, timeout_seconds=timeout_seconds)
            return
        if self._relaying is not None:
            self._relaying.send(mesh_host.ref, request, done, timeout_seconds=timeout_seconds)
            return
        refusal = self._keep(mesh_host, request, done, timeout_seconds)
        if refusal is not None:
            self._runner.call_soon(partial(done, refusal))

    def _keep(
        self, mesh_host: MeshHost, request: Request, done: Completion, timeout_seconds: float
    ) -> PagletsError | None:
        if len(request.body) > MAX_PULLED_BODY_BYTES:
            most = f"the limit for a host that polls is {MAX_PULLED_BODY_BYTES:,}"
            return TooLarge(f"{request.method} {request.target}: the body has {len(request.body):,} bytes; {most}")
        now = self._clock.monotonic()
        queue = self._queues.setdefault(mesh_host.store_id, _HostQueue(name=mesh_host.name))
        key = queue_of(mesh_host.store_id, request)
        if queue.fair_queue.is_full(key) or queue.kept_bytes() + len(request.body) > MOST_BYTES:
            return Unreachable(
                f"too many requests wait for {mesh_host.name} to fetch them; the request was not sent",
                hint=["try again later"],
            )
        sent = _Sent(
            request_id=self._entropy.token(),
            request=request,
            done=done,
            since=now,
            deadline=now + timeout_seconds,
            key=key,
        )
        queue.waiting[sent.request_id] = sent
        queue.fair_queue.put(key, sent)
        if not self._is_online(mesh_host.store_id):
            # The connection of the open poll is probably broken, so that a request in its reply would be lost.
            self._give_up_pull(queue)
        self._hand_out(queue)
        self._runner.wake(self.name)
        return None

    # Methods that handle polls of other hosts, and their answers to requests.

    def pull(self, sender: str, pull: Pull) -> PendingResponse:
        """Accept a poll of the host `sender`. The reply is a `Pulled`. May be called from any thread.

        Raises NotAllowed if this host does not know the sender.
        """
        mesh_host = self._mesh_host(sender) if sender else None
        if mesh_host is None:
            raise NotAllowed("only a host of this mesh can poll for requests; this host does not know the sender")
        pending = PendingResponse()
        self._runner.call_soon(lambda: self._pulled(mesh_host, pull, pending))
        return pending

    def _pulled(self, mesh_host: MeshHost, pull: Pull, pending: PendingResponse) -> None:
        queue = self._queues.setdefault(mesh_host.store_id, _HostQueue(name=mesh_host.name))
        at_work = frozenset(pull.at_work)
        for each in [each for each in queue.out.values() if each.request_id not in at_work]:
            self._lost(queue, each)
        self._give_up_pull(queue)  # Answer an earlier poll, whose connection is probably broken.
        queue.pulled_at = self._clock.monotonic()
        queue.parked, queue.parked_until = pending, queue.pulled_at + min(MAX_PULL_SECONDS, max(0.0, pull.wait_seconds))
        self._hand_out(queue)
        self._runner.wake(self.name)

    def _give_up_pull(self, queue: _HostQueue) -> None:
        """Answer the open poll without requests, if a poll is open."""
        if queue.parked is not None:
            queue.parked.complete(reply(Pulled(requests=())))
            queue.parked = None

    def _lost(self, queue: _HostQueue, sent: _Sent) -> None:
        """Queue again a request that was sent but did not arrive. If it is not repeatable, end it with an error."""
        self._take_in(queue, sent)
        if sent.request.repeatable or sent.request.method in ("GET", "HEAD"):
            queue.waiting[sent.request_id] = sent
            queue.fair_queue.put(sent.key, sent)
        else:
            sent.done(self._unknown(queue, sent, "the request was lost on its way, or the host has restarted"))

    def _hand_out(self, queue: _HostQueue) -> None:
        """Answer the open poll with the waiting requests that the concurrency limits allow, if there are any."""
        if queue.parked is None:
            return
        batch: list[_Sent] = []
        size = 0
        while len(batch) < MOST_AT_ONCE and size < MOST_BYTES_AT_ONCE and (taken := queue.fair_queue.next()):
            _, sent = taken
            del queue.waiting[sent.request_id]
            queue.out[sent.request_id] = sent
            sent.handed = True
            batch.append(sent)
            size += sent.size_bytes
        if batch:
            pending, queue.parked = queue.parked, None
            pack = partial(self._pack, queue, batch, pending)
            if size > INLINE_BYTES:
                self._run_in_background(pack)
            else:
                pack()

    def _pack(self, queue: _HostQueue, batch: Sequence[_Sent], pending: PendingResponse) -> None:
        """Send a batch as the reply to a poll. A request whose body cannot be read ends with an error.

        May be called from any thread.
        """
        packed: list[PulledRequest] = []
        for sent in batch:
            try:
                packed.append(_packed(sent))
            except PagletsError as error:
                self._runner.call_soon(partial(self._end, queue, sent, error))
            except Exception as error:  # `done` must be called after any error. The sender records the error.
                fault = InternalError(f"a request to {queue.name} failed with an internal error: {error!r}")
                self._runner.call_soon(partial(self._end, queue, sent, fault))
        pending.complete(reply(Pulled(requests=tuple(packed))))

    def answered(self, sender: str, request_id: str, response: Response) -> PendingResponse:
        """Accept the answer of the host `sender` to a request. May be called from any thread.

        The reply is a `Done`, even if the request has already ended.
        """
        pending = PendingResponse()
        self._runner.call_soon(lambda: self._answered(sender, request_id, response, pending))
        return pending

    def _answered(self, sender: str, request_id: str, response: Response, pending: PendingResponse) -> None:
        pending.complete(reply(Done()))
        queue = self._queues.get(sender)
        sent = None if queue is None else queue.out.get(request_id) or queue.waiting.get(request_id)
        if queue is None or sent is None:
            return
        self._take_in(queue, sent)
        if sent.request.keep is None or response.status >= 400:
            sent.done(response)
        else:
            self._run_in_background(
                lambda: self._runner.call_soon(partial(sent.done, self._kept(queue, sent, response)))
            )
        self._hand_out(queue)

    def _kept(self, queue: _HostQueue, sent: _Sent, response: Response) -> Response | PagletsError:
        try:
            return sent.request.kept(response)
        except PagletsError as error:
            return error
        except Exception as error:  # `done` must be called after any error, as in `_pack`.
            return InternalError(
                f"the answer of {queue.name} could not be stored because of an internal error: {error!r}"
            )

    # Methods that end requests.

    def _end(self, queue: _HostQueue, sent: _Sent, outcome: Response | PagletsError) -> None:
        """End a request with `outcome`, unless it has already ended."""
        if sent.request_id in queue.out or sent.request_id in queue.waiting:
            self._take_in(queue, sent)
            sent.done(outcome)
            self._hand_out(queue)

    def _take_in(self, queue: _HostQueue, sent: _Sent) -> None:
        """Remove a request from the requests in progress."""
        if queue.out.pop(sent.request_id, None) is not None:
            queue.fair_queue.end(sent.key)
        elif queue.waiting.pop(sent.request_id, None) is not None:
            queue.fair_queue.remove(sent.key, sent)

    def tick(self, now: float) -> float | None:
        due = []
        for queue in list(self._queues.values()):  # Copy, because `done` of a request may send another request.
            for each in [*queue.waiting.values(), *queue.out.values()]:
                if now >= self._ends_at(queue, each):
                    self._end(queue, each, self._late(queue, each))
            if queue.parked is not None and now >= queue.parked_until:
                self._give_up_pull(queue)
            due += [self._ends_at(queue, each) for each in (*queue.waiting.values(), *queue.out.values())]
            due += [queue.parked_until] if queue.parked is not None else []
        self._queues = {store_id: queue for store_id, queue in self._queues.items() if not queue.is_idle}
        return min(due, default=None)

    def _ends_at(self, queue: _HostQueue, sent: _Sent) -> float:
        # With an open poll, a waiting request waits only for the concurrency limit.
        if sent.handed or queue.parked is not None:
            return sent.deadline
        return min(sent.deadline, max(sent.since, queue.pulled_at) + FETCH_SECONDS)

    def _late(self, queue: _HostQueue, sent: _Sent) -> PagletsError:
        if sent.handed:
            return self._unknown(queue, sent, "it did not answer in time")
        return Unreachable(f"{queue.name} does not poll for its requests; the request was not sent")

    def _unknown(self, queue: _HostQueue, sent: _Sent, why: str) -> PagletsError:
        return CallOutcomeUnknown(f"{sent.request.method} {sent.request.target} was sent to {queue.name}, but {why}")


def _packed(sent: _Sent) -> PulledRequest:
    request = sent.request.loaded()
    return PulledRequest(
        request_id=sent.request_id,
        method=request.method,
        target=request.target,
        body=to_base64(request.body),
        sender=request.sender,
    )
