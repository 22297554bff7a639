"""One connection of the server. It handles requests one after the other, and checks each in the following order.

First the size, syntax and arrival time of the header; then the length of the body; the method, Host and Origin; the
signature; the content type; the arrival time of the body; and the hash of the body. Then the handler is called. A
request that fails a check gets an error reply, and the connection is closed, because the next bytes may not be the
start of a request. A browser, which cannot sign requests, gets a constant page instead of an error.
"""

from __future__ import annotations

import contextlib
import hmac
import io
import logging
import re
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from socketserver import BaseServer
from typing import Any

from paglets.core.clock import Clock
from paglets.core.errors import BadRequest, NotAllowed, PagletsError, StalePeer
from paglets.host.http.guard import (
    LOOPBACK,
    METHODS,
    HostNames,
    Limits,
    LogThrottle,
    RefusedPeers,
    check_body,
    check_head,
    check_media,
    peer_group,
)
from paglets.host.http.head import RequestHead, read_head, single_fields
from paglets.host.http.page import page_for
from paglets.wire.auth import Proof, Verifier, body_sha256, is_of_host
from paglets.wire.http1 import JSON_TYPE
from paglets.wire.request import Request, Response, reply_error
from paglets.wire.sockets import DeadlineSocket

BODY_CHUNK_BYTES = 1 << 20
_CONTROL_CHARACTER = re.compile(r"[^\t\x20-\x7e\x80-\xff]")


