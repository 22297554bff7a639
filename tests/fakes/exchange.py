"""Hosts that answer a client from tables, in place of `wire.pooled_client.PooledClient`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from paglets.api.hosts import Hosts, MeshHostView
from paglets.codec.strict_json import loads
from paglets.core.errors import NoSuchRoute, PagletsError, PeerReplaced, Unreachable
from paglets.core.refs import HostRef
from paglets.wire.request import Request, Response, reply, reply_error
from tests.fakes.mesh import member

Answer = Callable[[Any], Any]
"""A function that returns a record for the JSON body of a request, or raises the error to answer."""


@dataclass(slots=True, kw_only=True)
class TableHost:
    """A host whose `routes` map "METHOD /path" without a query to its answer. `asked` keeps each request.

    `broken` are errors of the connection. They are raised one after the other before any answer.
    """

    name: str
    routes: dict[str, Answer] = field(default_factory=dict)
    broken: list[PagletsError] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)
    store_id: str = ""
    reachable: bool = True

    @property
    def ref(self) -> HostRef:
        return HostRef(store_id=self.store_id or f"store-{self.name}", name=self.name, url=f"http://{self.name}:8765")

    def bodies(self, route: str) -> list[Any]:
        """Return the JSON bodies of the requests to a route, in order."""
        return [loads(one.body) for one in self.asked if _route(one) == route]

    def handle(self, request: Request) -> Response:
        self.asked.append(request)
        if self.broken:
            raise self.broken.pop(0)
        try:
            answer = self.routes.get(_route(request))
            if answer is None:
                raise NoSuchRoute(f"no route {_route(request)}")
            return reply(answer(loads(request.body) if request.body else None))
        except PagletsError as error:
            return reply_error(error)


class TableExchange:
    """A `client.mesh_client.BlockingTransport` over hosts that list one another as hosts of their mesh."""

    def __init__(self, *hosts: TableHost) -> None:
        self.hosts = {host.ref.url: host for host in hosts}
        self.closed = False
        for host in hosts:
            host.routes.setdefault("GET /v1/mesh/hosts", partial(self._list, host))

    def _list(self, asked: TableHost, body: Any) -> Hosts:
        """Return the hosts of the mesh. As on a real host, the one that answers comes first."""
        hosts = self.members()
        views = sorted(hosts.hosts, key=lambda view: view.host.store_id != asked.ref.store_id)
        return replace(hosts, hosts=tuple(views))

    def members(self) -> Hosts:
        rows = [
            member(host.name, store_id=host.ref.store_id, url=host.ref.url, reachable=host.reachable)
            for _, host in sorted(self.hosts.items())
        ]
        return Hosts(hosts=tuple(MeshHostView(host=row, online=True, seconds_since_seen=0.1) for row in rows))

    def request(self, url: str, expected_store_id: str | None, request: Request, *, timeout_seconds: float) -> Response:
        host = self.hosts.get(url)
        if host is None:
            raise Unreachable(f"{url} does not answer: connection refused")
        if expected_store_id not in (None, host.ref.store_id):
            raise PeerReplaced(f"another host answers at {url}")
        return host.handle(request)

    def close(self) -> None:
        self.closed = True


def _route(request: Request) -> str:
    return f"{request.method} {request.target.partition('?')[0]}"
