"""Routes about hosts: identity, gossip, the hosts of the mesh."""

from __future__ import annotations

from paglets.api.hosts import ForgetHost, Forgotten, Gossip, HostIdentity, Hosts, PeerProblem
from paglets.host.host import Host
from paglets.host.http.router import ParsedRequest, Route
from paglets.wire.request import PendingResponse


def identity(host: Host, asked: ParsedRequest) -> HostIdentity:
    return host.identity()


def gossip(host: Host, asked: ParsedRequest) -> Gossip:
    return host.gossip.receive(asked.body, asked.sender)


def hosts(host: Host, asked: ParsedRequest) -> Hosts:
    peers = tuple(PeerProblem(url=url, problem=problem) for url, problem in host.gossip.peer_problems())
    return Hosts(
        hosts=host.gossip.hosts(), peers=peers, broken_links=host.gossip.broken_links(), refused=host.refused()
    )


def forget(host: Host, asked: ParsedRequest) -> PendingResponse:
    body: ForgetHost = asked.body
    return host.host_removal.forget(body.store_id)


ROUTES = (
    Route(
        method="GET",
        path="/v1/host",
        takes=None,
        gives=HostIdentity,
        about="who this host is, what it offers and how loaded it is",
        answer=identity,
    ),
    Route(
        method="POST",
        path="/v1/mesh/gossip",
        takes=Gossip,
        gives=Gossip,
        about="exchange the tables of hosts between two hosts",
        answer=gossip,
        most_at_once=2,
    ),
    Route(
        method="GET",
        path="/v1/mesh/hosts",
        takes=None,
        gives=Hosts,
        about="the hosts of the mesh that this host knows, and its problems with them",
        answer=hosts,
    ),
    Route(
        method="POST",
        path="/v1/mesh/forget",
        takes=ForgetHost,
        gives=Forgotten,
        about="remove a lost host from the mesh, and roll back hand-offs to it",
        answer=forget,
    ),
)
