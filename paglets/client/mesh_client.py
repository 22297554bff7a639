"""A line to one host and through it to its mesh: one request, a request repeated, a request that follows a paglet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from paglets.api.hosts import HostIdentity, Hosts, MeshHostView
from paglets.api.paglets import PagletView
from paglets.client.redirects import Redirects
from paglets.core.clock import Clock, Entropy
from paglets.core.errors import (
    BadRequest,
    CallOutcomeUnknown,
    Invalid,
    Moved,
    Moving,
    PagletsError,
    PeerReplaced,
    Unknown,
    Unreachable,
)
from paglets.core.record import from_json
from paglets.core.refs import HostRef, ProxyRef
from paglets.core.text import meant
from paglets.core.urls import normalise_url
from paglets.wire.relay import relayed
from paglets.wire.request import Request, Response, dump_json

T = TypeVar("T")
Perform = Callable[[HostRef, float], T]
"""Does a request at that host within so many seconds."""

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0
SHORTEST_TIMEOUT_SECONDS = 0.1
RELAY_GRACE_SECONDS = 3.0
"""For the host that relays to say that no answer came."""


class BlockingTransport(Protocol):
    """What a link needs of `wire.pooled_client.PooledClient`."""

    def request(
        self, url: str, expected_store_id: str | None, request: Request, *, timeout_seconds: float
    ) -> Response: ...

    def close(self) -> None: ...


class MeshClient:
    """Speaks to `base`, and to other hosts only at the addresses that `base` lists for its mesh.

    Members to which nobody can connect are spoken to through `base`; where that is one of them itself, through the
    host `through`, by which it was found.
    """

    def __init__(
        self,
        base: HostRef,
        exchange: BlockingTransport,
        *,
        clock: Clock,
        entropy: Entropy,
        pause: Callable[[float], None],
        through: HostRef | None = None,
    ) -> None:
        self.base = base
        self._through = through
        self._near = "" if through is None else through.store_id
        self._relayed = frozenset() if through is None else frozenset({base.store_id})
        self._exchange = exchange
        self.clock = clock
        self.entropy = entropy
        self.pause = pause
        self._members: dict[str, HostRef] = {}
        self._answered = False

    def close(self) -> None:
        self._exchange.close()

    def host(self) -> HostRef:
        """`base` with its id, which is asked for where only its address is known."""
        if not self.base.store_id:
            self.identity()
        return self.base

    def identity(self) -> HostIdentity:
        found = self.ask("GET", "/v1/host", None, HostIdentity)
        self.base = HostRef(store_id=found.store_id, name=found.name, url=self.base.url)
        return found

    def hosts(self) -> tuple[MeshHostView, ...]:
        views = self.ask("GET", "/v1/mesh/hosts", None, Hosts).hosts
        self._members = {view.host.store_id: view.host.ref for view in views}
        if self._through is None and views:  # the first is the host that was asked
            self._near = views[0].host.store_id
        self._relayed = frozenset(
            view.host.store_id for view in views if not view.host.reachable and view.host.store_id != self._near
        )
        return views

    def to(self, host: HostRef) -> MeshClient:
        """A link to a member that this one has listed."""
        if host.store_id == self._near and self._through is None:
            return self
        through = (self._through or self.base) if host.store_id in self._relayed else None
        return MeshClient(
            host, self._exchange, clock=self.clock, entropy=self.entropy, pause=self.pause, through=through
        )

    def member_named(self, name: str) -> HostRef:
        """The member of that name or URL. Raises Unknown, and Invalid for what looks like a URL and is none."""
        wanted = normalise_url(name) if ":" in name else name
        views = sorted(self.hosts(), key=lambda view: not view.online)
        for view in views:
            if wanted in (view.host.name, view.host.url, *view.host.addresses):
                return view.host.ref
        names = dict.fromkeys(view.host.name for view in views)
        near = meant(wanted, names)
        known = f"{near} it knows {', '.join(names)}".lstrip()
        raise Unknown(f"{self.base.name or self.base.url} knows no host {name!r}: {known}")

    def ask(
        self, method: str, route: str, body: Any, kind: type[T], *, host: HostRef | None = None, timeout: float = 30.0
    ) -> T:
        """A request that may be repeated without harm, until an answer comes or the time is over.

        Not repeated where `base` never answered, nor where another host cannot be reached: nobody is there to wait for.
        """
        payload = b"" if body is None else dump_json(body)
        end = self.clock.monotonic() + timeout
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                left = max(SHORTEST_TIMEOUT_SECONDS, end - self.clock.monotonic())
                return self.once(host or self.base, method, route, payload, kind, left)
            except (Unreachable, CallOutcomeUnknown) as error:
                gone = host is not None and isinstance(error, Unreachable)
                if gone or not self._answered or self.clock.monotonic() + pause >= end:
                    raise
            self.pause(pause)
            pause = min(LONGEST_PAUSE_SECONDS, pause * 2)

    def once(self, host: HostRef, method: str, route: str, body: bytes, kind: type[T], timeout: float) -> T:
        """One request, sent once."""
        response = self._send(host, Request(method=method, target=route, body=body), timeout)
        try:
            return response.parse(kind)
        except (BadRequest, Invalid) as error:
            if response.status >= 400:
                raise
            raise BadRequest(f"what {host.name or host.url} answers is not as agreed: {error.message}") from error

    def fetch(self, host: HostRef, route: str, timeout: float) -> bytes:
        """A piece of a blob, asked for once. Raises the error that came in its place.

        Who asks must hash the whole: nothing else proves it.
        """
        response = self._send(host, Request(method="GET", target=route, by_name=True), timeout)
        if response.status >= 400:
            response.json()
        return response.body

    def _send(self, host: HostRef, request: Request, timeout: float) -> Response:
        at, limit, near = host, timeout, self._through or self.base
        if host.store_id in self._relayed:
            at, limit, request = near, timeout + RELAY_GRACE_SECONDS, relayed(host, request, timeout).loaded()
        elif host.store_id and host.store_id == self._near:
            at = near  # its address for others may be none for this machine
        try:
            response = self._exchange.request(at.url, at.store_id or None, request, timeout_seconds=limit)
        except Unreachable as error:
            if self._answered or host.url != self.base.url:
                raise
            who = f"start host {host.name} there" if host.name else "start a host there"
            ways = f"{who}, or ask another one with HostClient(URL) or PAGLETS_AT"
            raise Unreachable(f"{error.message}; {ways}") from None
        if host.url == self.base.url:
            self._answered = True
        return response

    def performer(self, method: str, route: str, body: Any, kind: type[T]) -> Perform[T]:
        """`once` with everything fixed but host and time."""
        payload = b"" if body is None else dump_json(body)
        return lambda host, left: self.once(host, method, route, payload, kind, left)

    def pursue(
        self,
        target: ProxyRef | str,
        perform: Perform[T],
        timeout: float,
        finished: Callable[[T], bool] = lambda reply: True,
    ) -> T:
        """`perform` at the host where the paglet is, until `finished` says so of its reply."""
        agent_id = target if isinstance(target, str) else target.agent_id
        end = self.clock.monotonic() + timeout
        chase = Redirects(agent_id, deadline=end, jitter=self.entropy.uniform)
        host = self.base if isinstance(target, str) else self.member(target.host) or self.base
        while True:
            left = chase.left(self.clock.monotonic())
            try:
                if finished(reply := perform(host, left)):
                    return reply
                chase.answered()
            except PagletsError as error:
                if isinstance(error, Unreachable) and host.url == self.base.url and not self._answered:
                    raise
                failed = error
            else:
                continue
            host = self._next_host(host, agent_id, chase, failed)  # what it raises is told without what led there

    def _next_host(self, host: HostRef, agent_id: str, chase: Redirects, error: PagletsError) -> HostRef:
        if isinstance(error, PeerReplaced):
            self._members = {}  # it may have another address by now
        step = chase.after(error, self.clock.monotonic())
        self.pause(step.pause_seconds)
        wanted = step.host or host
        try:
            if step.locate or self.member(wanted) is None:
                # What a host says of it may be older than its last move, and the host that is named forgotten.
                wanted = self._locate(agent_id, host)
        except Moving as moving:
            # No host has it just now: ask where it was, until it is somewhere.
            self.pause(chase.after(moving, self.clock.monotonic()).pause_seconds)
            wanted = host
        except Unknown:
            if isinstance(error, Unreachable):
                raise error from None  # that no other host knows it says less than why its own does not answer
            if not isinstance(error, Moved):
                raise
        found = self.member(wanted)
        if found is None:
            raise Unreachable(f"{agent_id} is on {wanted.name}, which is not in the mesh as {self.base.name} knows it")
        return found

    def member(self, wanted: HostRef) -> HostRef | None:
        """`wanted` at the address that the mesh knows: an address in a message is never contacted."""
        if wanted.store_id == self.host().store_id:
            return self.base
        if wanted.store_id not in self._members:
            self.hosts()
        return self._members.get(wanted.store_id)

    def _locate(self, agent_id: str, last: HostRef) -> HostRef:
        """The host where `base` says the paglet is; `last` where it cannot say for the moment."""
        try:
            return self.ask("GET", paglet_route(agent_id), None, PagletView).host
        except Moved as moved:
            return from_json(HostRef, moved.details.get("host"), "the host named by `moved`")
        except (Unreachable, CallOutcomeUnknown, PeerReplaced):
            return last


def quoted(part: str) -> str:
    """`part` as one step of a route."""
    return quote(part, safe="")


def paglet_route(agent_id: str, *further: str) -> str:
    return "/".join(("/v1/paglets", quoted(agent_id), *further))
