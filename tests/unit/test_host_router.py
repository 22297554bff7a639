"""From a request to its route: the table, methods, bodies, queries; and that every record of it can be read."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest
from host_rig import Rig, envelope, host_ref

from paglets.api.groups import JobStatusReport
from paglets.api.hosts import Gossip, Hosts
from paglets.api.paglets import Located, Paglets, PagletView, ResidenceRow
from paglets.api.slots import Steal
from paglets.api.transfers import Transfers
from paglets.core.errors import BadRequest, Invalid, MethodNotAllowed, NoSuchRoute, PagletsError, Unknown
from paglets.core.record import from_json
from paglets.host.http.router import ParsedRequest, Route, Router
from paglets.host.http.routes import ROUTES
from paglets.program import PROTOCOL
from paglets.slots.model import Resources
from paglets.store import residence
from paglets.wire.request import Request, Response
from tests.fakes.mesh import member


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    text: str
    number: int = 1


class Host:
    """What a router needs of a host."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.gossip = self

    def record_contact(self, store_id: str) -> None:
        self.heard.append(store_id)


def echo(host: Host, asked: ParsedRequest) -> Any:
    return {"path": asked.path, "query": asked.query, "body": None if asked.body is None else asked.body.text}


def route(method: str, path: str, takes: type | None = None, answer: Any = echo) -> Route:
    return Route(method=method, path=path, takes=takes, gives=Thing, about="", answer=answer)


TABLE = (
    route("GET", "/v1/things"),
    route("POST", "/v1/things", Thing),
    route("POST", "/v1/things/search", Thing),
    route("GET", "/v1/things/ID"),
    route("DELETE", "/v1/things/ID"),
    route("POST", "/v1/things/ID/do", Thing),
)


def ask(method: str, target: str, body: bytes = b"", host: Host | None = None, sender: str = "") -> Any:
    router = Router(host or Host(), TABLE)
    response = router.handle(Request(method=method, target=target, body=body, sender=sender))
    assert isinstance(response, Response)
    return response.json()


@pytest.mark.parametrize(
    ("method", "target", "path"),
    [
        ("GET", "/v1/things", {}),
        ("GET", "/v1/things/", {}),
        ("GET", "/v1/things/a-1", {"ID": "a-1"}),
        ("DELETE", "/v1/things/a%20b", {"ID": "a b"}),
        ("GET", "/v1/things/search", {"ID": "search"}),
        ("HEAD", "/v1/things/a", {"ID": "a"}),
    ],
)
def test_a_request_finds_its_route_and_its_values(method: str, target: str, path: dict[str, str]) -> None:
    assert ask(method, target)["path"] == path


def test_a_body_is_read_as_the_record_of_its_route() -> None:
    assert ask("POST", "/v1/things/search", b'{"text":"x"}')["body"] == "x"


@pytest.mark.parametrize("target", ["/v1/nothing", "/", "", "/v1/things/a/b/c", "/v2/things", "//v1/things/a/do/it"])
def test_a_path_that_no_route_has_is_told_so(target: str) -> None:
    with pytest.raises(NoSuchRoute):
        ask("GET", target)


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        ("PUT", "/v1/things", "GET, POST"),
        ("POST", "/v1/things/a", "DELETE, GET"),
        ("GET", "/v1/things/a/do", "POST"),
        ("get", "/v1/things", "GET, POST"),
    ],
)
def test_a_method_that_a_path_does_not_take_names_those_it_does(method: str, target: str, allowed: str) -> None:
    with pytest.raises(MethodNotAllowed, match=f"takes {allowed}"):
        ask(method, target)


@pytest.mark.parametrize("target", ["/v1/things/%0a", "/v1/things/%00", "/v1/things/a%2Fb", "/v1/things/" + "x" * 1001])
def test_a_path_with_what_no_id_has_is_refused(target: str) -> None:
    with pytest.raises(BadRequest):
        ask("GET", target)


