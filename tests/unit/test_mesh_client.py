from __future__ import annotations

import pytest

from paglets.api.hosts import HostIdentity
from paglets.api.paglets import Done, PagletView
from paglets.client.mesh_client import MeshClient
from paglets.codec.strict_json import loads
from paglets.core.errors import (
    BadRequest,
    CallOutcomeUnknown,
    HandlerFailed,
    Moved,
    Moving,
    Overloaded,
    PagletsError,
    PeerReplaced,
    TimedOut,
    Unknown,
    Unreachable,
)
from paglets.core.record import to_json
from paglets.core.refs import HostRef, ProxyRef
from paglets.host.network.reverse_poller import not_yet
from paglets.wire.request import Request
from tests.fakes.clock import FakeClock, SeededEntropy
from tests.fakes.exchange import TableExchange, TableHost
from tests.fakes.mesh import identity

ROUTE = "GET /v1/paglets/p1"
ASK = "POST /v1/paglets/p1/x"


def raising(*errors: PagletsError):
    """Return a handler that raises these errors in order, then returns Done."""
    left = list(errors)

    def answer(body):
        if left:
            raise left.pop(0)
        return Done()

    return answer


def moved_to(host: HostRef) -> Moved:
    return Moved("it went on", host=to_json(host), epoch=2)


def view(host: HostRef) -> PagletView:
    return PagletView(agent_id="p1", class_name="m:C", kind="paglet", residence="here", epoch=1, host=host)


class Given:
    """A client of `home` in a mesh with w1 and w2."""

    def __init__(self) -> None:
        self.home, self.w1, self.w2 = TableHost(name="home"), TableHost(name="w1"), TableHost(name="w2")
        self.exchange = TableExchange(self.home, self.w1, self.w2)
        self.clock = FakeClock()
        self.link = self.link_to(self.home.ref)

    def link_to(self, base: HostRef) -> MeshClient:
        return MeshClient(base, self.exchange, clock=self.clock, entropy=SeededEntropy(1), pause=self.clock.advance)

    def follow(self, target: ProxyRef | str, timeout: float = 10.0) -> Done:
        return self.link.follow(target, self.link.performer("POST", "/v1/paglets/p1/x", None, Done), timeout)

    def at(self, host: TableHost) -> ProxyRef:
        return ProxyRef(agent_id="p1", host=host.ref)


@pytest.fixture
def given() -> Given:
    return Given()


def test_a_paglet_that_moved_is_followed(given: Given) -> None:
    given.w1.routes[ASK] = raising(moved_to(given.w2.ref))
    given.w2.routes[ASK] = raising()
    assert given.follow(given.at(given.w1)) == Done()
    assert [one.target for one in given.w2.asked] == ["/v1/paglets/p1/x"]


def test_an_address_in_a_reply_is_not_contacted_but_that_of_the_mesh(given: Given) -> None:
    given.w1.routes[ASK] = raising(moved_to(HostRef(store_id="store-w2", name="w2", url="http://169.254.169.254")))
    given.w2.routes[ASK] = raising()
    assert given.follow(given.at(given.w1)) == Done()


def test_a_host_outside_the_mesh_is_not_followed(given: Given) -> None:
    given.w1.routes[ASK] = raising(moved_to(HostRef(store_id="evil", name="evil", url="http://evil:8765")))
    given.home.routes[ROUTE] = raising(Unknown("nobody has it"))
    with pytest.raises(Unreachable, match="evil, which home does not list"):
        given.follow(given.at(given.w1))


def test_a_paglet_that_went_on_from_a_host_that_was_forgotten_is_found(given: Given) -> None:
    given.w1.routes[ASK] = raising(moved_to(HostRef(store_id="store-w9", name="w9", url="http://w9:8765")))
    given.home.routes[ROUTE] = lambda body: view(given.w2.ref)
    given.w2.routes[ASK] = raising()
    assert given.follow(given.at(given.w1)) == Done()


def test_a_paglet_on_its_way_is_asked_again_later(given: Given) -> None:
    given.w1.routes[ASK] = raising(Moving("on its way"), Overloaded("busy"))
    start = given.clock.monotonic()
    assert given.follow(given.at(given.w1)) == Done()
    assert 0 < given.clock.monotonic() - start < 1


