"""Requests that a host refuses: whatever the route, nothing changes, and the host lives on."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from mesh_paglets import Notes

from paglets.api.groups import SubmitGroup
from paglets.api.paglets import CreatePaglet
from paglets.core.record import to_json
from paglets.host.http.router import Route
from paglets.host.http.routes import ROUTES
from tests.acceptance.rig import PATIENCE_SECONDS, HostProcess, MakeMesh, Mesh, wait_until

VICTIM = "a-paglet-that-must-stay"

BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/v1/paglets"): CreatePaglet(agent_id="new", class_name="mesh_paglets:Notes", kind="paglet", state={}),
    ("POST", "/v1/groups"): SubmitGroup(group_id="forged", class_name="mesh_jobs:Task", jobs=()),
    ("POST", "/v1/paglets/ID/dispatch"): {"target": "closed"},
}
"""Request bodies that would have an effect if they were accepted."""


@pytest.fixture(scope="module")
def guarded(make_mesh: MakeMesh) -> Iterator[Mesh]:
    with make_mesh("closed") as mesh:
        host = mesh.start("closed")
        victim = host.client.create(Notes, name=VICTIM)
        wait_until(lambda: victim.info().hook is None and not host.rows("SELECT 1 FROM runs"), what="its creation")
        yield mesh


def key(mesh: Mesh) -> str:
    return (mesh.home / "mesh.key").read_text().strip()


def body_of(route: Route) -> bytes:
    if route.takes is None:
        return b""
    return json.dumps(to_json(BODIES.get((route.method, route.path), {}))).encode()


def deep(route: Route) -> bytes:
    return b'{"agent_ids": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"


def request(
    host: HostProcess, route: Route, body: bytes, *fields: str, name: str = "", length: str | None = ""
) -> bytes:
    """Return the bytes of a request. A `length` of "" is the right one; None omits the header."""
    lines = [f"{route.method} {route.path.replace('ID', VICTIM).replace('SHA256', '0' * 64)} HTTP/1.1"]
    lines += [f"Host: {name or f'127.0.0.1:{host.port}'}", "Content-Type: application/json", *fields]
    if length is not None:
        lines.append(f"Content-Length: {length or len(body)}")
    return "\r\n".join((*lines, "", "")).encode() + body


def speak(host: HostProcess, data: bytes) -> tuple[int, dict[str, Any]]:
    """Send the bytes. Return the status and the JSON of the reply."""
    got = answer_to(host, data)
    head, _, rest = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 "), got[:200]
    return int(head.split()[1]), json.loads(rest)


def answer_to(host: HostProcess, data: bytes) -> bytes:
    """Return the whole answer. A host that refuses need not read to the end, so the send may fail after the answer."""
    with socket.create_connection(("127.0.0.1", host.port), timeout=PATIENCE_SECONDS) as line:
        got = b""
        with suppress(ConnectionError, BrokenPipeError):
            line.sendall(data)
        with suppress(OSError):
            line.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while piece := line.recv(65536):
                got += piece
    return got


BROWSER = "Accept: text/html,application/xhtml+xml,*/*;q=0.8"


def attacks(host: HostProcess, route: Route, right: str) -> dict[str, bytes]:
    body, good = body_of(route), f"Authorization: Bearer {right}"
    wrong = f"Authorization: Bearer {'A' * 43}"
    return {
        "no key": request(host, route, body),
        "browser": request(host, route, body, BROWSER),
        "wrong key": request(host, route, body, wrong),
        "short key": request(host, route, body, f"Authorization: Bearer {right[:20]}"),
        "foreign host": request(host, route, body, good, name="evil.example"),
        "foreign port": request(host, route, body, good, name=f"127.0.0.1:{host.port + 1}"),
        "foreign origin": request(host, route, body, good, "Origin: http://evil.example"),
        "cross-site": request(host, route, body, good, "Sec-Fetch-Site: cross-site"),
        "two lengths": request(host, route, body, good, f"Content-Length: {len(body) + 1}"),
        "chunked": request(host, route, b"2\r\n{}\r\n0\r\n\r\n", good, "Transfer-Encoding: chunked", length=None),
        "chunked with length": request(host, route, body, good, "Transfer-Encoding: chunked"),
        "negative length": request(host, route, body, good, length="-1"),
        "huge length": request(host, route, body, good, length=str(10**12)),
        "deep JSON": request(host, route, deep(route), good),
        "broken JSON": request(host, route, b'{"agent_ids": [', good),
    }


CASES = tuple(attacks(HostProcess(mesh=None, name="", arguments=[], home=None), ROUTES[0], "A" * 43))  # type: ignore[arg-type]


@pytest.mark.parametrize("route", ROUTES, ids=[f"{route.method} {route.path}" for route in ROUTES])
def test_whatever_the_route_such_requests_are_refused_and_change_nothing(guarded: Mesh, route: Route) -> None:
    host = guarded["closed"]
    before = host.row_counts()

    for name, data in attacks(host, route, key(guarded)).items():
        status, reply = speak(host, data)
        assert 400 <= status < 500, f"{name}: {status} {reply}"
        assert reply["code"], f"{name}: {reply}"
        assert "Traceback" not in json.dumps(reply)

    assert host.answers()
    assert host.row_counts() == before
    assert "Traceback" not in host.log_text()


def test_a_browser_gets_a_page_that_reveals_nothing_about_the_host(guarded: Mesh) -> None:
    host = guarded["closed"]
    got = answer_to(host, f"GET / HTTP/1.1\r\nHost: localhost:{host.port}\r\n{BROWSER}\r\n\r\n".encode())
    head, _, page = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"<code>paglets jobs groups</code>" in page
    assert not [word for word in (b"closed", VICTIM.encode(), str(host.port).encode()) if word in page]


def test_every_method_is_refused_without_the_key(guarded: Mesh) -> None:
    host = guarded["closed"]
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"):
        data = f"{method} /v1/host HTTP/1.1\r\nHost: 127.0.0.1:{host.port}\r\nContent-Length: 0\r\n\r\n".encode()
        assert answer_to(host, data).split()[1][:1] == b"4", method


def test_a_body_that_is_not_json_and_one_that_is_too_large_are_refused_in_words(guarded: Mesh) -> None:
    host = guarded["closed"]
    route = next(route for route in ROUTES if route.path == "/v1/paglets/locate")
    good = f"Authorization: Bearer {key(guarded)}"
    status, reply = speak(host, request(host, route, b"not json", good))
    assert (status, reply["code"]) == (400, "bad_request")
    status, reply = speak(host, request(host, route, b"{}", good, length=str((64 << 20) + 1)))
    assert (status, reply["code"]) == (413, "too_large")
    status, reply = speak(host, request(host, route, b'{"agent_ids": [], "typo": 1}', good))
    assert status == 422
    assert "typo" in reply["message"]


def test_the_key_is_in_no_file_no_command_line_and_no_environment(guarded: Mesh) -> None:
    secret = key(guarded).encode()
    host = guarded["closed"]
    for process in guarded.processes():
        assert secret.decode() not in " ".join(process.cmdline())
        assert secret.decode() not in str(process.environ())
    files = [path for path in guarded.folder.rglob("*") if path.is_file() and path.name != "mesh.key"]
    assert files
    assert not [path for path in files if secret in path.read_bytes()]
    assert host.answers()
