"""Records of the routes by which a host takes part to which nobody can connect."""

from __future__ import annotations

from dataclasses import dataclass

MAX_PULL_SECONDS = 30.0
"""The longest wait of one pull. Routers with NAT forget a connection on which nothing was said for a minute or more."""

MAX_PULLED_BODY_BYTES = 32 << 20
"""Of one request that waits to be fetched: in base64 it, and another 8 MiB of requests before it, fit into a reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull:
    """`POST /v1/outbox/pull`: what is there for the sender? Answered as soon as something is, or after `wait_seconds`.

    `at_work`: requests of the asked host that came with earlier replies and whose answers that host has not confirmed.
    Others that it handed out were lost on the way.
    """

    at_work: tuple[str, ...]
    wait_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledRequest:
    """A request of the host that was asked, to be handled as if it had come from there over a connection of its own.

    `body` is base64, here as in an answer. `sender`: the store of the host for which it is passed on, "" for none.
    """

    request_id: str
    method: str
    target: str
    body: str
    sender: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What waited for the sender, in no order that matters; often nothing."""

    requests: tuple[PulledRequest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledAnswer:
    """`POST /v1/outbox/answer`: the reply to a request that was pulled, an error's too."""

    request_id: str
    status: int
    body: str
