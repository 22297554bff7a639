"""The record of the route by which a host passes on what a client asks of a member."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """`POST /v1/via/STORE`: a client's request for a member to which it cannot connect; the reply is that member's.

    `body` is base64, `timeout_seconds` at most 64. Requests that only hosts make are refused, and so is one to be
    relayed again.
    """

    method: str
    target: str
    body: str
    timeout_seconds: float
