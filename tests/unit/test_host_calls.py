"""Calls that leave a host: they follow a paglet, search for it, and are repeated only where that is safe."""

from __future__ import annotations

from typing import Any

import pytest
from host_rig import Rig, envelope, host_ref

from paglets.api.calls import CallReply
from paglets.api.paglets import Located, ResidenceRow
from paglets.codec.envelope import WireMessage
from paglets.core.errors import (
    CallOutcomeUnknown,
    HandlerFailed,
    Moved,
    Moving,
    NotAllowed,
    PagletsError,
    TimedOut,
    Unknown,
)
from paglets.core.record import to_json
from paglets.core.refs import ProxyRef
from paglets.host.messaging.calls import LOCATE_AFTER_SECONDS, MAX_HOPS
from paglets.store import residence
from tests.fakes.exchange import TableHost

CALL = "POST /v1/paglets/p1/call"
LOCATE = "POST /v1/paglets/locate"


@pytest.fixture
def rig() -> Rig:
    return Rig()


class Told:
    """What came of a call that leaves this host; it must come once."""

    def __init__(self, rig: Rig, host: str, seconds: float | None = None) -> None:
        self.results: list[CallReply | PagletsError] = []
        message = WireMessage(kind="hi", args={})
        target = ProxyRef(agent_id="p1", host=host_ref(host))
        rig.host.runner.call_soon(lambda: rig.host.calls.start(target, message, seconds, self.results.append))
        rig.run()

    @property
    def value(self) -> Any:
        (result,) = self.results
        assert isinstance(result, CallReply), result
        return result.value

    @property
    def error(self) -> PagletsError:
        (result,) = self.results
        assert isinstance(result, PagletsError), result
        return result


def answering(*answers: Any) -> Any:
    """One answer after the other, the last one for ever."""
    left = list(answers)

    def answer(body: Any) -> Any:
        now = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(now, PagletsError):
            raise now
        return now

    return answer


def moved(name: str) -> Moved:
    return Moved("it is elsewhere", host=to_json(host_ref(name)), epoch=2)


def here(name: str) -> Located:
    return Located(rows=(ResidenceRow(agent_id="p1", epoch=3, status="here"),)) if name else Located()


def calls(host: TableHost) -> list[Any]:
    return host.bodies(CALL)


def test_the_reply_of_the_paglets_host_is_the_callers(rig: Rig) -> None:
    host = rig.peer("w1", {CALL: answering(CallReply(value=[1]))})
    told = Told(rig, "w1")
    rig.run(1)
    assert told.value == [1]
    assert len(calls(host)) == 1


def test_a_call_follows_the_paglet_with_the_same_id(rig: Rig) -> None:
    first = rig.peer("w1", {CALL: answering(moved("w2"))})
    second = rig.peer("w2", {CALL: answering(CallReply(value="there"))})
    told = Told(rig, "w1")
    rig.run(1)
    assert told.value == "there"
    assert calls(first)[0]["call_id"] == calls(second)[0]["call_id"]


def test_hosts_that_point_at_each_other_are_not_followed_without_a_pause(rig: Rig) -> None:
    first = rig.peer("w1", {CALL: answering(moved("w2"))})
    rig.peer("w2", {CALL: answering(moved("w1"))})
    told = Told(rig, "w1", seconds=10.0)
    rig.run(11)
    assert isinstance(told.error, TimedOut)
    assert MAX_HOPS / 2 < len(calls(first)) < 600


def test_a_paglet_on_its_way_is_asked_again_soon(rig: Rig) -> None:
    host = rig.peer("w1", {CALL: answering(Moving("wait"), Moving("wait"), CallReply(value=1))})
    told = Told(rig, "w1")
    rig.run(2)
    assert told.value == 1
    assert len(calls(host)) == 3
    assert not any(body["again"] for body in calls(host))


