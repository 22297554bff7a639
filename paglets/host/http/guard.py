"""Checks of a request before its body is read: method, target, Host, Origin, body length and content type."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from paglets.api.hosts import RefusedHost
from paglets.api.limits import MAX_BODY_BYTES, MAX_CALL_SECONDS, MAX_PIECE_BYTES
from paglets.core.errors import (
    BadRequest,
    ForeignOrigin,
    LengthRequired,
    MethodNotAllowed,
    Misdirected,
    TooLarge,
    UnsupportedMedia,
)
from paglets.host.http.head import MOST_FIELDS, RequestHead, content_length
from paglets.wire.http1 import BYTES_TYPE, JSON_TYPE, MOST_HEAD_BYTES

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
_WITHOUT_BODY = ("GET", "HEAD")
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?")
_DEFAULT_HTTP_PORT = 80
_OWN_FETCHES = ("same-origin", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one server. Sizes are in bytes, times in seconds."""

    connections: int = 512
    """The maximum number of connections. Each has a thread; 512 threads take about 20 MB of memory."""

    connections_per_peer: int = 128
    """The maximum number of connections from one peer.

    A host opens about twenty connections to another host. A machine that runs many scripts needs more.
    """

    connections_loopback: int = 384
    """The maximum number of connections over loopback, which all hosts and commands of a machine share.

    It is below `connections`, so that other machines can still connect.
    """

    head_bytes: int = MOST_HEAD_BYTES
    head_fields: int = MOST_FIELDS
    head_seconds: float = 10.0
    idle_seconds: float = 60.0
    """Seconds for which an unused connection stays open.

    Clients close unused connections earlier. If the server closed one first, a request sent at that moment would fail.
    """

    body_bytes: int = MAX_BODY_BYTES
    body_grace_seconds: float = 10.0
    body_bytes_per_second: int = 32 << 10
    """The minimum speed at which a body must arrive, so that no client can occupy a thread for long.

    Any usable network is faster.
    """

    body_most_seconds: float = 600.0
    pending_seconds: float = MAX_CALL_SECONDS + 5.0
    linger_seconds: float = 2.0

    def connections_of(self, peer: str) -> int:
        """Return the maximum number of connections from `peer`, which is a result of `peer_group`."""
        return self.connections_loopback if peer == LOOPBACK else self.connections_per_peer

    def body_deadline(self, start: float, received: int) -> float:
        """Return the time by which the next byte must arrive, if `received` bytes have arrived since `start`."""
        allowed = self.body_grace_seconds + received / self.body_bytes_per_second
        return start + min(allowed, self.body_most_seconds)


class HostNames:
    """The names that the Host header of a request may contain. An exact list prevents DNS rebinding attacks.

    The IP address and port at which a connection arrived (`end`) are always allowed. An address is safe, because it
    needs no DNS lookup. It is not in the list, because the address of a laptop changes while the host runs. A name
    without a port means the port `port`.
    """

    def __init__(self, names: Iterable[str], port: int) -> None:
        self._allowed = {_authority(name, port) for name in ("localhost", "127.0.0.1", "[::1]", *names)}

    def allows(self, text: str, end: tuple[str, int]) -> bool:
        authority = parse_authority(text, _DEFAULT_HTTP_PORT)
        return authority is not None and (authority in self._allowed or authority == (_literal(end[0]), end[1]))


def _authority(name: str, port: int) -> tuple[str, int]:
    bare_ipv6 = name.count(":") > 1 and not name.startswith("[")
    parsed = parse_authority(f"[{name}]" if bare_ipv6 else name, port)
    if parsed is None:
        raise BadRequest(f"{name[:80]!r} is not a valid host name: expected NAME or NAME:PORT")
    return parsed


def parse_authority(text: str, default_port: int) -> tuple[str, int] | None:
    """Parse `name[:port]`. Return the normalized name and the port, or None if the text is malformed."""
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        return None
    return _literal(match[1].strip("[]")), int(match[2]) if match[2] else default_port


def _literal(name: str) -> str:
    """Return the normal form of an IP address, or any other name in lower case."""
    try:
        return str(ipaddress.ip_address(name.partition("%")[0]))
    except ValueError:
        return name.lower()


def check_head(head: RequestHead, *, names: HostNames, end: tuple[str, int]) -> None:
    """Check the method, the target and the fields Host and Origin, which must be valid even in a signed request.

    Raises MethodNotAllowed, Misdirected, BadRequest, ForeignOrigin.
    """
    if head.method not in METHODS:
        raise MethodNotAllowed(f"only {', '.join(METHODS)} are allowed", allow=list(METHODS))
    _check_target(head.target)
    _check_host(head, names, end)
    _check_origin(head)


