"""The server against everything that should not come in; a good request must still be served afterwards."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from http_rig import (
    ALONE,
    BOOT,
    KEY,
    OTHER_KEY,
    STORE,
    LeapingClock,
    Raw,
    Rig,
    good,
    is_signed,
    message,
    signed_fields,
)

from paglets.api.limits import MAX_PIECE_BYTES
from paglets.core.clock import SystemClock
from paglets.core.errors import StartFailed
from paglets.host.http.guard import peer_group
from paglets.host.http.server import HttpServer
from paglets.program import PROTOCOL
from paglets.wire.auth import Verifier
from paglets.wire.request import Request, Response, reply
from tests.fakes.logs import logger_to
from tests.fakes.waiting import wait_until

JSON = b'{"a":1}'


@pytest.fixture
def rig() -> Iterator[Rig]:
    one = Rig()
    yield one
    one.close()


@pytest.fixture
def port(rig: Rig) -> int:
    return rig.serve(linger_seconds=0.3).port


def refused(port: int, data: bytes, status: int, code: str) -> bytes:
    """`data` gets this error, signed or not, and the connection ends; gives the body of the error."""
    with Raw(port) as raw:
        heard = raw.send(data).hear()
        assert (heard.status, heard.code) == (status, code), heard.body
        assert raw.is_closed()
        return heard.body


def still_serves(rig: Rig, port: int, *, seen: int = 0) -> None:
    """Nothing of what came before has reached the handler, and a good request does."""
    assert len(rig.seen) == seen
    with Raw(port) as raw:
        assert raw.send(good(port)).hear().status == 200


def test_good_requests_are_served_over_one_connection_and_the_replies_are_signed(rig: Rig, port: int) -> None:
    with Raw(port) as raw:
        for method in ("GET", "POST", "PUT", "DELETE"):
            body = b"" if method == "GET" else JSON
            data = good(port, method, "/echo?x=1", body)
            heard = raw.send(data).hear()
            fields = dict(line.split(": ", 1) for line in data.decode().split("\r\n\r\n")[0].split("\r\n")[1:])
            assert (heard.status, heard.body) == (200, body or b"null")
            assert is_signed(heard, fields)
            assert "server" not in heard.fields
            assert "date" not in heard.fields
    assert [request.target for request in rig.seen] == ["/echo?x=1"] * 4


def test_a_head_request_gets_the_length_and_no_body(rig: Rig, port: int) -> None:
    fields = {"host": f"localhost:{port}", **signed_fields("HEAD", "/echo")}
    with Raw(port) as raw:
        heard = raw.send(message("HEAD", "/echo", fields)).hear(without_body=True)
        assert (heard.status, heard.fields["content-length"]) == (200, "4")
        assert is_signed(heard, fields, b"")
        assert raw.send(good(port)).hear().body == b"null"


FRAMING = {
    "two lengths": (["content-length: 5", "content-length: 6"], 400, "bad_request"),
    "two equal lengths": (["content-length: 5", "Content-Length: 5"], 400, "bad_request"),
    "a list of lengths": (["content-length: 5, 5"], 400, "bad_request"),
    "a negative length": (["content-length: -1"], 400, "bad_request"),
    "a length with a plus": (["content-length: +5"], 400, "bad_request"),
    "a length with an underscore": (["content-length: 1_0"], 400, "bad_request"),
    "a hexadecimal length": (["content-length: 0x5"], 400, "bad_request"),
    "a length with a fraction": (["content-length: 5.0"], 400, "bad_request"),
    "an empty length": (["content-length:"], 400, "bad_request"),
    "a length of 16 digits": (["content-length: 0000000000000005"], 400, "bad_request"),
    "a length in other digits": (["content-length: \xb2"], 400, "bad_request"),
    "a length of 4e9": (["content-length: 4000000000"], 413, "too_large"),
    "a length of 1e11": (["content-length: 100000000000"], 413, "too_large"),
    "chunks": (["transfer-encoding: chunked"], 411, "length_required"),
    "chunks and a length": (["transfer-encoding: chunked", "content-length: 5"], 411, "length_required"),
    "chunks in disguise": (["transfer-encoding: xchunked"], 411, "length_required"),
    "two encodings": (["transfer-encoding: chunked", "transfer-encoding: identity"], 400, "bad_request"),
    "a continued line": (["x-a: b", " c"], 400, "bad_request"),
    "a line continued by a tab": (["x-a: b", "\tc"], 400, "bad_request"),
    "a space before the colon": (["content-length : 5"], 400, "bad_request"),
    "no colon": (["content-length 5"], 400, "bad_request"),
    "an empty name": ([": 5"], 400, "bad_request"),
    "a NUL in a value": (["x-a: b\0c"], 400, "bad_request"),
    "a NUL in a name": (["x\0a: b"], 400, "bad_request"),
    "a bare carriage return": (["x-a: b\rcontent-length: 5"], 400, "bad_request"),
    "a bare line feed": (["x-a: b\ncontent-length: 5"], 400, "bad_request"),
    "an escape": (["x-a: \x1b[2J"], 400, "bad_request"),
    "too many fields": ([f"x-{index}: 1" for index in range(100)], 413, "too_large"),
    "a header of 20 KB": (["x-a: " + "b" * 20_000], 413, "too_large"),
    "two Host fields": (["host: localhost"], 400, "bad_request"),
    "two signatures": (["x-paglets-signature: " + "0" * 64], 400, "bad_request"),
    "another expectation": (["expect: 200-maybe"], 400, "bad_request"),
}


@pytest.mark.parametrize("name", FRAMING)
def test_bad_framing_is_refused_and_what_hides_behind_it_is_not_done(rig: Rig, port: int, name: str) -> None:
    lines, status, code = FRAMING[name]
    hidden = good(port)
    head = message("POST", "/echo", {"host": f"127.0.0.1:{port}", **signed_fields("POST", "/echo")})
    head = head.removesuffix(b"\r\n") + "\r\n".join([*lines, "", ""]).encode("latin-1")
    refused(port, head + hidden, status, code)
    still_serves(rig, port)


FIRST_LINES = {
    "HTTP/0.9": (b"GET /echo\r\n", 400, "bad_request"),
    "HTTP/1.0": (b"GET /echo HTTP/1.0\r\n", 400, "bad_request"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "bad_request"),
    "HTTP/1.10": (b"GET /echo HTTP/1.10\r\n", 400, "bad_request"),
    "two spaces": (b"GET  /echo HTTP/1.1\r\n", 400, "bad_request"),
    "a space in the target": (b"GET /a b HTTP/1.1\r\n", 400, "bad_request"),
    "a tab": (b"GET\t/echo HTTP/1.1\r\n", 400, "bad_request"),
    "a NUL in the target": (b"GET /a\0b HTTP/1.1\r\n", 400, "bad_request"),
    "letters beyond ASCII": ("GET /ä HTTP/1.1\r\n".encode(), 400, "bad_request"),
    "an empty line before": (b"\r\nGET /echo HTTP/1.1\r\n", 400, "bad_request"),
    "a bare line feed at once": (b"GET /echo HTTP/1.1\n", 400, "bad_request"),
    "a small method": (b"get /echo HTTP/1.1\r\n", 400, "bad_request"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "bad_request"),
    "a target of 20 KB": (b"GET /" + b"a" * 20_000, 413, "too_large"),
}


@pytest.mark.parametrize("name", FIRST_LINES)
def test_a_bad_first_line_is_refused_at_once_though_the_header_is_not_over(rig: Rig, port: int, name: str) -> None:
    data, status, code = FIRST_LINES[name]
    assert b"was not complete after" not in refused(port, data, status, code)
    still_serves(rig, port)


TARGETS = {
    "http://127.0.0.1/echo": (421, "misdirected"),
    "http://evil.example/echo": (421, "misdirected"),
    "*": (421, "misdirected"),
    "evil.example:80": (421, "misdirected"),
    "//evil.example/echo": (400, "bad_request"),
    "/echo#part": (400, "bad_request"),
}


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_is_a_path_and_nothing_else(rig: Rig, port: int, target: str) -> None:
    status, code = TARGETS[target]
    refused(port, good(port, "GET", target), status, code)
    still_serves(rig, port)


@pytest.mark.parametrize("method", ["OPTIONS", "PATCH", "TRACE", "CONNECT", "PROPFIND", "GETT", "X-Y"])
def test_other_methods_are_refused(rig: Rig, port: int, method: str) -> None:
    refused(port, good(port, method), 405, "method_not_allowed")
    still_serves(rig, port)


BAD_HOSTS = [
    "evil.example",
    "evil.example:{port}",
    "127.0.0.1",
    "127.0.0.1:0",
    "127.0.0.1:1",
    "localhost:80",
    "localhost.:{port}",
    "localhost:{port}.",
    "127.0.0.2:{port}",
    "10.0.0.1:{port}",
    "[::2]:{port}",
    "[::1:{port}",
    "node-b:{port}",
    "node-a",
    "node-a.:{port}",
    "user@localhost:{port}",
    "localhost:{port}/",
    "localhost:{port},localhost:{port}",
    "0.0.0.0:{port}",
    "2130706433:{port}",
    "localhost:-1",
    "mesh.example.org:81",
    "127.1:{port}",
    "017700000001:{port}",
    "localhost:0{port}0",
]


@pytest.mark.parametrize("host", [*BAD_HOSTS, "", "localhost :{port}"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_foreign_host_name_is_refused_whoever_signed(rig: Rig, port: int, host: str, method: str) -> None:
    refused(port, good(port, method, host=host.format(port=port)), 421, "misdirected")
    still_serves(rig, port)


def test_a_missing_host_name_is_refused(rig: Rig, port: int) -> None:
    refused(port, good(port, host=None), 421, "misdirected")
    still_serves(rig, port)


@pytest.mark.parametrize(
    "host",
    [
        "localhost:{port}",
        "LOCALHOST:{port}",
        "127.0.0.1:{port}",
        "[::1]:{port}",
        "[0:0:0:0:0:0:0:1]:{port}",
        "node-a:{port}",
        "mesh.example.org",
        "mesh.example.org:80",
    ],
)
def test_own_names_are_served(port: int, host: str) -> None:
    with Raw(port) as raw:
        assert raw.send(good(port, host=host.format(port=port))).hear().status == 200


def test_the_ip_literal_on_which_a_connection_came_in_is_an_own_name(rig: Rig) -> None:
    verifier = Verifier(KEY, store_id=STORE, boot_id=BOOT, clock=SystemClock())
    server = HttpServer(address=("0.0.0.0", 0), handler=rig.handle, verifier=verifier, log=logger_to(rig.log.append))
    server.start()
    rig.servers.append(server)
    with Raw(server.port, host="127.0.0.5") as raw:
        assert raw.send(good(server.port, host=f"127.0.0.5:{server.port}")).hear().status == 200
        assert raw.send(good(server.port, host=f"127.0.0.6:{server.port}")).hear().status == 421
    refused(server.port, good(server.port, host=f"0.0.0.0:{server.port}"), 421, "misdirected")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("origin", ""),
        ("origin", "http://127.0.0.1:1"),
        ("origin", "https://127.0.0.1:{port}"),
        ("sec_fetch_site", "cross-site"),
        ("sec_fetch_site", "same-site"),
        ("sec_fetch_site", "whatever"),
    ],
)
def test_a_foreign_web_page_is_refused_whoever_signed(rig: Rig, port: int, method: str, name: str, value: str) -> None:
    with Raw(port) as raw:
        heard = raw.send(good(port, method, **{name: value.format(port=port)})).hear(without_body=method == "HEAD")
        assert heard.status == 403
        assert raw.is_closed()
        assert not [field for field in heard.fields if field.startswith("access-control")]
    still_serves(rig, port)


def test_a_page_of_our_own_may_ask(port: int) -> None:
    own = {"origin": f"http://127.0.0.1:{port}", "sec_fetch_site": "same-origin"}
    with Raw(port) as raw:
        assert raw.send(good(port, **own)).hear().status == 200


@pytest.mark.parametrize(
    "media", ["application/x-python-pickle", "application/octet-stream", "text/plain", "", "application/jsonx", None]
)
def test_a_body_that_is_not_json_is_refused_unread(rig: Rig, port: int, media: str | None) -> None:
    refused(port, good(port, "POST", "/echo", b"\x80\x04K\x01.", content_type=media), 415, "unsupported_media")
    still_serves(rig, port)


def test_more_than_a_piece_of_a_blob_is_refused_unread(rig: Rig, port: int) -> None:
    whole = good(port, "PUT", "/echo", b"x" * (MAX_PIECE_BYTES + 1), content_type="application/octet-stream")
    refused(port, whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n", 413, "too_large")
    still_serves(rig, port)


def test_bytes_may_be_put_and_json_may_name_its_alphabet(port: int) -> None:
    with Raw(port) as raw:
        data = good(port, "PUT", "/echo", b"\0\1", content_type="application/octet-stream")
        assert raw.send(data).hear().body == b"\0\1"
        data = good(port, "POST", "/echo", JSON, content_type="Application/JSON; charset=utf-8")
        assert raw.send(data).hear().body == JSON


def test_a_get_carries_no_body(rig: Rig, port: int) -> None:
    refused(port, good(port, "GET", "/echo", JSON), 400, "bad_request")
    still_serves(rig, port)


# --- who may speak -------------------------------------------------------------------------------------------------


def test_an_unsigned_request_and_one_under_another_key_are_refused_unsigned(rig: Rig, port: int) -> None:
    for method in ("GET", "POST", "PUT", "DELETE"):
        for fields in ({}, signed_fields(method, "/echo", key=OTHER_KEY), signed_fields("GET", "/other")):
            with Raw(port) as raw:
                heard = raw.send(message(method, "/echo", {"host": f"localhost:{port}", **fields})).hear()
                assert (heard.status, heard.code) == (401, "not_allowed")
                assert "x-paglets-signature" not in heard.fields
                assert raw.is_closed()
    still_serves(rig, port)


BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def test_a_browser_gets_a_constant_page_without_a_word_to_the_handler_or_the_log(rig: Rig, port: int) -> None:
    heard = {}
    for method, target in (("GET", "/"), ("GET", "/jobs"), ("HEAD", "/")):
        with Raw(port) as raw:
            fields = {"host": f"localhost:{port}", "sec-fetch-site": "none", **BROWSER}
            answer = raw.send(message(method, target, fields)).hear(without_body=method == "HEAD")
            heard[method, target] = answer
            assert raw.is_closed()
    assert [each.status for each in heard.values()] == [200, 404, 200]
    page = heard["GET", "/"]
    assert page.body.startswith(b"<!doctype html>")
    assert (heard["GET", "/jobs"].body, heard["HEAD", "/"].body) == (page.body, b"")
    assert set(page.fields) == {
        "content-type",
        "content-length",
        "content-security-policy",
        "cache-control",
        "connection",
        "referrer-policy",
        "x-content-type-options",
        "x-frame-options",
    }
    assert (page.fields["cache-control"], page.fields["x-content-type-options"]) == ("no-store", "nosniff")
    assert rig.log == []
    still_serves(rig, port)


def test_the_page_opens_no_door_that_is_closed_to_others(rig: Rig, port: int) -> None:
    def refused_browser(status: int, code: str, target: str = "/", method: str = "GET", **fields: str) -> None:
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        data = message(method, target, {"host": f"localhost:{port}", **BROWSER, **named})
        refused(port, data, status, code)

    refused_browser(421, "misdirected", host="evil.example")
    refused_browser(403, "foreign_origin", origin="http://evil.example")
    refused_browser(403, "foreign_origin", sec_fetch_site="cross-site")
    refused_browser(401, "not_allowed", target="/v1/host")
    refused_browser(401, "not_allowed", method="POST")
    refused_browser(401, "not_allowed", **signed_fields("GET", "/", key=OTHER_KEY))
    with Raw(port) as raw:
        assert raw.send(good(port, accept=BROWSER["accept"])).hear().status == 200


def test_a_copied_request_is_refused(rig: Rig, port: int) -> None:
    data = good(port)
    with Raw(port) as raw:
        assert raw.send(data).hear().status == 200
        assert raw.send(data).hear().status == 401
        assert raw.is_closed()
    still_serves(rig, port, seen=1)


def test_a_changed_body_is_refused(rig: Rig, port: int) -> None:
    refused(port, good(port, "POST", "/echo", JSON)[:-1] + b"]", 401, "not_allowed")
    still_serves(rig, port)


# A clock that is ahead is less so by the time that the request takes.
@pytest.mark.parametrize("shift", [-121.0, 180.0, -86400.0])
def test_a_wrong_clock_is_told_by_a_signed_reply(rig: Rig, port: int, shift: float) -> None:
    before = time.time()
    fields = {"host": f"localhost:{port}", **signed_fields("GET", "/echo", shift=shift)}
    with Raw(port) as raw:
        heard = raw.send(message("GET", "/echo", fields)).hear()
    assert (heard.status, heard.code) == (401, "wrong_clock")
    assert before - 1 < json.loads(heard.body)["details"]["now"] < time.time() + 1
    assert is_signed(heard, fields)
    still_serves(rig, port)


def test_a_request_for_an_earlier_start_is_told_who_is_here_by_a_signed_reply(rig: Rig, port: int) -> None:
    fields = {"host": f"localhost:{port}", **signed_fields("GET", "/echo", receiver="store1:boot0")}
    with Raw(port) as raw:
        heard = raw.send(message("GET", "/echo", fields)).hear()
    assert (heard.status, heard.code) == (409, "stale_peer")
    assert json.loads(heard.body)["details"] == {"store_id": STORE, "boot_id": BOOT}
    assert is_signed(heard, fields)
    still_serves(rig, port)


def test_a_refusal_of_a_signed_request_is_signed_so_that_its_sender_can_believe_it(port: int) -> None:
    fields = {"host": f"evil.example:{port}", **signed_fields("GET", "/echo")}
    with Raw(port) as raw:
        assert is_signed(raw.send(message("GET", "/echo", fields)).hear(), fields)


def test_the_key_is_a_bearer_token_on_loopback(rig: Rig, port: int) -> None:
    host = {"host": f"localhost:{port}"}
    with Raw(port) as raw:
        assert raw.send(message("GET", "/echo", {**host, "authorization": f"Bearer {KEY.text}"})).hear().status == 200
    for text in (OTHER_KEY.text, KEY.text[:-1], KEY.text + "k", "", KEY.text + " x"):
        refused(port, message("GET", "/echo", {**host, "authorization": f"Bearer {text}"}), 401, "not_allowed")
    broken = message("GET", "/echo", {**host, "authorization": f"Bearer {KEY.text}\n"})
    refused(port, broken, 400, "bad_request")
    assert len(rig.seen) == 1


def own_address() -> str | None:
    """An address of this machine that is not loopback, where it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return None
        address: str = probe.getsockname()[0]
    return None if address.startswith(("127.", "0.")) else address


