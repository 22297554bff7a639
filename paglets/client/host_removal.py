"""Removal of a host from the mesh (`paglets mesh forget`): tell every online host that it is gone for good."""

from __future__ import annotations

import re
from dataclasses import dataclass

from paglets.api.hosts import ForgetHost, Forgotten, Hosts, MeshHostView
from paglets.client.fan_out import ask_all, online_refs, returning_errors, with_host_name
from paglets.client.hosts import NOT_JOINED, has_not_joined
from paglets.client.mesh_client import MeshClient
from paglets.core.errors import Conflict, Invalid, PagletsError
from paglets.core.refs import SHORT_ID_CHARACTERS, HostRef
from paglets.core.urls import normalise_url

STORE_ID = re.compile(r"[0-9a-f]{32}")
"""The form of store ids. A paglet may be moving to a store that no host lists."""

LIST_SECONDS = 5.0
"""Time for other hosts to list the mesh. A host that was just cut off must not delay the command."""

LEAST_PREFIX_CHARACTERS = 4
"""Shortest prefix of a store id that names a host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgottenHost:
    """The outcome of a removal.

    `answers`: from the hosts that removed it. `errors`: from the hosts that refused or did not answer. `unreachable`:
    names of hosts that are offline and still know it. `which`: words that tell the host from others of its name.
    `others`: other hosts with the same name.
    """

    store_id: str
    name: str
    which: str = ""
    others: tuple[MeshHostView, ...] = ()
    answers: tuple[Forgotten, ...]
    errors: tuple[PagletsError, ...]
    unreachable: tuple[str, ...]


def forget_host(mesh: MeshClient, wanted: str, timeout: float) -> ForgottenHost:
    """Remove the host `wanted` (name, URL, store id or a prefix of it) from all online hosts.

    Raises Conflict if the host is online, Invalid, Unknown.
    """
    views = mesh.hosts()
    online = online_refs(views)
    known = views
    found = _meant(wanted, views)
    if found is None:
        known = (*views, *_unknown_here(_others(mesh, online, min(timeout, LIST_SECONDS)), views))
        found = _meant(wanted, known)
    if found is None:
        _check_offline(wanted, views)
    store_id, name = (found.host.store_id, found.host.name) if found else _unlisted(mesh, wanted)

    def ask(host: HostRef) -> Forgotten:
        body = ForgetHost(store_id=store_id)
        return mesh.ask("POST", "/v1/mesh/forget", body, Forgotten, host=host, timeout=timeout)

    answers = ask_all(returning_errors(ask), online)
    pairs = zip(online, answers, strict=True)
    there = {host.name for host in online}
    return ForgottenHost(
        store_id=store_id,
        name=name,
        which=shown(found) if found else "",
        others=tuple(view for view in _named(wanted, known) if view.host.store_id != store_id),
        answers=tuple(each for each in answers if isinstance(each, Forgotten)),
        errors=tuple(with_host_name(host, answer) for host, answer in pairs if isinstance(answer, PagletsError)),
        unreachable=tuple(v.host.name for v in views if v.host.store_id != store_id and v.host.name not in there),
    )


def _others(mesh: MeshClient, hosts: list[HostRef], timeout: float) -> tuple[MeshHostView, ...]:
    """Return the hosts that `hosts` list. The client's host may have removed a host that others still list."""

    def ask(host: HostRef) -> tuple[MeshHostView, ...]:
        return mesh.ask("GET", "/v1/mesh/hosts", None, Hosts, host=host, timeout=timeout).hosts

    answers = ask_all(returning_errors(ask), hosts)
    views = (view for answer in answers if not isinstance(answer, PagletsError) for view in answer)
    return tuple({(view.host.store_id, view.online): view for view in views}.values())


def _unknown_here(others: tuple[MeshHostView, ...], views: tuple[MeshHostView, ...]) -> tuple[MeshHostView, ...]:
    """Return the views of offline hosts that the client's host does not list."""
    listed = {view.host.store_id for view in views}
    online = {view.host.store_id for view in others if view.online}
    return tuple(view for view in others if view.host.store_id not in listed | online)


def _check_offline(wanted: str, views: tuple[MeshHostView, ...]) -> None:
    """Raise Conflict if the host is online."""
    for view in _named(wanted, views):
        seconds = 10 if view.host.reachable else 20
        raise Conflict(
            f"{view.host.name} is online; stop it first",
            hint=[f"a host that was just cut off counts as online for up to {seconds} s"],
        )


def _unlisted(mesh: MeshClient, wanted: str) -> tuple[str, str]:
    if STORE_ID.fullmatch(wanted):
        return wanted, wanted
    found = mesh.host_named(wanted)
    return found.store_id, found.name


def _meant(wanted: str, views: tuple[MeshHostView, ...]) -> MeshHostView | None:
    """Return the offline host that `wanted` names. Raises Invalid if there are several."""
    found = _named(wanted, views)
    offline = [view for view in found if not view.online]
    if len(offline) > 1:
        raise Invalid(
            f"{wanted!r} names several hosts; name one by its store id: {', '.join(map(shown, offline))}"
            + "".join(f"; online is {shown(view)}" for view in found if view.online)
        )
    return offline[0] if offline else None


def _named(wanted: str, views: tuple[MeshHostView, ...]) -> list[MeshHostView]:
    """Return the hosts with that name, URL or store id; else those whose store id begins with `wanted`."""
    exact = [view for view in views if _address(wanted) in _names(view)]
    if exact or len(wanted) < LEAST_PREFIX_CHARACTERS:
        return exact
    return [view for view in views if view.host.store_id.startswith(wanted)]


def shown(view: MeshHostView) -> str:
    """Return words that tell this host from others with its name."""
    return f"{view.host.store_id[:SHORT_ID_CHARACTERS]} at {view.host.url}{_state(view)}"


def _state(view: MeshHostView) -> str:
    if view.online:
        return ""
    if has_not_joined(view):
        return f", {NOT_JOINED}"
    return f", not seen for {view.seconds_since_seen:.0f} s" if view.was_seen else ", not seen yet"


def _address(wanted: str) -> str:
    return normalise_url(wanted) if ":" in wanted else wanted


def _names(view: MeshHostView) -> tuple[str, ...]:
    return (view.host.store_id, view.host.name, view.host.url, *view.host.addresses)
