"""Records of the reverse connection, for hosts that do not accept connections: they pull requests from other hosts."""

from __future__ import annotations

from dataclasses import dataclass

MAX_PULL_SECONDS = 30.0
"""Longest wait of one pull. Routers with NAT drop connections that are idle for a minute or more."""

MAX_PULLED_BODY_BYTES = 32 << 20
"""Bound of the body of a pulled request. In base64, it and 8 MiB of other requests fit into one reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull:
    """A request for the requests that wait for the sender: `POST /v1/outbox/pull`.

    The reply comes as soon as there is a request, or after `wait_seconds`. `at_work`: ids of pulled requests whose
    answers are not confirmed yet. Other requests that the receiver handed out were lost in transit.
    """

    at_work: tuple[str, ...]
    wait_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledRequest:
    """A request for the pulling host, handled as if it had arrived over its own connection.

    `body`: base64, as in `PulledAnswer`. `sender`: the store of the host for which it is relayed, or "".
    """

    request_id: str
    method: str
    target: str
    body: str
    sender: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """The requests that waited for the pulling host, in any order, often none."""

    requests: tuple[PulledRequest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledAnswer:
    """The reply to a pulled request, also if it is an error: `POST /v1/outbox/answer`."""

    request_id: str
    status: int
    body: str
