"""The scratch directory of a paglet that comes back: what its last stay left there is gone before its code runs."""

from __future__ import annotations

import pytest
from host_rig import Rig, envelope, host_ref
from test_host_bytes_travel import make, status

from paglets.api.paglets import MovePaglet
from paglets.api.transfers import TransferAnswer, TransferAnswers, Transfers
from paglets.codec.envelope import Envelope
from paglets.store import residence
from tests.fakes.processes import HandProcess

W1 = host_ref("w1")
OLD = {"out.db": b"of the last stay"}


@pytest.fixture
def rig() -> Rig:
    """p1 was here, left a file in its scratch directory, and is on its way to w1, which does not answer."""
    rig = Rig()
    make(rig, envelope("p1", hook="run"))
    rig.run()
    rig.finish(rig.process("p1"))
    rig.write(lambda tx: residence.leave(tx, "p1", W1, rig.now()))
    scratch(rig).update(OLD)
    return rig


def scratch(rig: Rig) -> dict[str, bytes]:
    return rig.disk._there["p1"]


def transfer(rig: Rig, each: Envelope) -> list[str]:
    answers = rig.get(TransferAnswers, "POST", "/v1/transfers", Transfers(source=W1, envelopes=(each,))).answers
    return [answer.verdict for answer in answers]


def back(**fields: object) -> Envelope:
    return envelope("p1", epoch=3, **fields)


def woken(rig: Rig) -> HandProcess:
    """A process for a message."""
    rig.call("p1", "hello")
    rig.run()
    return rig.launcher.of("p1")[-1]


def test_it_is_emptied_before_code_of_the_next_stay_runs_and_once(rig: Rig) -> None:
    assert transfer(rig, back(hook="arrival")) == ["taken"]
    rig.run()
    process = rig.process("p1")
    assert process.go.entry == "arrival"
    assert scratch(rig) == {}
    scratch(rig)["new"] = b"1"
    rig.finish(process)
    process = woken(rig)
    process.begin()
    rig.run()
    assert process.go.entry == "message"
    assert scratch(rig) == {"new": b"1"}


def test_an_envelope_that_could_not_be_stored_throws_nothing_away(rig: Rig) -> None:
    rig.write(
        lambda tx: tx.run("CREATE TRIGGER full BEFORE INSERT ON paglets BEGIN SELECT RAISE(ABORT, 'no room'); END")
    )
    assert transfer(rig, back()) == []
    assert status(rig) == "leaving"
    assert scratch(rig) == OLD


def test_a_process_that_ended_before_it_was_told_to_go_leaves_the_rule_as_it_was(rig: Rig) -> None:
    # As where the host lost its power then.
    transfer(rig, back())
    process = woken(rig)
    scratch(rig).update(OLD)
    process.exit(code=1)
    rig.run()
    again = woken(rig)
    assert again is not process
    assert scratch(rig) == {}


def test_it_is_remembered_on_a_way_that_came_to_nothing(rig: Rig) -> None:
    transfer(rig, back())

    def refuse(body: object) -> TransferAnswers:
        return TransferAnswers(answers=(TransferAnswer(agent_id="p1", epoch=4, verdict="refused", reason="no"),))

    rig.peer("w2", {"POST /v1/transfers": refuse, "GET /v1/host": lambda body: MovePaglet(target="x")})
    rig.write(lambda tx: residence.leave(tx, "p1", host_ref("w2"), rig.now()))
    rig.until(lambda: status(rig) == "here")
    woken(rig)
    assert scratch(rig) == {}


def test_a_paglet_that_was_refused_elsewhere_finds_what_it_left(rig: Rig) -> None:
    rig.until(lambda: status(rig) == "here", 30)
    woken(rig)
    assert scratch(rig) == OLD