def test_the_key_is_no_bearer_token_from_elsewhere(rig: Rig) -> None:
    address = own_address()
    if address is None:
        pytest.skip("this machine has loopback addresses only")
    verifier = Verifier(KEY, store_id=STORE, boot_id=BOOT, clock=SystemClock())
    server = HttpServer(address=(address, 0), handler=rig.handle, verifier=verifier, log=logger_to(rig.log.append))
    server.start()
    rig.servers.append(server)
    host = f"{address}:{server.port}"
    with Raw(server.port, host=address) as raw:
        asked = message("GET", "/echo", {"host": host, "authorization": f"Bearer {KEY.text}"})
        assert raw.send(asked).hear().status == 401
    with Raw(server.port, host=address) as raw:
        assert raw.send(good(server.port, host=host)).hear().status == 200


def test_neither_replies_nor_log_ever_show_the_key(rig: Rig, port: int) -> None:
    with Raw(port) as raw:
        heard = raw.send(message("GET", "/no", {"host": "x", "authorization": f"Bearer {KEY.text}"})).hear()
    with Raw(port) as raw:
        failed = raw.send(message("GET", "/fail", {"host": f"localhost:{port}", "authorization": f"Bearer {KEY.text}"}))
        heard_too = failed.hear()
    assert rig.log
    assert KEY.text not in f"{heard} {heard_too} {rig.log}"