def _check_target(target: str) -> None:
    if not target.startswith("/"):
        raise Misdirected("the target of the request must be a path that starts with /: this host is not a proxy")
    if "#" in target or target.startswith("//"):
        raise BadRequest("the target of the request is malformed")


def _check_host(head: RequestHead, names: HostNames, end: tuple[str, int]) -> None:
    host = head.fields.get("host", "")
    if not names.allows(host, end):
        raise Misdirected(
            f"{host[:100]!r} is not a name of this host",
            hint=["to allow it, start the host with --public-url http://NAME:PORT"],
        )


def _check_origin(head: RequestHead) -> None:
    """Check that no web page of another origin sent the request. Another port of this machine is another origin.

    Raises ForeignOrigin.
    """
    origin = head.fields.get("origin")
    if origin is not None and origin.lower() != f"http://{head.fields['host'].lower()}":
        raise ForeignOrigin("a web page of another origin may not send requests to this host")
    if head.fields.get("sec-fetch-site", "none").lower() not in _OWN_FETCHES:
        raise ForeignOrigin("a web page of another site may not send requests to this host")


def check_body(head: RequestHead, limits: Limits) -> int:
    """Check the fields about the body, and return its length in bytes. Raises LengthRequired, BadRequest, TooLarge."""
    if "transfer-encoding" in head.fields:
        raise LengthRequired("Transfer-Encoding is not supported", hint=["send the body with a Content-Length"])
    length = content_length(head.fields)
    # The body of a PUT is a piece of a blob, so it may not be longer than a piece.
    most = min(limits.body_bytes, MAX_PIECE_BYTES) if head.method == "PUT" else limits.body_bytes
    if length > most:
        raise TooLarge(f"the body has {length:,} bytes; at most {most:,} are allowed")
    if length and head.method in _WITHOUT_BODY:
        raise BadRequest(f"a {head.method} request must not have a body")
    if head.fields.get("expect", "100-continue").lower() != "100-continue":
        raise BadRequest("the only supported value of the Expect field is 100-continue")
    return length


def check_media(head: RequestHead) -> None:
    """Check that the content type is JSON, or bytes in a PUT request. Raises UnsupportedMedia."""
    media = head.fields.get("content-type", "").partition(";")[0].strip().lower()
    if media != JSON_TYPE and not (head.method == "PUT" and media == BYTES_TYPE):
        raise UnsupportedMedia(f"the Content-Type must be {JSON_TYPE}, not {media[:60]!r}")


class LogThrottle:
    """A limit on log lines about refused requests: by default one a minute for each peer.

    It keeps a flood of requests from filling the log.
    """

    def __init__(self, *, every_seconds: float = 60.0, most_peers: int = 1000) -> None:
        self._every = every_seconds
        self._most = most_peers
        self._last: dict[str, float] = {}

    def is_due(self, peer: str, now: float) -> bool:
        """Return True if a refusal at `now` should be logged. Two threads may both get True, which does no harm."""
        if now - self._last.get(peer, -self._every) < self._every:
            return False
        if len(self._last) >= self._most:
            self._last.clear()
        self._last[peer] = now
        return True


class RefusedPeers:
    """The addresses from which hosts with another mesh key sent requests lately. May be used from any thread."""

    def __init__(self, *, most: int = 16, keep_seconds: float = 600.0) -> None:
        self._most = most
        self._keep = keep_seconds
        self._last: dict[str, float] = {}

    def note(self, address: str, now: float) -> None:
        peer = peer_group(address)
        # Remove and insert the peer, so that the dict is sorted by time, the oldest first.
        self._last.pop(peer, None)
        self._last[peer] = now
        for oldest in list(self._last)[: -self._most]:
            self._last.pop(oldest, None)

    def seen(self, now: float) -> tuple[RefusedHost, ...]:
        """Return the hosts that were refused within the last `keep_seconds`, newest first."""
        found = [(now - at, peer) for peer, at in dict(self._last).items()]
        names = {LOOPBACK: "this machine"}
        return tuple(
            RefusedHost(address=names.get(peer, peer), seconds=max(0.0, ago))
            for ago, peer in sorted(found)
            if ago <= self._keep
        )


LOOPBACK = "loopback"


def peer_group(address: str) -> str:
    """Return the name of the group of addresses that counts as one peer.

    A group is one IPv4 address, an IPv6 /64 network (one machine may own all its addresses), or all of loopback.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if ip.is_loopback:
        return LOOPBACK
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network((int(ip), 64), strict=False))
