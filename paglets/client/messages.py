"""Messages to paglets: resolve the target, convert to the wire format, and call."""

from __future__ import annotations

import re
from typing import Any

from paglets.api.calls import Call, CallReply
from paglets.api.limits import MAX_CALL_SECONDS
from paglets.api.paglets import PagletView
from paglets.client.mesh_client import MeshClient, paglet_route
from paglets.client.proxy import PagletProxy
from paglets.codec.envelope import WireMessage
from paglets.codec.tagged_json import encode_fields
from paglets.core.errors import Moved, Unknown
from paglets.core.messages import Message
from paglets.core.record import from_json
from paglets.core.refs import HostRef, ProxyRef, check_agent_id
from paglets.wire.request import dump_json

Target = ProxyRef | PagletProxy | str
"""A paglet: its reference, a proxy, its id, or its name on the host of the client."""

PAGLET_ID = re.compile(r"(collector-)?[0-9a-f]{16,64}([.-][0-9]+)?")
"""The form of paglet ids. Any other text is the name of a paglet."""

GRACE_SECONDS = 15.0
"""Seconds added to the wait for a reply, because up to 16 MiB may have to arrive over a slow connection."""


def plain(target: Target) -> ProxyRef | str:
    return target.ref if isinstance(target, PagletProxy) else target


def id_of(target: ProxyRef | str) -> str:
    return target if isinstance(target, str) else target.agent_id


def to_wire(message: Message) -> WireMessage:
    args = encode_fields(message.args)
    return WireMessage(kind=message.kind, args=args, sender=message.sender, priority=message.priority)


def resolve(mesh: MeshClient, target: Target, timeout: float) -> ProxyRef:
    """Return a reference to the paglet that is to receive a stored message.

    A name is looked up on `mesh.base` at once. Ids and references to other hosts are not checked, because the host of
    the paglet may be offline. Raises Unknown for an unknown name.
    """
    wanted = plain(target)
    if isinstance(wanted, str):
        wanted = ProxyRef(agent_id=wanted, host=mesh.host())
    name = wanted.agent_id
    if PAGLET_ID.fullmatch(name) or wanted.host.store_id != mesh.host().store_id:
        return wanted
    try:
        view = mesh.ask("GET", paglet_route(check_agent_id(name)), None, PagletView, timeout=timeout)
    except Moved as moved:
        return ProxyRef(agent_id=name, host=from_json(HostRef, moved.details.get("host"), "the host named by `moved`"))
    except Unknown:
        raise Unknown(
            f"no paglet on {wanted.host.name} has the name {name!r}; nothing was sent",
            hint=["a name is only valid on one host: keep the reference of a paglet that moves"],
        ) from None
    return ProxyRef(agent_id=view.agent_id, host=view.host)


def call_paglet(mesh: MeshClient, target: ProxyRef | str, message: WireMessage, timeout: float) -> Any:
    """Call a paglet and return the reply as tagged JSON. Raises the errors of `PagletProxy.call`.

    All requests of one call have the same call id, even if the paglet moves. So its handler runs once.
    """
    route = paglet_route(id_of(target), "call")
    call_id = mesh.entropy.token()
    waiting_at: list[str] = []

    def perform(host: HostRef, left: float) -> CallReply:
        wait = min(MAX_CALL_SECONDS, left)
        again = host.store_id in waiting_at
        body = dump_json(Call(message=message, call_id=call_id, again=again, wait_seconds=wait))
        reply = mesh.once(host, "POST", route, body, CallReply, wait + GRACE_SECONDS)
        waiting_at[:] = [host.store_id] if reply.waiting else []
        return reply

    return mesh.follow(target, perform, timeout, lambda reply: not reply.waiting).value
