"""Relayed requests: a relay host forwards them to a host to which the sender cannot connect."""

from __future__ import annotations

from urllib.parse import quote

from paglets.api.relay import Relay
from paglets.core.refs import HostRef
from paglets.wire.base64_text import to_base64
from paglets.wire.request import Request, dump_json, queue_of


def relayed(host: HostRef, request: Request, timeout_seconds: float) -> Request:
    """Return the request that asks a relay to forward `request` to `host`.

    The signature of the reply covers its body, even if that is a piece of a blob (`by_name` is False).
    """

    def load() -> bytes:
        body = to_base64(request.loaded().body)
        return dump_json(
            Relay(method=request.method, target=request.target, body=body, timeout_seconds=timeout_seconds)
        )

    return Request(
        method="POST",
        target=f"/v1/via/{quote(host.store_id, safe='')}",
        load=load,
        keep=request.keep,
        repeatable=request.repeatable or request.method in ("GET", "HEAD"),
        queue=queue_of("", request)[1],
    )
