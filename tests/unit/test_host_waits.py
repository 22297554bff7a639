"""Replies that wait: tried at once, after each commit that concerns them, and at their deadline."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from host_rig import Rig, envelope, host_ref

from paglets.api.paglets import Done, PagletView
from paglets.core.errors import InternalError, Moved, Moving, Overloaded
from paglets.host.messaging.parked import ParkedRequest
from paglets.store import residence
from paglets.wire.request import PendingResponse, Response, reply


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.write(lambda tx: residence.create(tx, envelope("p1"), rig.now()))
    rig.run()
    return rig


def park(
    rig: Rig, attempt: Callable[[], Response | None], seconds: float = 10.0, agent_id: str = "p1"
) -> Callable[[], Response | None]:
    deadline = rig.clock.monotonic() + seconds
    wait = ParkedRequest(
        agent_id=agent_id,
        deadline=deadline,
        attempt=attempt,
        late=lambda: reply(Done(done=False)),
        pending=PendingResponse(),
    )
    pending = rig.host.parked.park(wait)
    return lambda: pending.response


def touch(rig: Rig, agent_id: str = "p1") -> None:
    rig.write(lambda tx: tx.touch(agent_id))
    rig.run()


def test_a_wait_is_tried_at_once_so_that_no_change_is_missed(rig: Rig) -> None:
    response = park(rig, lambda: reply(Done()))
    rig.run()
    assert response() == reply(Done())


def test_a_wait_is_tried_after_changes_of_its_paglet_only(rig: Rig) -> None:
    tried: list[float] = []
    park(rig, lambda: tried.append(rig.clock.monotonic()))  # type: ignore[func-returns-value]
    rig.run()
    touch(rig)
    touch(rig, "p2")
    assert len(tried) == 2


def test_a_change_that_is_committed_in_the_middle_of_a_try_leads_to_one_more(rig: Rig) -> None:
    tried: list[int] = []

    def attempt() -> Response | None:
        tried.append(len(tried))
        if len(tried) == 1:
            rig.write(lambda tx: tx.touch("p1"))
        return reply(Done()) if len(tried) == 2 else None

    response = park(rig, attempt)
    rig.run()
    assert response() == reply(Done())


def test_a_wait_that_came_true_is_answered_once_and_forgotten(rig: Rig) -> None:
    answers = iter([None, reply(Done()), reply(Done(done=False))])
    response = park(rig, lambda: next(answers))
    for _ in range(3):
        touch(rig)
    assert response() == reply(Done())


def test_at_its_deadline_a_wait_is_answered_that_it_is_late(rig: Rig) -> None:
    response = park(rig, lambda: None, seconds=3.0)
    rig.run(2.9)
    assert response() is None
    rig.run(0.2)
    assert response() == reply(Done(done=False))


def test_a_wait_that_fails_is_answered_and_keeps_no_other_waiting(rig: Rig) -> None:
    tries = iter([None])

    def breaks() -> Response | None:
        return next(tries)

    first = park(rig, breaks)
    second = park(rig, lambda: reply(Done()) if first() else None)
    rig.run()
    touch(rig)
    response = first()
    assert response is not None
    with pytest.raises(InternalError):
        response.parse(Done)
    assert second() == reply(Done())
    assert any("StopIteration" in line for line in rig.log)


def leave_for_long(rig: Rig) -> None:
    """Let the paglet leave for a host that is too busy to take it."""

    def busy(body: object) -> Done:
        raise Overloaded("busy")

    rig.peer("w1", {"POST /v1/transfers": busy})
    rig.write(lambda tx: residence.leave(tx, "p1", host_ref("w1"), rig.now()))


def test_a_question_about_a_leaving_paglet_is_answered_when_it_has_arrived(rig: Rig) -> None:
    leave_for_long(rig)
    pending = rig.ask("GET", "/v1/paglets/p1?wait=5")
    assert isinstance(pending, PendingResponse)
    rig.run(1)
    assert pending.response is None
    rig.write(lambda tx: residence.acknowledged(tx, "p1", 2, rig.now()))
    rig.run(0)
    assert pending.response is not None
    with pytest.raises(Moved):
        pending.response.json()


def test_a_question_about_a_paglet_whose_move_takes_long_is_answered_in_time(rig: Rig) -> None:
    leave_for_long(rig)
    with pytest.raises(Moving):
        rig.get(PagletView, "GET", "/v1/paglets/p1")
    pending = rig.ask("GET", "/v1/paglets/p1?wait=5")
    assert isinstance(pending, PendingResponse)
    rig.run(6)
    assert pending.response is not None
    with pytest.raises(Moving):
        pending.response.json()
