"""Requests and replies of the routes that send messages to a paglet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paglets.api.limits import MAX_CALL_SECONDS
from paglets.codec.envelope import WireMessage
from paglets.core.refs import ProxyRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call of a paglet: `POST /v1/paglets/ID/call`.

    ID may also be the name of a paglet on the receiver, or of a service of the receiver itself. If the reply is
    `waiting`, the caller repeats the request with the same `call_id` and with `again` set. The handler does not run
    twice: the second request gets the reply of the running handler.
    """

    message: WireMessage
    call_id: str
    again: bool = False
    wait_seconds: float = MAX_CALL_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class CallReply:
    """The reply to a call. `waiting`: the handler has not ended, so the caller must repeat the request."""

    value: Any = None
    waiting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PostMessage:
    """A message without a reply, from a client: `POST /v1/outbox`. The host stores and later delivers it.

    `token`: an id chosen by the client. A second request with this token stores nothing. The reply is `Done`.
    """

    target: ProxyRef
    message: WireMessage
    token: str