# --- the handler's answers -----------------------------------------------------------------------------------------


def test_errors_of_the_handler_are_json_and_do_not_end_the_connection(port: int) -> None:
    with Raw(port) as raw:
        missing = raw.send(good(port, "GET", "/nothing")).hear()
        taken = raw.send(good(port, "POST", "/conflict", JSON)).hear()
        assert (missing.status, missing.code) == (404, "unknown")
        assert json.loads(taken.body) == {"code": "conflict", "message": "it is taken", "details": {"by": "me"}}
        assert raw.send(good(port)).hear().status == 200


def test_a_fault_of_the_handler_goes_to_the_log_and_not_to_the_asker(rig: Rig, port: int) -> None:
    with Raw(port) as raw:
        heard = raw.send(good(port, "GET", "/fail")).hear()
        assert (heard.status, heard.code) == (500, "internal")
        assert b"secret" not in heard.body
        assert b"Traceback" not in heard.body
        assert raw.send(good(port)).hear().status == 200
    assert "a secret of the inside" in rig.log[-1]
    assert "Traceback" in rig.log[-1]


def test_a_handler_cannot_split_the_header_of_a_reply(rig: Rig, port: int) -> None:
    with Raw(port) as raw:
        raw.send(good(port, "GET", "/split"))
        assert raw.is_closed()
    wait_until(lambda: rig.log, what="the fault in the log")
    still_serves(rig, port, seen=1)


