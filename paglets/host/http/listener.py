"""Listening sockets for the addresses of a host."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from socketserver import TCPServer
from typing import Any, TypeVar

from paglets.core.errors import StartFailed

Address = tuple[str, int]
L = TypeVar("L", bound=TCPServer)
Make = Callable[[int, Any], L]
"""A factory of listening servers, called with an address family and an address. Raises OSError."""

_TRIES_FOR_ONE_PORT = 20


def listen_all(addresses: Sequence[Address], make: Make[L]) -> list[L]:
    """Return listening servers for all addresses. If the port is 0, all use the same free port. Raises StartFailed.

    A port that is free at one address may be in use at another, so up to twenty ports are tried.
    """
    for tries_left in reversed(range(_TRIES_FOR_ONE_PORT)):
        listeners: list[L] = []
        try:
            for host, port in addresses:
                _listen(host, port, make, listeners)
            return listeners
        except StartFailed:
            for listener in listeners:
                listener.server_close()
            if addresses[0][1] or not tries_left:
                raise
    raise StartFailed("the host has no address to listen at")


def _listen(host: str, port: int, make: Make[L], listeners: list[L]) -> None:
    """Add a server to `listeners` for each address of the name `host`. Raises StartFailed.

    Skip addresses that this machine does not have, unless it has none of them. A machine without IPv6, for example, has
    no address `::1`.
    """
    missing: OSError | None = None
    before = len(listeners)
    for family, address in _resolve(host, port):
        shared = listeners[0].server_address[1] if listeners and not port else port
        try:
            listeners.append(make(family, (address[0], shared, *address[2:])))
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise _why_not(host, port, error) from error
            missing = error
    if len(listeners) == before:
        raise _why_not(host, port, missing)


def _resolve(host: str, port: int) -> list[tuple[int, tuple[Any, ...]]]:
    name = host.strip("[]") or "0.0.0.0"
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise StartFailed(f"cannot listen at {host!r}: it is not an address of this machine ({error})") from error
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _why_not(host: str, port: int, error: OSError | None) -> StartFailed:
    host = host or "0.0.0.0"
    if error is not None and error.errno == errno.EADDRINUSE:
        text = f"port {port} at {host} is in use, perhaps by another host"
        return StartFailed(text, hint=["choose another port with --port"])
    if error is not None and error.errno == errno.EACCES:
        text = f"port {port} at {host} needs more permissions"
        return StartFailed(text, hint=["choose a port above 1023 with --port"])
    if error is not None and error.errno == errno.EADDRNOTAVAIL:
        return StartFailed(f"{host} is not an address of this machine", hint=["use `--bind-public auto`"])
    return StartFailed(f"cannot listen at {host} port {port}: {error.strerror if error else 'no such address'}")
