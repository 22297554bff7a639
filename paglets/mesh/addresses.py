"""Under which address others can reach this host, and how a URL of a host is written.

The choice is a function of values; the two functions that ask the machine stand at the end.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from paglets.core.errors import Invalid
from paglets.core.refs import DEFAULT_PORT

LOOPBACK = "127.0.0.1"
HOST_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")
MAX_HOST_CHARACTERS = 253
ANYWHERE = ("0.0.0.0", "::")
TEST_NETS = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses kept for documentation: nobody has them, so the route to them is the way to the world."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def normalise_url(url: str, default_port: int = DEFAULT_PORT) -> str:
    """`http://host:port` with lower-case host and the port written out; Invalid where it is something else.

    A missing scheme is http. IPv6 addresses stand in brackets, in their shortest form.
    """
    if not url.isascii() or not url.isprintable() or " " in url:
        raise _not_a_url(url, "it holds characters that no URL has")
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _not_a_url(url, str(error)) from error
    if parts.scheme != "http":
        raise _not_a_url(url, "hosts speak http only; the mesh key protects what they say")
    if parts.username is not None or parts.query or parts.fragment or parts.path not in ("", "/"):
        raise _not_a_url(url, "write only host and port")
    if not host or port == 0:
        raise _not_a_url(url, "host or port is missing")
    return join_url(host, default_port if port is None else port)


def join_url(host: str, port: int) -> str:
    """The URL of a host name or IP literal and a port. Raises Invalid."""
    address = _literal(host)
    if address is None:
        name = host.lower()
        if len(name) > MAX_HOST_CHARACTERS or not HOST_NAME.fullmatch(name):
            raise _not_a_url(host, "this cannot be the name of a machine")
        return f"http://{name}:{port}"
    return f"http://[{address}]:{port}" if address.version == 6 else f"http://{address}:{port}"


def _not_a_url(url: str, why: str) -> Invalid:
    return Invalid(f"{url[:200]!r} is not the address of a host: {why}; it looks like http://laptop:{DEFAULT_PORT}")


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def choose_address(routed: Iterable[str], interfaces: Iterable[str]) -> str:
    """The best of this machine's addresses for others to use; loopback where it has no other.

    First the private address on the way to the world (a laptop's LAN), then any address on that way,
    then what the interfaces have, private before public, IPv4 before IPv6. Bridges of containers have
    private addresses too, but no way to the world leads through them.
    """
    on_the_way = list(routed)
    found = [(host, True) for host in on_the_way] + [(host, False) for host in interfaces]
    usable = [(address, first) for host, first in found if (address := _usable(host)) is not None]
    if not usable:
        return LOOPBACK
    best = min(usable, key=lambda item: (not item[1], not item[0].is_private, item[0].version, int(item[0])))
    return str(best[0])


def _usable(host: str) -> Address | None:
    address = _literal(host)
    if address is None or address.is_loopback or address.is_link_local:
        return None
    return None if address.is_unspecified or address.is_multicast else address


def public_url(bind_host: str, port: int, choose: Callable[[], str]) -> str:
    """The URL to tell others for a host bound to `bind_host`; `choose` gives the address if that is all of them."""
    return join_url(choose() if bind_host in ANYWHERE else bind_host, port)


def bind_for(address: str) -> str:
    """What to listen on so that `address` and the other addresses of its family are served."""
    parsed = _literal(address)
    if parsed is not None and parsed.is_loopback:
        return address
    return ANYWHERE[1] if parsed is not None and parsed.version == 6 else ANYWHERE[0]


def routed_addresses() -> tuple[str, ...]:
    """This machine's addresses on its way to the world. Nothing is sent: connecting UDP only asks the routes."""
    return tuple(address for family, target in TEST_NETS if (address := _source_towards(family, target)))


def _source_towards(family: int, target: str) -> str | None:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, DEFAULT_PORT))
            return str(probe.getsockname()[0])
    except OSError:
        return None


def public_address(interfaces: Callable[[], Iterable[str]] = lambda: ()) -> str:
    """What `--bind-public auto` stands for. `interfaces` lists addresses (psutil.net_if_addrs) where that is known."""
    return choose_address(routed_addresses(), interfaces())
