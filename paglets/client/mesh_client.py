"""A client of one host and, through it, of the other hosts in its mesh. It sends, retries and redirects requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from paglets.api.hosts import HostIdentity, Hosts, MeshHostView
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
from paglets.core.text import did_you_mean
from paglets.core.urls import normalise_url
from paglets.wire.relay import relayed
from paglets.wire.request import Request, Response, dump_json

T = TypeVar("T")
Perform = Callable[[HostRef, float], T]
"""A function that sends a request to a host, with a timeout in seconds, and returns the reply."""

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0
SHORTEST_TIMEOUT_SECONDS = 0.1
MOVE_SECONDS = 1
"""The longest time in seconds that a lookup waits for a paglet that is moving. Most moves take milliseconds."""

RELAY_GRACE_SECONDS = 3.0
"""Seconds added to the timeout of a relayed request, so that the relay can report that no reply came."""


class BlockingTransport(Protocol):
    """The methods of `wire.pooled_client.PooledClient` that a MeshClient uses."""

    def request(
        self, url: str, expected_store_id: str | None, request: Request, *, timeout_seconds: float
    ) -> Response: ...

    def close(self) -> None: ...


class MeshClient:
    """A client of the host `base`, and of other hosts at the addresses that `base` lists for its mesh.

    Requests to hosts that do not accept connections are relayed by `base`. If `base` does not accept
    connections itself, the host `through` relays the requests.
    """

    def __init__(
        self,
        base: HostRef,
        transport: BlockingTransport,
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
        self._transport = transport
        self.clock = clock
        self.entropy = entropy
        self.pause = pause
        self._listed: dict[str, HostRef] = {}
        self._answered = False

    def close(self) -> None:
        self._transport.close()

    def host(self) -> HostRef:
        """Return `base` with its store id. If only the address is known, ask the host for its store id."""
        if not self.base.store_id:
            self.identity()
        return self.base

    def identity(self) -> HostIdentity:
        found = self.ask("GET", "/v1/host", None, HostIdentity)
        self.base = HostRef(store_id=found.store_id, name=found.name, url=self.base.url)
        return found

    def hosts(self) -> tuple[MeshHostView, ...]:
        views = self.ask("GET", "/v1/mesh/hosts", None, Hosts).hosts
        self._listed = {view.host.store_id: view.host.ref for view in views}
        if self._through is None and views:  # the first view is that of `base`
            self._near = views[0].host.store_id
        self._relayed = frozenset(
            view.host.store_id for view in views if not view.host.reachable and view.host.store_id != self._near
        )
        return views

    def to(self, host: HostRef) -> MeshClient:
        """Return a client of another host that `hosts` has listed."""
        if host.store_id == self._near and self._through is None:
            return self
        through = (self._through or self.base) if host.store_id in self._relayed else None
        return MeshClient(
            host, self._transport, clock=self.clock, entropy=self.entropy, pause=self.pause, through=through
        )

    def host_named(self, name: str) -> HostRef:
        """Return the host of that name or URL. Raises Unknown, and Invalid for a malformed URL."""
        wanted = normalise_url(name) if ":" in name else name
        views = sorted(self.hosts(), key=lambda view: not view.online)
        for view in views:
            if wanted in (view.host.name, view.host.url, *view.host.addresses):
                return view.host.ref
        names = dict.fromkeys(view.host.name for view in views)
        near = did_you_mean(wanted, names)
        known = f"{near} it knows {', '.join(names)}".lstrip()
        raise Unknown(f"{self.base.name or self.base.url} knows no host {name!r}: {known}")

    def ask(
        self, method: str, route: str, body: Any, kind: type[T], *, host: HostRef | None = None, timeout: float = 30.0
    ) -> T:
        """Send an idempotent request, and repeat it until a reply comes or the timeout passes.

        The request is not repeated if `base` has not answered any request yet, or if `host` is unreachable.
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
        """Send a request once, and return the record in its reply."""
        response = self._send(host, Request(method=method, target=route, body=body), timeout)
        try:
            return response.parse(kind)
        except (BadRequest, Invalid) as error:
            if response.status >= 400:
                raise
            raise BadRequest(
                f"{host.name or host.url} sent a malformed reply: {error.message}",
                hint=["the host may run another version of paglets: use the same paglets.pyz on both machines"],
            ) from error

    def fetch(self, host: HostRef, route: str, timeout: float) -> bytes:
        """Request a piece of a blob once, and return its bytes. Raises the error that the host reports.

        The bytes are not signed, so the caller must check the hash of the whole blob.
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
            at = near  # the address that this host announces to others may not work from this machine
        try:
            response = self._transport.request(at.url, at.store_id or None, request, timeout_seconds=limit)
        except Unreachable as error:
            if self._answered or host.url != self.base.url:
                raise
            start = f"start host {host.name} on that machine" if host.name else "start a host on that machine"
            hint = f"{start}, or name another host with HostClient(URL) or PAGLETS_AT"
            raise Unreachable(error.message, **{**error.details, "hint": [hint]}) from None
        if host.url == self.base.url:
            self._answered = True
        return response

    def performer(self, method: str, route: str, body: Any, kind: type[T]) -> Perform[T]:
        """Return a function of a host and a timeout that calls `once` with these arguments."""
        payload = b"" if body is None else dump_json(body)
        return lambda host, left: self.once(host, method, route, payload, kind, left)

    def follow(
        self,
        target: ProxyRef | str,
        perform: Perform[T],
        timeout: float,
        finished: Callable[[T], bool] = lambda reply: True,
    ) -> T:
        """Call `perform` with the host of the paglet until `finished(reply)` is true, and return that reply.

        If the paglet moves, the request follows it. After the timeout, raise an error like `Redirects.left`.
        """
        agent_id = target if isinstance(target, str) else target.agent_id
        end = self.clock.monotonic() + timeout
        redirects = Redirects(agent_id, deadline=end, jitter=self.entropy.uniform)
        host = self.base if isinstance(target, str) else self.listed(target.host) or self.base
        while True:
            left = redirects.left(self.clock.monotonic())
            try:
                if finished(reply := perform(host, left)):
                    return reply
                redirects.answered()
            except PagletsError as error:
                if isinstance(error, Unreachable) and host.url == self.base.url and not self._answered:
                    raise
                failed = error
            else:
                continue
            # Call this outside the `except` block, so that its errors are shown without `failed` as their context.
            host = self._next_host(host, agent_id, redirects, failed)

    def _next_host(self, host: HostRef, agent_id: str, redirects: Redirects, error: PagletsError) -> HostRef:
        if isinstance(error, PeerReplaced):
            self._listed = {}  # the host may have another address now, so list the hosts again
        retry = redirects.after(error, self.clock.monotonic())
        self.pause(retry.pause_seconds)
        wanted = retry.host or host
        try:
            if retry.locate or self.listed(wanted) is None:
                # A redirect may be older than the last move, and may name a removed host.
                wanted = self._locate(agent_id, host)
        except Moving as moving:
            # The paglet is between two hosts: ask its last host again until it arrives.
            self.pause(redirects.after(moving, self.clock.monotonic()).pause_seconds)
            wanted = host
        except Unknown:
            if isinstance(error, Unreachable):
                raise error from None  # this explains more than an error that no other host knows the paglet
            if not isinstance(error, Moved):
                raise
        found = self.listed(wanted)
        if found is None:
            raise Unreachable(f"{agent_id} is on {wanted.name}, which {self.base.name} does not list as a host")
        return found

    def listed(self, wanted: HostRef) -> HostRef | None:
        """Return the host `wanted` with the address that `base` lists for it; None if `base` does not list it.

        Addresses in messages are never contacted.
        """
        if wanted.store_id == self.host().store_id:
            return self.base
        if wanted.store_id not in self._listed:
            self.hosts()
        return self._listed.get(wanted.store_id)

    def _locate(self, agent_id: str, last: HostRef) -> HostRef:
        """Return the host of the paglet according to `base`, or `last` if `base` does not answer.

        Wait up to MOVE_SECONDS for the end of a move. Raises Moving, Unknown.
        """
        from paglets.api.paglets import PagletView  # Import it on use: other commands start faster.

        try:
            return self.ask("GET", f"{paglet_route(agent_id)}?wait={MOVE_SECONDS}", None, PagletView).host
        except Moved as moved:
            return from_json(HostRef, moved.details.get("host"), "the host named by `moved`")
        except (Unreachable, CallOutcomeUnknown, PeerReplaced):
            return last


def quoted(part: str) -> str:
    """Return `part`, quoted as one segment of a URL path."""
    return quote(part, safe="")


def paglet_route(agent_id: str, *further: str) -> str:
    return "/".join(("/v1/paglets", quoted(agent_id), *further))
