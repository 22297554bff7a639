"""Requests to hosts that nobody can connect to: they are kept here until such a host fetches them, and its answers.

It is a `Transport` around another one, so whoever sends need not know. What waits is in memory: a host that ends
loses it, and who sent it had no answer. The outcomes are those of a connection: `Unreachable` for a request that was
not fetched, `CallOutcomeUnknown` for one that was handed out and not answered. A pull says what its host is at work
on: what was handed out and is not named was lost on the way, and goes again if it may be repeated.
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
from paglets.wire.fair_queue import FairQueue, QueueKey, queue_of
from paglets.wire.request import Completion, PendingResponse, Request, Response, Transport, reply

FETCH_SECONDS = 8.0
"""How long a request waits for a host that does not pull at all: longer than the longest pause between its tries, and
short enough that a host which is gone is soon found out."""

MOST_BYTES = 64 << 20
"""Bodies kept for one host. Pieces of blobs are not among them: they are read when they are fetched."""

MOST_AT_ONCE = 22
MOST_BYTES_AT_ONCE = MAX_PIECE_BYTES
"""What goes with one reply, but for the last request, which may go beyond."""

INLINE_BYTES = 256 << 10
"""So much is put into a reply on the runner, in a millisecond; more, and what must be read, elsewhere."""

Aside = Callable[[Callable[[], None]], None]


@dataclass(slots=True, kw_only=True, eq=False)
class _Sent:
    """A request under way. `handed`: a reply with it has gone out, so that it counts as perhaps taken."""

    request_id: str
    request: Request
    done: Completion
    since: float
    deadline: float
    lane: QueueKey
    handed: bool = False

    @property
    def size_bytes(self) -> int:
        return MAX_PIECE_BYTES if self.request.load is not None else len(self.request.body)


@dataclass(slots=True, kw_only=True)
class _Road:
    """What is for one host: `waiting` to be fetched, or `out`, by id; and its pull that waits, with its end."""

    name: str
    lanes: FairQueue[_Sent] = field(default_factory=FairQueue)
    waiting: dict[str, _Sent] = field(default_factory=dict)
    out: dict[str, _Sent] = field(default_factory=dict)
    parked: PendingResponse | None = None
    parked_until: float = 0.0
    pulled_at: float = float("-inf")

    @property
    def is_idle(self) -> bool:
        """Nothing is under way, so that nothing is known that a new one would not know."""
        return not (self.waiting or self.out or self.parked)

    def kept_bytes(self) -> int:
        return sum(len(each.request.body) for each in (*self.waiting.values(), *self.out.values()))


class ReverseTransport:
    """Part `reverse_transport`, and the transport of all others. All of it on the runner.

    `relaying`: the way to such hosts where nobody can connect to this one either; else None. `member` gives the row of
    a store, `is_online` says whether it is heard of; `run_in_background` does what may wait for the disk.
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
        member: Callable[[str], MeshHost | None],
        is_online: Callable[[str], bool],
        run_in_background: Aside,
    ) -> None:
        self._inner = inner
        self._clock = clock
        self._entropy = entropy
        self._runner = runner
        self._own = own
        self._relaying = relaying
        self._member = member
        self._is_online = is_online
        self._run_in_background = run_in_background
        self._roads: dict[str, _Road] = {}

    @property
    def is_idle(self) -> bool:
        """Nothing is under way."""
        return not any(road.waiting or road.out for road in self._roads.values())

    # As a transport.

    def send(self, host: HostRef, request: Request, done: Completion, *, timeout_seconds: float) -> None:
        member = self._member(host.store_id) if host.store_id else None
        if member is None or member.reachable or member.store_id == self._own.store_id:
            self._inner.send(host, request, done, timeout_seconds=timeout_seconds)
            return
        if self._relaying is not None:
            self._relaying.send(member.ref, request, done, timeout_seconds=timeout_seconds)
            return
        refusal = self._keep(member, request, done, timeout_seconds)
        if refusal is not None:
            self._runner.call_soon(partial(done, refusal))

    def _keep(
        self, member: MeshHost, request: Request, done: Completion, timeout_seconds: float
    ) -> PagletsError | None:
        if len(request.body) > MAX_PULLED_BODY_BYTES:
            most = f"{MAX_PULLED_BODY_BYTES:,} are allowed for a host that pulls"
            return TooLarge(f"{request.method} {request.target}: the body has {len(request.body):,} bytes; {most}")
        now = self._clock.monotonic()
        road = self._roads.setdefault(member.store_id, _Road(name=member.name))
        lane = queue_of(member.store_id, request)
        if road.lanes.is_full(lane) or road.kept_bytes() + len(request.body) > MOST_BYTES:
            return Unreachable(f"too many requests wait for {member.name} to fetch them; this was not sent")
        sent = _Sent(
            request_id=self._entropy.token(),
            request=request,
            done=done,
            since=now,
            deadline=now + timeout_seconds,
            lane=lane,
        )
        road.waiting[sent.request_id] = sent
        road.lanes.put(lane, sent)
        if not self._is_online(member.store_id):
            self._give_up_pull(road)  # it has ended, or sleeps: what went with this reply would be lost
        self._hand_out(road)
        self._runner.wake(self.name)
        return None

    # The host that fetches.

    def pull(self, sender: str, pull: Pull) -> PendingResponse:
        """Any thread. The reply is a Pulled. Raises NotAllowed for who is no member."""
        member = self._member(sender) if sender else None
        if member is None:
            raise NotAllowed("only a host of this mesh fetches requests that are for it; this one is not known here")
        pending = PendingResponse()
        self._runner.call_soon(lambda: self._pulled(member, pull, pending))
        return pending

    def _pulled(self, member: MeshHost, pull: Pull, pending: PendingResponse) -> None:
        road = self._roads.setdefault(member.store_id, _Road(name=member.name))
        at_work = frozenset(pull.at_work)
        for each in [each for each in road.out.values() if each.request_id not in at_work]:
            self._lost(road, each)
        self._give_up_pull(road)  # of a connection that broke, most likely
        road.pulled_at = self._clock.monotonic()
        road.parked, road.parked_until = pending, road.pulled_at + min(MAX_PULL_SECONDS, max(0.0, pull.wait_seconds))
        self._hand_out(road)
        self._runner.wake(self.name)

    def _give_up_pull(self, road: _Road) -> None:
        """Answer the pull that waits, if one does, with nothing."""
        if road.parked is not None:
            road.parked.complete(reply(Pulled(requests=())))
            road.parked = None

    def _lost(self, road: _Road, sent: _Sent) -> None:
        """It was handed out and did not arrive, or its host has restarted since."""
        self._take_in(road, sent)
        if sent.request.repeatable or sent.request.method in ("GET", "HEAD"):
            road.waiting[sent.request_id] = sent
            road.lanes.put(sent.lane, sent)
        else:
            sent.done(self._unknown(road, sent, "was lost on its way, or the host has restarted"))

    def _hand_out(self, road: _Road) -> None:
        """What may go now, with the reply to the pull that waits."""
        if road.parked is None:
            return
        batch: list[_Sent] = []
        size = 0
        while len(batch) < MOST_AT_ONCE and size < MOST_BYTES_AT_ONCE and (taken := road.lanes.next()):
            _, sent = taken
            del road.waiting[sent.request_id]
            road.out[sent.request_id] = sent
            sent.handed = True
            batch.append(sent)
            size += sent.size_bytes
        if batch:
            pending, road.parked = road.parked, None
            pack = partial(self._pack, road, batch, pending)
            if size > INLINE_BYTES:
                self._run_in_background(pack)
            else:
                pack()

    def _pack(self, road: _Road, batch: Sequence[_Sent], pending: PendingResponse) -> None:
        """Any thread. What cannot be read is not sent."""
        packed: list[PulledRequest] = []
        for sent in batch:
            try:
                packed.append(_packed(sent))
            except PagletsError as error:
                self._runner.call_soon(partial(self._end, road, sent, error))
            except Exception as error:  # `done` must be called whatever happens; who asked records what it gets
                fault = InternalError(f"a request to {road.name} failed by a fault of the program: {error!r}")
                self._runner.call_soon(partial(self._end, road, sent, fault))
        pending.complete(reply(Pulled(requests=tuple(packed))))

    def answered(self, sender: str, request_id: str, response: Response) -> PendingResponse:
        """Any thread. The reply is a Done, also of what is not waited for any more."""
        pending = PendingResponse()
        self._runner.call_soon(lambda: self._answered(sender, request_id, response, pending))
        return pending

    def _answered(self, sender: str, request_id: str, response: Response, pending: PendingResponse) -> None:
        pending.complete(reply(Done()))
        road = self._roads.get(sender)
        sent = None if road is None else road.out.get(request_id) or road.waiting.get(request_id)
        if road is None or sent is None:
            return
        self._take_in(road, sent)
        if sent.request.keep is None or response.status >= 400:
            sent.done(response)
        else:
            self._run_in_background(
                lambda: self._runner.call_soon(partial(sent.done, self._kept(road, sent, response)))
            )
        self._hand_out(road)

    def _kept(self, road: _Road, sent: _Sent, response: Response) -> Response | PagletsError:
        try:
            return sent.request.kept(response)
        except PagletsError as error:
            return error
        except Exception as error:  # as in `_pack`
            return InternalError(f"an answer of {road.name} could not be kept by a fault of the program: {error!r}")

    # The end of requests.

    def _end(self, road: _Road, sent: _Sent, outcome: Response | PagletsError) -> None:
        """Unless it has ended."""
        if sent.request_id in road.out or sent.request_id in road.waiting:
            self._take_in(road, sent)
            sent.done(outcome)
            self._hand_out(road)

    def _take_in(self, road: _Road, sent: _Sent) -> None:
        """It is under way no more."""
        if road.out.pop(sent.request_id, None) is not None:
            road.lanes.end(sent.lane)
        elif road.waiting.pop(sent.request_id, None) is not None:
            road.lanes.remove(sent.lane, sent)

    def tick(self, now: float) -> float | None:
        due = []
        for road in list(self._roads.values()):  # who is told an outcome may send anew
            for each in [*road.waiting.values(), *road.out.values()]:
                if now >= self._ends_at(road, each):
                    self._end(road, each, self._late(road, each))
            if road.parked is not None and now >= road.parked_until:
                self._give_up_pull(road)
            due += [self._ends_at(road, each) for each in (*road.waiting.values(), *road.out.values())]
            due += [road.parked_until] if road.parked is not None else []
        self._roads = {store_id: road for store_id, road in self._roads.items() if not road.is_idle}
        return min(due, default=None)

    def _ends_at(self, road: _Road, sent: _Sent) -> float:
        if sent.handed or road.parked is not None:  # where a pull waits, it is the lane that is full
            return sent.deadline
        return min(sent.deadline, max(sent.since, road.pulled_at) + FETCH_SECONDS)

    def _late(self, road: _Road, sent: _Sent) -> PagletsError:
        if sent.handed:
            return self._unknown(road, sent, "no answer came in time")
        return Unreachable(f"{road.name} does not fetch what is for it; this was not sent")

    def _unknown(self, road: _Road, sent: _Sent, why: str) -> PagletsError:
        return CallOutcomeUnknown(f"{sent.request.method} {sent.request.target} was handed to {road.name}, but {why}")


def _packed(sent: _Sent) -> PulledRequest:
    request = sent.request.loaded()
    return PulledRequest(
        request_id=sent.request_id,
        method=request.method,
        target=request.target,
        body=to_base64(request.body),
        sender=request.sender,
    )
