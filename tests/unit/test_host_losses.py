"""Jobs whose host is lost are begun anew by the host of their collector; those of a host that is only slow are not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from host_rig import Rig, group, job, slot_request

from paglets.api.groups import GroupView, JobCopy, JobStatusReply, JobStatusReport, UnwantedCopy
from paglets.api.paglets import Located, ResidenceRow
from paglets.api.slots import Slots
from paglets.api.transfers import TransferAnswer, TransferAnswers, Transfers
from paglets.core.errors import InternalError
from paglets.core.record import from_json
from paglets.core.refs import HostRef
from paglets.groups.keys import collector_id
from paglets.host.groups import lost_jobs
from paglets.slots.model import PlacementRules, Resources, SlotRequest
from paglets.store import paglets, residence
from paglets.wire.request import reply
from tests.fakes.exchange import TableHost

COLLECTOR = collector_id("g1")
NOT_HERE = SlotRequest(resources=Resources(cpu_cores=1), rules=PlacementRules(required_tags=("worker",)))
"""Jobs that may not run at home, where their collector is."""


class Worker:
    """A host that takes jobs, tells of them as long as it `lists` them, and may be cut off."""

    def __init__(self, rig: Rig, name: str, copies: dict[str, JobCopy] | None = None) -> None:
        self.rig = rig
        self.copies: dict[str, JobCopy] = dict(copies or {})
        self.lists = True
        self.host: TableHost = rig.peer(
            name, {"POST /v1/transfers": self._take, "POST /v1/paglets/locate": self._locate}, tags=("worker",)
        )

    @property
    def ref(self) -> HostRef:
        return self.host.ref

    def _take(self, body: Any) -> TransferAnswers:
        envelopes = from_json(Transfers, body).envelopes
        for each in envelopes:
            assert each.job is not None
            self.copies[each.agent_id] = JobCopy(
                agent_id=each.agent_id,
                group_id=each.job.group_id or "",
                job_key=each.job.job_key,
                generation=each.job.generation,
                attempt=1,
                epoch=each.epoch,
                status="RUNNING",
                residence="here",
                reason="",
                reason_text="",
                never=False,
            )
        return TransferAnswers(
            answers=tuple(TransferAnswer(agent_id=e.agent_id, epoch=e.epoch, verdict="taken") for e in envelopes)
        )

    def _locate(self, body: Any) -> Located:
        rows = [
            ResidenceRow(agent_id=copy.agent_id, epoch=copy.epoch, status="here")
            for copy in (self.copies.values() if self.lists else ())
            if copy.agent_id in body["agent_ids"]
        ]
        return Located(rows=tuple(rows))

    def tell(self) -> JobStatusReply:
        """Its census."""
        told = JobStatusReport(host=self.ref, copies=tuple(self.copies.values()), group_ids=("g1",))
        reply: JobStatusReply = self.rig.get(JobStatusReply, "POST", "/v1/jobs/status", told, sender=self.ref.store_id)
        return reply

    def keys(self) -> list[tuple[str, int]]:
        return sorted((copy.job_key, copy.generation) for copy in self.copies.values())

    def cut_off(self) -> None:
        """From now on nothing is heard of it."""
        self.rig.network.leave(self.ref.url)


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    submitted: GroupView = rig.get(GroupView, "POST", "/v1/groups", group("a", "b", request=NOT_HERE))
    assert submitted.collector.host == rig.own
    return rig


def started(rig: Rig, *keys: str) -> Worker:
    """A group g1 of these jobs, which w1 has taken."""
    rig.get(GroupView, "POST", "/v1/groups", group(*keys, request=NOT_HERE))
    worker = Worker(rig, "w1")
    rig.until(lambda: worker.keys() == [(key, 1) for key in keys])
    return worker


def pending(rig: Rig) -> dict[str, dict[str, Any]]:
    reply = rig.call(COLLECTOR, "summary")
    rig.run()
    return {job["job_key"]: job for job in reply.value["pending_jobs"]}


def failures(rig: Rig) -> dict[str, dict[str, Any]]:
    reply = rig.call(COLLECTOR, "summary")
    rig.run()
    failed: dict[str, dict[str, Any]] = reply.value["failures"]
    return failed


def report(rig: Rig, key: str, generation: int) -> Any:
    reply = rig.call(COLLECTOR, "job_result", {"job_key": key, "result": generation, "generation": generation})
    rig.run()
    return reply.value


def test_jobs_of_a_host_that_is_lost_run_on_another_one(rig: Rig) -> None:
    first = Worker(rig, "w1")
    rig.until(lambda: first.keys() == [("a", 1), ("b", 1)])
    first.tell()
    second = Worker(rig, "w2")
    first.cut_off()
    rig.run(100.0)
    assert second.keys() == []
    rig.until(lambda: second.keys() == [("a", 2), ("b", 2)])
    (lost, _) = rig.all("SELECT subject, text FROM events WHERE kind = 'lost' ORDER BY id")
    assert lost[0].startswith("a (")
    assert lost[1] == "resubmitted: w1 was not seen for 120 s"


@pytest.mark.parametrize("lost_after", [10.0, 13.0, 45.0, 120.0])
def test_a_host_is_lost_at_the_second_when_it_was_unreachable_for_long_enough(lost_after: float) -> None:
    rig = Rig(host_lost_after_seconds=lost_after)
    first = started(rig, "a")
    first.tell()
    first.cut_off()
    mute_since = rig.clock.monotonic()
    second = Worker(rig, "w2")
    rig.until(lambda: second.keys() == [("a", 2)], within_seconds=2 * lost_after)
    assert lost_after - 1 <= rig.clock.monotonic() - mute_since <= lost_after + 3


def test_a_host_that_answers_keeps_its_jobs_though_no_census_comes(rig: Rig) -> None:
    worker = Worker(rig, "w1")
    rig.until(lambda: worker.keys() == [("a", 1), ("b", 1)])
    rig.run(1000.0)
    assert worker.keys() == [("a", 1), ("b", 1)]


def test_a_host_that_has_no_copy_any_more_is_asked_three_times(rig: Rig) -> None:
    worker = Worker(rig, "w1")
    rig.until(lambda: worker.keys() == [("a", 1), ("b", 1)])
    worker.tell()
    worker.lists = False
    rig.run(80.0)
    assert worker.keys() == [("a", 1), ("b", 1)]
    rig.until(lambda: worker.keys() == [("a", 1), ("a", 2), ("b", 1), ("b", 2)])


def test_the_result_of_a_lost_copy_that_comes_back_counts_and_ends_the_other(rig: Rig) -> None:
    first = Worker(rig, "w1")
    rig.until(lambda: first.keys() == [("a", 1), ("b", 1)])
    second = Worker(rig, "w2")
    first.cut_off()
    rig.until(lambda: second.keys() == [("a", 2), ("b", 2)], within_seconds=200.0)
    assert report(rig, "a", 1)["accepted"]
    assert report(rig, "a", 2) == {"accepted": False, "verdict": "already_recorded"}
    (unwanted,) = second.tell().unwanted
    assert (second.copies[unwanted.agent_id].job_key, unwanted.cause) == ("a", "recorded")


def test_a_host_that_slept_does_not_take_the_others_for_lost(rig: Rig) -> None:
    worker = Worker(rig, "w1")
    rig.until(lambda: worker.keys() == [("a", 1), ("b", 1)])
    worker.tell()
    rig.clock.advance(10_000.0)
    rig.run(30.0)
    assert worker.keys() == [("a", 1), ("b", 1)]


def no_answer(body: Any) -> Located:
    raise InternalError("too busy")


def test_a_host_that_gives_no_answer_has_not_said_that_it_has_no_copy() -> None:
    rig = Rig(host_lost_after_seconds=3600.0)
    worker = started(rig, "a")
    worker.tell()
    worker.host.routes["POST /v1/paglets/locate"] = no_answer
    rig.run(300.0)
    assert worker.keys() == [("a", 1)]


def test_what_was_asked_for_while_a_host_was_away_does_not_count_when_it_is_back() -> None:
    rig = Rig(host_lost_after_seconds=3600.0)
    worker = started(rig, "a")
    worker.tell()
    worker.lists = False
    rig.run(70.0)  # it said twice that it has none
    worker.cut_off()
    rig.run(200.0)
    rig.network.join(worker.ref.url, worker.ref.store_id, worker.host.handle)
    rig.run(50.0)
    assert worker.keys() == [("a", 1)]
    rig.until(lambda: worker.keys() == [("a", 1), ("a", 2)])


def test_an_answer_to_a_question_is_a_sign_that_the_host_speaks_to_this_one() -> None:
    rig = Rig(host_lost_after_seconds=3600.0)
    worker = started(rig, "a")
    worker.host.routes["POST /v1/mesh/gossip"] = no_answer
    rig.run(5.0)
    rig.host.paglet_locator.locate(("a",), lambda located: None)
    rig.run(1.0)
    assert rig.host.gossip.seconds_since_contact(worker.ref.store_id) <= 1.0


def test_an_older_copy_that_goes_on_does_not_hide_that_the_newest_is_lost() -> None:
    rig = Rig(host_lost_after_seconds=20.0)
    before = started(rig, "a")
    before.tell()
    before.cut_off()
    newer = Worker(rig, "w2")
    rig.until(lambda: newer.keys() == [("a", 2)])
    newer.tell()
    again = Rig(host_lost_after_seconds=20.0, database=rig.store._writer)
    again.run(2.5)
    older, other = Worker(again, "w1", before.copies), Worker(again, "w3")
    for _ in range(30):
        older.tell()
        again.run(4.0)
    assert ("a", 3) in older.keys() + other.keys()


def test_keys_that_have_ended_hold_up_no_others() -> None:
    rig = Rig(host_lost_after_seconds=20.0)
    keys = [f"k{number:03d}" for number in range(lost_jobs.KEYS_A_LOOK + 10)]
    worker = started(rig, *keys)
    rig.call(COLLECTOR, "cancel", {"job_keys": keys[:-1]})
    rig.run(1.0)
    asked = len(worker.host.bodies("POST /v1/paglets/locate"))
    rig.run(21.0)
    assert len(worker.host.bodies("POST /v1/paglets/locate")) == asked + 1


class NoAnswers:
    """In place of `PagletLocator`."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def locate(self, agent_ids: list[str], done: Any) -> None:
        self.asked.append(agent_ids)


