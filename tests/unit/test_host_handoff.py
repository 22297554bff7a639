"""Envelopes on their way: sent again until answered, taken back only where no byte of them was sent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from host_rig import Rig, envelope, group, host_ref, job, slot_request

from paglets.api.groups import GroupLine, Groups, GroupView, JobStatusReply, JobStatusReport, UnwantedCopy
from paglets.api.transfers import EnvelopeKey, Settle, TransferAnswer, TransferAnswers, Transfers
from paglets.codec.envelope import Envelope
from paglets.core.errors import InternalError, PagletsError, Unknown
from paglets.core.record import from_json
from paglets.groups.keys import collector_id
from paglets.host.groups.home import ASK_SECONDS
from paglets.host.handoff.placer import PLACED_FIRST
from paglets.store import residence
from paglets.worker.protocol import Fault
from tests.fakes.mesh import identity

TRANSFERS = "POST /v1/transfers"
CENSUS = "POST /v1/jobs/status"
W1 = host_ref("w1")


@pytest.fixture
def rig() -> Rig:
    return Rig()


class Target:
    """What a peer answers to transfers, and the envelopes that it got; `none`: an answer without them."""

    def __init__(self, verdict: str = "taken") -> None:
        self.verdict = verdict
        self.got: list[Envelope] = []
        self.batches: list[list[str]] = []
        self.trouble: list[Exception] = []

    def __call__(self, body: Any) -> TransferAnswers:
        transfers = from_json(Transfers, body)
        self.got += transfers.envelopes
        self.batches.append([each.kind for each in transfers.envelopes])
        if self.trouble:
            raise self.trouble.pop(0)
        answers = [self._answer(each) for each in transfers.envelopes if self.verdict != "none"]
        return TransferAnswers(answers=tuple(answers))

    def _answer(self, each: Envelope) -> TransferAnswer:
        verdict: Any = self.verdict
        return TransferAnswer(agent_id=each.agent_id, epoch=each.epoch, verdict=verdict, reason="no room")


def peer(rig: Rig, target: Target | None = None, **more: Any) -> Any:
    routes = {TRANSFERS: target or Target(), "GET /v1/host": lambda body: identity("w1"), **more}
    return rig.peer("w1", routes)


def leave(rig: Rig, each: Envelope) -> None:
    rig.write(lambda tx: residence.create(tx, each, rig.now()))
    rig.write(lambda tx: residence.leave(tx, each.agent_id, W1, rig.now()))
    rig.run()


def status(rig: Rig, agent_id: str = "p1") -> tuple[str, int]:
    return rig.all("SELECT status, epoch FROM residence WHERE agent_id = ?", agent_id)[0]  # type: ignore[return-value]


def test_what_was_taken_is_gone_from_here(rig: Rig) -> None:
    target = Target()
    peer(rig, target)
    leave(rig, envelope(storage={"k": [1]}))
    rig.run(1)
    assert status(rig) == ("gone", 2)
    assert [(each.epoch, each.storage) for each in target.got] == [(2, {"k": [1]})]


def test_what_was_settled_before_is_gone_too(rig: Rig) -> None:
    peer(rig, Target("settled"))
    leave(rig, envelope())
    rig.run(1)
    assert status(rig) == ("gone", 2)


def test_a_paglet_that_was_refused_is_here_again(rig: Rig) -> None:
    peer(rig, Target("refused"))
    leave(rig, envelope())
    rig.run(1)
    assert status(rig) == ("here", 2)


def test_a_refused_job_is_placed_again_with_its_age_and_the_reason(rig: Rig) -> None:
    peer(rig, Target("refused"))
    leave(rig, job("j1", waited_seconds=100.0, request=slot_request(rules={"required_tags": ("fast",)})))
    rig.run(1)
    row = rig.all("SELECT status, queued_at, reason FROM requests")[0]
    assert row[0] == "PLACING"
    assert rig.now() - row[1] > 100.0


def test_trouble_of_the_target_is_no_refusal_and_the_same_envelope_is_sent_again(rig: Rig) -> None:
    target = Target()
    target.trouble = [InternalError("disk"), InternalError("disk"), InternalError("disk"), InternalError("disk")]
    peer(rig, target)
    leave(rig, envelope())
    rig.run(0.5)
    assert status(rig) == ("leaving", 1)
    assert "disk" in rig.value("SELECT problem FROM handoffs")
    rig.run(20)
    assert status(rig) == ("gone", 2)
    assert {each.epoch for each in target.got} == {2}


def test_a_sign_of_life_cuts_the_pause_after_trouble_once_and_no_more(rig: Rig) -> None:
    class Busy(Target):
        def __call__(self, body: Any) -> TransferAnswers:
            rig.clock.advance(0.002)
            return super().__call__(body)

    target = Busy("none")
    peer(rig, target)
    leave(rig, envelope())
    rig.run(30)
    before = len(target.got)

    # Newer than this host's last look round, and its time goes on until the next one.
    rig.ask("GET", "/v1/host", sender=W1.store_id)
    for _ in range(100):
        rig.run(0.005)
        rig.host.runner.wake("handoff")

    assert 1 <= len(target.got) - before <= 3


def test_what_may_have_been_sent_is_never_taken_back_without_the_target(rig: Rig) -> None:
    target = Target()
    target.trouble = [InternalError("disk")]
    table = peer(rig, target)
    leave(rig, envelope())
    rig.run(0.05)
    rig.network.leave(table.ref.url)
    rig.run(120)
    assert status(rig) == ("leaving", 1)
    rig.network.join(table.ref.url, table.ref.store_id, table.handle)
    rig.run(20)
    assert status(rig) == ("gone", 2)


def test_what_the_target_left_out_of_its_answer_is_never_taken_back_without_it(rig: Rig) -> None:
    # A copy of the request may still be on its way, and the target may have room for it by then.
    target = Target("none")
    table = peer(rig, target)
    leave(rig, envelope())
    rig.run(0.05)
    rig.network.leave(table.ref.url)
    rig.run(120)
    assert target.got
    assert status(rig) == ("leaving", 1)


def test_what_was_taken_is_never_taken_back_though_the_answer_could_not_be_stored(rig: Rig) -> None:
    target = Target()
    table = peer(rig, target)
    rig.write(
        lambda tx: tx.run(
            "CREATE TRIGGER full BEFORE UPDATE ON residence WHEN NEW.status = 'gone'"
            " BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
    )
    leave(rig, envelope())
    rig.run(0.05)
    rig.network.leave(table.ref.url)
    rig.run(120)
    assert target.got
    assert status(rig) == ("leaving", 1)


def test_what_was_never_sent_is_taken_back_after_refused_connections(rig: Rig) -> None:
    leave(rig, envelope())
    rig.until(lambda: status(rig)[0] == "here", 30)
    assert status(rig) == ("here", 2)


def test_a_move_that_was_asked_for_stays_asked_for_when_it_is_taken_back(rig: Rig) -> None:
    leave(rig, envelope(hook="arrival"))
    rig.until(lambda: status(rig)[0] == "here", 30)
    assert rig.all("SELECT hook FROM paglets") == [(None,)]
    assert "store-w1" in rig.value("SELECT intent FROM paglets")


def test_a_hand_off_of_an_earlier_start_is_not_taken_back(rig: Rig) -> None:
    leave(rig, envelope())
    second = Rig(database=rig.store._writer)
    second.run(120)
    assert status(second) == ("leaving", 1)


def test_a_wiped_target_gets_nothing(rig: Rig) -> None:
    target = Target()
    table = peer(rig, target)
    rig.network.join(table.ref.url, "store-other", table.handle)
    leave(rig, envelope())
    rig.run(30)
    assert target.got == []
    assert status(rig)[0] == "leaving"


def test_many_leave_in_batches(rig: Rig) -> None:
    target = Target()
    table = peer(rig, target)

    def many(tx: Any) -> None:
        for number in range(600):
            residence.create(tx, envelope(f"q{number:03}"), 1.0)
            residence.leave(tx, f"q{number:03}", W1, 1.0)

    rig.write(many)
    rig.run(2)
    assert len(target.got) == 600
    assert len(table.bodies(TRANSFERS)) == 2
    assert rig.all("SELECT DISTINCT status FROM residence") == [("gone",)]


# The other side.


def transfer(rig: Rig, *envelopes: Envelope, sender: str = "store-w1") -> list[str]:
    body = Transfers(source=W1, envelopes=envelopes)
    answers: TransferAnswers = rig.get(TransferAnswers, "POST", "/v1/transfers", body, sender=sender)
    rig.run()
    return [answer.verdict for answer in answers.answers]


def test_an_envelope_is_taken_refused_or_known(rig: Rig) -> None:
    rig.write(lambda tx: residence.create(tx, envelope("named", name="bob"), 1.0))
    never = job("j2", "b", request=slot_request(cpu_cores=99))
    batch = (envelope(epoch=2), envelope("p2", epoch=2, name="bob"), job("j1"), never)
    assert transfer(rig, *batch) == ["taken", "refused", "taken", "refused"]
    assert transfer(rig, *batch) == ["taken", "refused", "taken", "refused"]
    assert rig.value("SELECT status FROM requests") == "RUNNING"
    assert rig.all("SELECT agent_id FROM residence WHERE status = 'refused' ORDER BY 1") == [("j2",), ("p2",)]


def test_an_envelope_may_only_come_from_the_source_that_it_names(rig: Rig) -> None:
    with pytest.raises(PagletsError, match="signed"):
        transfer(rig, envelope(), sender="store-w2")


def test_a_move_that_was_taken_back_is_never_taken(rig: Rig) -> None:
    settle = Settle(source=W1, asked=(EnvelopeKey(agent_id="p1", epoch=2), EnvelopeKey(agent_id="p2", epoch=2)))
    answers = rig.get(TransferAnswers, "POST", "/v1/transfers/settle", settle).answers
    assert [each.verdict for each in answers] == ["refused", "refused"]
    assert transfer(rig, envelope(epoch=2)) == ["refused"]


# A group on its way, from home.


def submit(rig: Rig, *keys: str, **fields: Any) -> None:
    rig.write(lambda tx: rig.host.submission.submit(tx, "ab" * 16, group(*keys, **fields)))
    rig.run()


def view(rig: Rig) -> GroupView:
    found: GroupView = rig.get(GroupView, "GET", "/v1/groups/g1")
    return found


def test_the_first_jobs_of_a_large_group_leave_before_the_others_are_placed(rig: Rig) -> None:
    target = Target()
    peer(rig, target, **{CENSUS: lambda body: JobStatusReply()})
    elsewhere = slot_request()
    keys = tuple(f"k{number}" for number in range(PLACED_FIRST + 300))
    submit(rig, *keys, request=type(elsewhere)(resources=elsewhere.resources))
    rig.run(2)
    jobs = [len(batch) for batch in target.batches if "job" in batch]
    assert jobs[0] == PLACED_FIRST
    assert sum(jobs) == len(keys)


def test_a_group_is_detached_when_nothing_of_it_needs_this_host(rig: Rig) -> None:
    target = Target()
    peer(rig, target, **{CENSUS: lambda body: JobStatusReply()})
    elsewhere = slot_request()
    submit(rig, "a", "b", request=type(elsewhere)(resources=elsewhere.resources))
    assert not view(rig).detached
    assert view(rig).detached_reason != ""
    rig.run(2)
    assert sorted(target.batches[0]) == ["collector", "job", "job"], "the jobs travel with their small collector"
    assert (view(rig).detached, view(rig).detached_reason) == (True, "")


def test_a_job_for_another_host_waits_until_its_collector_has_arrived(rig: Rig) -> None:
    target, other = Target("none"), Target()
    peer(rig, target, **{CENSUS: lambda body: JobStatusReply()})
    rig.peer("w2", {TRANSFERS: other, "GET /v1/host": lambda body: identity("w2")}, tags=("w2",))
    submit(rig, "a", collector_host="w1", request=slot_request(rules={"required_tags": ("w2",)}))
    rig.run(1)
    assert (target.batches[0], other.batches) == (["collector"], [])
    target.verdict = "taken"
    rig.run(10)
    assert other.batches == [["job"]]


def test_the_jobs_of_a_large_group_leave_after_its_collector(rig: Rig) -> None:
    target = Target()
    peer(rig, target, **{CENSUS: lambda body: JobStatusReply()})
    elsewhere = slot_request()
    keys = [f"k{n}" for n in range(100)]
    submit(rig, *keys, request=type(elsewhere)(resources=elsewhere.resources))
    rig.run(2)
    assert target.batches[0] == ["collector"]
    assert len(target.got) == len(keys) + 1


def test_the_jobs_of_a_group_are_kept_here_until_its_collector_says_that_it_is_over(rig: Rig) -> None:
    over = False

    def collected(body: Any) -> GroupView:
        shown = view(rig)
        return replace(shown, detached=over)

    peer(rig, **{CENSUS: lambda body: JobStatusReply(), "GET /v1/groups/g1": collected})
    elsewhere = slot_request()
    submit(rig, "a", request=type(elsewhere)(resources=elsewhere.resources))
    rig.run(130)
    assert view(rig).detached
    assert rig.value("SELECT count(*) = 1 FROM group_specs")
    over = True
    rig.run(70)
    assert rig.value("SELECT count(*) = 0 FROM group_specs")


def test_home_keeps_the_last_counts_for_when_the_collectors_host_is_offline(rig: Rig) -> None:
    def collected(body: Any) -> GroupView:
        return replace(view(rig), detached=False, expected_count=3, completed_count=2, failed_count=1)

    table = peer(rig, **{CENSUS: lambda body: JobStatusReply(), "GET /v1/groups/g1": collected})
    elsewhere = slot_request()
    submit(rig, "a", request=type(elsewhere)(resources=elsewhere.resources))
    rig.run(30)
    table.routes["GET /v1/groups/g1"] = refused
    heard = rig.clock.wall()
    rig.run(300)
    line = lines(rig)
    assert (line.status, line.here) == ("DETACHED", False)
    assert (line.expected_count, line.completed_count, line.failed_count) == (3, 2, 1)
    assert line.counted_at is not None
    assert heard - ASK_SECONDS <= line.counted_at <= heard


def test_home_shows_the_status_of_a_complete_group_and_the_counts_of_others(rig: Rig) -> None:
    def collected(body: Any) -> GroupView:
        counts = {"expected_count": 1, "completed_count": 1, "failed_count": 0}
        return replace(view(rig), detached=True, status="COMPLETE", **counts)

    table = peer(rig, **{CENSUS: lambda body: JobStatusReply(), "GET /v1/groups/g1": refused})
    elsewhere = slot_request()
    submit(rig, "a", request=type(elsewhere)(resources=elsewhere.resources))
    rig.run(30)
    line = lines(rig)
    assert (line.status, line.expected_count, line.completed_count) == ("DETACHED", 1, None)
    table.routes["GET /v1/groups/g1"] = collected
    rig.run(30)
    line = lines(rig)
    assert (line.status, line.here, line.completed_count) == ("COMPLETE", False, 1)


def refused(body: Any) -> GroupView:
    raise Unknown("no group")


def lines(rig: Rig) -> GroupLine:
    (line,) = rig.get(Groups, "GET", "/v1/groups").groups
    return line


def test_a_group_of_a_host_that_is_alone_says_why_it_is_not_detached(rig: Rig) -> None:
    submit(rig, "a")
    rig.run(1)
    assert (view(rig).detached, view(rig).detached_reason) == (False, "this is the only host: the jobs run here")


def test_a_group_with_a_job_that_finds_no_host_says_how_many(rig: Rig) -> None:
    peer(rig, **{CENSUS: lambda body: JobStatusReply()})
    submit(rig, "a", request=slot_request(rules={"required_tags": ("fast",)}))
    rig.run(2)
    assert view(rig).detached_reason == "1 job has no host yet"


# JobStatusReport.


def told(table: Any) -> list[dict[str, tuple[str, str]]]:
    found = [from_json(JobStatusReport, body) for body in table.bodies(CENSUS)]
    return [{copy.job_key: (copy.status, copy.residence) for copy in each.copies} for each in found]


def test_a_collectors_host_is_told_of_the_copies_here_and_again_every_ten_seconds(rig: Rig) -> None:
    table = peer(rig, **{CENSUS: lambda body: JobStatusReply()})
    rig.write(lambda tx: residence.create(tx, job("j1"), rig.now()))
    rig.run(1.5)
    assert told(table)[-1] == {"a": ("RUNNING", "here")}
    before = len(told(table))
    rig.run(30)
    assert len(told(table)) - before in (2, 3)


def test_a_running_copy_is_told_of_though_another_has_ended_since(rig: Rig) -> None:
    table = peer(rig, **{CENSUS: lambda body: JobStatusReply()})
    for agent_id, key in (("j1", "a"), ("j2", "b")):
        each = job(agent_id, key)
        rig.write(lambda tx, each=each: residence.create(tx, each, rig.now()))
    rig.run(5)
    process = rig.process("j2")
    rig.report(process)
    rig.finish(process)
    rig.run(5)
    before = len(told(table))
    rig.run(25)
    assert told(table)[before:] != []
    assert all(copies["a"] == ("RUNNING", "here") for copies in told(table)[before:])


def test_a_copy_that_waits_for_its_next_attempt_is_told_of(rig: Rig) -> None:
    table = peer(rig, **{CENSUS: lambda body: JobStatusReply()})
    whole_host = slot_request(cpu_cores=4, max_attempts=2)
    rig.write(lambda tx: residence.create(tx, job("j1", request=whole_host), rig.now()))
    rig.run()
    rig.write(lambda tx: residence.create(tx, job("j2", "b", waited_seconds=99.0, request=whole_host), rig.now()))
    rig.finish(rig.process("j1"), fault=Fault(cause="exception", message="no"))
    assert rig.all("SELECT job_key, status FROM requests ORDER BY job_key") == [
        ("a", "WAITING_FOR_SLOT"),
        ("b", "RUNNING"),
    ]
    rig.run(2)
    assert told(table)[-1]["a"] == ("WAITING_FOR_SLOT", "here")


def test_copies_that_are_not_wanted_are_ended(rig: Rig) -> None:
    reply = JobStatusReply(
        unwanted=(UnwantedCopy(agent_id="j1", cause="cancelled"), UnwantedCopy(agent_id="x", cause="c"))
    )
    peer(rig, **{CENSUS: lambda body: reply})
    rig.write(lambda tx: residence.create(tx, job("j1"), rig.now()))
    rig.run(3)
    assert rig.process("j1").told_to_end
    assert status(rig, "j1")[0] == "disposed"
    assert rig.outbox() == []


def test_a_collector_here_takes_the_census_and_one_elsewhere_is_named(rig: Rig) -> None:
    submit(rig, "a")
    body = JobStatusReport(host=W1, copies=(), group_ids=("g1", "g2"))
    reply: JobStatusReply = rig.get(JobStatusReply, "POST", "/v1/jobs/status", body)
    assert reply == JobStatusReply(elsewhere=("g2",))
    assert rig.value("SELECT status FROM residence WHERE agent_id = ?", collector_id("g1")) == "here"