class ServedSocket(DeadlineSocket):
    """The socket of a connection. `waits` is True while the server waits for the first byte of a request."""

    waits = False

    def is_closed(self) -> bool:
        """Return True if the client has closed its end. A client that only shut down its sending side counts, too."""
        self.settimeout(0)
        try:
            return not self.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The objects that all connections of a server share. `answer` handles a request and never raises.

    The lock `turn` is held while the verifier stores a nonce.
    """

    clock: Clock
    limits: Limits
    names: HostNames
    verifier: Verifier
    turn: AbstractContextManager[Any]
    answer: Callable[[Request], Response]
    is_closing: Callable[[], bool]
    log_throttle: LogThrottle
    refused_peers: RefusedPeers
    log: logging.Logger


class ServerConnection(BaseHTTPRequestHandler):
    """A connection to a client. The server calls the constructor in a new thread. The constructor handles all requests.

    Raises OSError if the client has closed the connection or is too slow.
    """

    protocol_version = default_request_version = request_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    """The size of the write buffer: -1 selects a buffer, so that header and body are sent together."""

    def __init__(self, service: Service, request: ServedSocket, client_address: Any, server: BaseServer) -> None:
        self._service = service
        self._sock = request
        self._peer: str = client_address[0]
        self._end: tuple[str, int] = request.getsockname()[:2]
        self._wait_seconds = service.limits.head_seconds
        self._head: RequestHead | None = None
        self._proof: Proof | None = None
        super().__init__(request, client_address, server)

    def finish(self) -> None:
        # The call flushes the reply. It fails if the client has closed the connection, and then nobody reads the reply.
        with contextlib.suppress(OSError):
            super().finish()
        self.rfile.close()

    def handle_one_request(self) -> None:
        """Handle one request. Set `close_connection` to True if no other request may follow.

        This replaces the method of `http.server`, which sends errors as HTML and no reply to a slow sender.
        """
        self.close_connection = True
        self._head = self._proof = None
        if not self._wait_for_request():
            return
        self._wait_seconds = self._service.limits.idle_seconds
        try:
            self._read_head()
            request = self._read_request()
        except PagletsError as error:
            self._refuse(error)
            return
        if isinstance(request, Response):
            self._reply_and_end(request)
            return
        if request.sender and self._sock.is_closed():
            return  # The sending host no longer waits for the reply, and will repeat the request.
        response = self._service.answer(request)
        self._reply(response, last=self.close_connection or self._service.is_closing())

    def parse_request(self) -> bool:
        """Check the header strictly (`read_head`), and then parse it with `http.server`.

        Raises BadRequest, TooLarge, OSError.
        """
        limits, source = self._service.limits, self.rfile
        self.raw_requestline, lines = read_head(source, most_bytes=limits.head_bytes, most_fields=limits.head_fields)
        self.rfile = io.BytesIO(lines)
        try:
            return super().parse_request()
        finally:
            self.rfile = source

    def handle_expect_100(self) -> bool:
        return True  # `_read_body` sends the reply 100 after the signature of the request was checked.

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Raise BadRequest. `http.server` calls this method when it refuses a request."""
        raise BadRequest(message or "the request is malformed")

    def send_header(self, keyword: str, value: str) -> None:
        if _CONTROL_CHARACTER.search(keyword + value):
            raise ValueError(f"the header field {keyword!r} would contain a control character")
        super().send_header(keyword, value)

    def _now(self) -> float:
        return self._service.clock.monotonic()

    def _wait_for_request(self) -> bool:
        self._sock.waits = True
        if self._service.is_closing():
            return False
        self._sock.deadline = self._now() + self._wait_seconds
        try:
            came = self.rfile.peek(1)  # type: ignore[attr-defined]  # a BufferedReader, as makefile gives it
        except TimeoutError:
            return False
        self._sock.waits = False
        return bool(came)

    def _read_head(self) -> None:
        seconds = self._service.limits.head_seconds
        self._sock.deadline = self._now() + seconds
        try:
            self.parse_request()
        except TimeoutError as error:
            raise BadRequest(f"the header was not complete after {seconds:g} s") from error
        # The signature covers the target as it was sent. `self.path` may differ, because `http.server` merges leading
        # slashes.
        target = self.requestline.split(" ")[1]
        self._head = RequestHead(method=self.command, target=target, fields=single_fields(self.headers))
        self._proof = self._service.verifier.proof(self.command, target, self._head.fields)

    def _read_request(self) -> Request | Response:
        """Check, read and return a request. If a browser sent it, return a constant page. Raises PagletsError."""
        head, proof = self._head, self._proof
        assert head is not None
        length = check_body(head, self._service.limits)
        check_head(head, names=self._service.names, end=self._end)
        page = page_for(head)
        if page is not None:
            return page
        sender = self._admit(head, proof)
        if length:
            check_media(head)
        body = self._read_body(head, length)
        if proof is not None and not hmac.compare_digest(body_sha256(body), proof.body_sha256):
            raise NotAllowed("the body of the request does not match its signature")
        return Request(method=head.method, target=head.target, body=body, sender=sender)

    def _admit(self, head: RequestHead, proof: Proof | None) -> str:
        """Check the signature, or the token of a client on this machine. Return the sending host's store id, or "".

        Raises NotAllowed, and the errors of `Verifier.admit`.
        """
        if proof is not None:
            with self._service.turn:
                self._service.verifier.admit(head.method, head.target, proof)
            return proof.sender
        if peer_group(self._peer) == LOOPBACK and self._service.verifier.bearer(head.fields.get("authorization", "")):
            return ""
        if is_of_host(head.fields):
            self._service.refused_peers.note(self._peer, self._now())
        raise NotAllowed(
            "the request is not signed with the key of this mesh",
            hint=["copy mesh.key from a machine of the mesh to the machine that sent the request"],
        )

    def _read_body(self, head: RequestHead, length: int) -> bytes:
        """Read the body in pieces, so that memory is used only for bytes that have arrived."""
        limits, start = self._service.limits, self._now()
        self._sock.deadline = limits.body_deadline(start, 0)
        if length and "expect" in head.fields:
            super().handle_expect_100()
            self.wfile.flush()
        body = io.BytesIO()
        try:
            while (came := body.tell()) < length:
                self._sock.deadline = limits.body_deadline(start, came)
                piece = self.rfile.read1(min(BODY_CHUNK_BYTES, length - came))
                if not piece:
                    raise ConnectionError("the connection was closed before the whole body arrived")
                body.write(piece)
        except TimeoutError as error:
            raise BadRequest(f"the body of {length} bytes came too slowly") from error
        return body.getvalue()

    def _is_head(self) -> bool:
        return self._head is not None and self._head.method == "HEAD"

    def _refuse(self, error: PagletsError) -> None:
        if self._head is not None:
            self._complain(error)
        self._reply_and_end(reply_error(error))

    def _reply_and_end(self, response: Response) -> None:
        """Send the reply. Then read and discard bytes that still arrive, and end the connection."""
        self._reply(response, last=True)
        self._sock.deadline = self._now() + self._service.limits.linger_seconds
        self._sock.drain()

    def _complain(self, error: PagletsError) -> None:
        """Log a refused request, because the cause may be a wrong key, clock or name of this host."""
        if not isinstance(error, StalePeer) and self._service.log_throttle.is_due(self._peer, self._now()):
            self._service.log.info(f"refused a request of {self._peer}: {error.code}: {error.message}")

    def _reply(self, response: Response, *, last: bool) -> None:
        body = b"" if self._is_head() else response.body
        fields = {"content-type": JSON_TYPE, "cache-control": "no-store", "x-content-type-options": "nosniff"}
        fields |= response.headers
        fields["content-length"] = str(len(response.body))
        if response.status == 405:
            fields["allow"] = ", ".join(METHODS)
        if last:
            # `send_header` of `http.server` sets `close_connection` when it sends this field.
            fields["connection"] = "close"
        if self._proof is not None:
            signed = body if self._is_head() else response.signed_body
            fields |= self._service.verifier.sign_reply(self._proof, response.status, signed)
        self.send_response_only(response.status)
        for name, value in fields.items():
            self.send_header(name, value)
        self._sock.deadline = self._service.limits.body_deadline(self._now(), len(body))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
