"""Records of the routes by which clients and paglets speak to a paglet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paglets.api.limits import MAX_CALL_SECONDS
from paglets.codec.envelope import WireMessage
from paglets.core.refs import ProxyRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """`POST /v1/paglets/ID/call`. ID may also be the name of a paglet or service of that host.

    A caller that was answered `waiting` asks again with the same `call_id` and `again`: it gets the
    reply of the handler that is at work, not a second run of it.
    """

    message: WireMessage
    call_id: str
    again: bool = False
    wait_seconds: float = MAX_CALL_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class CallReply:
    """`waiting`: the handler is still at work or waits (`wait_state`); ask again."""

    value: Any = None
    waiting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PostMessage:
    """`POST /v1/outbox`: a client's post. The host stores it in its own outbox and delivers it from there.

    `token` is made by the client: the same token again stores nothing new. Replies `Done`.
    """

    target: ProxyRef
    message: WireMessage
    token: str