def test_a_question_without_an_answer_is_asked_again() -> None:
    rig = Rig(host_lost_after_seconds=20.0)
    started(rig, "a")
    mesh = NoAnswers()
    part = lost_jobs.LostJobDetector(rig.host.services, rig.host.gossip, mesh, rig.host.lost_jobs._resubmission)  # type: ignore[arg-type]
    for _ in range(30):
        part.tick(rig.clock.monotonic())
        rig.clock.advance(2.0)
    assert 2 <= len(mesh.asked) <= 3


def test_what_is_told_of_groups_that_are_not_here_is_not_kept() -> None:
    rig = Rig()
    worker = started(rig, "a")
    rig.run(1.0)
    (copy,) = worker.copies.values()
    worker.copies["j"] = replace(copy, agent_id="j", group_id="elsewhere")
    assert worker.tell().elsewhere == ("elsewhere",)
    assert [[told.agent_id for told in page] for page in rig.host.lost_jobs._reports] == [[copy.agent_id]]


def test_a_host_whose_groups_have_ended_keeps_nothing_of_what_it_is_told() -> None:
    rig = Rig()
    worker = started(rig, "a")
    rig.call(COLLECTOR, "cancel")
    rig.run(3.0)
    assert [copy.cause for copy in worker.tell().unwanted] == ["cancelled"]
    assert not rig.host.lost_jobs._reports


