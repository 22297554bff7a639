"""A group whose collector is lost with a forgotten host: what waits is read, cleared, and its id used again."""

from __future__ import annotations

import pytest
from host_rig import Rig, job, slot_request

from paglets.api.groups import ClearGroup, EndCopies, EndedCopies, JobSpec, ReportCounts, SubmitGroup, WaitingReports
from paglets.api.paglets import Done
from paglets.core.errors import Conflict
from paglets.core.record import to_json
from paglets.core.refs import HostRef, ProxyRef
from paglets.groups.keys import collector_id
from paglets.store import residence

GONE = HostRef(store_id="store-w1", name="w1")


@pytest.fixture
def rig() -> Rig:
    """Job `a` has a result that waits, `b` waits for a slot; their collector was on w1, which nobody lists."""
    made = Rig()
    for agent_id, key, cores in (("j1", "a", 3), ("j2", "b", 4)):
        envelope = job(agent_id, key, request=slot_request(cpu_cores=cores))
        made.write(lambda tx, envelope=envelope: residence.create(tx, envelope, made.now()))
    made.run()
    made.report(made.process("j1"), {"n": 1})
    made.run(1.0)
    return made


def waiting(rig: Rig, query: str = "limit=10") -> WaitingReports:
    found: WaitingReports = rig.get(WaitingReports, "GET", f"/v1/groups/g1/waiting?{query}", None)
    return found


def end(rig: Rig, **how: bool) -> EndedCopies:
    found: EndedCopies = rig.get(EndedCopies, "POST", "/v1/groups/g1/end", EndCopies(reason="by ann", **how))
    return found


def test_a_result_that_waits_is_read_where_it_lies(rig: Rig) -> None:
    found = waiting(rig)
    assert (found.counts, found.queued) == (ReportCounts(results=1), 1)
    (report,) = found.reports
    assert (report.job_key, report.kind, report.record["result"]) == ("a", "result", {"n": 1})
    assert waiting(rig, "limit=10&job_key=b").reports == ()
    assert waiting(rig, "limit=0").reports == ()


def test_a_result_is_found_by_its_key_after_the_job_has_left(rig: Rig) -> None:
    rig.finish(rig.process("j1"))
    rig.process("j1").exit(0)
    rig.run()
    rig.write(lambda tx: residence.leave(tx, "j1", GONE, rig.now()))
    assert [report.job_key for report in waiting(rig, "limit=10&job_key=a").reports] == ["a"]
    assert waiting(rig, "limit=10&job_key=b").reports == ()


def test_results_stay_until_a_person_drops_them_and_then_nothing_is_listed(rig: Rig) -> None:
    assert end(rig, clear=True).cleared == ReportCounts()
    assert waiting(rig).counts == ReportCounts(results=1)
    assert end(rig, clear=True, drop_results=True).cleared == ReportCounts(results=1)
    rig.run()
    assert waiting(rig).counts == ReportCounts()
    assert rig.all("SELECT agent_id FROM requests") == []


def test_a_collector_that_comes_back_is_told_of_each_dropped_job(rig: Rig) -> None:
    end(rig, clear=True, drop_results=True)
    told = {post["args"]["job_key"]: (post["kind"], post["args"]["cause"]) for post in rig.outbox()}
    assert told == {"a": ("job_failure", "cancelled"), "b": ("job_failure", "cancelled")}


def test_nothing_is_cleared_while_the_host_of_the_collector_is_a_member(rig: Rig) -> None:
    rig.peer("w1")
    with pytest.raises(Conflict, match=r"w1, the host of the collector of .*, is still in the mesh"):
        end(rig, clear=True, drop_results=True)
    with pytest.raises(Conflict, match=r"w1, the host of the collector of .*, is still in the mesh"):
        rig.get(Done, "POST", "/v1/groups/g1/clear", ClearGroup(submissions=1, host=GONE))


def test_late_reports_of_a_cleared_group_count_for_nothing_in_the_next_one(rig: Rig) -> None:
    end(rig, clear=True, drop_results=True)
    rig.get(Done, "POST", "/v1/groups/g1/clear", ClearGroup(submissions=1, host=GONE))
    spec = JobSpec(job_key="a", state={"job_key": "a"}, request=to_json(slot_request(cpu_cores=1)))
    group = SubmitGroup(group_id="g1", class_name="m:C", jobs=(spec,))
    view = rig.write(lambda tx: rig.host.submission.submit(tx, "ab" * 16, group))
    assert not view.was_there
    collector = collector_id("g1")
    assert rig.value("SELECT epoch FROM residence WHERE agent_id = ?", collector) >= 1 << 30
    assert rig.value("SELECT target_store FROM fences WHERE agent_id = ?", collector) == "store-w1"
    late = rig.call(collector, "job_result", {"job_key": "a", "result": {"n": 2}, "generation": 1}).value
    assert late == {"accepted": False, "verdict": "earlier_submission"}
    found = rig.call(collector, "summary").value
    assert (found["pending_count"], found["duplicate_reports"]) == (1, [])
    own = rig.call(collector, "job_result", {"job_key": "a", "result": {"n": 3}, "generation": 1001}).value
    assert own["accepted"]


def test_a_late_copy_of_a_cleared_group_ends_though_the_next_one_has_no_such_job(rig: Rig) -> None:
    end(rig, clear=True, drop_results=True)
    rig.get(Done, "POST", "/v1/groups/g1/clear", ClearGroup(submissions=1, host=GONE))
    spec = JobSpec(job_key="a", state={"job_key": "a"}, request=to_json(slot_request(cpu_cores=1)))
    group = SubmitGroup(group_id="g1", class_name="m:C", jobs=(spec,))
    rig.write(lambda tx: rig.host.submission.submit(tx, "ab" * 16, group))
    ref = ProxyRef(agent_id=collector_id("g1"), host=rig.own)
    late = job("j9", "z", request=slot_request(cpu_cores=99), collector=ref)
    rig.write(lambda tx: residence.create(tx, late, rig.now()))
    rig.run(15)
    assert rig.value("SELECT status FROM residence WHERE agent_id = 'j9'") == "disposed"