def test_an_answer_that_comes_later_is_sent_when_it_comes(rig: Rig, port: int) -> None:
    with Raw(port) as raw:
        raw.send(good(port, "GET", "/later"))
        wait_until(lambda: rig.pending, what="the request at the handler")
        rig.pending[0].complete(reply({"late": 1}))
        rig.pending[0].complete(reply({"late": 2}))
        assert raw.hear().body == b'{"late":1}'


def test_an_answer_that_never_comes_is_timed_out_and_its_handler_can_see_it(rig: Rig) -> None:
    port = rig.serve(pending_seconds=0.2).port
    with Raw(port) as raw:
        heard = raw.send(good(port, "GET", "/later")).hear()
        assert (heard.status, heard.code) == (504, "timed_out")
        given_up = rig.pending[0].response
        assert given_up is not None
        assert given_up.status == 504
        assert raw.send(good(port)).hear().status == 200


def test_100_continue_is_said_to_those_who_may_send_and_to_nobody_else(rig: Rig, port: int) -> None:
    data = good(port, "POST", "/echo", JSON, expect="100-continue")
    with Raw(port) as raw:
        raw.send(data.removesuffix(JSON))
        assert raw.hear().status == 100
        assert raw.send(JSON).hear().body == JSON
    unsigned = {"host": f"localhost:{port}", "expect": "100-continue", "content-length": "7"}
    refused(port, message("POST", "/echo", unsigned), 401, "not_allowed")
    assert len(rig.seen) == 1