def test_a_host_that_is_away_for_a_while_is_waited_for_and_the_paglet_looked_up(given: Given) -> None:
    given.w1.broken = [Unreachable("refused")]
    given.home.routes[ROUTE] = lambda body: view(given.w2.ref)
    given.w2.routes[ASK] = raising()
    assert given.follow(given.at(given.w1)) == Done()


def test_a_paglet_that_is_on_its_way_to_where_it_is_asked_for_is_waited_for(given: Given) -> None:
    on_its_way = [Moving("on its way to w1")] * 3

    def looked_up(body: object) -> PagletView:
        if on_its_way:
            raise on_its_way.pop()
        return view(given.w1.ref)

    given.w1.routes[ASK] = raising(*[Unknown("not here yet") for _ in range(4)])
    given.home.routes[ROUTE] = looked_up
    assert given.follow(given.at(given.w1)) == Done()


def test_a_paglet_that_is_on_its_way_is_found_without_a_pause(given: Given) -> None:
    """The host that is asked for the location replies when the paglet has arrived."""
    given.w1.routes[ASK] = raising(Unknown("not here yet"))
    given.home.routes[ROUTE] = lambda body: view(given.w1.ref)
    start = given.clock.monotonic()
    assert given.follow(given.at(given.w1)) == Done()
    assert given.clock.monotonic() == start
    assert given.home.asked[-1].target == "/v1/paglets/p1?wait=1"


def test_a_paglet_unknown_where_it_was_is_looked_up_once(given: Given) -> None:
    given.w1.routes[ASK] = raising(Unknown("never seen"))
    given.home.routes[ROUTE] = lambda body: view(given.w1.ref)
    assert given.follow(given.at(given.w1)) == Done()
    given.w1.routes[ASK] = raising(Unknown("never seen"), Unknown("never seen"))
    with pytest.raises(Unknown):
        given.follow(given.at(given.w1))


@pytest.mark.parametrize("error", [CallOutcomeUnknown("cut"), HandlerFailed("it raised")])
def test_what_may_have_been_done_is_not_done_again(given: Given, error: PagletsError) -> None:
    given.w1.routes[ASK] = raising(error)
    with pytest.raises(type(error)):
        given.follow(given.at(given.w1))
    assert len([one for one in given.w1.asked if one.method == "POST"]) == 1


def test_a_moving_paglet_times_out_with_what_was_last_heard(given: Given) -> None:
    given.w1.routes[ASK] = raising(*[Moving("on its way to w2")] * 1000)
    with pytest.raises(TimedOut, match="on its way to w2"):
        given.follow(given.at(given.w1), timeout=3.0)


def test_a_host_that_stays_away_is_named_when_time_is_over(given: Given) -> None:
    del given.exchange.hosts["http://w1:8765"]
    given.home.routes["GET /v1/mesh/hosts"] = lambda body: Given().exchange.members()
    given.home.routes[ROUTE] = lambda body: view(given.w1.ref)
    with pytest.raises(Unreachable, match="http://w1:8765"):
        given.follow(given.at(given.w1), timeout=3.0)


def test_rows_that_point_in_a_circle_end_with_the_time(given: Given) -> None:
    given.w1.routes[ASK] = raising(*[moved_to(given.w2.ref)] * 1000)
    given.w2.routes[ASK] = raising(*[moved_to(given.w1.ref)] * 1000)
    with pytest.raises(TimedOut):
        given.follow(given.at(given.w1), timeout=3.0)


def test_where_nobody_ever_answered_nobody_is_waited_for(given: Given) -> None:
    link = given.link_to(HostRef(store_id="", name="", url="http://nobody:8765"))
    start = given.clock.monotonic()
    with pytest.raises(Unreachable):
        link.ask("GET", "/v1/host", None, Done)
    assert given.clock.monotonic() == start


def test_a_host_that_answered_before_is_asked_again_after_its_restart(given: Given) -> None:
    given.link.hosts()
    given.home.broken = [Unreachable("refused"), CallOutcomeUnknown("cut")]
    assert len(given.link.hosts()) == 3


def test_a_host_that_is_starting_is_asked_again(given: Given) -> None:
    with pytest.raises(Unreachable, match="is starting") as starting:
        not_yet(Request(method="POST", target="/v1/paglets/p1/x"))
    given.home.routes[ASK] = raising(starting.value)
    assert given.link.ask("POST", "/v1/paglets/p1/x", None, Done) == Done()


