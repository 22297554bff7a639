"""A server with a small handler, and a client that sends raw bytes."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from paglets.core.clock import SystemClock, SystemEntropy
from paglets.core.errors import Conflict, Unknown
from paglets.host.http.guard import Limits
from paglets.host.http.server import HttpServer
from paglets.wire.auth import SIGNATURE, Proof, Signer, Verifier
from paglets.wire.keys import MeshKey
from paglets.wire.request import PendingResponse, Request, Response, dump_json, reply
from tests.fakes.logs import logger_to

KEY = MeshKey(text="k" * 43, source="test")
OTHER_KEY = MeshKey(text="o" * 43, source="test")
STORE, BOOT = "store1", "boot1"
ALONE = "127.0.0.6"
"""A loopback address that no other program uses, so that a port of an earlier test is free again."""


class LeapingClock(SystemClock):
    """The system's clock, `ahead` by some seconds, and by `each_look` seconds more with each look at it.

    Whoever looks at it for each byte takes that long for each, however busy this machine is.
    """

    def __init__(self, each_look: float = 0.0) -> None:
        self._each_look = each_look
        self.ahead = 0.0
        self.looks = 0

    def monotonic(self) -> float:
        self.looks += 1
        self.ahead += self._each_look
        return super().monotonic() + self.ahead


@dataclass
class Rig:
    """`seen` are the requests that reached the handler, `log` the lines that the server wrote."""

    seen: list[Request] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    pending: list[PendingResponse] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    servers: list[HttpServer] = field(default_factory=list)
    names: tuple[str, ...] = ("node-a", "mesh.example.org:80")
    boot_id: str = BOOT
    store_id: str = STORE

    def serve(
        self, *, address: tuple[str, int] = ("127.0.0.1", 0), clock: SystemClock | None = None, **bounds: Any
    ) -> HttpServer:
        verifier = Verifier(KEY, store_id=self.store_id, boot_id=self.boot_id, clock=SystemClock())
        server = HttpServer(
            address=address,
            handler=self.handle,
            verifier=verifier,
            allowed_hosts=self.names,
            log=logger_to(self.log.append),
            limits=Limits(**bounds),
            clock=clock,
        )
        server.start()
        self.servers.append(server)
        return server

    def handle(self, request: Request) -> Response | PendingResponse:
        self.seen.append(request)
        answers: dict[str, Callable[[Request], Response | PendingResponse]] = {
            "/v1/host": lambda request: reply({"store_id": self.store_id, "boot_id": self.boot_id}),
            "/echo": lambda request: Response(status=200, body=request.body or b"null"),
            "/fail": self._fail,
            "/conflict": self._conflict,
            "/later": lambda request: self._later(),
            "/wait": lambda request: self._wait(),
            "/wait/call": lambda request: self._wait(),
            "/big": lambda request: Response(status=200, body=b'"' + b"x" * 5_000_000 + b'"'),
            "/long": lambda request: Response(status=200, body=b"{}", headers={"x-a": "b" * 20_000}),
            "/split": lambda request: Response(status=200, body=b"{}", headers={"x-evil": "a\r\nset-cookie: b"}),
        }
        answer = answers.get(request.target.partition("?")[0])
        if answer is None:
            raise Unknown("nothing of that name")
        return answer(request)

    def close(self) -> None:
        self.gate.set()
        for server in self.servers:
            server.close(grace_seconds=0.5)

    def _fail(self, request: Request) -> Response:
        raise RuntimeError("a secret of the inside")

    def _conflict(self, request: Request) -> Response:
        raise Conflict("it is taken", by="me")

    def _later(self) -> PendingResponse:
        pending = PendingResponse()
        self.pending.append(pending)
        return pending

    def _wait(self) -> Response:
        self.gate.wait(60)
        return reply({"waited": True})


@dataclass(frozen=True)
class Heard:
    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        tree = json.loads(self.body)
        assert set(tree) == {"code", "message", "details"}
        return str(tree["code"])


class Raw:
    """A connection of raw bytes."""

    def __init__(self, port: int, host: str = "127.0.0.1", timeout: float = 20.0) -> None:
        self.port = port
        self.socket = socket.create_connection((host, port), timeout=timeout)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.socket.close()

    def send(self, data: bytes) -> Raw:
        self.socket.sendall(data)
        return self

    def hear(self, *, without_body: bool = False) -> Heard:
        """Return the reply. Raises ConnectionError if the server closes the connection without one."""
        first = self._file.readline()
        if not first:
            raise ConnectionError("the server closed the connection and said nothing")
        assert first.startswith(b"HTTP/1.1 "), first
        fields: dict[str, str] = {}
        while (line := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            fields[name.lower()] = value.strip()
        length = 0 if without_body else int(fields.get("content-length", "0"))
        return Heard(int(first.split()[1]), fields, self._file.read(length))

    def is_closed(self) -> bool:
        """Wait for more bytes, and return True if the server closes the connection instead."""
        try:
            return self._file.read(1) == b""
        except ConnectionError:
            return True


def signer(key: MeshKey = KEY, sender: str = "") -> Signer:
    return Signer(key, clock=SystemClock(), entropy=SystemEntropy(), sender=sender)


def signed_fields(
    method: str,
    target: str,
    body: bytes = b"",
    *,
    key: MeshKey = KEY,
    receiver: str = f"{STORE}:{BOOT}",
    shift: float = 0.0,
) -> dict[str, str]:
    one = signer(key)
    return one.headers(method, target, one.proof(body, receiver=receiver, clock_offset=shift))


def message(method: str, target: str, fields: dict[str, str], body: bytes = b"") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def good(port: int, method: str = "GET", target: str = "/echo", body: bytes = b"", **changed: str | None) -> bytes:
    """Return a valid request. `changed` fields (with _ for -) replace its fields; None removes one."""
    fields: dict[str, str] = {"host": f"127.0.0.1:{port}", **signed_fields(method, target, body)}
    if body:
        fields |= {"content-type": "application/json", "content-length": str(len(body))}
    for name, value in changed.items():
        fields.pop(name.replace("_", "-"), None)
        if value is not None:
            fields[name.replace("_", "-")] = value
    return message(method, target, fields, body)


def is_signed(heard: Heard, request_fields: dict[str, str], body: bytes | None = None) -> bool:
    proof = Proof(receiver="", sender="", time="0.000", nonce=request_fields["x-paglets-nonce"], body_sha256="")
    sent = heard.body if body is None else body
    return signer().is_reply(proof, heard.status, sent, heard.fields.get(SIGNATURE, ""))


def as_json(value: object) -> bytes:
    return dump_json(value)
