"""Requests to all online hosts: find and list paglets, read notes, remove a host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import urlencode

from paglets.api.hosts import Hosts
from paglets.api.notes import Note, Notes
from paglets.api.paglets import FindPaglets, FoundPaglets, Paglets, PagletView
from paglets.client.fan_out import ask_all, online_hosts, returning_errors, with_host_name
from paglets.client.host_removal import ForgottenHost, forget_host
from paglets.client.mesh_client import MeshClient
from paglets.client.proxy import PagletProxy
from paglets.core.errors import PagletsError
from paglets.core.refs import HostRef

T = TypeVar("T")

PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshNotes:
    """The notes of all hosts that answered, oldest first, and the errors of the others.

    To get only newer notes, pass `seen` to the next call of `HostClient.notes`.
    """

    notes: tuple[Note, ...]
    seen: dict[str, int]
    errors: tuple[PagletsError, ...]


class DirectoryClient:
    """The methods of `HostClient` that ask all hosts.

    `find` and `lookup` leave out the hosts that do not answer. The other methods return the errors of these hosts.
    """

    _mesh: MeshClient
    timeout: float

    def proxy(self, target: Any) -> PagletProxy:
        raise NotImplementedError

    def mesh_state(self) -> Hosts:
        """Return the mesh as the client's host sees it: its hosts, and the connections that fail between them."""
        return self._mesh.ask("GET", "/v1/mesh/hosts", None, Hosts, timeout=self.timeout)

    def forget_host(self, host: str) -> ForgottenHost:
        """Remove a host that is gone for good from all online hosts. `host`: its name, URL or store id.

        Paglets that were moving to that host return to the hosts that sent them. Raises Conflict if the host is online,
        Invalid if several hosts match, Unknown if none does.
        """
        return forget_host(self._mesh, host, self.timeout)

    def find(self, name: str) -> tuple[PagletProxy, ...]:
        """Return proxies of the paglets with this name on all online hosts that answer.

        The paglet on the client's host is first, the others follow by host name. Names are unique only on one host, so
        several hosts may have a paglet with this name.
        """
        return self._found(FindPaglets(name=name))

    def lookup(self, service_name: str) -> tuple[PagletProxy, ...]:
        """Return proxies of the paglets whose `Paglet.service_name` is this name, in the order of `find`."""
        return self._found(FindPaglets(service=service_name))

    def _found(self, wanted: FindPaglets) -> tuple[PagletProxy, ...]:
        answers, _ = self._everybody(lambda host: self._of("POST", "/v1/paglets/find", wanted, FoundPaglets, host))
        return tuple(self.proxy(each.ref) for found in answers for each in found.paglets)

    def paglets(self, *, timeout: float | None = None) -> tuple[tuple[PagletView, ...], tuple[PagletsError, ...]]:
        """Return the paglets on all online hosts, without their states, and the errors of hosts that did not answer.

        All hosts are asked at once. `timeout`: seconds for each request, which returns a page of paglets.
        """
        answers, errors = self._everybody(lambda host: self._paglets_of(host, timeout))
        return tuple(view for views in answers for view in views), errors

    def _paglets_of(self, host: HostRef, timeout: float | None) -> tuple[PagletView, ...]:
        views: list[PagletView] = []
        after: str | None = ""
        while after is not None:
            query = urlencode({"after": after, "limit": PAGE, "brief": 1})
            page = self._of("GET", f"/v1/paglets?{query}", None, Paglets, host, timeout)
            views += page.paglets
            after = page.next
        return tuple(views)

    def notes(
        self,
        *,
        group_id: str | None = None,
        limit: int = 100,
        seen: dict[str, int] | None = None,
        timeout: float | None = None,
    ) -> MeshNotes:
        """Return the newest `limit` notes to users that the online hosts have, oldest first.

        With the `seen` of an earlier result, return only newer notes, at most `limit` from each host. A host that did
        not answer the earlier call contributes only notes that are written after this call. All hosts are asked at
        once. `timeout`: seconds for each request.
        """
        group = {} if group_id is None else {"group": group_id}

        def ask(host: HostRef) -> tuple[str, Notes]:
            is_new = seen is not None and host.store_id not in seen
            known = {"after": seen[host.store_id]} if seen is not None and not is_new else {}
            query = urlencode({"limit": 1 if is_new else limit} | group | known)
            found = self._of("GET", f"/v1/notes?{query}", None, Notes, host, timeout)
            return host.store_id, replace(found, notes=()) if is_new else found

        answers, errors = self._everybody(ask)
        notes = sorted((note for _, page in answers for note in page.notes), key=lambda note: note.at)
        last = {**(seen or {}), **{store_id: page.next for store_id, page in answers}}
        return MeshNotes(notes=tuple(notes[-limit:] if seen is None else notes), seen=last, errors=errors)

    def _everybody(self, ask: Callable[[HostRef], T]) -> tuple[list[T], tuple[PagletsError, ...]]:
        """Ask all online hosts. Return the answers, that of the client's host first, then by name, and the errors."""
        own = self._mesh.host().store_id
        hosts = sorted(online_hosts(self._mesh), key=lambda host: host.store_id != own)
        answers: Sequence[T | PagletsError] = ask_all(returning_errors(ask), hosts)
        pairs = zip(hosts, answers, strict=True)
        errors = tuple(with_host_name(host, answer) for host, answer in pairs if isinstance(answer, PagletsError))
        return [answer for answer in answers if not isinstance(answer, PagletsError)], errors

    def _of(self, method: str, route: str, body: Any, kind: type[T], host: HostRef, timeout: float | None = None) -> T:
        return self._mesh.ask(method, route, body, kind, host=host, timeout=timeout or self.timeout)
