"""Hand-offs that end before their targets have taken them, and hosts that are forgotten."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from host_rig import Rig, envelope, host_ref, job, slot_request
from recall_rig import W1, Target, checked, is_silent, leave, lose_answers, status

from paglets.api.blobs import BlobStates
from paglets.api.groups import UnwantedCopy
from paglets.api.hosts import ForgetHost, Gossip
from paglets.api.paglets import Done, Located, ResidenceRow
from paglets.core.errors import InternalError, Moved, Moving, NoRoom
from paglets.core.refs import FileRef
from paglets.host.groups.reconciliation import end_unwanted
from paglets.host.handoff.closed import MAX_CLOSED
from paglets.host.handoff.in_flight import STUCK_SECONDS
from paglets.store import files, residence
from paglets.store.db import Tx
from paglets.store.files import RegisteredSource
from paglets.wire.request import PendingResponse, Response
from tests.fakes.mesh import member

UNWANTED = (UnwantedCopy(agent_id="j1", cause="cancelled"),)
DATA = b"bytes that w1 has no room for"
FAST = slot_request(rules={"preferred_tags": ("fast",)})
NAME = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
def away(rig: Rig) -> Rig:
    return Rig(name="away", beside=rig)


def unwanted(rig: Rig) -> None:
    rig.write(lambda tx: end_unwanted(tx, UNWANTED, rig.own, rig.now()))
    rig.run(1)


# What nobody wants.


def test_an_unwanted_job_on_its_way_to_a_host_that_is_gone_ends_here(rig: Rig) -> None:
    target = Target(rig, takes=InternalError("disk"))
    leave(rig, job("j1"))
    rig.run(0.2)
    assert target.got
    target.goes_away()
    unwanted(rig)
    assert status(rig) == ("leaving", 1)

    rig.until(lambda: status(rig)[0] != "leaving", 30)

    assert status(rig) == ("disposed", 2)
    assert rig.all("SELECT * FROM handoffs") == []


def test_an_unwanted_job_that_was_never_sent_ends_at_once(rig: Rig) -> None:
    target = Target(rig)
    target.goes_away()
    leave(rig, job("j1"))
    unwanted(rig)
    assert status(rig) == ("disposed", 2)


@pytest.mark.parametrize(("settles", "ends"), [("refused", ("disposed", 2)), ("taken", ("gone", 2))])
def test_the_host_of_an_unwanted_job_asks_a_target_that_is_there(rig: Rig, settles: str, ends: object) -> None:
    target = Target(rig, takes=InternalError("disk"), settles=settles)
    leave(rig, job("j1"))
    rig.run(0.2)
    unwanted(rig)
    assert [(each.agent_id, each.epoch) for each in target.settled] == [("j1", 2)]
    assert [each.source for each in target.asking] == [rig.own]
    assert status(rig) == ends


def test_a_target_is_asked_about_many_unwanted_jobs_in_one_request(rig: Rig) -> None:
    target = Target(rig, takes=InternalError("disk"))
    ids = [f"j{number}" for number in range(3)]
    for agent_id in ids:
        leave(rig, job(agent_id, agent_id))
    rig.run(0.2)
    each_unwanted = tuple(UnwantedCopy(agent_id=agent_id, cause="cancelled") for agent_id in ids)
    rig.write(lambda tx: end_unwanted(tx, each_unwanted, rig.own, rig.now()))
    rig.run(1)
    assert [[key.agent_id for key in asking.asked] for asking in target.asking] == [ids]
    assert [status(rig, agent_id) for agent_id in ids] == [("disposed", 2)] * 3


def test_an_unwanted_job_ends_though_its_target_only_says_that_it_is_in_trouble(rig: Rig) -> None:
    target = Target(rig, takes=InternalError("disk"), settles=InternalError("disk"))
    leave(rig, job("j1"))
    rig.run(0.2)
    unwanted(rig)
    rig.until(lambda: status(rig)[0] != "leaving", 30)
    assert status(rig) == ("disposed", 2)
    assert 3 <= len(target.settled) <= 4


def test_another_paglet_is_never_given_up(rig: Rig) -> None:
    target = Target(rig, takes=InternalError("disk"))
    leave(rig, envelope("j1"))
    rig.run(0.2)
    target.goes_away()
    unwanted(rig)
    rig.run(120)
    assert status(rig) == ("leaving", 1)


def test_the_sources_of_files_that_were_to_move_stay_when_a_job_is_given_up(rig: Rig) -> None:
    target = Target(rig)
    target.goes_away()
    rig.host.blob_store.put(DATA)
    rig.write(lambda tx: residence.create(tx, job("j1"), rig.now()))
    moves = FileRef(name="f", sha256=NAME, size_bytes=len(DATA), mode="move")
    rig.write(lambda tx: files.register(tx, "j1", moves, RegisteredSource(path="/data/f", mtime_ns=1, inode=1)))
    rig.write(lambda tx: residence.leave(tx, "j1", W1, rig.now()))
    unwanted(rig)
    assert status(rig) == ("disposed", 2)
    assert rig.disk.removed == []
    assert rig.all("SELECT * FROM files") == []


def test_a_target_that_is_back_is_told_that_the_hand_off_is_over(rig: Rig) -> None:
    target = Target(rig, takes=InternalError("disk"))
    leave(rig, job("j1"))
    rig.run(0.2)
    target.goes_away()
    unwanted(rig)
    rig.until(lambda: status(rig)[0] == "disposed", 30)
    target.comes_back()
    rig.run(130)
    (closed,) = target.table.bodies("POST /v1/transfers/close")
    assert [(each["agent_id"], each["epoch"]) for each in closed["closed"]] == [("j1", 2)]
    assert rig.value("SELECT told FROM residence") == 1


def test_many_hand_offs_to_a_host_that_is_away_do_not_keep_others_from_being_told(rig: Rig) -> None:
    def gone(tx: Tx) -> None:
        for agent_id, target in [*((f"a{number}", host_ref("gone")) for number in range(MAX_CLOSED)), ("z", W1)]:
            residence.create(tx, envelope(agent_id), rig.now())
            residence.become(tx, agent_id, 2, "gone", target, rig.now(), told=False)

    Target(rig)
    rig.write(gone)
    rig.until(lambda: rig.value("SELECT told FROM residence WHERE agent_id = 'z'"), 70)
    assert rig.value("SELECT count(*) FROM residence WHERE told = 0") == MAX_CLOSED


def test_a_copy_that_the_target_took_without_a_word_ends_there_when_it_is_back(rig: Rig, away: Rig) -> None:
    lose_answers(rig, away)
    leave(rig, job("j1"), away.own)
    rig.run(1)
    rig.network.part(("store-home",), ("store-away",))
    unwanted(rig)
    rig.until(lambda: status(rig)[0] == "disposed", 30)
    assert status(away) == ("here", 2)

    rig.network.heal()
    rig.run(5)
    # The collector tells it so, as soon as it asks.
    unwanted(away)

    assert away.process("j1").told_to_end
    assert status(away)[0] == "disposed"
    assert checked(rig, away) == []


# What does not get there.


def test_a_job_that_a_host_does_not_take_for_long_is_placed_elsewhere(rig: Rig) -> None:
    target = Target(rig, takes=None)
    leave(rig, job("j1", request=FAST))
    rig.run(STUCK_SECONDS - 5)
    assert status(rig) == ("leaving", 1)
    rig.run(20)
    assert [each.epoch for each in target.settled] == [2]
    # Here, where it prefers not to be.
    assert rig.all("SELECT status FROM requests") == [("RUNNING",)]
    assert rig.all("SELECT kind, subject FROM events WHERE kind = 'taken_back'") == [("taken_back", "j1")]


def test_a_job_whose_bytes_find_no_room_is_placed_elsewhere_at_once(rig: Rig) -> None:
    target = Target(rig)

    def no_room(body: Any) -> BlobStates:
        raise NoRoom("the quota of w1 is used up")

    target.table.routes["POST /v1/blobs/state"] = no_room
    rig.host.blob_store.put(DATA)
    each = job("j1", request=FAST)
    rig.write(lambda tx: residence.create(tx, each, rig.now()))
    rig.write(lambda tx: files.add(tx, "j1", [FileRef(name="f", sha256=NAME, size_bytes=len(DATA), mode="copy")]))
    rig.write(lambda tx: residence.leave(tx, "j1", W1, rig.now()))
    rig.run(STUCK_SECONDS - 5)
    assert "quota of w1" in rig.value("SELECT problem FROM handoffs")
    rig.run(20)
    assert target.settled == []
    assert rig.all("SELECT status FROM requests") == [("RUNNING",)]


def test_a_job_is_not_taken_back_from_a_host_that_is_away(rig: Rig) -> None:
    target = Target(rig, takes=None)
    leave(rig, job("j1"))
    rig.run(5)
    target.goes_away()
    rig.run(300)
    assert status(rig) == ("leaving", 1)
    assert target.settled == []


def test_what_the_target_has_after_all_is_gone_from_here(rig: Rig) -> None:
    Target(rig, takes=None, settles="taken")
    leave(rig, job("j1"))
    rig.run(STUCK_SECONDS + 20)
    assert status(rig) == ("gone", 2)


def test_a_move_that_was_asked_for_is_tried_again_after_it_came_back(rig: Rig) -> None:
    target = Target(rig, takes=None)
    leave(rig, envelope("p1", hook="arrival"))
    rig.run(STUCK_SECONDS + 20)
    assert target.settled
    assert status(rig, "p1") == ("here", 2)
    assert "store-w1" in rig.value("SELECT intent FROM paglets")


# An end that is asked for.


def test_a_paglet_that_is_leaving_comes_back_to_be_ended(rig: Rig) -> None:
    target = Target(rig, takes=None)
    leave(rig, envelope("p1"))
    rig.run(1)
    asked = rig.ask("DELETE", "/v1/paglets/p1")
    rig.run(1)
    assert [each.epoch for each in target.settled] == [2]
    rig.finish(rig.process("p1"))
    rig.run(1)
    assert isinstance(asked, PendingResponse)
    assert asked.response is not None
    assert asked.response.parse(Done) == Done()
    assert status(rig, "p1") == ("disposed", 2)


def test_who_ends_a_paglet_that_the_target_has_is_sent_there(rig: Rig) -> None:
    Target(rig, takes=None, settles="taken")
    leave(rig, envelope("p1"))
    rig.run(1)
    with pytest.raises(Moved, match="w1"):
        answered(rig, rig.ask("DELETE", "/v1/paglets/p1"), 1)


def test_who_ends_a_paglet_on_its_way_to_a_silent_host_is_told_why_it_goes_on(rig: Rig) -> None:
    target = Target(rig, takes=InternalError("disk"))
    leave(rig, envelope("p1"))
    rig.run(1)
    target.goes_away()
    rig.until(lambda: is_silent(rig), 30)
    with pytest.raises(Moving, match=r"on its way to w1: w1 does not answer"):
        answered(rig, rig.ask("DELETE", "/v1/paglets/p1"), 10)
    target.comes_back()
    rig.run(10)
    assert target.settled
    assert rig.process("p1").go.entry == "disposing"


def answered(rig: Rig, asked: Response | PendingResponse, within_seconds: float) -> Done:
    rig.run(within_seconds)
    response = asked.response if isinstance(asked, PendingResponse) else asked
    assert response is not None
    return response.parse(Done)


def test_a_paglet_that_went_on_from_a_host_that_was_forgotten_is_searched_for(rig: Rig) -> None:
    target = Target(rig, takes="taken")
    leave(rig, envelope("p1"))
    rig.until(lambda: status(rig, "p1") == ("gone", 2))
    target.goes_away()
    rig.until(lambda: not rig.host.gossip.is_online(W1.store_id), 120)
    rig.ask("POST", "/v1/mesh/forget", ForgetHost(store_id=W1.store_id))
    with pytest.raises(Moved, match="is on w1"):
        answered(rig, rig.ask("GET", "/v1/paglets/p1"), 5)

    there = ResidenceRow(agent_id="p1", epoch=3, status="here")
    rig.peer("w2", {"POST /v1/paglets/locate": lambda body: Located(rows=(there,))})
    rig.run(2)
    with pytest.raises(Moved, match="is on w2"):
        answered(rig, rig.ask("GET", "/v1/paglets/p1"), 5)


# An empty data directory.


def test_a_move_to_a_host_that_has_begun_anew_says_what_to_do(rig: Rig) -> None:
    target = Target(rig, takes=InternalError("disk"))
    leave(rig, envelope("p1"))
    leave(rig, job("j1"))
    rig.run(0.5)
    target.goes_away()
    rig.until(lambda: is_silent(rig), 30)
    begin_anew(rig, target)
    rig.run(30)
    text = rig.value("SELECT problem FROM handoffs WHERE agent_id = 'p1'")
    assert text == (
        "target_wiped: w1 has an empty data directory now; if the old one is gone for good: "
        "paglets mesh forget store-w1"
    )
    assert "target_wiped" not in rig.value("SELECT problem FROM handoffs WHERE agent_id = 'j1'")
    assert rig.all("SELECT agent_id FROM residence WHERE status = 'leaving' ORDER BY 1") == [("j1",), ("p1",)]


def begin_anew(rig: Rig, target: Target) -> None:
    """A host of the same name answers at the same address, with another store."""
    beats = iter(range(1, 1_000_000))

    def gossip(body: Any) -> Gossip:
        own = member("w1", store_id="store-new", boot_id="new", heartbeat=next(beats), mesh_version="test", joined=9)
        return Gossip(mesh_version="test", protocol=own.protocol, hosts=(own,))

    target.table.routes["POST /v1/mesh/gossip"] = gossip
    rig.network.join(target.table.ref.url, "store-new", target.table.handle)
    rig.host.gossip.receive(gossip(None), "store-new")
