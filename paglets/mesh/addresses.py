"""The choice of the address under which other hosts can reach this host.

`routed_addresses` and `public_address` query the operating system. The other public functions are pure.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable

from paglets.core.refs import DEFAULT_PORT
from paglets.core.urls import IpAddress, host_address, ip_literal

LOOPBACK = "127.0.0.1"
ANYWHERE = ("0.0.0.0", "::")
TEST_NETS = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses that are reserved for documentation. No host has them, so packets to them take the default route."""


def choose_address(routed: Iterable[str], interfaces: Iterable[str]) -> str:
    """Return the address of this machine that other hosts should use; the loopback address if there is no other.

    Addresses on the default route (`routed`) come before other addresses (`interfaces`), private before public, and
    IPv4 before IPv6. Container bridges also have private addresses, but they are not on the default route.
    """
    on_route = list(routed)
    found = [(host, True) for host in on_route] + [(host, False) for host in interfaces]
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
    """Return the public URL of a host that is bound to `bind_host`.

    `choose`: returns the address to use if the host is bound to all addresses.
    """
    return host_address(choose() if bind_host in ANYWHERE else bind_host, port).url


def bind_for(address: str) -> str:
    """Return the address to bind to, for a host with the public address `address`.

    For a loopback address, return `address`. Otherwise return the wildcard address of its family.
    """
    parsed = ip_literal(address)
    if parsed is not None and parsed.is_loopback:
        return address
    return ANYWHERE[1] if parsed is not None and parsed.version == 6 else ANYWHERE[0]


def routed_addresses() -> tuple[str, ...]:
    """Return this machine's addresses on the default route. A UDP connect finds them and sends nothing."""
    return tuple(address for family, target in TEST_NETS if (address := _source_towards(family, target)))


def _source_towards(family: int, target: str) -> str | None:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, DEFAULT_PORT))
            return str(probe.getsockname()[0])
    except OSError:
        return None


def public_address(interfaces: Callable[[], Iterable[str]] = lambda: ()) -> str:
    """Return the address for `--bind-public auto`. `interfaces`: returns the addresses of the network interfaces."""
    return choose_address(routed_addresses(), interfaces())
