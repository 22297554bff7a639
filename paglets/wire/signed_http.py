"""One signed request and its reply over one connection. This module retries nothing.

The connection is one of `http.client`, with deadlines, size limits, and exact reports of whether bytes were sent.
`http.client` accepts some malformed replies, which does no harm: the signature covers status and body.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any

from paglets.api.limits import MAX_PIECE_BYTES
from paglets.codec.strict_json import loads
from paglets.core.clock import Clock
from paglets.core.errors import BadRequest, Invalid, NotAllowed, PagletsError, TooLarge, Unreachable
from paglets.core.urls import HostAddress
from paglets.wire.auth import SIGNATURE, Proof, Signer
from paglets.wire.http1 import BYTES_TYPE, CHUNK_BYTES, JSON_TYPE, MOST_HEAD_BYTES
from paglets.wire.request import Request, Response
from paglets.wire.sockets import DeadlineSocket

_EARLY_REPLY_SECONDS = 1.0
"""Seconds to wait for a reply on a connection that broke while the request was sent."""


class NothingSent(Exception):
    """The connection broke before any byte of the request was sent."""


class NoReply(Exception):
    """The request was sent, at least in part, but no valid reply came.

    `cut`: the connection ended before a byte of a reply arrived.
    """

    def __init__(self, reason: str, *, cut: bool = False) -> None:
        super().__init__(reason)
        self.cut = cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """The address of a request, and its receiver for the signature (`store_id:boot_id` or `*`).

    `clock_offset`: the clock of the receiver minus the clock of this machine, in seconds.
    """

    url: str
    address: HostAddress
    receiver: str
    clock_offset: float


class Connection(HTTPConnection):
    """A connection that buffers writes until `transmit` sends the head and the start of the body together.

    If they were sent separately, Nagle's algorithm would delay the second send until the first is acknowledged. If the
    joint send fails, it is certain that nothing was sent.
    """

    stream: DeadlineSocket

    def __init__(self, address: HostAddress, clock: Clock, *, connect_seconds: float) -> None:
        """Connect to `address`. Raises OSError, UnicodeError."""
        super().__init__(address.host, address.port, timeout=connect_seconds)
        self._written: list[bytes] = []
        self.connect()
        self.sock = self.stream = DeadlineSocket(self.sock, clock)

    def send(self, data: Any) -> None:
        self._written.append(data)

    @property
    def is_reusable(self) -> bool:
        """Return True if the connection is open. `http.client` closes it after a reply that says so."""
        return self.sock is not None

    def transmit(self) -> bool:
        """Send all buffered bytes. Return True if all of them were sent, False if only some. Raises NothingSent."""
        # Send the head and the first chunk of the body together. The rest of a large body is not copied.
        head, body = b"".join(self._written[:-1]), self._written[-1]
        parts = [memoryview(head + body[:CHUNK_BYTES]), memoryview(body)[CHUNK_BYTES:]]
        self._written.clear()
        sent = 0
        try:
            for part in parts:
                left = part
                while left:
                    count = self.stream.send(left)
                    sent += count
                    left = left[count:]
        except OSError as error:
            if not sent:
                raise NothingSent(str(error)) from error
            return False
        return True


class SignedHttpClient:
    """An HTTP client that signs requests with one key. It keeps no connections and no state, and is thread-safe."""

    def __init__(self, signer: Signer, *, clock: Clock, connect_seconds: float, most_reply_bytes: int) -> None:
        self._signer = signer
        self._clock = clock
        self._connect_seconds = connect_seconds
        self._most_reply_bytes = most_reply_bytes

    def connect(self, to: Recipient, deadline: float) -> Connection:
        """Return a new connection. Raises Unreachable."""
        seconds = min(self._connect_seconds, deadline - self._clock.monotonic())
        if seconds <= 0:
            raise Unreachable(f"the request to {to.url} was not sent in time")
        try:
            return Connection(to.address, self._clock, connect_seconds=seconds)
        except (OSError, UnicodeError) as error:
            raise Unreachable(f"{to.url} cannot be reached: {error}") from error

    def send(self, connection: Connection, to: Recipient, request: Request, deadline: float) -> Response:
        """Send a request and return its verified reply.

        Raises NothingSent, NoReply, NotAllowed, Invalid. After any error, the caller must close the connection.
        """
        proof = self._signer.proof(request.body, receiver=to.receiver, clock_offset=to.clock_offset)
        self._write(connection, to, request, proof)
        stream = connection.stream
        stream.deadline = deadline
        stream.received, stream.allowance = 0, MOST_HEAD_BYTES
        if not connection.transmit():
            # A host that refuses a large body replies before it has read the whole body. That reply may have arrived.
            stream.deadline = min(deadline, self._clock.monotonic() + _EARLY_REPLY_SECONDS)
        response = self._receive(connection)
        if request.by_name and response.status < 400:
            response = replace(response, by_name=True)
        self._check_signature(to, proof, response)
        return response

    def _write(self, connection: Connection, to: Recipient, request: Request, proof: Proof) -> None:
        fields = {"host": to.address.authority} | self._signer.headers(request.method, request.target, proof)
        if request.body:
            fields["content-type"] = BYTES_TYPE if request.method == "PUT" else JSON_TYPE
        try:
            connection.request(request.method, request.target, request.body or None, fields)
        except (HTTPException, ValueError) as error:
            raise Invalid(f"{request.method} {request.target[:200]!r} cannot be sent: {error}") from error

    def _receive(self, connection: Connection) -> Response:
        try:
            with connection.getresponse() as reply:
                connection.stream.allowance = sys.maxsize
                fields = {name.lower(): value for name, value in reply.getheaders()}
                return Response(status=reply.status, body=self._body(reply), headers=fields)
        except TimeoutError as error:
            raise NoReply("no complete reply came in time") from error
        except OSError as error:
            raise NoReply(f"the connection broke ({error})", cut=not connection.stream.received) from error
        except BadRequest as error:
            raise NoReply(f"the reply cannot be read: {error.message}") from error
        except HTTPException as error:
            raise NoReply(f"the reply cannot be read: {repr(error)[:200]}") from error

    def _body(self, reply: HTTPResponse) -> bytes:
        """Read the body. A large body is read in chunks, so memory is used only for bytes that arrive."""
        size = reply.length
        if size is None:
            raise BadRequest("the reply has no Content-Length")
        if size > self._most_reply_bytes:
            raise TooLarge(f"the reply has {size:,} bytes; at most {self._most_reply_bytes:,} are allowed")
        whole = reply.read(size) if size <= MAX_PIECE_BYTES else b""
        if len(whole) == size:  # return small bodies, such as pieces of files, without a copy
            return whole
        body = bytearray(whole)
        while len(body) < size:
            piece = reply.read(min(CHUNK_BYTES, size - len(body)))
            if not piece:
                raise ConnectionError("the host closed the connection")
            body += piece
        return bytes(body)

    def _check_signature(self, to: Recipient, proof: Proof, response: Response) -> None:
        if self._signer.is_reply(proof, response.status, response.signed_body, response.headers.get(SIGNATURE, "")):
            return
        if response.status == NotAllowed.status:
            raise NotAllowed(
                f"{to.url} has a different mesh key: copy mesh.key from a machine of that mesh",
                hint=["or, if the key of this machine is the right one, restart that host with it"],
            )
        raise NoReply(f"the reply ({response.status}) is not signed with the mesh key: {_error_text(response.body)}")


def _error_text(body: bytes) -> str:
    """Return the message of an unsigned error, printable and bounded, because anyone may have sent it."""
    try:
        text = str(loads(body)["message"])
    except (PagletsError, KeyError, TypeError):
        text = "the program at this address is no host of this mesh"
    return "".join(char if char.isprintable() else "?" for char in text[:200])
