"""Requests that a host passes on to a member to which who asks cannot connect."""

from __future__ import annotations

from urllib.parse import quote

from paglets.api.relay import Relay
from paglets.core.refs import HostRef
from paglets.wire.base64_text import to_base64
from paglets.wire.fair_queue import queue_of
from paglets.wire.request import Request, dump_json


def relayed(host: HostRef, request: Request, timeout_seconds: float) -> Request:
    """`request` as one to a host that passes it on to the member `host`. All of its reply is signed."""

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
