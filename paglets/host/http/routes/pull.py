"""Routes for hosts that accept no connections."""

from __future__ import annotations

from functools import partial
from urllib.parse import unquote

from paglets.api.limits import MAX_CALL_SECONDS
from paglets.api.paglets import Done
from paglets.api.pull import Pull, Pulled, PulledAnswer
from paglets.api.relay import Relay
from paglets.core.errors import Invalid, PagletsError, Unreachable
from paglets.host.host import Host
from paglets.host.http.head import check_request_line
from paglets.host.http.router import ParsedRequest, Route
from paglets.wire.base64_text import from_base64
from paglets.wire.request import PendingResponse, Request, Response, reply_error

MOST_RELAY_SECONDS = MAX_CALL_SECONDS + 4.0
"""The maximum wait for the reply to a forwarded request, in seconds. It is just below the time limit of the server."""

NEVER = ("/v1/via", "/v1/outbox/", "/v1/mesh/gossip")
"""Prefixes of paths that are never forwarded. The path `/v1/outbox`, for posts of clients, is forwarded."""

OF_HOSTS = ("/v1/posts", "/v1/transfers", "/v1/jobs/status", "/v1/slots/steal")
"""Paths that are forwarded only for hosts. For a client they are not, because this host would appear as the sender."""


def pull(host: Host, asked: ParsedRequest) -> PendingResponse:
    return host.reverse_transport.pull(asked.sender, asked.body)


def answer(host: Host, asked: ParsedRequest) -> PendingResponse:
    body: PulledAnswer = asked.body
    if not 100 <= body.status <= 599:
        raise Invalid(f"status is {body.status}: expected the status of a reply, 100 to 599")
    response = Response(status=body.status, body=from_base64(body.body, "the body of the answer"))
    return host.reverse_transport.answered(asked.sender, body.request_id, response)


def via(host: Host, asked: ParsedRequest) -> PendingResponse:
    body: Relay = asked.body
    mesh_host = host.gossip.by_store(asked.path["STORE"])
    if mesh_host is None:
        raise Unreachable(f"{host.services.own.name} knows no host with the store id {asked.path['STORE'][:80]!r}")
    if asked.sender and mesh_host.reachable:
        raise Unreachable(f"{mesh_host.name} accepts connections", hint=["send the request to it directly"])
    if body.timeout_seconds <= 0:
        raise Invalid(f"timeout_seconds is {body.timeout_seconds:g}: it must be more than 0")
    check_request_line(body.method, body.target)
    path = unquote(body.target)  # Check the decoded path, because the router of the target host decodes it, too.
    if not path.startswith("/v1/") or path.startswith(NEVER if asked.sender else (*NEVER, *OF_HOSTS)):
        raise Invalid(f"{body.method[:20]} {body.target[:200]!r} cannot be forwarded to another host")
    content = from_base64(body.body, "the body to pass on")
    request = Request(method=body.method, target=body.target, body=content, sender=asked.sender)
    seconds = min(MOST_RELAY_SECONDS, body.timeout_seconds)
    pending = PendingResponse()
    send = partial(
        host.services.transport.send, mesh_host.ref, request, partial(_relayed, pending), timeout_seconds=seconds
    )
    host.runner.call_soon(send)
    return pending


def _relayed(pending: PendingResponse, outcome: Response | PagletsError) -> None:
    if isinstance(outcome, PagletsError):
        pending.complete(reply_error(outcome))
    else:
        pending.complete(Response(status=outcome.status, body=outcome.body))


ROUTES = (
    Route(
        method="POST",
        path="/v1/outbox/pull",
        takes=Pull,
        gives=Pulled,
        about="a host that accepts no connections fetches the requests for it",
        answer=pull,
    ),
    Route(
        method="POST",
        path="/v1/outbox/answer",
        takes=PulledAnswer,
        gives=Done,
        about="the reply of a host that accepts no connections to a request that it fetched",
        answer=answer,
    ),
    Route(
        method="POST",
        path="/v1/via/STORE",
        takes=Relay,
        gives=bytes,
        about="forward a request to a host that the sender cannot connect to, and return the reply of that host",
        answer=via,
    ),
)