def test_bytes_of_a_path_that_are_no_text_are_a_bad_request() -> None:
    with pytest.raises(BadRequest):
        ask("GET", "/v1/things/%ff%fe")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", BadRequest),
        (b"{", BadRequest),
        (b"\xff", BadRequest),
        (b"[]", Invalid),
        (b"null", Invalid),
        (b"{}", Invalid),
        (b'{"text":1}', Invalid),
        (b'{"text":"x","more":1}', Invalid),
        (b'{"text":"x","number":1.5}', Invalid),
        (b'{"text":"x","number":NaN}', BadRequest),
        (b'{"text":"x","text":"y"}', BadRequest),
        (b"[" * 200 + b"]" * 200, BadRequest),
    ],
)
def test_a_bad_body_is_refused_with_an_error_of_the_tree(body: bytes, error: type[PagletsError]) -> None:
    with pytest.raises(error):
        ask("POST", "/v1/things", body)


def test_a_body_where_none_belongs_is_refused() -> None:
    with pytest.raises(BadRequest, match="takes no body"):
        ask("GET", "/v1/things", b"{}")


def test_a_query_comes_as_a_map() -> None:
    assert ask("GET", "/v1/things?a=1&b=x%20y&c=")["query"] == {"a": "1", "b": "x y", "c": ""}
    assert ask("GET", "/v1/things?")["query"] == {}


@pytest.mark.parametrize("query", ["a", "a=1&&b=2", "&".join(f"k{n}=1" for n in range(21))])
def test_a_malformed_query_is_refused(query: str) -> None:
    with pytest.raises(BadRequest):
        ask("GET", f"/v1/things?{query}")


def test_an_error_of_a_route_is_its_reply_and_a_fault_is_the_servers_to_log() -> None:
    def fails(host: Host, asked: ParsedRequest) -> Any:
        raise ValueError("a fault") if asked.query else Invalid("no")

    router = Router(Host(), (route("GET", "/v1/fails", answer=fails),))
    response = router.handle(Request(method="GET", target="/v1/fails"))
    assert isinstance(response, Response)
    assert response.status == 422
    with pytest.raises(ValueError, match="a fault"):
        router.handle(Request(method="GET", target="/v1/fails?x=1"))


def test_a_signed_request_is_a_sign_of_life_of_its_sender() -> None:
    host = Host()
    ask("GET", "/v1/things", host=host, sender="store-w1")
    ask("GET", "/v1/things", host=host)
    assert host.heard == ["store-w1"]


@pytest.mark.parametrize(("query", "number"), [({}, 7), ({"n": "3"}, 3), ({"n": "0"}, 0), ({"n": "999"}, 50)])
def test_a_number_of_the_query_has_a_default_and_a_bound(query: dict[str, str], number: int) -> None:
    assert ParsedRequest(path={}, query=query, body=None, sender="").number("n", 7, 50) == number