def test_the_id_of_a_host_known_by_url_is_asked_for_once(given: Given) -> None:
    given.home.routes["GET /v1/host"] = lambda body: identity("home")
    link = given.link_to(HostRef(store_id="", name="", url="http://home:8765"))
    assert link.host() == link.host() == given.home.ref
    assert len(given.home.asked) == 1


def test_a_member_is_named_by_name_or_url(given: Given) -> None:
    for name in ("w2", "http://w2:8765", "HTTP://W2/", "w2:8765"):
        assert given.link.host_named(name) == given.w2.ref
    with pytest.raises(Unknown, match="it knows home, w1, w2"):
        given.link.host_named("w3")


def test_a_reply_that_is_not_as_agreed_names_the_host_it_came_from(given: Given) -> None:
    given.w1.routes[ROUTE] = lambda body: {"done": "perhaps"}
    with pytest.raises(BadRequest, match="w1 sent a malformed reply: ") as caught:
        given.link.ask("GET", "/v1/paglets/p1", None, Done, host=given.w1.ref)
    assert "use the same paglets.pyz" in caught.value.advice()[0]


# Hosts that nobody can connect to.


def relays(given: Given) -> list[tuple[str, str, str]]:
    """Return the requests that home relayed: host, method, target."""
    found = [request for request in given.home.asked if request.target.startswith("/v1/via/")]
    bodies = [loads(request.body) for request in found]
    return [(each.target, body["method"], body["target"]) for each, body in zip(found, bodies, strict=True)]


@pytest.fixture
def behind_nat(given: Given) -> Given:
    """Return `given`, where w2 does not accept connections."""
    given.w2.reachable = False
    given.w2.broken = [Unreachable("behind a router")] * 100
    given.home.routes["POST /v1/via/store-w2"] = lambda body: {}
    return given


def test_a_host_that_nobody_can_connect_to_is_asked_through_the_own_one(behind_nat: Given) -> None:
    assert behind_nat.follow(behind_nat.at(behind_nat.w2)) == Done()
    assert relays(behind_nat) == [("/v1/via/store-w2", "POST", "/v1/paglets/p1/x")]
    assert behind_nat.w2.asked == []


def test_what_the_relayed_host_refuses_is_raised_as_its_own(behind_nat: Given) -> None:
    behind_nat.home.routes["POST /v1/via/store-w2"] = raising(Unknown("no such piece"))
    behind_nat.link.hosts()
    with pytest.raises(Unknown, match="no such piece"):
        behind_nat.link.fetch(behind_nat.w2.ref, "/v1/blobs/ab?offset=0&length=3", 5.0)


def test_the_own_host_is_asked_directly_though_nobody_else_can_connect_to_it(given: Given) -> None:
    given.home.reachable = False
    given.home.routes["GET /v1/host"] = lambda body: identity("home")
    given.link.hosts()
    given.link.identity()
    assert relays(given) == []


def test_a_link_to_such_a_host_goes_on_through_the_one_that_knew_it(behind_nat: Given) -> None:
    behind_nat.home.routes["POST /v1/via/store-w2"] = lambda body: (
        behind_nat.exchange.members() if body["target"] == "/v1/mesh/hosts" else identity("w2")
    )
    behind_nat.w1.routes["GET /v1/host"] = lambda body: identity("w1")
    link = behind_nat.link.to(behind_nat.link.host_named("w2"))
    assert link.identity().name == "w2"
    assert [view.host.name for view in link.hosts()] == ["home", "w1", "w2"]
    assert link.ask("GET", "/v1/host", None, HostIdentity, host=behind_nat.w1.ref).name == "w1"
    assert [target for _, _, target in relays(behind_nat)] == ["/v1/host", "/v1/mesh/hosts"]


def test_a_host_that_began_anew_at_its_address_is_not_asked_for_ever(given: Given) -> None:
    given.home.routes[ROUTE] = raising(*[moved_to(given.w1.ref)] * 100)

    def replaced(body):
        raise PeerReplaced("another host answers at w1")

    given.w1.routes[ASK] = replaced
    began = given.clock.monotonic()
    with pytest.raises(PeerReplaced):
        given.follow(given.at(given.w1), timeout=30.0)
    assert 5.0 <= given.clock.monotonic() - began < 10.0


def test_of_a_mistyped_host_the_nearest_is_named(given: Given) -> None:
    with pytest.raises(Unknown, match=r"knows no host 'hmoe': did you mean 'home'\? it knows "):
        given.link.host_named("hmoe")