def test_pieces_and_pipelines_are_read_as_what_they_are(rig: Rig, port: int) -> None:
    with Raw(port) as raw:
        for start in range(0, len(data := good(port, "POST", "/echo", JSON)), 7):
            raw.send(data[start : start + 7])
        assert raw.hear().body == JSON
        raw.send(good(port, "POST", "/echo", b"1") + good(port, "POST", "/echo", b"2") + good(port))
        assert [raw.hear().body for _ in range(3)] == [b"1", b"2", b"null"]


def test_a_client_that_asks_for_it_gets_the_connection_closed(port: int) -> None:
    with Raw(port) as raw:
        heard = raw.send(good(port, connection="close")).hear()
        assert (heard.status, heard.fields["connection"]) == (200, "close")
        assert raw.is_closed()


# --- time and numbers ----------------------------------------------------------------------------------------------


def drip(raw: Raw, data: bytes, clock: LeapingClock) -> tuple[int, bytes]:
    """Send byte by byte, the next when the server has looked at its clock for it, until it hangs up.

    Gives how many bytes went, and what the server said.
    """
    heard, ended, sent = bytearray(), threading.Event(), 0

    def listen() -> None:
        with contextlib.suppress(OSError):
            while said := raw.socket.recv(4096):
                heard.extend(said)
        ended.set()

    listener = threading.Thread(target=listen)
    listener.start()
    with contextlib.suppress(OSError):
        while sent < len(data) and not ended.is_set():
            looks = clock.looks
            raw.socket.send(data[sent : sent + 1])
            sent += 1
            wait_until(lambda: clock.looks > looks or ended.is_set(), what="the server to look")  # noqa: B023
        raw.socket.shutdown(socket.SHUT_WR)
    listener.join()
    return sent, bytes(heard)


