"""Paglets by name or service: what this host has, and what all online hosts have, for a paglet here that asks."""

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
"""A host that is silent for longer is left out: what it would name could not be spoken to either."""


class Directory:
    """`service_names` are those that this host answers itself. Questions to the mesh belong to the runner."""

    def __init__(self, services: HostServices, gossip: Gossiper, service_names: Collection[str]) -> None:
        self._services = services
        self._gossip = gossip
        self._service_names = service_names

    def here(self, tx: Tx, wanted: FindPaglets) -> FoundPaglets:
        """Those on this host, by id."""
        own = self._services.own
        found = views.named(tx, wanted.name, wanted.service, own)
        if wanted.service in self._service_names and wanted.service is not None:
            ref = ProxyRef(agent_id=wanted.service, host=own)
            found = (FoundPaglet(ref=ref, name=wanted.service, service=wanted.service), *found)
        return FoundPaglets(paglets=found)

    def everywhere(self, wanted: FindPaglets, done: Callable[[FoundPaglets], None]) -> None:
        """Those on all hosts that answer: this one first, the others by name."""
        round_ = _Round(done)
        round_.add("", self._services.store.read(lambda tx: self.here(tx, wanted)))
        body = dump_json(wanted)
        request = Request(method="POST", target="/v1/paglets/find", body=body, repeatable=True)
        hosts = [member.ref for member in self._gossip.online()]
        round_.waiting = len(hosts)
        for host in hosts:
            self._services.transport.send(host, request, round_.taker(host), timeout_seconds=ANSWER_SECONDS)
        if not hosts:
            round_.close()


class _Round:
    """The answers to one question, under way."""

    def __init__(self, done: Callable[[FoundPaglets], None]) -> None:
        self.waiting = 0
        self._done = done
        self._found: list[tuple[str, FoundPaglets]] = []

    def add(self, order: str, found: FoundPaglets) -> None:
        self._found.append((order, found))

    def taker(self, host: HostRef) -> Callable[[Response | PagletsError], None]:
        def take(outcome: Response | PagletsError) -> None:
            if isinstance(outcome, Response):
                # An answer that is an error names nobody, like no answer at all.
                with suppress(PagletsError):
                    self.add(host.name, outcome.parse(FoundPaglets))
            self.waiting -= 1
            if self.waiting == 0:
                self.close()

        return take

    def close(self) -> None:
        ordered = sorted(self._found, key=lambda answer: answer[0])
        self._done(FoundPaglets(paglets=tuple(each for _, found in ordered for each in found.paglets)))