def test_a_handler_that_waits_is_asked_again_for_the_same_call(rig: Rig) -> None:
    host = rig.peer("w1", {CALL: answering(CallReply(waiting=True), CallReply(waiting=True), CallReply(value=1))})
    told = Told(rig, "w1")
    rig.run(2)
    assert told.value == 1
    assert [body["again"] for body in calls(host)] == [False, True, True]
    assert len({body["call_id"] for body in calls(host)}) == 1


def test_a_call_waits_no_longer_than_its_time(rig: Rig) -> None:
    host = rig.peer("w1", {CALL: answering(Moving("wait"))})
    told = Told(rig, "w1", seconds=3.0)
    rig.run(2.9)
    assert told.results == []
    rig.run(0.5)
    assert isinstance(told.error, TimedOut)
    assert calls(host)[0]["wait_seconds"] == 3.0


def test_a_call_whose_reply_is_lost_is_not_repeated(rig: Rig) -> None:
    host = rig.peer("w1", {CALL: answering(CallReply(value=1))})

    def breaks(request: Any) -> Any:
        rig.network.leave(host.ref.url)
        return host.handle(request)

    rig.network.join(host.ref.url, host.ref.store_id, breaks)
    told = Told(rig, "w1", seconds=100.0)
    rig.run(120)
    assert isinstance(told.error, CallOutcomeUnknown)
    assert len(calls(host)) == 1


@pytest.mark.parametrize("error", [HandlerFailed("oops"), NotAllowed("who?"), CallOutcomeUnknown("restarted")])
def test_any_other_error_is_the_callers_to_see(rig: Rig, error: PagletsError) -> None:
    rig.peer("w1", {CALL: answering(error)})
    told = Told(rig, "w1")
    rig.run(1)
    assert type(told.error) is type(error)


def test_an_address_that_does_not_answer_for_a_while_makes_the_mesh_be_asked(rig: Rig) -> None:
    second = rig.peer("w2", {CALL: answering(CallReply(value="found")), LOCATE: answering(here("w2"))})
    told = Told(rig, "w9")
    rig.run(LOCATE_AFTER_SECONDS - 1)
    assert second.bodies(LOCATE) == []
    rig.run(3)
    assert told.value == "found"


def test_a_host_that_is_back_in_time_is_called_though_it_did_not_answer(rig: Rig) -> None:
    told = Told(rig, "w1")
    rig.run(2)
    host = rig.peer("w1", {CALL: answering(CallReply(value="back"))})
    rig.run(1)
    assert told.value == "back"
    assert len(calls(host)) == 1


def test_a_paglet_that_its_host_does_not_know_is_searched_at_once(rig: Rig) -> None:
    rig.peer("w1", {CALL: answering(Unknown("no")), LOCATE: answering(Located())})
    rig.peer("w2", {CALL: answering(CallReply(value="found")), LOCATE: answering(here("w2"))})
    told = Told(rig, "w1")
    rig.run(1)
    assert told.value == "found"


def test_a_paglet_that_nobody_knows_is_unknown(rig: Rig) -> None:
    rig.peer("w1", {CALL: answering(Unknown("no")), LOCATE: answering(Located())})
    told = Told(rig, "w1")
    rig.run(5)
    assert isinstance(told.error, Unknown)


def test_a_paglet_that_comes_here_meanwhile_is_called_here(rig: Rig) -> None:
    rig.peer("w1", {CALL: answering(moved("home"))})
    rig.write(lambda tx: residence.create(tx, envelope("p1"), 1.0))
    told = Told(rig, "w1")
    rig.run(1)
    rig.handle(rig.process("p1"), "here")
    rig.run(1)
    assert told.value == "here"


def test_a_service_of_this_host_is_called_by_its_name(rig: Rig) -> None:
    results: list[Any] = []
    target = ProxyRef(agent_id="compute-slots", host=rig.own)
    message = WireMessage(kind="nonsense", args={})
    rig.host.runner.call_soon(lambda: rig.host.calls.start(target, message, None, results.append))
    rig.run()
    assert [error.code for error in results] == ["not_handled"]