def test_a_header_that_drips_ends_at_its_deadline_however_steady_it_is(rig: Rig) -> None:
    clock = LeapingClock(each_look=1.0)
    port = rig.serve(clock=clock, head_seconds=50.0, linger_seconds=60.0).port
    with Raw(port) as raw:
        sent, said = drip(raw, data := good(port), clock)
    assert 20 < sent < len(data)
    assert b"the header was not complete after 50 s" in said
    still_serves(rig, port)


def test_a_body_that_drips_ends_below_the_least_rate_however_long_it_says_it_is(rig: Rig) -> None:
    clock = LeapingClock(each_look=1.0)
    bounds = {"head_seconds": 1000.0, "body_grace_seconds": 50.0, "body_bytes_per_second": 5, "linger_seconds": 60.0}
    port = rig.serve(clock=clock, **bounds).port
    body = b"1" * 1000
    with Raw(port) as raw:
        raw.send(good(port, "POST", "/echo", body).removesuffix(body))
        sent, said = drip(raw, body, clock)
    assert 20 < sent < 100
    assert b"the body of 1000 bytes came too slowly" in said
    still_serves(rig, port)


def test_a_body_at_a_fair_rate_may_take_longer_than_the_grace(rig: Rig) -> None:
    clock = LeapingClock(each_look=1.0)
    port = rig.serve(clock=clock, head_seconds=1000.0, body_grace_seconds=60.0, body_bytes_per_second=2).port
    body = b"1" * 100
    with Raw(port) as raw:
        raw.send(good(port, "POST", "/echo", body).removesuffix(body))
        before = clock.ahead
        sent, said = drip(raw, body, clock)
    assert (sent, said.endswith(b"\r\n\r\n" + body)) == (len(body), True)
    assert clock.ahead - before > 90


