"""Whom a message is for: a ref, a proxy, an id, or the name that a paglet has on one host."""

from __future__ import annotations

import re

from paglets.api.paglets import PagletView
from paglets.client.mesh_client import MeshClient, paglet_route
from paglets.client.proxy import PagletProxy
from paglets.codec.envelope import WireMessage
from paglets.codec.tagged_json import encode_fields
from paglets.core.errors import Moved, Unknown
from paglets.core.messages import Message
from paglets.core.record import from_json
from paglets.core.refs import HostRef, ProxyRef, check_agent_id

Target = ProxyRef | PagletProxy | str

MADE_ID = re.compile(r"(collector-)?[0-9a-f]{16,64}([.-][0-9]+)?")
"""What ids look like. Anything else is a name."""


def plain(target: Target) -> ProxyRef | str:
    return target.ref if isinstance(target, PagletProxy) else target


def id_of(target: ProxyRef | str) -> str:
    return target if isinstance(target, str) else target.agent_id


def to_wire(message: Message) -> WireMessage:
    args = encode_fields(message.args)
    return WireMessage(kind=message.kind, args=args, sender=message.sender, priority=message.priority)


def addressee(mesh: MeshClient, target: Target, timeout: float) -> ProxyRef:
    """Who is to get what is stored now and delivered later. A name is looked up at `mesh.base`, now. Raises Unknown.

    An id, and a ref of another host, is taken as it is: its paglet may be away for a while.
    """
    wanted = plain(target)
    if isinstance(wanted, str):
        wanted = ProxyRef(agent_id=wanted, host=mesh.host())
    name = wanted.agent_id
    if MADE_ID.fullmatch(name) or wanted.host.store_id != mesh.host().store_id:
        return wanted
    try:
        view = mesh.ask("GET", paglet_route(check_agent_id(name)), None, PagletView, timeout=timeout)
    except Moved as moved:
        return ProxyRef(agent_id=name, host=from_json(HostRef, moved.details.get("host"), "the host named by `moved`"))
    except Unknown:
        raise Unknown(
            f"no paglet on {wanted.host.name} has the name {name!r}, and nothing was sent: a name is that of one "
            "host, so keep the ref of a paglet that moves"
        ) from None
    return ProxyRef(agent_id=view.agent_id, host=view.host)
