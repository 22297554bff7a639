"""Records of the routes that send messages to a paglet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paglets.api.limits import MAX_CALL_SECONDS
from paglets.codec.envelope import WireMessage
from paglets.core.refs import ProxyRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call of a paglet: `POST /v1/paglets/ID/call`. ID may also be the name of a paglet or service of the host.

    If the reply is `waiting`, the caller repeats the request with the same `call_id` and `again`. It gets the reply of
    the running handler; the handler does not run twice.
    """

    message: WireMessage
    call_id: str
    again: bool = False
    wait_seconds: float = MAX_CALL_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class CallReply:
    """The reply to a call. `waiting`: the handler still runs or waits (`wait_state`); repeat the request."""

    value: Any = None
    waiting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PostMessage:
    """A post of a client: `POST /v1/outbox`. The host stores it in its outbox and delivers it from there.

    `token`: chosen by the client. A repeated token stores nothing. The reply is `Done`.
    """

    target: ProxyRef
    message: WireMessage
    token: str
