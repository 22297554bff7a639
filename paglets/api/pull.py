"""Requests and replies of the routes for hosts that accept no connections and pull requests from other hosts."""

from __future__ import annotations

from dataclasses import dataclass

MAX_PULL_SECONDS = 30.0
"""Longest wait for the reply to one pull. Routers with NAT drop connections that are idle for a minute or more."""

MAX_PULLED_BODY_BYTES = 32 << 20
"""Maximum size of the body of a pulled request. In base64, this body and 8 MiB of other requests fit into one reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull:
    """A pull, which asks a host for the requests that wait there for the sender: `POST /v1/outbox/pull`.

    The reply comes as soon as a request waits, or after `wait_seconds`. `at_work`: ids of pulled requests whose answers
    are not confirmed yet. Requests that the receiver has handed out and that are not in this list were lost in transit.
    """

    at_work: tuple[str, ...]
    wait_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledRequest:
    """A request for the pulling host, handled as if it had arrived over its own connection.

    `body`: bytes as base64. `sender`: the store id of the host for which the request is relayed, or "".
    """

    request_id: str
    method: str
    target: str
    body: str
    sender: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """The reply to `Pull`: the requests that waited for the pulling host, in any order. There may be none."""

    requests: tuple[PulledRequest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledAnswer:
    """The reply or error that answers a pulled request: `POST /v1/outbox/answer`. `body`: bytes as base64."""

    request_id: str
    status: int
    body: str
