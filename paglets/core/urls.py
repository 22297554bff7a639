"""Parse the addresses of hosts, and convert them to the normal form `http://name:port`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from paglets.core.errors import Invalid
from paglets.core.refs import DEFAULT_PORT

HOST_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")
MAX_HOST_CHARACTERS = 253

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class HostAddress:
    """A network address. `host` is a lower-case name, or an IP address in its shortest form without brackets."""

    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"

    @property
    def authority(self) -> str:
        """The value of the Host header, without an IPv6 scope, which is local to this machine."""
        name = self.host.partition("%")[0]
        return f"[{name}]:{self.port}" if ":" in name else f"{name}:{self.port}"


def parse_url(url: str) -> HostAddress:
    """Return the address in `url`. The default scheme is http, the default port `DEFAULT_PORT`. Raises Invalid."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise _not_a_url(url, "it has characters that a URL must not have")
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _not_a_url(url, str(error)) from error
    if parts.scheme != "http":
        raise _not_a_url(url, "hosts use only http; the mesh key protects the messages")
    if parts.username is not None or parts.query or parts.fragment or parts.path not in ("", "/"):
        raise _not_a_url(url, "write only host and port")
    if not host or port == 0:
        raise _not_a_url(url, "host or port is missing")
    return host_address(host, DEFAULT_PORT if port is None else port)


def normalise_url(url: str) -> str:
    """Return `url` in its normal form `http://host:port`. Raises Invalid."""
    return parse_url(url).url


def host_address(host: str, port: int) -> HostAddress:
    """Return the address of a host name or IP literal and a port. Raises Invalid."""
    literal = ip_literal(host)
    if literal is not None:
        return HostAddress(host=str(literal), port=port)
    name = host.lower()
    if len(name) > MAX_HOST_CHARACTERS or not HOST_NAME.fullmatch(name):
        raise _not_a_url(host, "this cannot be the name of a machine")
    return HostAddress(host=name, port=port)


def ip_literal(host: str) -> IpAddress | None:
    """Return `host` as an IP address, or None if it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_for_this_machine(url: str) -> bool:
    """Return True if only this machine can connect to `url`."""
    name = parse_url(url).host
    address = ip_literal(name)
    return name == "localhost" if address is None else address.is_loopback


def _not_a_url(url: str, why: str) -> Invalid:
    return Invalid(
        f"{url[:200]!r} is not the address of a host: {why}; an address looks like http://laptop:{DEFAULT_PORT}"
    )
