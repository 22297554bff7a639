"""One signed request and its reply over one connection: said, heard, checked. Nothing is repeated here.

The connection is `http.client`'s, with deadlines, bounds, and the truth about what got through. Replies are parsed
as leniently as it does that, which is good enough here: only what is signed is believed, and the signature covers
status and body.
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
"""How long to look for an answer on a connection that broke while sending."""


class NothingSent(Exception):
    """The connection broke before a byte of the request left this machine."""


class NoReply(Exception):
    """No good reply came after bytes had left. `cut`: the connection ended before a byte of a reply."""

    def __init__(self, why: str, *, cut: bool = False) -> None:
        super().__init__(why)
        self.cut = cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """Where to, for whom (`store_id:boot_id` or `*`), and how far the other clock is ahead of ours, in seconds."""

    url: str
    address: HostAddress
    receiver: str
    clock_offset: float


class Connection(HTTPConnection):
    """A connection that keeps what is written, until `transmit` sends it in one piece.

    Two sends would wait for one another (Nagle against delayed acknowledgement), and only of one can be told that
    nothing of it went out.
    """

    stream: DeadlineSocket

    def __init__(self, address: HostAddress, clock: Clock, *, connect_seconds: float) -> None:
        """Connects. Raises OSError, UnicodeError."""
        super().__init__(address.host, address.port, timeout=connect_seconds)
        self._written: list[bytes] = []
        self.connect()
        self.sock = self.stream = DeadlineSocket(self.sock, clock)

    def send(self, data: Any) -> None:
        self._written.append(data)

    @property
    def lasts(self) -> bool:
        """False once a reply said that it is the last."""
        return self.sock is not None

    def transmit(self) -> bool:
        """Whether all could be sent. Raises NothingSent."""
        # A short body goes with its head; of a long one only the beginning is copied.
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
    """Speaks with one key. Holds no connection and no state; may be used by many threads."""

    def __init__(self, signer: Signer, *, clock: Clock, connect_seconds: float, most_reply_bytes: int) -> None:
        self._signer = signer
        self._clock = clock
        self._connect_seconds = connect_seconds
        self._most_reply_bytes = most_reply_bytes

    def connect(self, to: Recipient, deadline: float) -> Connection:
        """A new connection. Raises Unreachable."""
        seconds = min(self._connect_seconds, deadline - self._clock.monotonic())
        if seconds <= 0:
            raise Unreachable(f"the time for a request to {to.url} is over; it was not sent")
        try:
            return Connection(to.address, self._clock, connect_seconds=seconds)
        except (OSError, UnicodeError) as error:
            raise Unreachable(f"{to.url} cannot be reached: {error}") from error

    def speak(self, line: Connection, to: Recipient, request: Request, deadline: float) -> Response:
        """Raises NothingSent, NoReply, NotAllowed, Invalid; after any of them the line is of no use."""
        proof = self._signer.proof(request.body, receiver=to.receiver, clock_offset=to.clock_offset)
        self._write(line, to, request, proof)
        line.stream.deadline = deadline
        line.stream.received, line.stream.allowance = 0, MOST_HEAD_BYTES
        if not line.transmit():
            # A host that refuses a large body answers before it has read it: its answer may be here.
            line.stream.deadline = min(deadline, self._clock.monotonic() + _EARLY_REPLY_SECONDS)
        response = self._receive(line)
        if request.by_name and response.status < 400:
            response = replace(response, by_name=True)
        self._check_signature(to, proof, response)
        return response

    def _write(self, line: Connection, to: Recipient, request: Request, proof: Proof) -> None:
        fields = {"host": to.address.authority} | self._signer.headers(request.method, request.target, proof)
        if request.body:
            fields["content-type"] = BYTES_TYPE if request.method == "PUT" else JSON_TYPE
        try:
            line.request(request.method, request.target, request.body or None, fields)
        except (HTTPException, ValueError) as error:
            raise Invalid(f"{request.method} {request.target[:200]!r} cannot be sent: {error}") from error

    def _receive(self, line: Connection) -> Response:
        try:
            with line.getresponse() as reply:
                line.stream.allowance = sys.maxsize
                fields = {name.lower(): value for name, value in reply.getheaders()}
                return Response(status=reply.status, body=self._body(reply), headers=fields)
        except TimeoutError as error:
            raise NoReply("no complete reply came in time") from error
        except OSError as error:
            raise NoReply(f"the connection broke ({error})", cut=not line.stream.received) from error
        except BadRequest as error:
            raise NoReply(f"the reply cannot be read: {error.message}") from error
        except HTTPException as error:
            raise NoReply(f"the reply cannot be read: {repr(error)[:200]}") from error

    def _body(self, reply: HTTPResponse) -> bytes:
        """A long one in pieces: memory grows with what arrives, not with what was announced."""
        size = reply.length
        if size is None:
            raise BadRequest("it does not say how long it is")
        if size > self._most_reply_bytes:
            raise TooLarge(f"it has {size} bytes; {self._most_reply_bytes} are allowed")
        whole = reply.read(size) if size <= MAX_PIECE_BYTES else b""
        if len(whole) == size:  # read without a copy, as pieces of files are
            return whole
        body = bytearray(whole)
        while len(body) < size:
            piece = reply.read(min(CHUNK_BYTES, size - len(body)))
            if not piece:
                raise ConnectionError("the other side closed the connection")
            body += piece
        return bytes(body)

    def _check_signature(self, to: Recipient, proof: Proof, response: Response) -> None:
        if self._signer.is_reply(proof, response.status, response.signed_body, response.headers.get(SIGNATURE, "")):
            return
        if response.status == NotAllowed.status:
            raise NotAllowed(
                f"{to.url} has a different mesh key: copy mesh.key from a machine of that mesh, "
                "or start the host there anew with the right one"
            )
        raise NoReply(f"the answer ({response.status}) is not signed with the mesh key: {_said(response.body)}")


def _said(body: bytes) -> str:
    """The message in somebody's error, made harmless: it may not be from a member of the mesh."""
    try:
        text = str(loads(body)["message"])
    except (PagletsError, KeyError, TypeError):
        text = "no host of this mesh speaks there"
    return "".join(char if char.isprintable() else "?" for char in text[:200])
