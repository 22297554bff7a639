"""Requests to a real server over connections that break, stall or corrupt bytes."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from http_rig import ALONE, OTHER_KEY, STORE, LeapingClock, Rig

from paglets.core.clock import SystemClock, SystemEntropy
from paglets.core.errors import (
    CallOutcomeUnknown,
    Invalid,
    NotAllowed,
    PagletsError,
    PeerReplaced,
    ShuttingDown,
    Unreachable,
    WrongClock,
)
from paglets.core.refs import HostRef
from paglets.wire.keys import MeshKey
from paglets.wire.pooled_client import PooledClient
from paglets.wire.request import Request, Response
from paglets.wire.transport import ThreadedTransport
from tests.fakes.waiting import wait_until

KEY = MeshKey(text="k" * 43, source="test")
GET = Request(method="GET", target="/echo")
POST = Request(method="POST", target="/echo", body=b'{"a":1}')
REPEATABLE = Request(method="POST", target="/echo", body=b'{"a":1}', repeatable=True)


@pytest.fixture
def rig() -> Iterator[Rig]:
    one = Rig()
    yield one
    one.close()


Connect = Callable[..., PooledClient]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Return a factory of clients, which are closed at the end."""
    made: list[PooledClient] = []

    def make(key: MeshKey = KEY, clock: SystemClock | None = None, **bounds: float | int) -> PooledClient:
        clock = clock or SystemClock()
        made.append(PooledClient(key, clock=clock, entropy=SystemEntropy(), sender="me", **bounds))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def connections(connect: Connect) -> PooledClient:
    return connect()


def url(port: int, at: str = "127.0.0.1") -> str:
    return f"http://{at}:{port}"


def ask(
    connections: PooledClient,
    port: int,
    request: Request = POST,
    *,
    store: str | None = STORE,
    seconds: float = 20.0,
    at: str = "127.0.0.1",
) -> Response:
    return connections.request(url(port, at), store, request, timeout_seconds=seconds)


def reached(rig: Rig) -> list[str]:
    """Return the targets that reached the handler, without identity requests."""
    return [request.target for request in rig.seen if request.target != "/v1/host"]


