"""Search for paglets by name or service on this host and on all online hosts."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress

from paglets.api.paglets import FindPaglets, FoundPaglet, FoundPaglets
from paglets.core.errors import PagletsError
from paglets.core.refs import HostRef, ProxyRef
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.store import views
from paglets.store.db import Tx
from paglets.wire.request import Request, Response, dump_json

ANSWER_SECONDS = 2.0
"""Seconds to wait for the reply of a host. The wait is short, because a host that does not answer could not handle
calls to its paglets either."""


class Directory:
    """The search for paglets by name or service. `service_names` are the services that the host itself offers.

    `everywhere` may only be called on the runner.
    """

    def __init__(self, services: HostServices, gossip: Gossiper, service_names: Collection[str]) -> None:
        self._services = services
        self._gossip = gossip
        self._service_names = service_names

    def here(self, tx: Tx, wanted: FindPaglets) -> FoundPaglets:
        """Return the matching service of the host itself, if any, then the matching paglets, sorted by id."""
        own = self._services.own
        found = views.named(tx, wanted.name, wanted.service, own)
        if wanted.service in self._service_names and wanted.service is not None:
            ref = ProxyRef(agent_id=wanted.service, host=own)
            found = (FoundPaglet(ref=ref, name=wanted.service, service=wanted.service), *found)
        return FoundPaglets(paglets=found)

    def everywhere(self, wanted: FindPaglets, done: Callable[[FoundPaglets], None]) -> None:
        """Search all online hosts, and pass the matching paglets to `done`.

        The paglets of this host come first, then those of the other hosts, sorted by host name.
        """
        round_ = _Round(done)
        round_.add("", self._services.store.read(lambda tx: self.here(tx, wanted)))
        body = dump_json(wanted)
        request = Request(method="POST", target="/v1/paglets/find", body=body, repeatable=True)
        hosts = [mesh_host.ref for mesh_host in self._gossip.online()]
        round_.waiting = len(hosts)
        for host in hosts:
            self._services.transport.send(host, request, round_.taker(host), timeout_seconds=ANSWER_SECONDS)
        if not hosts:
            round_.close()


class _Round:
    """One search of the mesh, with the replies received so far."""

    def __init__(self, done: Callable[[FoundPaglets], None]) -> None:
        self.waiting = 0
        self._done = done
        self._found: list[tuple[str, FoundPaglets]] = []

    def add(self, order: str, found: FoundPaglets) -> None:
        self._found.append((order, found))

    def taker(self, host: HostRef) -> Callable[[Response | PagletsError], None]:
        def take(outcome: Response | PagletsError) -> None:
            if isinstance(outcome, Response):
                # `parse` raises PagletsError for an error response. Skip that host, as if it had not answered.
                with suppress(PagletsError):
                    self.add(host.name, outcome.parse(FoundPaglets))
            self.waiting -= 1
            if self.waiting == 0:
                self.close()

        return take

    def close(self) -> None:
        ordered = sorted(self._found, key=lambda answer: answer[0])
        self._done(FoundPaglets(paglets=tuple(each for _, found in ordered for each in found.paglets)))
