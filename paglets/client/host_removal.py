"""Remove a host from the mesh (`paglets mesh forget`): ask every online host to remove it from its table."""

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
"""The form of store ids. The user may give the id of a host that no host lists, because paglets may be moving to it."""

LIST_SECONDS = 5.0
"""Seconds for other hosts to send their lists of hosts. A host that has just died must not delay the command."""

LEAST_PREFIX_CHARACTERS = 4
"""Length of the shortest prefix of a store id that the user may give instead of the whole id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgottenHost:
    """The outcome of the removal of a host.

    `which`: the short store id, URL and state of the removed host. `others`: other hosts that the user's text matches.
    `answers`: replies of the hosts that removed it. `errors`: errors of the hosts that refused or did not answer.
    `unreachable`: names of offline hosts, which may still list the removed host.
    """

    store_id: str
    name: str
    which: str = ""
    others: tuple[MeshHostView, ...] = ()
    answers: tuple[Forgotten, ...]
    errors: tuple[PagletsError, ...]
    unreachable: tuple[str, ...]


def forget_host(mesh: MeshClient, wanted: str, timeout: float) -> ForgottenHost:
    """Remove the host `wanted` (name, URL, store id or prefix of a store id) from the tables of all online hosts.

    Raises Conflict if the host is online, Invalid if several offline hosts match, Unknown if no host matches.
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
    """Return the hosts that any of `hosts` lists, because others may list a host that the client's host removed."""

    def ask(host: HostRef) -> tuple[MeshHostView, ...]:
        return mesh.ask("GET", "/v1/mesh/hosts", None, Hosts, host=host, timeout=timeout).hosts

    answers = ask_all(returning_errors(ask), hosts)
    views = (view for answer in answers if not isinstance(answer, PagletsError) for view in answer)
    return tuple({(view.host.store_id, view.online): view for view in views}.values())


def _unknown_here(others: tuple[MeshHostView, ...], views: tuple[MeshHostView, ...]) -> tuple[MeshHostView, ...]:
    """Return the offline hosts of `others` that the client's host does not list. `views`: the list of that host."""
    listed = {view.host.store_id for view in views}
    online = {view.host.store_id for view in others if view.online}
    return tuple(view for view in others if view.host.store_id not in listed | online)


def _check_offline(wanted: str, views: tuple[MeshHostView, ...]) -> None:
    """Raise Conflict if one of `views` has the name `wanted`. The caller has found no offline host of that name."""
    for view in _named(wanted, views):
        seconds = 10 if view.host.reachable else 20
        raise Conflict(
            f"{view.host.name} is online",
            hint=[f"stop it first; a host that has just died counts as online for up to {seconds} s"],
        )


def _unlisted(mesh: MeshClient, wanted: str) -> tuple[str, str]:
    if STORE_ID.fullmatch(wanted):
        return wanted, wanted
    found = mesh.host_named(wanted)
    return found.store_id, found.name


def _meant(wanted: str, views: tuple[MeshHostView, ...]) -> MeshHostView | None:
    """Return the offline host that `wanted` names, or None. Raises Invalid if several offline hosts match."""
    found = _named(wanted, views)
    offline = [view for view in found if not view.online]
    if len(offline) > 1:
        raise Invalid(
            f"{wanted!r} names several hosts: {', '.join(map(shown, offline))}"
            + "".join(f"; online is {shown(view)}" for view in found if view.online),
            hint=["give the store id of one"],
        )
    return offline[0] if offline else None


def _named(wanted: str, views: tuple[MeshHostView, ...]) -> list[MeshHostView]:
    """Return the hosts whose name, URL or store id is `wanted`; if none, those whose store id begins with it."""
    exact = [view for view in views if _address(wanted) in _names(view)]
    if exact or len(wanted) < LEAST_PREFIX_CHARACTERS:
        return exact
    return [view for view in views if view.host.store_id.startswith(wanted)]


def shown(view: MeshHostView) -> str:
    """Return the short store id, URL and state of a host, to distinguish it from other hosts with its name."""
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
