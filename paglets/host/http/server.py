"""The host's HTTP server: listening sockets, a bounded number of threads, one for each connection.

It does not build on `http.server`, whose reader takes two lengths for one and a byte a second for an
answer: `connection` reads the wire, `guard` says what passes, here are the sockets, threads and waiting.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from paglets.core.clock import Clock, SystemClock
from paglets.core.errors import InternalError, Overloaded, PagletsError, ShuttingDown, StartFailed, TimedOut
from paglets.host.http.connection import Connection, Service
from paglets.host.http.guard import Admission, Complaints, HostNames, Limits, peer_group
from paglets.remote.auth import Proof, Verifier
from paglets.remote.exchange import Pending, Request, Response, reply_error
from paglets.remote.http1 import JSON_TYPE, ReplyHead, RequestHead, render_reply

Address = tuple[str, int]
Handler = Callable[[Request], "Response | Pending"]

REQUEST_QUEUE_SIZE = 128
_SHORT_OF_FILES_SECONDS = 0.1
_TRIES_FOR_ONE_PORT = 20
_CLOSE_SECONDS = 2.0


class HttpServer:
    """Serves `handler` at `address` (host, port) and at `more_addresses`; port 0 takes a free one.

    A name is listened to at each of its addresses. `allowed_hosts` are further names for the Host header,
    with or without a port. `handler` runs in many threads at once; what it raises beside PagletsError is
    logged by `log` and answered as `internal`. `start` raises StartFailed.
    """

    def __init__(
        self,
        *,
        address: Address,
        handler: Handler,
        verifier: Verifier,
        allowed_hosts: Iterable[str] = (),
        log: Callable[[str], None],
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
        self._admission = Admission(self._limits)
        self._closing = threading.Event()
        self._changed = threading.Condition()
        self._connections: set[Connection] = set()
        self._parked: set[Pending] = set()
        self._listeners: list[socket.socket] = []
        self._acceptor: threading.Thread | None = None
        self._wake_ends: tuple[socket.socket, ...] = ()
        self.port = 0

    def start(self) -> None:
        """Listen. After this, requests are served."""
        self._listeners = _listen_all(self._addresses)
        self.port = self._listeners[0].getsockname()[1]
        self._wake_ends = socket.socketpair()
        service = Service(
            clock=self._clock,
            limits=self._limits,
            names=HostNames((*self._own_names(), *self._allowed_hosts), self.port),
            door=_LockedDoor(self._verifier),
            answer=self._answer,
            is_closing=self._closing.is_set,
            complaints=Complaints(),
            log=self._log,
        )
        self._acceptor = threading.Thread(target=self._accept_all, args=(service,), name="http-accept", daemon=True)
        self._acceptor.start()

    def _own_names(self) -> tuple[str, ...]:
        """The names listened at; "all addresses" is the name of nobody."""
        return tuple(host for host, _ in self._addresses if host.strip("[]") not in ("", "0.0.0.0", "::"))

    @property
    def bound(self) -> tuple[Address, ...]:
        """Every (IP address, port) that is listened to."""
        return tuple(listener.getsockname()[:2] for listener in self._listeners)

    def statistics(self) -> ServerStatistics:
        with self._changed:
            return ServerStatistics(connections=len(self._connections), parked=len(self._parked))

    def close(self, grace_seconds: float = _CLOSE_SECONDS) -> None:
        """Stop listening, answer who waits with `shutting_down`, let running requests end, then cut the rest."""
        self._closing.set()
        if self._acceptor is not None:
            self._wake_ends[0].send(b"!")
            self._acceptor.join()
        for sock in (*self._listeners, *self._wake_ends):
            sock.close()
        self._acceptor = None
        with self._changed:
            parked, connections = list(self._parked), list(self._connections)
        for pending in parked:
            pending.complete(reply_error(ShuttingDown("the host is ending; ask again when it is back")))
        for connection in connections:
            connection.end_idle()
        if not self._wait_for_connections(grace_seconds):
            self._break_off_all()
            self._wait_for_connections(grace_seconds)

    def _wait_for_connections(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._connections, seconds)

    def _break_off_all(self) -> None:
        with self._changed:
            for connection in self._connections:
                connection.break_off()

    def _accept_all(self, service: Service) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_ends[1], selectors.EVENT_READ)
            for listener in self._listeners:
                selector.register(listener, selectors.EVENT_READ)
            while not self._closing.is_set():
                for key, _ in selector.select():
                    if key.fileobj is not self._wake_ends[1]:
                        self._accept(key.fileobj, service)  # type: ignore[arg-type]  # only sockets are registered

    def _accept(self, listener: socket.socket, service: Service) -> None:
        try:
            sock, peer = listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # the other side gave up before its turn came
        except OSError as error:
            self._log(f"a connection could not be taken: {error}")
            self._closing.wait(_SHORT_OF_FILES_SECONDS)
            return
        group = peer_group(peer[0])
        with self._changed:
            entered = self._admission.enter(group)
        if entered:
            self._serve_in_thread(sock, group, service)
        else:
            _turn_away(sock)

    def _serve_in_thread(self, sock: socket.socket, group: str, service: Service) -> None:
        thread = threading.Thread(target=self._serve, args=(sock, group, service), name="http", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system gives no more threads
            self._log(f"a connection could not be served: {error}")
            self._leave(group)
            _turn_away(sock)

    def _serve(self, sock: socket.socket, group: str, service: Service) -> None:
        connection: Connection | None = None
        try:
            connection = Connection(sock, service)
            with self._changed:
                self._connections.add(connection)
            connection.run()
        except OSError:
            sock.close()  # gone before it was looked at
        except Exception:
            self._log("a connection ended by a fault of the server:\n" + traceback.format_exc())
            sock.close()
        finally:
            self._leave(group, connection)

    def _leave(self, group: str, connection: Connection | None = None) -> None:
        with self._changed:
            self._admission.leave(group)
            if connection is not None:
                self._connections.discard(connection)
            self._changed.notify_all()

    def _answer(self, request: Request) -> Response:
        try:
            answer = self._handler(request)
            return self._wait_for(answer) if isinstance(answer, Pending) else answer
        except PagletsError as error:
            return reply_error(error)
        except Exception:
            self._log(f"{request.method} {request.target} failed:\n{traceback.format_exc()}")
            return reply_error(InternalError("a fault of the host itself; its log says more", log="host.log"))

    def _wait_for(self, pending: Pending) -> Response:
        """The answer; after the bound, `timed_out`, which also tells whoever would complete it that nobody waits."""
        completed = threading.Event()
        pending.on_complete(lambda response: completed.set())
        with self._changed:
            self._parked.add(pending)
        try:
            if self._closing.is_set():
                pending.complete(reply_error(ShuttingDown("the host is ending; ask again when it is back")))
            if not completed.wait(self._limits.pending_seconds):
                seconds = self._limits.pending_seconds
                pending.complete(reply_error(TimedOut(f"no answer within {seconds:g} s; what was asked goes on")))
        finally:
            with self._changed:
                self._parked.discard(pending)
        response = pending.response
        return response if response is not None else reply_error(InternalError("an answer was lost"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatistics:
    """`parked`: requests whose answer comes later."""

    connections: int
    parked: int


class _LockedDoor:
    """The Verifier for many threads: only remembering a nonce needs its turn."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._lock = threading.Lock()

    def proof(self, head: RequestHead) -> Proof | None:
        return self._verifier.proof(head.method, head.target, head.fields)

    def admit(self, head: RequestHead, proof: Proof) -> None:
        with self._lock:
            self._verifier.admit(head.method, head.target, proof)

    def bearer(self, authorization: str) -> bool:
        return self._verifier.bearer(authorization)

    def sign_reply(self, proof: Proof, status: int, body: bytes) -> dict[str, str]:
        return self._verifier.sign_reply(proof, status, body)


