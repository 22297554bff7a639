"""Addresses of hosts: `http://name[:port]`, nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass

from paglets.core.errors import Invalid
from paglets.core.refs import DEFAULT_PORT

_URL = re.compile(r"(?i:http)://(\[[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9]+)?\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?/?")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostAddress:
    """Where to connect; `host` is a name or an IP address, without brackets."""

    host: str
    port: int

    @property
    def authority(self) -> str:
        """For the Host header; an IPv6 scope means nothing to the other side."""
        name = self.host.partition("%")[0]
        return f"[{name}]:{self.port}" if ":" in name else f"{name}:{self.port}"


def parse_url(url: str) -> HostAddress:
    """Where `url` leads; without a port, 8765. Raises Invalid for anything but http://NAME[:PORT]."""
    match = _URL.fullmatch(url)
    port = int(match[2]) if match and match[2] else DEFAULT_PORT
    if match is None or not 0 < port < 65536:
        raise Invalid(f"{url[:200]!r} is not the URL of a host: expected http://NAME:PORT")
    return HostAddress(host=match[1].strip("[]").lower(), port=port)