@pytest.mark.parametrize("text", ["", "-1", "1.5", "x", "\uff11\uff12", "1" * 17, " 1"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        ParsedRequest(path={}, query={"n": text}, body=None, sender="").number("n", 7, 50)


# The real table.


def _names(each: Route) -> str:
    return f"{each.method} {each.path}"


@pytest.mark.parametrize("each", ROUTES, ids=_names)
def test_every_record_of_the_table_can_be_decoded(each: Route) -> None:
    """Compiling the decoder looks at every field of the record and of those within it."""
    for record in (each.takes, each.gives):
        if record not in (None, bytes):
            assert dataclasses.is_dataclass(record)
            # A type that no decoder exists for raises TypeError, before anything is read.
            with pytest.raises(Invalid, match="expected an object"):
                from_json(record, [])


def test_every_route_has_one_line_of_its_own_and_words_about_it() -> None:
    assert len({(each.method, each.path) for each in ROUTES}) == len(ROUTES)
    for each in ROUTES:
        assert each.path.startswith("/v1/")
        assert each.about
        assert each.takes is None or each.method in ("POST", "PUT")


def test_no_route_hides_another() -> None:
    """Each is found under an example of its own path."""
    router = Router(Host(), ROUTES)
    for each in ROUTES:
        found, _ = router._find(each.method, each.path.replace("ID", "some-id").replace("SHA256", "ab"))
        assert found is each


def test_every_route_that_reads_answers_on_a_host_that_knows_nothing() -> None:
    rig = Rig()
    for each in ROUTES:
        if each.method == "GET" and not any(part.isupper() for part in each.path.split("/")):
            rig.get(each.gives, "GET", each.path)


def test_the_pages_of_paglets_go_to_the_end_and_no_further() -> None:
    rig = Rig()
    for number in range(5):
        rig.write(lambda tx, number=number: residence.create(tx, envelope(f"p{number}"), rig.now()))
    seen: list[PagletView] = []
    after = ""
    while True:
        page: Paglets = rig.get(Paglets, "GET", f"/v1/paglets?limit=2&after={after}")
        seen += page.paglets
        if page.next is None:
            break
        after = page.next
    assert [view.agent_id for view in seen] == [f"p{number}" for number in range(5)]
    assert rig.get(Hosts, "GET", "/v1/mesh/hosts").hosts[0].host.name == "home"


def test_a_paglet_that_ended_here_is_not_looked_for_at_hosts_that_had_it_earlier() -> None:
    """The row of that host names this one, so a caller would be sent back and forth until its time-out."""
    rig = Rig()
    old = ResidenceRow(agent_id="p1", epoch=1, status="gone", peer=rig.own)
    asked = rig.peer("w1", {"POST /v1/paglets/locate": lambda body: Located(rows=(old,))})
    rig.write(lambda tx: residence.create(tx, envelope("p1"), rig.now()))
    rig.write(lambda tx: residence.dispose(tx, "p1", rig.now()))
    with pytest.raises(Unknown, match="p1 has ended"):
        rig.get(PagletView, "GET", "/v1/paglets/p1")
    assert asked.bodies("POST /v1/paglets/locate") == []


def test_a_host_that_says_farewell_is_offline_at_once_and_stays_so() -> None:
    rig = Rig()
    peer = rig.peer("w1")
    farewell = Gossip(
        mesh_version="test", protocol=PROTOCOL, hosts=(member("w1", mesh_version="test"),), push=True, leaving=True
    )
    rig.network.leave(peer.ref.url)
    rig.get(Gossip, "POST", "/v1/mesh/gossip", farewell, sender="store-w1")
    rig.run(0.5)
    views = {view.host.name: view.online for view in rig.get(Hosts, "GET", "/v1/mesh/hosts").hosts}
    assert views == {"home": True, "w1": False}


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/v1/transfers", Transfers(source=host_ref("w1"), envelopes=())),
        ("/v1/jobs/status", JobStatusReport(host=host_ref("w1"), copies=(), group_ids=())),
        ("/v1/slots/steal", Steal(thief=host_ref("w1"), free=Resources(), most_jobs=1)),
    ],
)
def test_a_host_speaks_for_itself_only(target: str, body: Any) -> None:
    own, other = (Rig().ask("POST", target, body, sender=sender) for sender in ("store-w1", "store-w2"))
    assert isinstance(own, Response)
    assert own.status == 200
    assert isinstance(other, Response)
    with pytest.raises(Invalid, match="names the store store-w1 but is signed by store-w2"):
        other.json()


def test_a_host_with_too_many_waiting_requests_holds_up_no_others() -> None:
    began, go_on = threading.Semaphore(0), threading.Event()

    def wait(host: Host, asked: ParsedRequest) -> Any:
        began.release()
        assert go_on.wait(10)
        return {}

    slow = dataclasses.replace(route("POST", "/v1/slow", None, wait), most_at_once=2)
    router = Router(Host(), (slow, route("GET", "/v1/things")))

    def ask(sender: str, method: str = "POST", target: str = "/v1/slow") -> int:
        answer = router.handle(Request(method=method, target=target, sender=sender))
        assert isinstance(answer, Response)
        return answer.status

    threads = [threading.Thread(target=ask, args=("w1",)) for _ in range(2)]
    for thread in threads:
        thread.start()
        assert began.acquire(timeout=10)
    assert ask("w1") == 503
    assert ask("w1", "GET", "/v1/things") == 200
    other = threading.Thread(target=ask, args=("w2",))
    other.start()
    assert began.acquire(timeout=10), "another host waits for the requests of the first"
    go_on.set()
    for thread in (*threads, other):
        thread.join(10)
    assert ask("w1") == 200, "what was counted stays counted"
