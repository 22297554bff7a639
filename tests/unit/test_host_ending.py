"""Copies of a group whose collector cannot be asked, ended by the host that has them, as a person wishes."""

from __future__ import annotations

from typing import Any

import pytest
from host_rig import Rig, host_ref, job, slot_request

from paglets.api.groups import EndCopies, EndedCopies
from paglets.core.errors import Conflict
from paglets.host.runtime.wakes import PAUSE_SECONDS
from paglets.store import residence


@pytest.fixture
def rig() -> Rig:
    """Jobs `a`, which runs, and `b`, which waits; their collector is on w1, which is not there."""
    made = Rig()
    for agent_id, key, cores in (("j1", "a", 3), ("j2", "b", 4)):
        envelope = job(agent_id, key, request=slot_request(cpu_cores=cores))
        made.write(lambda tx, envelope=envelope: residence.create(tx, envelope, made.now()))
    made.run()
    return made


def end(rig: Rig, *keys: str) -> EndedCopies:
    wish = EndCopies(job_keys=keys or None, reason="by ann")
    found: EndedCopies = rig.get(EndedCopies, "POST", "/v1/groups/g1/end", wish)
    return found


def test_what_waits_and_what_runs_ends_and_is_reported_as_cancelled(rig: Rig) -> None:
    process = rig.process("j1")
    assert end(rig) == EndedCopies(job_keys=("a", "b"), count=1)
    rig.run(PAUSE_SECONDS["runs"])
    assert process.told_to_end
    assert end(rig) == EndedCopies(job_keys=(), count=0)

    told = {post["args"]["job_key"]: (post["kind"], post["args"]["cause"]) for post in rig.outbox()}
    assert told == {"a": ("job_failure", "cancelled"), "b": ("job_failure", "cancelled")}
    message = "cancelled: by ann, while its collector could not be asked"
    assert {post["args"]["message"] for post in rig.outbox()} == {message}
    assert rig.all("SELECT DISTINCT status FROM requests") == [("CANCELLED",)]
    assert rig.value("SELECT count(*) FROM leases") == 0


def test_of_a_group_single_jobs_are_ended(rig: Rig) -> None:
    assert end(rig, "b", "c") == EndedCopies(job_keys=("b",), count=0)
    assert not rig.process("j1").told_to_end


def test_what_reports_by_itself_before_it_ends_keeps_its_result(rig: Rig) -> None:
    process = rig.process("j1")
    end(rig, "a")
    rig.report(process, {"n": 1})
    rig.run(1.0)
    assert [(post["kind"], post["args"]["job_key"]) for post in rig.outbox()] == [("job_result", "a")]


def test_a_failed_attempt_that_is_being_ended_is_not_tried_again(rig: Rig) -> None:
    process = rig.process("j1")
    end(rig, "a")
    process.exit(3)
    rig.run()
    assert [post["args"]["cause"] for post in rig.outbox()] == ["cancelled"]


def test_nothing_ends_that_a_collector_wants_whose_host_is_there(rig: Rig) -> None:
    rig.peer("w1")
    with pytest.raises(Conflict, match="home can reach w1, which has the collector of g1"):
        end(rig)
    assert not rig.process("j1").told_to_end
    assert rig.outbox() == []


def test_a_collector_that_comes_back_is_told(rig: Rig) -> None:
    end(rig, "b")
    told: list[Any] = []

    def posts(body: Any) -> None:
        told.append(body)
        raise Conflict("for this test")

    rig.peer("w1", {"POST /v1/posts": posts})
    rig.until(lambda: told)


def test_what_is_on_its_way_is_recalled(rig: Rig) -> None:
    rig.write(lambda tx: residence.create(tx, job("j3", "c"), rig.now()))
    rig.write(lambda tx: residence.leave(tx, "j3", host_ref("w3"), rig.now()))
    assert end(rig, "c").job_keys == ("c",)
    rig.until(lambda: end(rig, "c").count == 0)