def test_silence_is_ended_before_the_first_request_and_between_two(rig: Rig) -> None:
    hasty, idle_port = rig.serve(head_seconds=0.3).port, rig.serve(idle_seconds=0.3).port
    with Raw(hasty, timeout=8) as silent, Raw(idle_port) as idle:
        assert idle.send(good(idle_port)).hear().status == 200
        assert silent.is_closed()
        assert idle.is_closed()
    assert not rig.log


def test_many_slow_clients_hold_no_threads_and_a_good_one_is_served_meanwhile(rig: Rig) -> None:
    clock = LeapingClock()
    server = rig.serve(clock=clock, head_seconds=60.0, linger_seconds=0.1)
    slow = [Raw(server.port).send(b"GET /echo HTTP/1.1\r\n") for _ in range(60)]
    wait_until(lambda: server.statistics().connections >= 60, what="60 connections")
    still_serves(rig, server.port)

    def are_ended() -> bool:
        clock.ahead += 61
        for raw in slow:
            with contextlib.suppress(OSError):
                raw.send(b"x")  # steady, though slow
        return server.statistics().connections == 0

    wait_until(are_ended, what="no connection left")
    for raw in slow:
        raw.__exit__()


def test_connections_over_the_bound_are_turned_away_and_come_in_later(rig: Rig) -> None:
    server = rig.serve(connections=20, connections_loopback=5)
    held = [Raw(server.port).send(good(server.port)) for _ in range(5)]
    assert [raw.hear().status for raw in held] == [200] * 5
    refused(server.port, b"", 503, "overloaded")
    held.pop().__exit__()
    wait_until(lambda: server.statistics().connections == 4, what="a free place")
    with Raw(server.port) as raw:
        assert raw.send(good(server.port)).hear().status == 200
    for raw in held:
        raw.__exit__()


def test_what_counts_as_one_peer() -> None:
    assert peer_group("127.0.0.1") == peer_group("127.8.8.8") == peer_group("::1")
    assert peer_group("2001:db8::1") == peer_group("2001:db8::ffff:1") != peer_group("2001:db8:0:1::1")
    assert peer_group("192.0.2.1") != peer_group("192.0.2.2")


def test_a_large_announced_body_of_which_nothing_comes_costs_no_memory_and_ends(rig: Rig) -> None:
    port = rig.serve(body_grace_seconds=0.3, linger_seconds=0.1).port
    fields = {"host": f"localhost:{port}", "content-type": "application/json", "content-length": str(64 << 20)}
    data = message("POST", "/echo", {**fields, **signed_fields("POST", "/echo")}, b"abc")
    refused(port, data, 400, "bad_request")
    still_serves(rig, port)


