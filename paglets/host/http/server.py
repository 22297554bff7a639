"""The HTTP server of a host, based on `http.server`. Each connection has a thread. Their number is limited.

The modules `head` and `connection` read requests, and `guard` checks them. This module contains the threads, the waits
for pending responses, and the shutdown.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from paglets.api.hosts import RefusedHost
from paglets.core.clock import Clock, SystemClock
from paglets.core.errors import InternalError, Overloaded, PagletsError, ShuttingDown, TimedOut
from paglets.host.http.connection import ServedSocket, ServerConnection, Service
from paglets.host.http.guard import HostNames, Limits, LogThrottle, RefusedPeers, peer_group
from paglets.host.http.listener import Address, listen_all
from paglets.wire.auth import Verifier
from paglets.wire.http1 import JSON_TYPE
from paglets.wire.request import PendingResponse, Request, Response, reply_error

Handler = Callable[[Request], "Response | PendingResponse"]

_CLOSE_SECONDS = 2.0
_SHORT_OF_FILES_SECONDS = 0.1


class OpenConnections:
    """The open connections of a server, with their limits. Methods may be called from any thread."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._peers: dict[ServedSocket, str] = {}
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._peers)

    def enter(self, sock: ServedSocket, address: str) -> bool:
        """Add a connection. Return False if a limit is reached."""
        peer = peer_group(address)
        with self._changed:
            there = list(self._peers.values())
            if len(there) >= self._limits.connections or there.count(peer) >= self._limits.connections_of(peer):
                return False
            self._peers[sock] = peer
            return True

    def leave(self, sock: ServedSocket) -> None:
        """Remove a connection. Do nothing if it was refused by `enter`."""
        with self._changed:
            self._peers.pop(sock, None)
            self._changed.notify_all()

    def end_idle(self) -> None:
        """End the connections that wait for their next request."""
        with self._changed:
            for sock in self._peers:
                if sock.waits:
                    sock.break_off(socket.SHUT_RD)

    def break_off(self) -> None:
        """End all connections at once, even while they read or write."""
        with self._changed:
            for sock in self._peers:
                sock.break_off()

    def wait_for_change(self, seconds: float) -> None:
        """Wait until a connection is removed, or for `seconds`."""
        with self._changed:
            self._changed.wait(seconds)

    def wait_gone(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._peers, seconds)


