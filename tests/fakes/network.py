"""A network in one process under virtual time. Functions handle the requests, and no socket is opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from paglets.core.clock import Entropy
from paglets.core.errors import CallOutcomeUnknown, PagletsError, PeerReplaced, Unreachable
from paglets.core.parts import Part
from paglets.core.refs import HostRef
from paglets.host.runtime.runner import Runner
from paglets.store.db import Store
from paglets.wire.request import Completion, Request, Response
from tests.fakes.clock import FakeClock
from tests.fakes.logs import logger_to

Handler = Callable[[Request], Response]
LATENCY_SECONDS = (0.001, 0.02)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    store_id: str
    handler: Handler


class LoopNetwork:
    """A network between handlers registered by URL. One seed decides all delays and losses.

    `loss` is the share of messages that vanish, requests and replies alike. `sent` counts requests by (sender's store
    id, method and path), `bytes_sent` the bytes of bodies by sender, in both directions.
    """

    def __init__(self, clock: FakeClock, entropy: Entropy) -> None:
        self.clock = clock
        self.loss = 0.0
        self.sent: Counter[tuple[str, str]] = Counter()
        self.bytes_sent: Counter[str] = Counter()
        self._entropy = entropy
        self._nodes: dict[str, Node] = {}
        self._side: dict[str, int] = {}
        self._cuts: set[tuple[str, str]] = set()

    def join(self, url: str, store_id: str, handler: Handler) -> None:
        """Register `handler` for `url`."""
        self._nodes[url] = Node(store_id=store_id, handler=handler)

    def leave(self, url: str) -> None:
        """Refuse connections to `url` from now on. Replies from there that are under way are lost."""
        self._nodes.pop(url, None)

    def part(self, *sides: tuple[str, ...]) -> None:
        """Partition the network into these sides. Store ids in none of them belong to the first."""
        self._side = {store_id: number for number, side in enumerate(sides) for store_id in side}

    def cut(self, sender: str, url: str) -> None:
        """Refuse connections from a store id to `url`. Those of others, and replies, pass."""
        self._cuts.add((sender, url))

    def heal(self) -> None:
        """End all partitions and cuts."""
        self._side = {}
        self._cuts = set()

    def transport(self, store_id: str) -> LoopTransport:
        """Return the transport of the host with `store_id`."""
        return LoopTransport(self, store_id)

    def deliver(self, sender: str, host: HostRef, request: Request, done: Completion, timeout_seconds: float) -> None:
        """Send a request; see `Transport`."""
        self.sent[(sender, f"{request.method} {request.target}")] += 1
        self.bytes_sent[sender] += len(request.body)
        exchange = _Exchange(self, sender, host, replace(request, sender=sender), done)
        self.clock.call_at(self.clock.monotonic() + timeout_seconds, exchange.time_out)
        self._later(exchange.arrive)

    def _later(self, action: Callable[[], None]) -> None:
        self.clock.call_at(self.clock.monotonic() + self._entropy.uniform(*LATENCY_SECONDS), action)

    def carries(self, one: str, other: str) -> bool:
        if self._side.get(one, 0) != self._side.get(other, 0):
            return False
        return self.loss == 0 or self._entropy.uniform(0, 1) >= self.loss

    def node(self, url: str, sender: str = "") -> Node | None:
        """Return the host at `url`. Return None, too, if connections of `sender` to it are cut."""
        return None if (sender, url) in self._cuts else self._nodes.get(url)

    def reply(self, action: Callable[[], None]) -> None:
        self._later(action)


class _Exchange:
    """A request and its reply. It ends once."""

    def __init__(self, net: LoopNetwork, sender: str, host: HostRef, request: Request, done: Completion) -> None:
        self._net = net
        self._sender = sender
        self._host = host
        self._request = request
        self._done = done
        self._taken = False
        self._ended = False

    def arrive(self) -> None:
        node = self._net.node(self._host.url, self._sender)
        if node is not None and not self._net.carries(self._sender, node.store_id):
            return
        if node is None:
            self._end(Unreachable(f"{self._host.url} does not answer: connection refused"))
        elif self._host.store_id not in ("", node.store_id):
            self._end(PeerReplaced(f"another host than {self._host.name} answers at {self._host.url}"))
        else:
            self._taken = True
            response = node.handler(self._request)
            self._net.bytes_sent[node.store_id] += len(response.body)
            self._net.reply(lambda: self._return(node, response))

    def _return(self, node: Node, response: Response) -> None:
        if self._net.node(self._host.url) is node and self._net.carries(node.store_id, self._sender):
            self._end(response)

    def time_out(self) -> None:
        error = CallOutcomeUnknown if self._taken else Unreachable
        self._end(error(f"{self._host.url} did not answer in time"))

    def _end(self, outcome: Response | PagletsError) -> None:
        if not self._ended:
            self._ended = True
            self._done(outcome)


class LoopTransport:
    """A `Transport` of one host. After `close` it sends nothing and reports no completion: the host is dead."""

    def __init__(self, network: LoopNetwork, store_id: str) -> None:
        self._network = network
        self._store_id = store_id
        self._closed = False

    def close(self) -> None:
        self._closed = True

    def send(self, host: HostRef, request: Request, done: Completion, *, timeout_seconds: float) -> None:
        def deliver(outcome: Response | PagletsError) -> None:
            if not self._closed:
                done(outcome if isinstance(outcome, PagletsError) else _kept(request, outcome))

        if self._closed:
            return
        try:
            loaded = request.loaded()
        except PagletsError as error:
            deliver(error)
        else:
            self._network.deliver(self._store_id, host, loaded, deliver, timeout_seconds)


def _kept(request: Request, response: Response) -> Response | PagletsError:
    try:
        return request.kept(response)
    except PagletsError as error:
        return error


class VirtualRunner:
    """A driver of a host's real runner under virtual time. The runner steps when it is woken or work is due.

    `stop` acts as a crash or SIGSTOP, `resume` as SIGCONT.
    """

    def __init__(self, store: Store, clock: FakeClock) -> None:
        self.faults: list[str] = []
        self.runner = Runner(store, clock, logger_to(self.faults.append))
        self._clock = clock
        self._running = True
        self._next: float | None = None
        self.runner.signal = self._signal
        store.on_commit = lambda wakes, touched: self.runner.wake(*wakes)

    def add(self, *parts: Part) -> None:
        for part in parts:
            self.runner.add(part)
        self._signal()

    def stop(self) -> None:
        self._running = False

    def resume(self) -> None:
        self._running = True
        self._next = None
        self._signal()

    def _signal(self) -> None:
        self._at(self._clock.monotonic())

    def _at(self, at: float) -> None:
        if self._running and (self._next is None or at < self._next):
            self._next = at
            self._clock.call_at(at, lambda: self._step(at))

    def _step(self, at: float) -> None:
        if not self._running or self._next != at:
            return
        self._next = None
        pause = self.runner.step()
        if pause is not None:
            self._at(self._clock.monotonic() + pause)
