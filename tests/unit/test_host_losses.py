"""Jobs whose host is lost are begun anew by the host of their collector; those of a host that is only slow are not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from host_rig import Rig, group, job, slot_request

from paglets.api.blobs import BlobState, BlobStates
from paglets.api.groups import Census, CensusReply, GroupView, JobCopy, UnwantedCopy
from paglets.api.paglets import Located, ResidenceRow
from paglets.api.slots import Slots
from paglets.api.transfers import TransferAnswer, TransferAnswers, Transfers
from paglets.core.record import from_json
from paglets.core.refs import FileRef, HostRef
from paglets.groups.keys import collector_id
from paglets.slots.model import Resources, SlotRequest
from paglets.store import residence
from paglets.testing.exchange import TableHost

COLLECTOR = collector_id("g1")
NOT_HERE = SlotRequest(resources=Resources(cpu_cores=1))
"""Jobs that may not run at home, where their collector is."""


class Worker:
    """A host that takes jobs, tells of them as long as it `lists` them, and may be cut off."""

    def __init__(self, rig: Rig, name: str) -> None:
        self.rig = rig
        self.copies: dict[str, JobCopy] = {}
        self.lists = True
        self.host: TableHost = rig.peer(
            name, {"POST /v1/transfers": self._take, "POST /v1/paglets/locate": self._locate}
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
                waited_seconds=0.0,
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

    def tell(self) -> CensusReply:
        """Its census."""
        told = Census(host=self.ref, copies=tuple(self.copies.values()), group_ids=("g1",))
        reply: CensusReply = self.rig.get(CensusReply, "POST", "/v1/census", told, sender=self.ref.store_id)
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
    assert lost[1] == "begun anew: w1 was not heard of for 120 s"


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


def test_a_report_that_lies_in_the_inbox_is_waited_for(rig: Rig) -> None:
    worker = Worker(rig, "w1")
    rig.until(lambda: worker.keys() == [("a", 1), ("b", 1)])
    worker.tell()
    worker.cut_off()
    second = Worker(rig, "w2")
    rig.write(
        lambda tx: tx.run(
            "INSERT INTO inbox (agent_id, sender_store, n, message, status) VALUES (?, 's', 1, '{}', 'waiting')",
            COLLECTOR,
        )
    )
    rig.write(lambda tx: tx.run("UPDATE paglets SET class_name = 'm:Own' WHERE agent_id = ?", COLLECTOR))
    rig.run(300.0)
    assert second.keys() == []


def test_a_job_that_is_on_its_way_to_a_lost_host_is_begun_anew(rig: Rig) -> None:
    first = Worker(rig, "w1")
    first.host.routes["POST /v1/transfers"] = lambda body: TransferAnswers(answers=())
    rig.until(lambda: first.host.bodies("POST /v1/transfers"))
    first.cut_off()
    second = Worker(rig, "w2")
    rig.run(100.0)
    assert second.keys() == []
    rig.until(lambda: second.keys() == [("a", 2), ("b", 2)])


def test_max_losses_bounds_how_often_a_job_is_begun_anew() -> None:
    rig = Rig(host_lost_after_seconds=20.0)
    rig.get(GroupView, "POST", "/v1/groups", group("a", request=replace(NOT_HERE, max_losses=1)))
    first = Worker(rig, "w1")
    rig.until(lambda: first.keys() == [("a", 1)])
    first.cut_off()
    rig.run(15.0)
    second = Worker(rig, "w2")
    rig.until(lambda: second.keys() == [("a", 2)])
    second.tell()
    second.cut_off()
    rig.until(lambda: "a" in failures(rig))
    failure = failures(rig)["a"]
    assert (failure["cause"], failure["generation"], failure["host_name"]) == ("host_lost", 2, "w2")
    assert failure["message"] == "lost 2 times with its host, the last time on w2; max_losses is 1"


# Inputs.


def with_input(rig: Rig) -> FileRef:
    """A group g1 of one job with an input, which is not here any more: a collector that came from elsewhere."""
    blob = rig.host.keeper.put(b"the input of a job")
    file = FileRef(name="in.txt", sha256=blob.sha256, size_bytes=blob.size_bytes)
    rig.get(GroupView, "POST", "/v1/groups", group("a", request=NOT_HERE, inputs=(file,)))
    worker = Worker(rig, "w1")
    worker.host.routes["POST /v1/blobs/state"] = lambda body: states(body, complete=True)
    rig.until(lambda: worker.keys() == [("a", 1)])
    rig.write(lambda tx: tx.run("DELETE FROM group_blobs"))
    rig.write(lambda tx: tx.run("DELETE FROM blobs"))
    rig.blobs.remove(blob.sha256)
    worker.tell()
    worker.cut_off()
    return file


def states(body: Any, *, complete: bool) -> BlobStates:
    return BlobStates(blobs=tuple(BlobState(sha256=sha, offset=0, complete=complete) for sha in body["sha256s"]))


def test_inputs_that_only_an_absent_host_has_are_waited_for_and_then_the_job_fails() -> None:
    rig = Rig(host_lost_after_seconds=20.0, input_wait_seconds=1000.0)
    with_input(rig)
    rig.until(lambda: pending(rig)["a"]["reason"] == "input_absent")
    told = pending(rig)["a"]
    assert told["reason_text"].endswith("no host that is online has its input in.txt")
    assert told["host_name"] == "w1"
    rig.run(500.0)
    assert pending(rig)["a"]["since"] == told["since"]
    rig.until(lambda: "a" in failures(rig), within_seconds=1000.0)
    assert failures(rig)["a"]["cause"] == "host_lost"


def test_inputs_are_fetched_from_a_host_that_has_them() -> None:
    rig = Rig(host_lost_after_seconds=20.0)
    with_input(rig)
    rig.until(lambda: pending(rig)["a"]["reason"] == "input_absent")
    other = Rig(name="w2", beside=rig)
    other.host.keeper.put(b"the input of a job")
    rig.until(lambda: other.value("SELECT generation FROM requests WHERE job_key = 'a'") == 2, within_seconds=120.0)


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
    rig.peer("w1", {"POST /v1/census": lambda body: CensusReply(unwanted=tuple(unwanted))})
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
    assert statuses(rig) == [("WAITING_FOR_SLOT", "census_awaited")]
    rig.run(8.0)
    assert statuses(rig) == [("RUNNING", "")]


def test_a_short_gap_holds_up_no_job() -> None:
    rig = Rig()
    rig.run(11.0)
    stopped_for(rig, 20.0)
    rig.run(0.5)
    assert statuses(rig) == [("RUNNING", "")]