class Listener(ThreadingMixIn, HTTPServer):
    """A server that listens at one address, with a thread for each connection."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    # Two processes must not share a port, because a second host would get requests for the first. This option lets them
    # share a port on Windows, but not on POSIX systems.
    allow_reuse_address = os.name == "posix"
    allow_reuse_port = False

    def __init__(
        self, family: int, address: Any, *, connections: OpenConnections, clock: Clock, log: logging.Logger
    ) -> None:
        self.address_family = family
        self._connections = connections
        self._clock = clock
        self._log = log
        # `HttpServer.start` replaces this handler class, because the real one needs the port.
        super().__init__(address, BaseHTTPRequestHandler)
        self.socket.setblocking(False)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Skip `HTTPServer.server_bind`, because it looks up the name of this machine, which may take long.
        TCPServer.server_bind(self)

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            sock, peer = self.socket.accept()
        except (BlockingIOError, ConnectionError):
            raise  # The client has already closed the connection, which needs no log line.
        except OSError as error:
            self._log.warning(f"a connection could not be accepted: {error}")
            self._connections.wait_for_change(_SHORT_OF_FILES_SECONDS)
            raise
        return ServedSocket(sock, self._clock), peer

    def verify_request(self, request: Any, client_address: Any) -> bool:
        entered = self._connections.enter(request, client_address[0])
        if not entered:
            _send_overloaded(request)
        return entered

    def shutdown_request(self, request: Any) -> None:
        """Close a connection. The server calls this once for each connection, also after an error."""
        super().shutdown_request(request)
        self._connections.leave(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # An OSError needs no log line, because it means that the client has closed the connection or is too slow.
        if not isinstance(sys.exception(), OSError):
            self._log.exception("a connection ended with an internal error")


class HttpServer:
    """An HTTP server that listens at `address` (host and port) and at `more_addresses`. Port 0 selects a free port.

    For a host name, it listens at each address of the name. `allowed_hosts` are additional names for the Host header,
    with or without a port. `handler` is called from many threads at once. An exception other than PagletsError is
    logged, and the client gets the error `internal`.
    """

    def __init__(
        self,
        *,
        address: Address,
        handler: Handler,
        verifier: Verifier,
        allowed_hosts: Iterable[str] = (),
        log: logging.Logger,
        limits: Limits | None = None,
        clock: Clock | None = None,
        more_addresses: Sequence[Address] = (),
    ) -> None:
        self._addresses = (address, *more_addresses)
        self._handler = handler
        self._verifier = verifier
        self._allowed_hosts = tuple(allowed_hosts)
        self._log = log
        self._limits = limits or Limits()
        self._clock = clock or SystemClock()
        self._refused_peers = RefusedPeers()
        self._closing = threading.Event()
        self._connections = OpenConnections(self._limits)
        self._parked: set[PendingResponse] = set()
        self._parking = threading.Lock()
        self._listeners: list[Listener] = []
        self._acceptor: threading.Thread | None = None
        self._wake_ends: tuple[socket.socket, ...] = ()
        self.port = 0

    def start(self) -> None:
        """Start to listen and to serve requests. Raises StartFailed."""
        make = partial(Listener, connections=self._connections, clock=self._clock, log=self._log)
        self._listeners = listen_all(self._addresses, make)
        self.port = self._listeners[0].server_address[1]
        handler = partial(ServerConnection, self._service())
        for listener in self._listeners:
            listener.RequestHandlerClass = handler
        self._wake_ends = socket.socketpair()
        self._acceptor = threading.Thread(target=self._accept_all, name="http-accept", daemon=True)
        self._acceptor.start()

    def _service(self) -> Service:
        return Service(
            clock=self._clock,
            limits=self._limits,
            names=HostNames((*self._own_names(), *self._allowed_hosts), self.port),
            verifier=self._verifier,
            turn=threading.Lock(),
            answer=self._answer,
            is_closing=self._closing.is_set,
            log_throttle=LogThrottle(),
            refused_peers=self._refused_peers,
            log=self._log,
        )

    def _own_names(self) -> tuple[str, ...]:
        """Return the configured host names and addresses to listen at, without wildcards such as `0.0.0.0`."""
        return tuple(host for host, _ in self._addresses if host.strip("[]") not in ("", "0.0.0.0", "::"))

    @property
    def bound(self) -> tuple[Address, ...]:
        """The IP address and port of each listener."""
        return tuple(listener.socket.getsockname()[:2] for listener in self._listeners)

    def statistics(self) -> ServerStatistics:
        return ServerStatistics(connections=len(self._connections), parked=len(self._parked))

    def refused(self) -> tuple[RefusedHost, ...]:
        """Return the hosts with another mesh key that recently sent requests to this server."""
        return self._refused_peers.seen(self._clock.monotonic())

    def close(self, grace_seconds: float = _CLOSE_SECONDS) -> None:
        """Stop listening, and answer parked requests with `shutting_down`.

        Requests in progress have `grace_seconds` to end. Then their connections are closed.
        """
        self._closing.set()
        if self._acceptor is not None:
            self._wake_ends[0].send(b"!")
            self._acceptor.join()
        for listener in self._listeners:
            listener.server_close()
        for sock in self._wake_ends:
            sock.close()
        self._acceptor = None
        with self._parking:
            parked = list(self._parked)
        for pending in parked:
            pending.complete(_shutting_down())
        self._connections.end_idle()
        if not self._connections.wait_gone(grace_seconds):
            self._connections.break_off()
            self._connections.wait_gone(grace_seconds)

    def _accept_all(self) -> None:
        """Accept connections like `serve_forever`, but for several listeners and without polling."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_ends[1], selectors.EVENT_READ)
            for listener in self._listeners:
                selector.register(listener, selectors.EVENT_READ, listener)
            while not self._closing.is_set():
                for key, _ in selector.select():
                    if key.data is not None:
                        key.data.handle_request()

    def _answer(self, request: Request) -> Response:
        try:
            answer = self._handler(request)
            return self._wait_for(answer) if isinstance(answer, PendingResponse) else answer
        except PagletsError as error:
            return reply_error(error)
        except Exception:
            self._log.exception(f"{request.method} {request.target} failed")
            return reply_error(InternalError("the host failed with an internal error; see its log", log="host.log"))

    def _wait_for(self, pending: PendingResponse) -> Response:
        """Wait for the reply and return it. After the time limit, return the error `timed_out`.

        That error completes `pending`, so a later reply is dropped.
        """
        completed = threading.Event()
        pending.on_complete(lambda response: completed.set())
        with self._parking:
            self._parked.add(pending)
        try:
            if self._closing.is_set():
                pending.complete(_shutting_down())
            if not completed.wait(self._limits.pending_seconds):
                seconds = self._limits.pending_seconds
                pending.complete(
                    reply_error(TimedOut(f"no answer within {seconds:g} s; the request is still in progress"))
                )
        finally:
            with self._parking:
                self._parked.discard(pending)
        response = pending.response
        return response if response is not None else reply_error(InternalError("the reply of the host was lost"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatistics:
    """The numbers of open connections and of parked requests, which wait for a pending response."""

    connections: int
    parked: int


def _shutting_down() -> Response:
    return reply_error(ShuttingDown("the host is shutting down", hint=["try again after it has restarted"]))


def _send_overloaded(sock: ServedSocket) -> None:
    """Send the status 503 without waiting, because the calling thread also accepts other connections."""
    body = reply_error(Overloaded("too many connections")).body
    head = f"content-type: {JSON_TYPE}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    with contextlib.suppress(OSError):
        sock.setblocking(False)
        socket.socket.send(sock, b"HTTP/1.1 503 Service Unavailable\r\n" + head.encode() + body)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1 << 16)