def test_keep_alive_requests_do_not_wait_for_delayed_acknowledgements(port: int) -> None:
    count, took = 150, list[float]()
    with Raw(port) as raw:
        for data in [good(port, "POST", "/echo", JSON) for _ in range(count)]:
            began = time.monotonic()
            assert raw.send(data).hear().status == 200
            took.append(time.monotonic() - began)
    # With Nagle's wait each takes 40 ms or more, but for a few at the beginning.
    assert sorted(took)[count // 3] < 0.035


def test_a_crowd_of_connections_at_once_is_served(rig: Rig, port: int) -> None:
    requests = [good(port) for _ in range(200)]

    def ask(data: bytes) -> int:
        with Raw(port, timeout=20) as raw:
            return raw.send(data).hear().status

    with ThreadPoolExecutor(50) as crowd:
        assert list(crowd.map(ask, requests)) == [200] * 200
    assert len(rig.seen) == 200


def test_a_client_that_does_not_read_its_reply_is_left_behind(rig: Rig) -> None:
    server = rig.serve(body_grace_seconds=0.3, body_bytes_per_second=20_000_000)
    raw = Raw(server.port).send(good(server.port, "GET", "/big"))
    wait_until(lambda: rig.seen, what="the request at the handler")
    wait_until(lambda: server.statistics().connections == 0, what="no connection left")
    raw.__exit__()


def test_refusals_are_logged_once_a_peer_and_not_for_each_knock(rig: Rig, port: int) -> None:
    for _ in range(10):
        refused(port, message("GET", "/echo", {"host": f"localhost:{port}"}), 401, "not_allowed")
    assert len(rig.log) == 1
    assert "127.0.0.1" in rig.log[0]


# --- start and end -------------------------------------------------------------------------------------------------


def make_server(address: tuple[str, int], *more: tuple[str, int]) -> HttpServer:
    def handle(request: Request) -> Response:
        return reply({"protocol": PROTOCOL})

    verifier = Verifier(KEY, store_id=STORE, boot_id=BOOT, clock=SystemClock())
    return HttpServer(address=address, more_addresses=more, handler=handle, verifier=verifier, log=logger_to(print))


def test_a_port_in_use_is_said_in_one_line(port: int) -> None:
    with pytest.raises(StartFailed, match=f"port {port} at 127.0.0.1 is in use, .*\nhint: .* --port"):
        make_server(("127.0.0.1", port)).start()


@pytest.mark.parametrize("host", ["192.0.2.77", "a" * 300])
def test_an_address_that_is_not_ours_is_said_in_one_line(host: str) -> None:
    with pytest.raises(StartFailed, match=r"cannot listen at|not an address of this machine"):
        make_server((host, 0)).start()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_several_addresses_share_one_port_ipv6_too() -> None:
    server = make_server(("127.0.0.1", 0), ("[::1]", 0), ("127.0.0.3", 0))
    server.start()
    try:
        assert {port for _, port in server.bound} == {server.port}
        for address, name in (("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("127.0.0.3", "127.0.0.3")):
            with Raw(server.port, host=address) as raw:
                assert raw.send(good(server.port, host=f"{name}:{server.port}")).hear().status == 200
    finally:
        server.close()


def test_localhost_is_listened_to_wherever_it_leads() -> None:
    server = make_server(("localhost", 0))
    server.start()
    try:
        assert "127.0.0.1" in {address for address, _ in server.bound}
    finally:
        server.close()


def test_close_answers_who_waits_ends_who_is_idle_and_frees_the_port(rig: Rig) -> None:
    server = rig.serve(address=(ALONE, 0))
    with Raw(server.port, ALONE) as idle, Raw(server.port, ALONE) as parked:
        assert idle.send(good(server.port)).hear().status == 200
        parked.send(good(server.port, "GET", "/later"))
        wait_until(lambda: server.statistics().parked == 1, what="a parked request")
        began = time.monotonic()
        server.close(grace_seconds=60)
        assert time.monotonic() - began < 30  # who has to be cut is cut after 60 s
        heard = parked.hear()
        assert (heard.status, heard.code) == (503, "shutting_down")
        assert idle.is_closed()
    again = make_server((ALONE, server.port))
    again.start()
    again.close()


def test_close_cuts_who_does_not_end(rig: Rig) -> None:
    server = rig.serve()
    with Raw(server.port) as stuck:
        stuck.send(good(server.port, "GET", "/wait"))
        wait_until(lambda: rig.seen, what="the request at the handler")
        server.close(grace_seconds=0.1)
        rig.gate.set()
        assert stuck.is_closed()


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_request_never_harms_the_server(rig: Rig, seed: int) -> None:
    server, chance = rig.serve(linger_seconds=0.2), random.Random(seed)
    statuses = set[int]()
    for _ in range(75):
        damaged = bytearray(good(server.port, "POST", "/echo", JSON))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(damaged))
            damaged[at : at + chance.choice((0, 1, 1, 5))] = chance.choice(
                (b"\r\n", b"\n", b"\0", b" ", b":", b"\xff", b"5")
            )
        with Raw(server.port) as raw, contextlib.suppress(ConnectionError):  # no reply where a body was cut short
            raw.send(bytes(damaged))
            with contextlib.suppress(OSError):
                raw.socket.shutdown(socket.SHUT_WR)
            statuses.add(raw.hear().status)
    assert {400, 401} <= statuses <= {200, 400, 401, 403, 405, 411, 413, 415, 421}
    wait_until(lambda: server.statistics().connections == 0, what="no connection left")
    assert not [line for line in rig.log if "fault" in line or "Traceback" in line]
    still_serves(rig, server.port, seen=len(rig.seen))
