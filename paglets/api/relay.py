"""The request of the route that relays a request to another host."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """A request for a host to which the sender cannot connect: `POST /v1/via/STORE`. The reply is that of the host.

    `body`: bytes as base64. `timeout_seconds`: at most 64. The relay sends the request of a client under its own name,
    but refuses requests that only hosts may send. It sends the request of a host under the name of that host. A relayed
    request is not relayed again.
    """

    method: str
    target: str
    body: str
    timeout_seconds: float