def test_a_row_that_cannot_be_read_takes_no_other_group_with_it() -> None:
    rig = Rig(host_lost_after_seconds=20.0)
    for group_id, key in (("g1", "a"), ("g2", "b")):
        rig.get(GroupView, "POST", "/v1/groups", group(key, group_id=group_id, request=NOT_HERE))
    for row, value in (("job/a", {"mine": 1}), ("template/report.html", "<html>"), ("job/x", "<html>")):
        rig.write(lambda tx, row=row, value=value: paglets.storage_set(tx, COLLECTOR, row, value))  # type: ignore[misc]
    worker = Worker(rig, "w1")
    rig.until(lambda: worker.keys() == [("a", 1), ("b", 1)])
    assert worker.tell().unwanted == ()
    worker.cut_off()
    second = Worker(rig, "w2")
    rig.until(lambda: second.keys() == [("b", 2)])
    rig.run(100.0)
    assert rig.faults() == []
    assert rig.all("SELECT subject FROM events WHERE kind = 'unreadable'") == [(f"a ({COLLECTOR})",)]


def test_a_job_that_is_on_its_way_to_a_lost_host_is_begun_anew(rig: Rig) -> None:
    first = Worker(rig, "w1")
    first.host.routes["POST /v1/transfers"] = lambda body: TransferAnswers(answers=())
    rig.until(lambda: first.host.bodies("POST /v1/transfers"))
    first.cut_off()
    second = Worker(rig, "w2")
    rig.run(100.0)
    assert second.keys() == []
    rig.until(lambda: second.keys() == [("a", 2), ("b", 2)])


