"""A call through a link: one id however often it is asked, and wherever the paglet goes meanwhile."""

from __future__ import annotations

from typing import Any

from paglets.api.calls import Call, CallReply
from paglets.api.limits import MAX_CALL_SECONDS
from paglets.client.mesh_client import MeshClient, paglet_route
from paglets.codec.envelope import WireMessage
from paglets.core.refs import HostRef, ProxyRef
from paglets.wire.request import dump_json

GRACE_SECONDS = 15.0
"""A reply to a wait of N seconds may come this much after N: its up to 16 MiB take their time on a slow line."""


def call_paglet(mesh: MeshClient, target: ProxyRef | str, message: WireMessage, timeout: float) -> Any:
    """The reply as tagged JSON. Raises what `PagletProxy.call` raises."""
    route = paglet_route(target if isinstance(target, str) else target.agent_id, "call")
    call_id = mesh.entropy.token()
    waiting_at: list[str] = []

    def perform(host: HostRef, left: float) -> CallReply:
        wait = min(MAX_CALL_SECONDS, left)
        again = host.store_id in waiting_at
        body = dump_json(Call(message=message, call_id=call_id, again=again, wait_seconds=wait))
        reply = mesh.once(host, "POST", route, body, CallReply, wait + GRACE_SECONDS)
        waiting_at[:] = [host.store_id] if reply.waiting else []
        return reply

    return mesh.pursue(target, perform, timeout, lambda reply: not reply.waiting).value
