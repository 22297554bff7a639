"""One connection of the server: request after request, in this order of doors.

Head (size, form, time) -> bounds of the body -> method, Host, Origin -> signature -> content type -> body
to its length, in its time -> its hash -> the handler. Whoever fails at one door gets an error and the
connection ends, as what follows on it can no longer be trusted to be a request.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from paglets.core.clock import Clock
from paglets.core.errors import BadRequest, NotAllowed, PagletsError, StalePeer
from paglets.host.http.guard import Complaints, HostNames, Limits, LocalEnd, check_body, check_head, check_media
from paglets.remote.auth import Proof, body_sha256
from paglets.remote.exchange import Request, Response, reply_error
from paglets.remote.http1 import JSON_TYPE, ReplyHead, RequestHead, read_request_head, render_reply, wants_close
from paglets.remote.stream import SocketStream, StreamEnded

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Door(Protocol):
    """What a connection needs of the `Verifier`, with the turns taken."""

    def proof(self, head: RequestHead) -> Proof | None: ...

    def admit(self, head: RequestHead, proof: Proof) -> None: ...

    def bearer(self, authorization: str) -> bool: ...

    def sign_reply(self, proof: Proof, status: int, body: bytes) -> dict[str, str]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What all connections of a server share. `answer` never raises; `log` takes one line or more."""

    clock: Clock
    limits: Limits
    names: HostNames
    door: Door
    answer: Callable[[Request], Response]
    is_closing: Callable[[], bool]
    complaints: Complaints
    log: Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """`refused`: more of the request may be on its way, and nobody will read it."""

    response: Response
    keep: bool
    refused: bool = False


class Connection:
    """Runs in a thread of its own. `idle` is true while it waits for a request of which nothing has come."""

    def __init__(self, sock: socket.socket, service: Service) -> None:
        self._service = service
        self._stream = SocketStream(sock, service.clock)
        self._end = _local_end(sock)
        self._peer: str = sock.getpeername()[0]
        self.idle = True

    def run(self) -> None:
        """Serve until either side ends it. Raises nothing."""
        limits = self._service.limits
        wait = limits.head_seconds
        try:
            while self._wait_for_request(wait) and self._serve_one():
                wait = limits.idle_seconds
        except OSError:
            pass  # the other side is gone or too slow: there is nobody to tell
        finally:
            self._stream.close()

    def end_idle(self) -> None:
        """Wake it if it is between two requests. Any thread."""
        if self.idle:
            self._stream.end_reading()

    def break_off(self) -> None:
        self._stream.break_off()

    def _now(self) -> float:
        return self._service.clock.monotonic()

    def _wait_for_request(self, seconds: float) -> bool:
        self.idle = True
        try:
            if not self._stream.buffer:
                if self._service.is_closing():
                    return False
                self._stream.fill(self._now() + seconds)
        except (TimeoutError, StreamEnded):
            return False
        self.idle = False
        return True

    def _serve_one(self) -> bool:
        """One request and its reply; whether another may follow."""
        try:
            head = self._read_head()
        except PagletsError as error:
            return self._reply(None, None, _refusal(error))
        proof = self._service.door.proof(head)
        try:
            request = self._read_request(head, proof)
        except PagletsError as error:
            self._complain(error)
            return self._reply(head, proof, _refusal(error))
        response = self._service.answer(request)
        keep = not (wants_close(head.fields) or self._service.is_closing())
        return self._reply(head, proof, _Outcome(response=response, keep=keep))

    def _read_head(self) -> RequestHead:
        limits = self._service.limits
        try:
            return read_request_head(
                self._stream,
                most_bytes=limits.head_bytes,
                most_fields=limits.head_fields,
                deadline=self._now() + limits.head_seconds,
            )
        except TimeoutError as error:
            raise BadRequest(f"the header was not complete after {limits.head_seconds:g} s") from error

    def _read_request(self, head: RequestHead, proof: Proof | None) -> Request:
        length = check_body(head, self._service.limits)
        check_head(head, names=self._service.names, end=self._end)
        sender = self._admit(head, proof)
        if length:
            check_media(head)
        body = self._read_body(head, length)
        if proof is not None and not hmac.compare_digest(body_sha256(body), proof.body_sha256):
            raise NotAllowed("the body is not the one that was signed")
        return Request(method=head.method, target=head.target, body=body, sender=sender)

    def _admit(self, head: RequestHead, proof: Proof | None) -> str:
        """The sender's store id, "" for a client. Raises NotAllowed and what `Verifier.admit` raises."""
        if proof is not None:
            self._service.door.admit(head, proof)
            return proof.sender
        if _is_loopback(self._peer) and self._service.door.bearer(head.fields.get("authorization", "")):
            return ""
        raise NotAllowed(
            "the request is not signed with the key of this mesh: "
            "copy mesh.key from a machine of the mesh to the asking one"
        )

    def _complain(self, error: PagletsError) -> None:
        """A peer with another key, clock or name for us is a thing to mend: its people see an error, ours this."""
        if not isinstance(error, StalePeer) and self._service.complaints.is_due(self._peer, self._now()):
            self._service.log(f"refused a request of {self._peer}: {error.code}: {error.message}")

    def _read_body(self, head: RequestHead, length: int) -> bytes:
        limits, start = self._service.limits, self._now()
        if length and "expect" in head.fields:
            self._stream.send(_CONTINUE, start + limits.body_grace_seconds)
        try:
            return self._stream.read(length, lambda received: limits.body_deadline(start, received))
        except TimeoutError as error:
            raise BadRequest(f"the body of {length} bytes came too slowly") from error

    def _reply(self, head: RequestHead | None, proof: Proof | None, outcome: _Outcome) -> bool:
        response = outcome.response
        body = b"" if head is not None and head.method == "HEAD" else response.body
        fields = {"content-type": JSON_TYPE, "cache-control": "no-store", "x-content-type-options": "nosniff"}
        fields |= response.headers
        fields["content-length"] = str(len(response.body))
        if response.status == 405:
            fields["allow"] = "GET, HEAD, POST, PUT, DELETE"
        if not outcome.keep:
            fields["connection"] = "close"
        if proof is not None:
            fields |= self._service.door.sign_reply(proof, response.status, body)
        self._send(render_reply(ReplyHead(status=response.status, fields=fields), body))
        if outcome.refused:
            self._stream.close_gently(self._now() + self._service.limits.linger_seconds)
        return outcome.keep

    def _send(self, data: bytes) -> None:
        start = self._now()
        self._stream.send(data, self._service.limits.body_deadline(start, len(data)))


def _refusal(error: PagletsError) -> _Outcome:
    return _Outcome(response=reply_error(error), keep=False, refused=True)


def _local_end(sock: socket.socket) -> LocalEnd:
    address, port = sock.getsockname()[:2]
    return LocalEnd(address=address, port=port)


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
