"""Hosts that are forgotten: what was on its way there is back, once, wherever it went meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from host_rig import Reply, Rig, envelope, host_ref, job
from recall_rig import W1, Target, checked, is_silent, leave, lose_answers, status

from paglets.api.hosts import ForgetHost, Forgotten, Gossip
from paglets.api.paglets import Located, PagletView, ResidenceRow
from paglets.api.transfers import TransferAnswers, Transfers
from paglets.codec.strict_json import dumps
from paglets.core.errors import Conflict, InternalError, Invalid
from paglets.core.record import to_json
from paglets.host.handoff.eviction import BUDGET, DuplicateEvictor
from paglets.host.records.lifecycle import set_pending_action
from paglets.host.records.rollback import ERA, epoch_of_next_era, roll_back_from_removed
from paglets.store import residence, rollbacks
from paglets.store.db import Tx
from paglets.store.rollbacks import Fence
from tests.fakes.clock import SeededEntropy


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
def away(rig: Rig) -> Rig:
    return Rig(name="away", beside=rig)


def begin_to_forget(rig: Rig, store_id: str = "store-w1") -> Callable[[], Forgotten]:
    """Gives how to get the reply, which waits for other hosts."""
    reply = Reply(rig.ask("POST", "/v1/mesh/forget", ForgetHost(store_id=store_id)))

    def answered() -> Forgotten:
        assert reply.response is not None, "the reply is still pending"
        return reply.response.parse(Forgotten)

    return answered


def forget(rig: Rig, store_id: str = "store-w1") -> Forgotten:
    answered = begin_to_forget(rig, store_id)
    rig.run(1)
    return answered()


def events(rig: Rig, kind: str) -> list[tuple[str, str]]:
    return rig.all("SELECT subject, text FROM events WHERE kind = ? ORDER BY id", kind)  # type: ignore[return-value]


def is_beyond(found: tuple[str, int], epoch: int = 1) -> bool:
    """Here again, under an epoch that no chain of moves from that one reaches."""
    return found[0] == "here" and found[1] >= (epoch // ERA + 1) * ERA


def in_doubt(rig: Rig, each: Any) -> Target:
    """On its way to w1, which may have it and is silent by now."""
    target = Target(rig, takes=InternalError("disk"))
    leave(rig, each)
    rig.run(0.5)
    target.goes_away()
    rig.until(lambda: is_silent(rig), 30)
    return target


def pass_on(rig: Rig, target: Target, receiver: Rig) -> None:
    """What w1 took is at `receiver` now."""
    for each in target.got:
        body = Transfers(source=target.table.ref, envelopes=(replace(each, epoch=each.epoch + 1),))
        sender = target.table.ref.store_id
        (answer,) = receiver.get(TransferAnswers, "POST", "/v1/transfers", body, sender=sender).answers
        assert answer.verdict == "taken"


# What comes back, and what does not go.


def test_what_was_on_its_way_to_a_forgotten_host_is_here_with_a_higher_epoch(rig: Rig) -> None:
    target = Target(rig, takes=InternalError("disk"))
    leave(rig, envelope("p1", hook="arrival"))
    leave(rig, job("j1", group_id=None, collector=None))
    rig.run(0.5)
    target.goes_away()
    rig.until(lambda: is_silent(rig), 30)

    told = forget(rig)

    assert told == Forgotten(host=rig.own, known=True, taken_back=2, moves_dropped=0)
    assert is_beyond(status(rig, "p1"))
    assert is_beyond(status(rig, "j1"))
    assert rig.value("SELECT status FROM requests") == "RUNNING"
    view: PagletView = rig.get(PagletView, "GET", "/v1/paglets/p1")
    assert view.reason == "its move to w1 was dropped: that host was removed with `mesh forget`"
    assert any("w1 was forgotten; taken back: 2" in line for line in rig.log)
    assert forget(rig) == Forgotten(host=rig.own, known=False, taken_back=0, moves_dropped=0)


def test_what_cannot_be_stored_is_not_said_to_be_done(rig: Rig) -> None:
    Target(rig).goes_away()
    rig.until(lambda: is_silent(rig), 30)
    rig.write(
        lambda tx: tx.run(
            "CREATE TRIGGER full BEFORE INSERT ON events WHEN NEW.kind = 'host_forgotten'"
            " BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
    )
    with pytest.raises(InternalError):
        forget(rig)
    rig.write(lambda tx: tx.run("DROP TRIGGER full"))
    forget(rig)
    assert events(rig, "host_forgotten")


def test_moves_to_a_forgotten_host_that_have_not_begun_are_dropped(rig: Rig) -> None:
    target = Target(rig)
    target.goes_away()
    rig.write(lambda tx: residence.create(tx, envelope("p1"), rig.now()))
    rig.until(lambda: is_silent(rig), 30)
    rig.ask("POST", "/v1/paglets/p1/dispatch", {"target": "w1"})
    rig.run(1)
    assert forget(rig).moves_dropped == 1
    view: PagletView = rig.get(PagletView, "GET", "/v1/paglets/p1")
    assert view.reason == "its move to w1 was dropped: that host was removed with `mesh forget`"
    assert rig.value("SELECT intent FROM paglets") is None


def test_a_paglet_that_wishes_to_go_to_a_forgotten_host_stays_and_says_why(rig: Rig) -> None:
    # Only moves that were asked for before the host was forgotten were dropped; later ones waited for ever.
    target = Target(rig)
    target.goes_away()
    rig.write(lambda tx: residence.create(tx, envelope("p1"), rig.now()))
    rig.until(lambda: is_silent(rig), 30)
    forget(rig)
    rig.write(lambda tx: set_pending_action(tx, "p1", {"move": to_json(W1)}))
    rig.run(1)
    view: PagletView = rig.get(PagletView, "GET", "/v1/paglets/p1")
    assert view.reason == "its move to w1 was dropped: that host was removed with `mesh forget`"
    assert rig.value("SELECT intent FROM paglets") is None


def test_a_host_that_is_online_is_not_forgotten_nor_is_the_host_itself(rig: Rig) -> None:
    Target(rig)
    with pytest.raises(Conflict, match="w1 is online"):
        forget(rig)
    with pytest.raises(Conflict, match="cannot forget itself"):
        forget(rig, rig.own.store_id)
    with pytest.raises(Invalid, match="store_id"):
        forget(rig, "../x")


def test_what_begins_to_leave_for_a_forgotten_host_comes_back_after_a_restart_too(rig: Rig) -> None:
    target = Target(rig)
    target.goes_away()
    rig.until(lambda: is_silent(rig), 30)
    forget(rig)
    rig.write(lambda tx: residence.create(tx, envelope("p1"), rig.now()))
    rig.write(lambda tx: residence.leave(tx, "p1", W1, rig.now()))
    second = Rig(database=rig.store._writer)
    second.run(1)
    assert is_beyond(status(second, "p1"))


def test_more_than_a_page_comes_back(rig: Rig) -> None:
    target = Target(rig, takes=InternalError("disk"))
    for number in range(230):
        each = envelope(f"p{number}")
        rig.write(lambda tx, each=each: residence.create(tx, each, rig.now()))
        rig.write(lambda tx, each=each: residence.leave(tx, each.agent_id, W1, rig.now()))
    rig.run(0.5)
    target.goes_away()
    rig.until(lambda: is_silent(rig), 30)
    assert forget(rig).taken_back == 230


def test_what_a_forgotten_host_said_before_its_end_does_not_bring_it_back(rig: Rig) -> None:
    target = Target(rig)
    late = target.table.routes["POST /v1/mesh/gossip"](None)
    target.goes_away()
    rig.until(lambda: is_silent(rig), 30)
    forget(rig)
    rig.host.gossip.receive(late, "store-w1")  # It was stalled in a socket.
    second = Rig(database=rig.store._writer)
    for each in (rig, second):
        each.run(1)
        assert [view.host.name for view in each.host.gossip.hosts()] == ["home"]
        assert each.host.gossip.is_forgotten("store-w1")
        news = replace(late, hosts=(replace(late.hosts[0], heartbeat=1_000),))
        assert isinstance(each.host.gossip.receive(news, "store-w1"), Gossip)
        assert not each.host.gossip.is_forgotten("store-w1")


# What the forgotten host had passed on.


def test_what_the_forgotten_host_had_passed_on_is_not_taken_back(rig: Rig) -> None:
    w3 = Rig(name="w3", beside=rig)
    target = in_doubt(rig, envelope("p1"))
    pass_on(rig, target, w3)

    assert forget(rig).taken_back == 0

    assert (status(rig, "p1"), status(w3, "p1")) == (("gone", 3), ("here", 3))
    assert "w3" in rig.value("SELECT peer FROM residence")
    assert events(rig, "passed_on") == [
        ("p1", "w1, which was forgotten, had passed it on: it is on w3"),
    ]
    assert rig.all("SELECT * FROM fences") == []
    assert checked(rig, w3) == []


def test_what_the_forgotten_host_had_got_back_is_taken_back(rig: Rig) -> None:
    # It lived there when that host died; a host through which it went knows a higher epoch than this one.
    w3 = Rig(name="w3", beside=rig)
    target = in_doubt(rig, envelope("p1"))
    pass_on(rig, target, w3)
    w3.write(lambda tx: residence.leave(tx, "p1", W1, w3.now()))
    w3.write(lambda tx: residence.acknowledged(tx, "p1", 4, w3.now()))
    assert forget(rig).taken_back == 1
    assert is_beyond(status(rig, "p1"))


def test_a_copy_on_an_offline_host_ends_when_that_host_is_back(rig: Rig) -> None:
    w3 = Rig(name="w3", beside=rig)
    target = in_doubt(rig, envelope("p1"))
    pass_on(rig, target, w3)
    rig.network.part(("store-home",), ("store-w3",))
    rig.until(lambda: is_silent(rig, "w3"), 30)
    forget(rig)
    assert is_beyond(status(rig, "p1"))
    assert status(w3, "p1") == ("here", 3)

    rig.network.heal()
    rig.until(lambda: not is_silent(rig, "w3"), 60)
    rig.run(10)

    mine = status(rig, "p1")
    assert is_beyond(mine)
    assert status(w3, "p1") == ("refused", mine[1])
    ((subject, text),) = events(rig, "conflict")
    assert (subject, text) == ("p1", f"w3 has a copy of epoch 3: it ends, because epoch {mine[1]} replaced it")
    assert rig.all("SELECT json_extract(target, '$.name') FROM fences") == [("w1",)]
    assert checked(rig, w3) == []


def test_a_copy_that_comes_to_a_host_after_it_was_asked_ends_too(rig: Rig) -> None:
    # From a host that had it, and that this one cannot speak to.
    w3 = Rig(name="w3", beside=rig)
    target = in_doubt(rig, envelope("p1"))
    forget(rig)
    mine = status(rig, "p1")
    rig.run(10)
    pass_on(rig, target, w3)
    rig.run(5)
    assert (is_beyond(mine), status(w3, "p1")) == (True, ("here", 3))

    rig.until(lambda: status(w3, "p1") == ("refused", mine[1]), 70)

    assert status(rig, "p1") == mine
    assert checked(rig, w3) == []


def test_a_fence_is_not_replaced_by_one_of_an_older_epoch(rig: Rig) -> None:
    newer = Fence(agent_id="p1", epoch=9, target=W1)
    tried = (newer, replace(newer, epoch=8), newer)
    assert [rig.write(lambda tx, each=each: rollbacks.fence(tx, each)) for each in tried] == [True, False, False]
    assert rig.store.read(lambda tx: rollbacks.fences(tx, W1.store_id, BUDGET).items) == [newer]


def test_of_two_that_were_taken_back_the_one_with_the_lower_epoch_ends(rig: Rig, away: Rig) -> None:
    # Both hosts took it back from hosts that were forgotten while they could not speak to each other.
    for each, epoch in ((rig, 3 * ERA), (away, 3 * ERA + 1024)):
        each.write(lambda tx, each=each, epoch=epoch: residence.create(tx, envelope("p1", epoch=epoch), each.now()))
        sql = "INSERT INTO fences (agent_id, target_store, epoch, target) VALUES ('p1', 'store-w1', ?, ?)"
        row = to_json(host_ref("w1"))
        each.write(lambda tx, sql=sql, row=row, epoch=epoch: tx.run(sql, epoch, dumps(row)))
        each.host.runner.wake(DuplicateEvictor.name)
    rig.run(10)
    assert (status(rig, "p1"), status(away, "p1")) == (("refused", 3 * ERA + 1024), ("here", 3 * ERA + 1024))
    assert {subject for subject, _ in events(rig, "conflict")} == {"p1"}
    assert checked(rig, away) == []


def test_two_hosts_do_not_choose_the_same_epoch() -> None:
    one, two = SeededEntropy("one"), SeededEntropy("two")
    drawn = [epoch_of_next_era(7, entropy) for entropy in (one, two) for _ in range(100)]
    assert len(set(drawn)) == 200
    assert all(ERA <= epoch < 2 * ERA for epoch in drawn)
    assert epoch_of_next_era(drawn[0], two) > max(drawn)


def test_nothing_comes_back_before_every_online_host_has_answered(rig: Rig) -> None:
    w2 = rig.peer("w2", {"POST /v1/paglets/locate": _raise})
    in_doubt(rig, envelope("p1"))
    answered = begin_to_forget(rig)
    rig.run(10)
    assert status(rig, "p1") == ("leaving", 1)
    text = "w1 was forgotten; these must first answer that they lack the paglet: w2"
    assert rig.value("SELECT problem FROM handoffs") == text
    w2.routes["POST /v1/paglets/locate"] = lambda body: Located(
        rows=(ResidenceRow(agent_id="p1", epoch=2, status="refused", peer=rig.own),)
    )
    rig.run(6)
    assert answered().taken_back == 1
    assert is_beyond(status(rig, "p1"))


def test_nothing_is_taken_back_while_a_host_that_is_online_cannot_be_asked() -> None:
    """Nobody can connect to either of the two, and no host is between them: w3 may have it."""
    rig = Rig(reachable=False)
    rig.peer("w3", reachable=False)
    in_doubt(rig, envelope("p1"))
    answered = begin_to_forget(rig)
    for _ in range(25):
        rig.host.gossip.record_contact("store-w3")
        rig.run(1)
    assert answered().taken_back == 0
    assert status(rig, "p1") == ("leaving", 1)
    assert "w3" in rig.value("SELECT problem FROM handoffs")


def test_who_forgets_a_host_is_answered_though_another_one_stays_silent(rig: Rig) -> None:
    rig.peer("w2", {"POST /v1/paglets/locate": _raise})
    in_doubt(rig, envelope("p1"))
    answered = begin_to_forget(rig)
    rig.run(25)
    assert answered() == Forgotten(host=rig.own, known=True, taken_back=0, moves_dropped=0)


def _raise(body: Any) -> Located:
    raise InternalError("it cannot look")


# A forgotten host that is back.


def test_a_job_that_nobody_wants_and_that_ends_here_is_not_counted_as_taken_back(rig: Rig) -> None:
    in_doubt(rig, job("j1"))

    def end(tx: Tx) -> bool:
        rollbacks.request(tx, "j1", rollbacks.UNWANTED)
        return roll_back_from_removed(tx, ("j1", 1), ERA, rig.now())

    assert rig.write(end) is False
    assert status(rig, "j1") == ("disposed", 2)
    assert rig.value("SELECT told FROM residence WHERE agent_id = 'j1'") == 1  # nobody waits to tell that host


def test_a_job_of_a_group_that_may_run_on_a_forgotten_host_is_left_to_its_collector(rig: Rig, away: Rig) -> None:
    """It may have run there: begun anew as the same copy, it would do attempt 1 twice."""
    lose_answers(rig, away)
    leave(rig, job("j1"), away.own)
    rig.run(1)
    rig.network.part(("store-home",), ("store-away",))
    rig.until(lambda: is_silent(rig, "away"), 30)
    forget(rig, "store-away")
    assert status(rig, "j1") == ("disposed", 2)


def test_a_forgotten_host_that_is_back_joins_anew_and_ends_what_it_had_of_old(rig: Rig, away: Rig) -> None:
    lose_answers(rig, away)
    leave(rig, envelope("p1"), away.own)
    leave(rig, job("j1", group_id=None, collector=None), away.own)
    rig.run(1)
    at_work = away.process("j1")
    rig.network.part(("store-home",), ("store-away",))
    rig.until(lambda: is_silent(rig, "away"), 30)
    forget(rig, "store-away")
    mine = {agent_id: status(rig, agent_id) for agent_id in ("p1", "j1")}
    assert all(is_beyond(found) for found in mine.values())
    assert (status(away, "p1"), status(away, "j1")) == (("here", 2), ("here", 2))

    rig.network.heal()
    rig.until(lambda: not is_silent(rig, "away"), 60)
    rig.run(10)

    assert not rig.host.gossip.is_forgotten("store-away")
    for agent_id, (_, epoch) in mine.items():
        assert status(away, agent_id) == ("refused", epoch)
    assert at_work.told_to_end
    assert rig.all("SELECT * FROM fences") == []
    assert checked(rig, away) == []
