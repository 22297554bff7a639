"""The request of the route that relays a request to another host."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """A request for a host to which the sender cannot connect: `POST /v1/via/STORE`. The reply is that of the host.

    `body`: bytes as base64. `timeout_seconds`: at most 64. The relay sends a client's request under the name of the
    relay, but refuses requests that only hosts may send. It sends a host's request under the name of that host. A
    relayed request is not relayed again.
    """

    method: str
    target: str
    body: str
    timeout_seconds: float
