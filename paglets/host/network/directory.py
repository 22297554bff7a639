"""Search for paglets by name or service on this host and on all online hosts."""

from __future__ import annotations

from collections.abc import Callable, Collection

from paglets.api.paglets import FindPaglets, FoundPaglet, FoundPaglets
from paglets.core.refs import ProxyRef
from paglets.host.runtime.services import HostServices
from paglets.mesh.ask_all import ask_all
from paglets.mesh.gossip import Gossiper
from paglets.store import views
from paglets.store.db import Tx
from paglets.wire.request import Request, dump_json

ANSWER_SECONDS = 2.0
"""Seconds to wait for the reply of a host. It is short, because a host that does not answer cannot handle calls
either."""


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
        mine = self._services.store.read(lambda tx: self.here(tx, wanted))

        def merge(answers: list[tuple[str, FoundPaglets]]) -> None:
            ordered = [mine, *(found for _, found in sorted(answers, key=lambda answer: answer[0]))]
            done(FoundPaglets(paglets=tuple(each for found in ordered for each in found.paglets)))

        ask_all(
            self._services.transport,
            [mesh_host.ref for mesh_host in self._gossip.online()],
            Request(method="POST", target="/v1/paglets/find", body=dump_json(wanted), repeatable=True),
            lambda host, response: (host.name, response.parse(FoundPaglets)),
            merge,
            timeout_seconds=ANSWER_SECONDS,
        )
