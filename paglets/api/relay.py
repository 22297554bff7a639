"""The record of the route by which a host passes on what a client, or another host, asks of a member."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """`POST /v1/via/STORE`: a request for a member to which the sender cannot connect; the reply is that member's.

    `body` is base64, `timeout_seconds` at most 64. A client's request is asked in the name of the host that passes it
    on, and may be none that only hosts make; a host's in its own name. What came to be passed on goes to that member
    itself.
    """

    method: str
    target: str
    body: str
    timeout_seconds: float