def _turn_away(sock: socket.socket) -> None:
    """Say `overloaded`, if that can be said without waiting: this is the thread that accepts."""
    error = reply_error(Overloaded("too many connections; try again"))
    fields = {"content-type": JSON_TYPE, "content-length": str(len(error.body)), "connection": "close"}
    with contextlib.suppress(OSError):
        sock.setblocking(False)
        sock.send(render_reply(ReplyHead(status=error.status, fields=fields), error.body))
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1 << 16)
    sock.close()


def _listen_all(addresses: Sequence[Address]) -> list[socket.socket]:
    """Listening sockets on one port where it is 0: a port that is free at one address may be taken at another."""
    for tries_left in reversed(range(_TRIES_FOR_ONE_PORT)):
        listeners: list[socket.socket] = []
        try:
            for host, port in addresses:
                shared = listeners[0].getsockname()[1] if listeners and not port else port
                listeners += _listen(host, shared)
            return listeners
        except StartFailed:
            for listener in listeners:
                listener.close()
            if addresses[0][1] or not tries_left:
                raise
    raise StartFailed("no address to listen at was given")


def _listen(host: str, port: int) -> list[socket.socket]:
    """A listening socket at each address of `host`; those that this machine lacks (IPv6, mostly) are left out."""
    listeners: list[socket.socket] = []
    missing: OSError | None = None
    for family, address in _resolve(host, port):
        try:
            listeners.append(_listen_at(family, address, listeners))
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                for listener in listeners:
                    listener.close()
                raise StartFailed(_why_not(host, port, error)) from error
            missing = error
    if not listeners:
        raise StartFailed(_why_not(host, port, missing))
    return listeners


def _resolve(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
    name = host.strip("[]") or "0.0.0.0"
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise StartFailed(f"cannot listen at {host!r}: that is no address of this machine ({error})") from error
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))  # type: ignore[misc]


def _listen_at(family: int, address: tuple[str, int], others: Sequence[socket.socket]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # On Windows this option would let a second host take the port over.
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        port = others[0].getsockname()[1] if others else address[1]
        listener.bind((address[0], port, *address[2:]))
        listener.listen(REQUEST_QUEUE_SIZE)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _why_not(host: str, port: int, error: OSError | None) -> str:
    if error is not None and error.errno == errno.EADDRINUSE:
        return f"port {port} at {host or '0.0.0.0'} is in use: another host runs there, or choose another with --port"
    if error is not None and error.errno == errno.EACCES:
        return f"port {port} at {host or '0.0.0.0'} needs more rights: choose one above 1023 with --port"
    return f"cannot listen at {host or '0.0.0.0'} port {port}: {error.strerror if error else 'no such address'}"