# After a gap of one's own.


def stopped_for(rig: Rig, seconds: float) -> None:
    """It does nothing for so long; meanwhile a job of g1 comes into its queue."""
    rig.write(lambda tx: residence.create(tx, job("j1", request=slot_request()), rig.now()))
    rig.clock.advance(seconds)


def statuses(rig: Rig) -> list[tuple[str, str]]:
    return [(each.status, each.reason) for each in rig.get(Slots, "GET", "/v1/slots").jobs]


def test_a_host_that_did_nothing_for_long_asks_before_it_starts_jobs() -> None:
    rig = Rig()
    unwanted: list[UnwantedCopy] = []
    rig.peer("w1", {"POST /v1/jobs/status": lambda body: JobStatusReply(unwanted=tuple(unwanted))})
    unwanted.append(UnwantedCopy(agent_id="j1", cause="recorded"))
    stopped_for(rig, 300.0)
    rig.run(1.0)
    assert rig.launcher.of("j1") == []
    assert statuses(rig) == []
    assert rig.value("SELECT status FROM residence WHERE agent_id = 'j1'") == "disposed"


def test_it_starts_them_when_nobody_says_so_for_ten_seconds() -> None:
    rig = Rig()
    stopped_for(rig, 300.0)
    rig.run(5.0)
    assert statuses(rig) == [("WAITING_FOR_SLOT", "status_awaited")]
    rig.run(8.0)
    assert statuses(rig) == [("RUNNING", "")]


def test_only_an_answer_to_what_was_asked_after_the_gap_ends_the_wait() -> None:
    rig = Rig()
    answers: list[Any] = []
    rig.peer("w1", {"POST /v1/jobs/status": lambda body: JobStatusReply()})
    rig.write(lambda tx: residence.create(tx, job("j1", request=slot_request()), rig.now()))
    transport = rig.host.services.transport
    send = transport.send

    def hold(host: HostRef, request: Any, done: Any, *, timeout_seconds: float) -> None:
        if request.target == "/v1/jobs/status":
            answers.append(done)
        else:
            send(host, request, done, timeout_seconds=timeout_seconds)

    transport.send = hold  # type: ignore[method-assign]
    rig.run(1.0)
    stopped = len(answers)
    rig.clock.advance(300.0)
    rig.run(0.5)
    assert len(answers) == stopped + 1
    answers[0](reply(JobStatusReply()))
    rig.run(0.5)
    assert rig.host.reconciliation.awaited()
    answers[-1](reply(JobStatusReply()))
    rig.run(0.5)
    assert statuses(rig) == [("RUNNING", "")]


def test_a_short_gap_holds_up_no_job() -> None:
    rig = Rig()
    rig.run(11.0)
    stopped_for(rig, 20.0)
    rig.run(0.5)
    assert statuses(rig) == [("RUNNING", "")]


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_further_copy_looks_for_a_host_as_long_as_an_older_one_is_at_work(comes_back: bool) -> None:
    rig = Rig(host_lost_after_seconds=20.0)
    bounded = replace(NOT_HERE, placement_timeout_seconds=40.0)
    rig.get(GroupView, "POST", "/v1/groups", group("a", request=bounded))
    worker = Worker(rig, "w1")
    rig.until(lambda: worker.keys() == [("a", 1)])
    worker.cut_off()
    rig.until(lambda: rig.value("SELECT generation FROM requests WHERE job_key = 'a'") == 2, within_seconds=120.0)
    for _ in range(12):
        if comes_back:
            worker.tell()
        rig.run(5.0)
    assert ("a" in failures(rig)) is not comes_back
