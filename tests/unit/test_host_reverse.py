"""Requests to a host that nobody can connect to: kept, fetched, answered, or lost as on a connection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from paglets.api.pull import MAX_PULLED_BODY_BYTES, Pull, Pulled, PulledAnswer, PulledRequest
from paglets.api.relay import Relay
from paglets.core.errors import (
    BadRequest,
    CallOutcomeUnknown,
    Conflict,
    InternalError,
    Invalid,
    NotAllowed,
    PagletsError,
    TooLarge,
    Unknown,
    Unreachable,
)
from paglets.core.record import to_json
from paglets.core.refs import HostRef
from paglets.wire.base64_text import from_base64, to_base64
from paglets.wire.request import PendingResponse, Request, Response, dump_json
from tests.fakes.exchange import TableHost
from tests.unit.host_rig import Rig, host_ref

NAT = host_ref("nat")


@dataclass
class Given:
    """A host that others reach, and what it sends to one that they do not."""

    rig: Rig = field(default_factory=Rig)
    outcomes: list[Response | PagletsError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rig.peer("nat", reachable=False)

    def send(self, method: str = "POST", target: str = "/v1/posts", *, to: HostRef = NAT, **request: Any) -> None:
        timeout = request.pop("timeout", 60.0)
        asked = Request(method=method, target=target, **request)
        self.rig.host.services.transport.send(to, asked, self.outcomes.append, timeout_seconds=timeout)
        self.rig.run()

    def pull(self, *at_work: str, wait: float = 20.0) -> PendingResponse:
        answer = self.rig.ask("POST", "/v1/outbox/pull", Pull(at_work=at_work, wait_seconds=wait), sender=NAT.store_id)
        assert isinstance(answer, PendingResponse)
        self.rig.run()
        return answer

    def pulled(self, *at_work: str) -> tuple[PulledRequest, ...]:
        return _requests(self.pull(*at_work))

    def answer(self, request_id: str, body: bytes = b"{}", status: int = 200) -> None:
        told = PulledAnswer(request_id=request_id, status=status, body=to_base64(body))
        self.rig.ask("POST", "/v1/outbox/answer", told, sender=NAT.store_id)
        self.rig.run()


def _requests(pending: PendingResponse) -> tuple[PulledRequest, ...]:
    assert pending.response is not None, "the pull still waits"
    return pending.response.parse(Pulled).requests


@pytest.fixture
def given() -> Given:
    return Given()


def test_a_request_waits_until_it_is_fetched_and_its_answer_is_the_reply(given: Given) -> None:
    given.send(body=b'{"a":1}')
    (request,) = given.pulled()
    assert (request.method, request.target, from_base64(request.body, "")) == ("POST", "/v1/posts", b'{"a":1}')
    assert given.outcomes == []
    given.answer(request.request_id, b'{"b":2}', status=409)
    assert given.outcomes == [Response(status=409, body=b'{"b":2}')]


def test_a_pull_waits_for_a_request_and_is_answered_with_nothing_in_the_end(given: Given) -> None:
    waiting = given.pull()
    given.rig.run(5.0)
    assert waiting.response is None
    given.send()
    assert len(_requests(waiting)) == 1
    idle = given.pull(*[request.request_id for request in _requests(waiting)], wait=3.0)
    given.rig.run(3.1)
    assert _requests(idle) == ()


def test_what_is_never_fetched_was_certainly_not_sent(given: Given) -> None:
    given.send(timeout=60.0)
    given.rig.run(9.0)
    (error,) = given.outcomes
    assert isinstance(error, Unreachable)
    assert "nat does not poll" in error.message
    assert given.pull().response is None  # nothing is handed out afterwards


def test_nothing_is_handed_to_the_pull_of_a_host_that_is_silent(given: Given) -> None:
    waiting = given.pull()
    given.rig.run(15.0)
    assert [view.online for view in given.rig.host.gossip.hosts() if view.host.name == "nat"] == [False]
    given.send(target="/v1/paglets/p/call")
    assert _requests(waiting) == ()
    given.rig.run(9.0)
    assert [type(error) for error in given.outcomes] == [Unreachable]


def test_what_was_handed_out_and_not_answered_was_perhaps_taken(given: Given) -> None:
    given.send(timeout=10.0)
    (request,) = given.pulled()
    given.pull(request.request_id)
    given.rig.run(10.1)
    assert [type(error) for error in given.outcomes] == [CallOutcomeUnknown]


def test_what_the_next_pull_does_not_name_was_lost_and_goes_again_only_if_it_may(given: Given) -> None:
    given.send(target="/v1/paglets/p/call")
    given.send(target="/v1/posts", repeatable=True)
    given.send("GET", "/v1/host")
    first = given.pulled()
    assert len(first) == 3
    again = given.pulled()
    assert sorted(request.target for request in again) == ["/v1/host", "/v1/posts"]
    assert {request.request_id for request in again} < {request.request_id for request in first}
    assert [type(error) for error in given.outcomes] == [CallOutcomeUnknown]
    given.answer(again[0].request_id)
    assert isinstance(given.outcomes[-1], Response)


def test_an_answer_that_comes_twice_or_too_late_does_nothing(given: Given) -> None:
    given.send()
    (request,) = given.pulled()
    given.answer(request.request_id)
    given.answer(request.request_id, b"[]")
    given.answer("nobody-asked")
    assert given.outcomes == [Response(status=200, body=b"{}")]


def test_a_body_is_read_when_it_is_fetched_and_kept_when_it_came(given: Given) -> None:
    read, kept = [], []
    given.send("PUT", "/v1/blobs/x", load=lambda: read.append(1) or b"piece")  # type: ignore[func-returns-value]
    given.send("GET", "/v1/blobs/y", keep=kept.append)
    assert read == []
    (put,) = given.pulled()  # a piece fills the reply
    assert from_base64(put.body, "") == b"piece"
    (get,) = given.pulled(put.request_id)
    given.answer(get.request_id, b"bytes")
    assert kept == [b"bytes"]
    assert given.outcomes == [Response(status=200, body=b"")]


def test_a_body_that_cannot_be_read_is_the_outcome_of_its_request_alone(given: Given) -> None:
    def damaged() -> bytes:
        raise Unknown("the blob is gone")

    given.send("PUT", "/v1/blobs/x", load=damaged)
    given.send()
    assert given.pulled() == ()
    assert [request.target for request in given.pulled()] == ["/v1/posts"]
    assert [str(error) for error in given.outcomes] == ["the blob is gone"]


def test_calls_that_wait_do_not_hold_up_posts(given: Given) -> None:
    for _ in range(30):
        given.send(target="/v1/paglets/p/call")
    first = given.pulled()
    assert len(first) == 16
    given.send()
    assert [request.target for request in given.pulled(*(each.request_id for each in first))] == ["/v1/posts"]


def test_what_waits_is_bounded(given: Given) -> None:
    given.send(body=b"x" * (MAX_PULLED_BODY_BYTES + 1))
    for _ in range(3):
        given.send(body=b"x" * MAX_PULLED_BODY_BYTES)
    assert [type(error) for error in given.outcomes] == [TooLarge, Unreachable]
    for _ in range(1100):
        given.send(target="/v1/paglets/p/call")
    assert len(given.outcomes) == 102


def test_a_newer_pull_takes_the_place_of_one_that_waits(given: Given) -> None:
    old, new = given.pull(), given.pull()
    assert _requests(old) == ()
    given.send()
    assert len(_requests(new)) == 1


def test_only_a_member_may_fetch(given: Given) -> None:
    for sender in ("", "store-stranger"):
        with pytest.raises(NotAllowed):
            given.rig.get(Pulled, "POST", "/v1/outbox/pull", Pull(at_work=(), wait_seconds=1.0), sender)


def test_a_client_is_relayed_to_a_host_that_fetches(given: Given) -> None:
    relay = Relay(method="GET", target="/v1/slots?limit=3", body="", timeout_seconds=30.0)
    pending = given.rig.ask("POST", f"/v1/via/{NAT.store_id}", relay)
    given.rig.run()
    (request,) = given.pulled()
    assert request.target == "/v1/slots?limit=3"
    given.answer(request.request_id, b'{"n":1}')
    assert isinstance(pending, PendingResponse)
    assert pending.response == Response(status=200, body=b'{"n":1}')


def test_a_post_of_a_client_is_relayed(given: Given) -> None:
    relay = Relay(method="POST", target="/v1/outbox", body=to_base64(b"{}"), timeout_seconds=30.0)
    given.rig.ask("POST", f"/v1/via/{NAT.store_id}", relay)
    given.rig.run()
    (request,) = given.pulled()
    assert request.target == "/v1/outbox"


def test_a_relay_says_what_went_wrong(given: Given) -> None:
    relay = Relay(method="GET", target="/v1/slots", body="", timeout_seconds=30.0)
    pending = given.rig.ask("POST", f"/v1/via/{NAT.store_id}", relay)
    given.rig.run(9.0)
    assert isinstance(pending, PendingResponse)
    assert pending.response is not None
    with pytest.raises(Unreachable, match="nat does not poll"):
        pending.response.json()


@pytest.mark.parametrize(
    "target", ["/v1/via/store-nat", "/v1/outbox/pull", "/v1/transfers", "/v1/%70osts", "elsewhere"]
)
def test_only_what_clients_ask_is_relayed(given: Given, target: str) -> None:
    with pytest.raises(Invalid):
        given.rig.get(
            dict, "POST", "/v1/via/store-nat", Relay(method="POST", target=target, body="", timeout_seconds=1)
        )


@pytest.mark.parametrize(
    ("method", "target"),
    [("GET", "/v1/" + "x" * 8_000), ("GET /v1/slots", "/v1/slots"), ("GET", "/v1/é"), ("GET", "/v1/ x")],
)
def test_what_is_no_request_is_not_passed_on(given: Given, method: str, target: str) -> None:
    relay = Relay(method=method, target=target, body="", timeout_seconds=1)
    with pytest.raises(BadRequest):
        given.rig.get(dict, "POST", "/v1/via/store-nat", relay)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_a_request_that_may_take_no_time_is_not_passed_on(given: Given, seconds: float) -> None:
    relay = Relay(method="GET", target="/v1/slots", body="", timeout_seconds=seconds)
    with pytest.raises(Invalid, match="timeout_seconds"):
        given.rig.get(dict, "POST", f"/v1/via/{NAT.store_id}", relay)


def test_only_members_are_relayed_to(given: Given) -> None:
    relay = Relay(method="GET", target="/v1/slots", body="", timeout_seconds=1.0)
    with pytest.raises(Unreachable):
        given.rig.get(dict, "POST", "/v1/via/store-elsewhere", relay)


# Between two hosts that nobody can connect to.


@dataclass
class Between:
    """A host that nobody reaches, two others that pass on what it sends to one of its kind, and what these answer."""

    replies: list[Any] = field(default_factory=list)
    relays: dict[str, TableHost] = field(default_factory=dict)
    outcomes: list[Response | PagletsError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rig = Rig(reachable=False)
        self.rig.peer("nat", reachable=False)

    def add_relays(self, *names: str) -> None:
        for name in names:
            self.relays[name] = self.rig.peer(name, {f"POST /v1/via/{NAT.store_id}": lambda body: self._reply()})

    def _reply(self) -> Any:
        reply = self.replies.pop(0)
        if isinstance(reply, PagletsError):
            raise reply
        return reply

    def send(self, target: str = "/v1/posts", **request: Any) -> None:
        asked = Request(method="POST", target=target, **request)
        before = len(self.outcomes)
        self.rig.host.services.transport.send(NAT, asked, self.outcomes.append, timeout_seconds=5.0)
        self.rig.until(lambda: len(self.outcomes) > before)

    def asked(self, name: str) -> list[Any]:
        return self.relays[name].bodies(f"POST /v1/via/{NAT.store_id}")


def _no_answer(body: Any) -> Any:
    raise InternalError("it hangs")


def test_two_hosts_that_nobody_reaches_speak_through_one_that_both_reach() -> None:
    given = Between([{"n": 1}])
    given.add_relays("w1")
    given.send(load=lambda: b"{}")
    assert given.outcomes == [Response(status=200, body=b'{"n":1}')]
    relay = Relay(method="POST", target="/v1/posts", body=to_base64(b"{}"), timeout_seconds=5.0)
    assert given.asked("w1") == [to_json(relay)]


@pytest.mark.parametrize("error", [Unreachable("nat does not poll"), CallOutcomeUnknown("nat broke off")])
def test_an_error_of_the_relay_is_the_outcome_and_the_next_request_uses_another(
    error: PagletsError,
) -> None:
    given = Between([error, {}])
    given.add_relays("w1", "w2")
    for _ in range(2):
        given.send()
    failed, good = given.outcomes
    assert (type(failed), str(failed)) == (type(error), str(error))
    assert isinstance(good, Response)
    assert (len(given.asked("w1")), len(given.asked("w2"))) == (1, 1)


def test_a_host_between_that_hangs_is_not_asked_while_there_is_another() -> None:
    given = Between([{}])
    given.add_relays("w1", "w2")
    given.relays["w1"].routes["POST /v1/mesh/gossip"] = _no_answer
    given.rig.run(8.0)
    assert "w1" in [member.name for member in given.rig.host.gossip.online()]
    given.send()
    assert (len(given.asked("w1")), len(given.asked("w2"))) == (0, 1)


def test_an_error_of_the_other_host_is_its_answer() -> None:
    given = Between([Conflict("there is one already")])
    given.add_relays("w1")
    given.send()
    (outcome,) = given.outcomes
    assert isinstance(outcome, Response)
    assert outcome.status == Conflict.status


def test_without_a_host_between_that_is_the_error() -> None:
    given = Between()
    given.send()
    (error,) = given.outcomes
    assert isinstance(error, Unreachable)
    assert error.message == "nobody can connect to nat, nor to home, and no host is online that both can reach"


def test_what_is_passed_on_for_a_host_says_so_and_may_be_what_only_hosts_ask(given: Given) -> None:
    relay = Relay(method="POST", target="/v1/posts", body=to_base64(b"{}"), timeout_seconds=30.0)
    given.rig.ask("POST", f"/v1/via/{NAT.store_id}", relay, sender="store-tablet")
    given.rig.run()
    (request,) = given.pulled()
    assert (request.target, request.sender) == ("/v1/posts", "store-tablet")


@pytest.mark.parametrize("target", ["/v1/via/store-nat", "/v1/outbox/pull", "/v1/mesh/gossip"])
def test_some_things_are_passed_on_for_nobody(given: Given, target: str) -> None:
    relay = Relay(method="POST", target=target, body="", timeout_seconds=1.0)
    with pytest.raises(Invalid):
        given.rig.get(dict, "POST", f"/v1/via/{NAT.store_id}", relay, "store-tablet")


def test_nothing_is_passed_on_for_a_host_to_one_that_it_can_connect_to(given: Given) -> None:
    given.rig.peer("w1")
    relay = Relay(method="GET", target="/v1/slots", body="", timeout_seconds=1.0)
    with pytest.raises(Unreachable, match="w1 accepts connections"):
        given.rig.get(dict, "POST", "/v1/via/store-w1", relay, "store-tablet")


# The host that fetches.


@dataclass
class Fetching:
    """A host that nobody reaches, and one that has these requests for it, once each."""

    for_it: list[PulledRequest] = field(default_factory=list)
    asked: list[Pull] = field(default_factory=list)
    answers: list[PulledAnswer] = field(default_factory=list)
    broken: int = 0

    def __post_init__(self) -> None:
        self.rig = Rig(reachable=False)
        self.rig.host.reverse_poller.handle = self.rig.router.handle
        self.w1 = self.rig.peer("w1", {"POST /v1/outbox/pull": self.pull, "POST /v1/outbox/answer": self.answer})

    def pull(self, body: Any) -> Pulled:
        self.asked.append(Pull(at_work=tuple(body["at_work"]), wait_seconds=body["wait_seconds"]))
        taken = tuple(self.for_it)
        self.for_it.clear()
        return Pulled(requests=taken)

    def answer(self, body: Any) -> Any:
        if self.broken:
            self.broken -= 1
            raise PagletsError("the disk is full")
        self.answers.append(PulledAnswer(**body))
        return {}


def pulled(
    request_id: str = "r1", method: str = "GET", target: str = "/v1/host", body: bytes = b"", sender: str = ""
) -> PulledRequest:
    return PulledRequest(request_id=request_id, method=method, target=target, body=to_base64(body), sender=sender)


def test_what_is_fetched_is_handled_as_if_it_had_come_over_a_connection() -> None:
    given = Fetching([pulled(), pulled("r2", "POST", "/v1/nothing")])
    given.rig.until(lambda: len(given.answers) == 2)
    first, second = sorted(given.answers, key=lambda answer: answer.request_id)
    assert (first.status, second.status) == (200, 404)
    assert b'"store-home"' in from_base64(first.body, "")
    assert given.rig.host.reverse_poller.is_idle


@pytest.mark.parametrize(("sender", "store_id"), [("", "store-w1"), ("store-tablet", "store-tablet")])
def test_it_comes_from_the_host_that_was_asked_or_for_which_that_passes_it_on(sender: str, store_id: str) -> None:
    body = dump_json({"posts": [], "settled": []})
    seen = []
    given = Fetching()
    handle = given.rig.host.reverse_poller.handle
    given.rig.host.reverse_poller.handle = lambda request: seen.append(request.sender) or handle(request)  # type: ignore[func-returns-value]
    given.for_it.append(pulled("r1", "POST", "/v1/posts", body, sender))
    given.rig.until(lambda: given.answers)
    assert seen == [store_id]


def test_a_request_that_comes_twice_is_done_once() -> None:
    given = Fetching(broken=2)
    given.for_it += [pulled(), pulled()]
    given.rig.until(lambda: given.answers)
    assert len(given.answers) == 1
    assert ("r1",) in [pull.at_work for pull in given.asked]


def test_a_fault_in_a_handler_is_an_answer_too() -> None:
    def faulty(request: Request) -> Response:
        raise RuntimeError("a fault")

    given = Fetching()
    given.rig.host.reverse_poller.handle = faulty
    given.for_it.append(pulled())
    given.rig.until(lambda: given.answers)
    assert given.answers[0].status == 500
    assert given.rig.faults()


def test_pulls_that_are_answered_with_nothing_at_once_come_ever_more_slowly() -> None:
    given = Fetching()
    given.rig.run(60.0)
    assert 10 < len(given.asked) < 40


def test_a_host_that_others_reach_fetches_nothing() -> None:
    rig = Rig()
    w1 = rig.peer("w1")
    rig.run(30.0)
    assert w1.bodies("POST /v1/outbox/pull") == []
