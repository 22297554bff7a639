"""Under which address others can reach this host.

The choice is a function of values; the two functions that ask the machine stand at the end.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable

from paglets.core.refs import DEFAULT_PORT
from paglets.core.urls import IpAddress, host_address, ip_literal

LOOPBACK = "127.0.0.1"
ANYWHERE = ("0.0.0.0", "::")
TEST_NETS = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses kept for documentation: nobody has them, so the route to them is the way to the world."""


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


def _usable(host: str) -> IpAddress | None:
    address = ip_literal(host)
    if address is None or address.is_loopback or address.is_link_local:
        return None
    return None if address.is_unspecified or address.is_multicast else address


def public_url(bind_host: str, port: int, choose: Callable[[], str]) -> str:
    """The URL to tell others for a host bound to `bind_host`; `choose` gives the address if that is all of them."""
    return host_address(choose() if bind_host in ANYWHERE else bind_host, port).url


def bind_for(address: str) -> str:
    """What to listen on so that `address` and the other addresses of its family are served."""
    parsed = ip_literal(address)
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
