"""One signed request and its reply over one connection: said, heard, checked. Nothing is repeated here."""

from __future__ import annotations

import contextlib
import json
import socket
from dataclasses import dataclass

from paglets.core.clock import Clock
from paglets.core.errors import BadRequest, NotAllowed, TooLarge, Unreachable
from paglets.remote.auth import SIGNATURE, Proof, Signer
from paglets.remote.exchange import Request, Response
from paglets.remote.http1 import (
    BYTES_TYPE,
    JSON_TYPE,
    ReplyHead,
    RequestHead,
    content_length,
    read_reply_head,
    render_request,
)
from paglets.remote.stream import SendBroke, SocketStream
from paglets.remote.urls import HostAddress

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
class Addressee:
    """Where to, for whom (`store_id:boot_id` or `*`), and how far the other clock is ahead of ours, in seconds."""

    url: str
    address: HostAddress
    receiver: str
    clock_offset: float


class Speaker:
    """Speaks with one key. Holds no connection and no state; may be used by many threads."""

    def __init__(self, signer: Signer, *, clock: Clock, connect_seconds: float, most_reply_bytes: int) -> None:
        self._signer = signer
        self._clock = clock
        self._connect_seconds = connect_seconds
        self._most_reply_bytes = most_reply_bytes

    def connect(self, to: Addressee, deadline: float) -> SocketStream:
        """A new connection. Raises Unreachable."""
        seconds = min(self._connect_seconds, deadline - self._clock.monotonic())
        if seconds <= 0:
            raise Unreachable(f"the time for a request to {to.url} is over; it was not sent")
        try:
            sock = socket.create_connection((to.address.host, to.address.port), timeout=seconds)
        except (OSError, UnicodeError) as error:
            raise Unreachable(f"{to.url} cannot be reached: {error}") from error
        return SocketStream(sock, self._clock)

    def speak(self, stream: SocketStream, to: Addressee, request: Request, deadline: float) -> Response:
        """Raises NothingSent, NoReply, NotAllowed; after any of them the stream is of no use."""
        proof = self._signer.proof(request.body, receiver=to.receiver, clock_offset=to.clock_offset)
        self._send(stream, self._render(to, request, proof), deadline)
        head, body = self._receive(stream, request.method, deadline)
        self._check_signature(to, proof, head, body)
        return Response(status=head.status, body=body, headers=head.fields)

    def _render(self, to: Addressee, request: Request, proof: Proof) -> bytes:
        fields = {"host": to.address.authority}
        if request.body or request.method in ("POST", "PUT"):
            fields["content-type"] = BYTES_TYPE if request.method == "PUT" else JSON_TYPE
            fields["content-length"] = str(len(request.body))
        fields |= self._signer.headers(request.method, request.target, proof)
        return render_request(RequestHead(method=request.method, target=request.target, fields=fields), request.body)

    def _send(self, stream: SocketStream, data: bytes, deadline: float) -> None:
        try:
            stream.send(data, deadline)
        except SendBroke as error:
            if error.sent == 0:
                raise NothingSent(str(error)) from error
            # A host that refuses a large body answers before it has read it: its answer may be here.
            with contextlib.suppress(OSError):
                stream.fill(min(deadline, self._clock.monotonic() + _EARLY_REPLY_SECONDS))
            if not stream.buffer:
                cut = not isinstance(error.__cause__, TimeoutError)
                raise NoReply(f"the connection broke after {error.sent} bytes ({error})", cut=cut) from error

    def _receive(self, stream: SocketStream, method: str, deadline: float) -> tuple[ReplyHead, bytes]:
        began = bool(stream.buffer)
        try:
            if not began:
                stream.fill(deadline)
            began = True
            head = read_reply_head(stream, deadline=deadline)
            return head, stream.read(self._body_bytes(head, method), lambda received: deadline)
        except TimeoutError as error:
            raise NoReply("no complete reply came in time") from error
        except OSError as error:
            raise NoReply(f"the connection broke ({error})", cut=not began) from error
        except BadRequest as error:
            raise NoReply(f"the reply cannot be read: {error.message}") from error

    def _body_bytes(self, head: ReplyHead, method: str) -> int:
        length = content_length(head.fields)
        if length is None or "transfer-encoding" in head.fields:
            raise BadRequest("it does not say how long it is")
        if method == "HEAD":
            return 0
        if length > self._most_reply_bytes:
            raise TooLarge(f"it has {length} bytes; {self._most_reply_bytes} are allowed")
        return length

    def _check_signature(self, to: Addressee, proof: Proof, head: ReplyHead, body: bytes) -> None:
        if self._signer.is_reply(proof, head.status, body, head.fields.get(SIGNATURE, "")):
            return
        if head.status == NotAllowed.status:
            raise NotAllowed(
                f"{to.url} has another mesh key: copy mesh.key from a machine of that mesh, "
                "or start the host there anew with the right one"
            )
        raise NoReply(f"the answer ({head.status}) is not signed with the mesh key: {_said(body)}")


def _said(body: bytes) -> str:
    """The message in somebody's error, made harmless: it may not be from a member of the mesh."""
    try:
        text = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        text = "no host of this mesh speaks there"
    return "".join(char if char.isprintable() else "?" for char in text[:200])