@contextlib.contextmanager
def tcp_server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Run a server that calls `serve` for each connection, in its own thread."""
    listener = socket.create_server(("127.0.0.1", 0))
    taken: list[socket.socket] = []

    def run(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            serve(sock)
        sock.close()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                taken.append(sock)
                threading.Thread(target=run, args=(sock,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for sock in taken:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


@dataclass
class Proxy:
    """A proxy to `port` that cuts the connection, or changes a byte, at the given request or reply byte."""

    port: int = 0
    cut_request_at: int | None = None
    cut_reply_at: int | None = None
    change_reply_at: int | None = None
    request_bytes: int = 0
    ends: list[socket.socket] = field(default_factory=list)

    def serve(self, near: socket.socket) -> None:
        far = socket.create_connection(("127.0.0.1", self.port))
        self.ends += [near, far]
        back = threading.Thread(target=self._carry, args=(far, near, True), daemon=True)
        back.start()
        self._carry(near, far, False)
        back.join()
        far.close()

    def cut_all(self) -> None:
        ends, self.ends = self.ends, []  # what connects from now on lives
        for sock in ends:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _carry(self, source: socket.socket, target: socket.socket, is_reply: bool) -> None:
        carried = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                cut = self.cut_reply_at if is_reply else self.cut_request_at
                if cut is not None and carried + len(data) >= cut:
                    target.sendall(data[: cut - carried])
                    break
                if not is_reply:
                    self.request_bytes = carried + len(data)  # known before there can be a reply
                target.sendall(self._changed(data, carried) if is_reply else data)
                carried += len(data)
        for sock in (source, target):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _changed(self, data: bytes, carried: int) -> bytes:
        if self.change_reply_at is None or not data.endswith(b"}"):
            return data
        at = self.change_reply_at % len(data)
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@contextlib.contextmanager
def proxied(rig: Rig) -> Iterator[tuple[Proxy, int]]:
    """A proxy before a server of the rig, and the port of the proxy."""
    proxy = Proxy()
    with tcp_server(proxy.serve) as port:
        rig.names = (f"127.0.0.1:{port}",)
        proxy.port = rig.serve().port
        yield proxy, port


class Asking:
    """A request in progress in a thread."""

    def __init__(self, connections: PooledClient, port: int, request: Request) -> None:
        self._outcome: list[Response | PagletsError] = []
        self._thread = threading.Thread(target=self._run, args=(connections, port, request))
        self._thread.start()

    def outcome(self) -> Response | PagletsError:
        self._thread.join()
        return self._outcome[0]

    def _run(self, connections: PooledClient, port: int, request: Request) -> None:
        try:
            self._outcome.append(ask(connections, port, request))
        except PagletsError as error:
            self._outcome.append(error)


# --- who answers ---------------------------------------------------------------------------------------------------


def test_requests_are_signed_for_who_is_there_and_go_over_one_connection(rig: Rig, connections: PooledClient) -> None:
    server = rig.serve()
    replies = [
        ask(connections, server.port, Request(method=m, target="/echo", body=b"1")) for m in ("POST", "PUT", "DELETE")
    ]
    assert [(one.status, one.body) for one in replies] == [(200, b"1")] * 3
    assert ask(connections, server.port, GET).json() is None
    assert [request.target for request in rig.seen] == ["/v1/host"] + ["/echo"] * 4
    assert {request.sender for request in rig.seen} == {"me"}
    assert server.statistics().connections == 1


def test_errors_of_the_other_side_are_replies(rig: Rig, connections: PooledClient) -> None:
    response = ask(connections, rig.serve().port, Request(method="GET", target="/conflict"))
    assert response.status == 409
    with pytest.raises(PagletsError, match="it is taken"):
        response.json()


def test_a_restarted_host_is_asked_again_once_even_for_what_may_not_be_repeated(
    rig: Rig, connections: PooledClient
) -> None:
    first = rig.serve(address=(ALONE, 0))
    ask(connections, first.port, at=ALONE)
    first.close()
    rig.boot_id = "boot2"
    second = rig.serve(address=(ALONE, first.port))
    assert ask(connections, second.port, at=ALONE).status == 200
    assert ask(connections, second.port, at=ALONE).status == 200
    assert reached(rig) == ["/echo"] * 3


def test_another_store_at_the_address_is_told_before_anything_is_done(rig: Rig, connections: PooledClient) -> None:
    server = rig.serve()
    for request in (POST, GET, Request(method="GET", target="/v1/host")):
        with pytest.raises(PeerReplaced) as caught:
            ask(connections, server.port, request, store="store9")
        assert caught.value.details == {"store_id": STORE}
    assert reached(rig) == []
    assert ask(connections, server.port).status == 200


def test_a_store_replaced_between_two_requests_is_told(rig: Rig, connections: PooledClient) -> None:
    first = rig.serve(address=(ALONE, 0))
    ask(connections, first.port, at=ALONE)
    first.close()
    rig.store_id, rig.boot_id = "store2", "boot2"
    second = rig.serve(address=(ALONE, first.port))
    with pytest.raises(PeerReplaced):
        ask(connections, second.port, at=ALONE)
    assert reached(rig) == ["/echo"]
    assert ask(connections, second.port, store=None, at=ALONE).status == 200


def test_another_key_is_told_as_such_with_what_to_do(rig: Rig, connect: Connect) -> None:
    with pytest.raises(NotAllowed, match=r"a different mesh key: copy mesh\.key"):
        ask(connect(OTHER_KEY), rig.serve().port)
    assert rig.seen == []


class ShiftedClock(SystemClock):
    def __init__(self, *shifts: float) -> None:
        self._shifts = list(shifts)

    def wall(self) -> float:
        shift = self._shifts.pop(0) if len(self._shifts) > 1 else self._shifts[0]
        return super().wall() + shift


@pytest.mark.parametrize("shift", [3600.0, -86400.0])
def test_a_wrong_clock_is_corrected_once_from_a_signed_reply(rig: Rig, shift: float, connect: Connect) -> None:
    connections, port = connect(clock=ShiftedClock(shift)), rig.serve().port
    assert [ask(connections, port).status for _ in range(3)] == [200] * 3
    assert reached(rig) == ["/echo"] * 3
    assert len(rig.log) == 1
    assert "wrong_clock" in rig.log[0]


def test_a_clock_that_jumps_all_the_time_is_an_error(rig: Rig, connect: Connect) -> None:
    days = [86400.0 * (index % 2) for index in range(50)]
    with pytest.raises(WrongClock):
        ask(connect(clock=ShiftedClock(*days)), rig.serve().port)
    assert reached(rig) == []


def test_a_host_that_cannot_sign_gets_only_the_identity_request(
    connections: PooledClient,
) -> None:
    for answer in (
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100000000000\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\0" * 50,
        b"H" * 100_000,
        b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 90_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
    ):
        heard: list[bytes] = []

        def serve(sock: socket.socket, answer: bytes = answer, heard: list[bytes] = heard) -> None:
            heard.append(sock.recv(65536))
            sock.sendall(answer)

        with tcp_server(serve) as port, pytest.raises(Unreachable, match="so nothing was sent"):
            ask(connections, port)
        assert heard[0].startswith(b"GET /v1/host HTTP/1.1\r\n")
        assert KEY.text.encode() not in heard[0]


def test_a_reply_that_was_changed_on_its_way_is_not_believed(rig: Rig, connections: PooledClient) -> None:
    with proxied(rig) as (proxy, port):
        assert ask(connections, port).status == 200
        proxy.change_reply_at = -2
        with pytest.raises(CallOutcomeUnknown, match="not signed"):
            ask(connections, port)


def test_no_proxy_of_the_environment_is_used(
    rig: Rig, connections: PooledClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert ask(connections, rig.serve().port).status == 200


def test_only_urls_of_hosts_are_contacted(connections: PooledClient) -> None:
    with pytest.raises(Invalid):
        connections.request("file:///etc/passwd", None, GET, timeout_seconds=1)


def test_what_is_no_request_is_refused_before_it_is_sent(rig: Rig, connections: PooledClient) -> None:
    port = rig.serve().port
    for target in ("/a b", "/a\r\nx-evil: 1", "/\u00e4"):
        with pytest.raises(Invalid, match="cannot be sent"):
            ask(connections, port, Request(method="POST", target=target))
    assert reached(rig) == []
    assert ask(connections, port).status == 200


# --- what breaks ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def deaf_port() -> Iterator[int]:
    """Return a port that is bound but does not listen."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_a_refused_connection_is_unreachable(connections: PooledClient) -> None:
    with deaf_port() as port, pytest.raises(Unreachable, match="cannot be reached"):
        ask(connections, port)


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """Return a port whose connection queue is full, so that it accepts no connection."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    fillers = []
    for _ in range(8):
        filler = socket.socket()
        filler.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            filler.connect(listener.getsockname())
        fillers.append(filler)
    try:
        yield listener.getsockname()[1]
    finally:
        for filler in fillers:
            filler.close()
        listener.close()


def test_a_black_hole_is_unreachable_after_the_time_for_connecting(rig: Rig, connect: Connect) -> None:
    with black_hole() as port:
        began = time.monotonic()
        with pytest.raises(Unreachable):
            ask(connect(connect_seconds=0.3), port, seconds=30)
        assert time.monotonic() - began < 20


def test_no_reply_in_time_leaves_the_outcome_unknown(rig: Rig, connections: PooledClient) -> None:
    port = rig.serve().port
    ask(connections, port)  # all of the time is for the second request
    with pytest.raises(CallOutcomeUnknown, match="no complete reply came in time"):
        ask(connections, port, Request(method="POST", target="/wait", repeatable=True), seconds=0.4)
    wait_until(lambda: len(rig.seen) == 3, what="the request at the handler")
    assert reached(rig) == ["/echo", "/wait"]


def test_a_reply_that_drips_ends_at_the_deadline(connect: Connect) -> None:
    clock, sent, over = LeapingClock(each_look=1.0), list[int](), threading.Event()
    reply = b"HTTP/1.1 200 OK\r\nx-a: " + b"b" * 1000

    def serve(sock: socket.socket) -> None:
        sock.recv(65536)
        for char in reply:
            looks = clock.looks
            sock.send(bytes([char]))
            sent.append(char)
            while clock.looks == looks and not over.wait(0.001):
                """Wait until the client waits for the next byte."""

    with tcp_server(serve) as port, pytest.raises(Unreachable, match="in time"):
        ask(connect(clock=clock), port, seconds=60.0)
    over.set()
    assert 20 < len(sent) < len(reply)


def test_a_reply_over_the_bound_is_not_read(rig: Rig, connect: Connect) -> None:
    with pytest.raises(CallOutcomeUnknown, match=r"5,000,002 bytes; at most 1,000 are allowed"):
        ask(connect(most_reply_bytes=1000), rig.serve().port, Request(method="GET", target="/big"))


def test_a_large_reply_arrives_whole(rig: Rig, connections: PooledClient) -> None:
    assert len(ask(connections, rig.serve().port, Request(method="GET", target="/big")).body) == 5_000_002


def test_a_head_over_the_bound_is_not_read(rig: Rig, connections: PooledClient) -> None:
    port = rig.serve().port
    with pytest.raises(CallOutcomeUnknown, match="more bytes arrived than allowed"):
        ask(connections, port, Request(method="GET", target="/long"))


def test_a_refusal_of_a_large_body_is_heard_though_the_body_was_not_read(rig: Rig, connections: PooledClient) -> None:
    port = rig.serve(body_bytes=1000).port
    big = Request(method="POST", target="/echo", body=b'"' + b"x" * 20_000_000 + b'"')
    with contextlib.suppress(CallOutcomeUnknown):  # the reset may overtake the reply: honest as well
        assert ask(connections, port, big).status == 413
    assert reached(rig) == []


def test_a_kept_connection_that_the_server_has_closed_is_replaced_without_a_word(
    rig: Rig, connections: PooledClient
) -> None:
    server = rig.serve(idle_seconds=0.1)
    for _ in range(3):
        assert ask(connections, server.port).status == 200
        wait_until(lambda: server.statistics().connections == 0, what="the server closed the connection")
    assert reached(rig) == ["/echo"] * 3


def test_connections_unused_for_long_are_closed_and_not_too_many_are_kept(rig: Rig, connect: Connect) -> None:
    clock = LeapingClock()
    connections, server = connect(clock=clock, idle_seconds=60.0), rig.serve()
    asking = [Asking(connections, server.port, Request(method="POST", target="/later")) for _ in range(12)]
    wait_until(lambda: len(rig.pending) == 12, what="twelve requests at once")
    assert server.statistics().connections >= 12
    for pending in rig.pending:
        pending.complete(Response(status=200, body=b"1"))
    assert all(isinstance(each.outcome(), Response) for each in asking)
    wait_until(lambda: server.statistics().connections == 4, what="four kept")
    clock.ahead += 61
    assert ask(connections, server.port).status == 200
    wait_until(lambda: server.statistics().connections == 1, what="only the new one")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_request_cut_on_a_kept_connection_is_not_repeated_where_that_may_do_harm(
    rig: Rig, connections: PooledClient, method: str
) -> None:
    with proxied(rig) as (proxy, port):
        ask(connections, port)
        asking = Asking(connections, port, Request(method=method, target="/later"))
        wait_until(lambda: rig.pending, what="the request at the handler")
        proxy.cut_all()
        assert isinstance(asking.outcome(), CallOutcomeUnknown)
    assert reached(rig) == ["/echo", "/later"]


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_an_idempotent_request_cut_on_an_idle_connection_is_repeated_once(
    rig: Rig, connections: PooledClient, method: str
) -> None:
    with proxied(rig) as (proxy, port):
        ask(connections, port)
        asking = Asking(connections, port, Request(method=method, target="/later", repeatable=method == "POST"))
        wait_until(lambda: len(rig.pending) == 1, what="the request at the handler")
        proxy.cut_all()
        wait_until(lambda: len(rig.pending) == 2, what="the same request again")
        rig.pending[1].complete(Response(status=200, body=b"1"))
        assert isinstance(asking.outcome(), Response)


def test_a_repeated_request_that_fails_again_has_an_unknown_outcome(rig: Rig, connections: PooledClient) -> None:
    with proxied(rig) as (proxy, port):
        ask(connections, port)
        twice = Asking(connections, port, Request(method="POST", target="/later", repeatable=True))
        for count in (1, 2):
            wait_until(lambda: len(rig.pending) == count, what="the request at the handler")  # noqa: B023
            proxy.cut_all()
        assert isinstance(twice.outcome(), CallOutcomeUnknown)
        ask(connections, port)
        gone = Asking(connections, port, Request(method="POST", target="/later", repeatable=True))
        wait_until(lambda: len(rig.pending) == 3, what="the request at the handler")
    assert isinstance(gone.outcome(), CallOutcomeUnknown)


@pytest.mark.parametrize("repeatable", [False, True])
@pytest.mark.parametrize("cut", [1, 20, 200, 400, -7, -1])
def test_a_request_cut_at_any_byte_is_not_done_and_has_an_unknown_outcome(
    rig: Rig, cut: int, repeatable: bool, connect: Connect
) -> None:
    with proxied(rig) as (proxy, port):
        connections = connect(idle_seconds=0.0)
        ask(connections, port)
        proxy.cut_request_at = cut % proxy.request_bytes
        with pytest.raises(CallOutcomeUnknown, match="was sent to"):
            ask(connections, port, REPEATABLE if repeatable else POST)
    assert reached(rig) == ["/echo"]


@pytest.mark.parametrize("repeatable", [False, True])
@pytest.mark.parametrize("cut", [1, 15, 100, 200])
def test_a_reply_cut_at_any_byte_is_an_unknown_outcome_of_what_was_done_once(
    rig: Rig, cut: int, repeatable: bool, connect: Connect
) -> None:
    with proxied(rig) as (proxy, port):
        connections = connect(idle_seconds=0.0)
        ask(connections, port)
        proxy.cut_reply_at = cut
        with pytest.raises(CallOutcomeUnknown, match="was sent to"):
            ask(connections, port, REPEATABLE if repeatable else POST)
    assert reached(rig) == ["/echo", "/echo"]


def test_many_threads_share_the_connections(rig: Rig, connections: PooledClient) -> None:
    port = rig.serve().port
    bodies: list[bytes] = []

    def run(number: int) -> None:
        for index in range(10):
            body = f"{number * 100 + index}".encode()
            bodies.append(ask(connections, port, Request(method="POST", target="/echo", body=body)).body)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, bodies)) == sorted(number * 100 + index for number in range(8) for index in range(10))


# --- the seam that does not block ----------------------------------------------------------------------------------


@dataclass
class Runner:
    """A runner that runs delivered functions in the thread of the test."""

    queue: queue.Queue[Callable[[], None]] = field(default_factory=queue.Queue)
    results: list[tuple[str, Response | PagletsError]] = field(default_factory=list)

    def done(self, name: str) -> Callable[[Response | PagletsError], None]:
        return lambda result: self.results.append((name, result))

    def run_until(self, count: int) -> dict[str, Response | PagletsError]:
        while len(self.results) < count:
            self.queue.get(timeout=20)()
        return dict(self.results)


@pytest.fixture
def runner() -> Runner:
    return Runner()


@pytest.fixture
def clock() -> LeapingClock:
    return LeapingClock()


@pytest.fixture
def transport(runner: Runner, connect: Connect, clock: LeapingClock) -> Iterator[ThreadedTransport]:
    one = ThreadedTransport(connect(), deliver=runner.queue.put, clock=clock)
    yield one
    one.close()


def host(port: int, name: str = "w1") -> HostRef:
    return HostRef(store_id=STORE, name=name, url=url(port))


def test_replies_and_errors_come_to_the_runner(rig: Rig, runner: Runner, transport: ThreadedTransport) -> None:
    port = rig.serve().port
    with deaf_port() as deaf:
        transport.send(host(port), POST, runner.done("good"), timeout_seconds=20)
        transport.send(host(deaf), POST, runner.done("gone"), timeout_seconds=20)
        transport.send(HostRef(store_id="s", name="w9"), POST, runner.done("nowhere"), timeout_seconds=20)
        transport.send(HostRef(store_id="s9", name="w8", url=url(port)), POST, runner.done("other"), timeout_seconds=20)
        assert runner.results == []
        results = runner.run_until(4)
    assert isinstance(results["good"], Response)
    assert isinstance(results["gone"], Unreachable)
    assert isinstance(results["nowhere"], Unreachable)
    assert isinstance(results["other"], PeerReplaced)


def test_one_silent_host_holds_up_neither_the_others_nor_its_own_gossip(
    rig: Rig, runner: Runner, transport: ThreadedTransport, clock: LeapingClock
) -> None:
    asked: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        while said := sock.recv(65536):
            asked.append(said)

    good = rig.serve().port
    with tcp_server(serve) as silent:
        for index in range(50):
            transport.send(host(silent, "silent"), POST, runner.done(f"silent{index}"), timeout_seconds=60)
        wait_until(lambda: len(asked) == 4, what="the silent host to be asked as often as may be")
        for index in range(20):
            call = Request(method="POST", target="/wait/call")
            transport.send(host(good), call, runner.done(f"call{index}"), timeout_seconds=60)
            transport.send(host(good), POST, runner.done(f"good{index}"), timeout_seconds=60)
        assert set(runner.run_until(20)) == {f"good{index}" for index in range(20)}
        rig.gate.set()
        calls = {f"call{index}" for index in range(20)}
        assert calls <= set(results := runner.run_until(40))
        assert all(isinstance(results[call], Response) for call in calls)
        clock.ahead += 61
    results = runner.run_until(90)
    told = [results[f"silent{index}"] for index in range(50)]
    assert all(isinstance(each, Unreachable) for each in told)
    assert sum("did not answer earlier requests in time; this one was not sent" in str(each) for each in told) == 46


def test_at_most_four_ordinary_requests_are_at_one_host_at_once(
    rig: Rig, runner: Runner, transport: ThreadedTransport
) -> None:
    port = rig.serve().port
    for index in range(10):
        request = Request(method="POST", target="/later")
        transport.send(host(port), request, runner.done(str(index)), timeout_seconds=20)
    wait_until(lambda: len(rig.pending) == 4, what="four requests at the handler")
    answered = 0
    while answered < 10:
        wait_until(lambda: len(rig.pending) > answered, what="the next request")  # noqa: B023
        assert len(rig.pending) <= answered + 4
        rig.pending[answered].complete(Response(status=200, body=b"1"))
        answered += 1
    assert all(isinstance(result, Response) for result in runner.run_until(10).values())


def test_close_tells_who_waits(rig: Rig, runner: Runner, connect: Connect) -> None:
    transport = ThreadedTransport(connect(), deliver=runner.queue.put, clock=SystemClock(), most_threads=1)
    port = rig.serve().port
    transport.send(host(port), Request(method="POST", target="/wait"), runner.done("running"), timeout_seconds=20)
    wait_until(lambda: reached(rig), what="the first request at the handler")
    transport.send(host(port), POST, runner.done("waiting"), timeout_seconds=20)
    transport.close()
    transport.send(host(port), POST, runner.done("late"), timeout_seconds=20)
    rig.gate.set()
    results = runner.run_until(3)
    assert isinstance(results["waiting"], ShuttingDown)
    assert isinstance(results["late"], ShuttingDown)
    assert isinstance(results["running"], Response)
