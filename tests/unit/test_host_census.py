"""What a host tells the collectors' hosts of the copies that it has."""

from __future__ import annotations

from typing import Any

import pytest
from host_rig import Rig, host_ref, job, slot_request

from paglets.api.groups import FlushJobStatus, JobStatusReply, JobStatusReport, UnfinishedCount
from paglets.api.paglets import Located, ResidenceRow
from paglets.api.slots import Slots
from paglets.core.errors import NoRoom
from paglets.core.record import from_json
from paglets.groups.keys import collector_id
from paglets.store import residence
from paglets.store.copies import page
from paglets.wire.request import reply


@pytest.fixture
def rig() -> Rig:
    return Rig()


def collector_host(rig: Rig, *, takes_reports: bool) -> list[JobStatusReport]:
    """A host w1 with the collector of g1; gives the list of what is told to it."""
    told: list[JobStatusReport] = []

    def census(body: Any) -> JobStatusReply:
        told.append(from_json(JobStatusReport, body))
        return JobStatusReply()

    def posts(body: Any) -> None:
        raise NoRoom("the disk of w1 is full")

    routes = {"POST /v1/jobs/status": census} | ({} if takes_reports else {"POST /v1/posts": posts})
    rig.peer("w1", routes)
    return told


def test_a_job_whose_report_does_not_get_away_is_told_with_the_reason(rig: Rig) -> None:
    told = collector_host(rig, takes_reports=False)
    rig.write(lambda tx: residence.create(tx, job("j1", request=slot_request()), rig.now()))
    rig.run()
    process = rig.process("j1")
    rig.report(process)
    rig.finish(process)

    rig.until(lambda: told and told[-1].copies[0].reason == "report_waits")

    (copy,) = told[-1].copies
    assert (copy.agent_id, copy.status, copy.never) == ("j1", "COMPLETED", False)
    assert copy.reason_text == "it has ended, and its report waits: the disk of w1 is full"
    (view,) = rig.get(Slots, "GET", "/v1/slots").jobs
    assert (view.reason, view.reason_text) == (copy.reason, copy.reason_text)


def test_who_asks_for_a_census_is_told_how_many_copies_have_not_ended(rig: Rig) -> None:
    told = collector_host(rig, takes_reports=True)
    for agent_id, key in (("j1", "a"), ("j2", "b")):
        rig.write(lambda tx, a=agent_id, k=key: residence.create(tx, job(a, k, request=slot_request()), rig.now()))
    rig.run(2.0)
    before = len(told)

    def count(*keys: str) -> int:
        body = FlushJobStatus(job_keys=keys or None)
        found: UnfinishedCount = rig.get(UnfinishedCount, "POST", "/v1/groups/g1/unfinished", body)
        return found.count

    assert (count(), count("a"), count("a", "b"), count("c")) == (2, 1, 2, 0)
    rig.run(1.0)
    assert len(told) == before + 1
    assert rig.get(UnfinishedCount, "POST", "/v1/groups/g9/unfinished", FlushJobStatus()).count == 0


def test_pages_of_a_whole_census_have_each_copy_once(rig: Rig) -> None:
    rig.peer("w3", {"POST /v1/transfers": lambda body: None})
    for number in range(7):
        rig.write(lambda tx, n=number: residence.create(tx, job(f"j{n}", f"k{n}"), rig.now()))
    for agent_id in ("j1", "j4", "j5"):
        rig.write(lambda tx, each=agent_id: residence.leave(tx, each, host_ref("w3"), rig.now()))

    found: list[str] = []
    pages, after = 0, ""
    while pages == 0 or after:
        copies, after = rig.host.services.store.read(lambda tx, beyond=after: page(tx, beyond, 2))
        found += [copy.agent_id for _, copy in copies]
        pages += 1

    assert sorted(found) == [f"j{number}" for number in range(7)]
    assert pages > 2
    whole, end = rig.host.services.store.read(lambda tx: page(tx, "", -1))
    assert (len(whole), end) == (7, "")


def test_of_a_copy_that_is_leaving_the_collector_is_told_where_it_lives_now(rig: Rig) -> None:
    # Its envelope named the host where the collector was when it left, and went on doing so for ever.
    told: list[JobStatusReport] = []

    def census(body: Any) -> JobStatusReply:
        told.append(from_json(JobStatusReport, body))
        return JobStatusReply()

    def transfers(body: Any) -> None:
        raise NoRoom("the disk of w3 is full")

    def locate(body: Any) -> Located:
        return Located(rows=(ResidenceRow(agent_id=collector_id("g1"), epoch=3, status="here"),))

    rig.peer("w1", {"POST /v1/jobs/status": lambda body: JobStatusReply(elsewhere=("g1",))})
    rig.peer("w2", {"POST /v1/jobs/status": census, "POST /v1/paglets/locate": locate})
    rig.peer("w3", {"POST /v1/transfers": transfers})
    rig.write(lambda tx: residence.create(tx, job("j1"), rig.now()))
    rig.write(lambda tx: residence.leave(tx, "j1", host_ref("w3"), rig.now()))

    rig.until(lambda: told, 30)

    (copy,) = told[-1].copies
    assert (copy.agent_id, copy.residence, copy.epoch) == ("j1", "leaving", 1)


@pytest.mark.parametrize("is_member", [True, False])
def test_a_collector_that_moved_on_before_its_host_went_away_is_told(rig: Rig, is_member: bool) -> None:
    told: list[JobStatusReport] = []

    def census(body: Any) -> JobStatusReply:
        told.append(from_json(JobStatusReport, body))
        return JobStatusReply()

    def locate(body: Any) -> Located:
        return Located(rows=(ResidenceRow(agent_id=collector_id("g1"), epoch=3, status="here"),))

    if is_member:
        gone = rig.peer("w1")
        rig.network.leave(gone.ref.url)
    rig.peer("w2", {"POST /v1/jobs/status": census, "POST /v1/paglets/locate": locate})
    rig.write(lambda tx: residence.create(tx, job("j1"), rig.now()))

    rig.until(lambda: told, 120)

    assert told[-1].copies[0].agent_id == "j1"


def test_copies_of_a_group_whose_collector_was_disposed_of_are_ended(rig: Rig) -> None:
    ended = Located(rows=(ResidenceRow(agent_id=collector_id("g1"), epoch=3, status="disposed"),))
    rig.peer("w1", {"POST /v1/jobs/status": lambda body: JobStatusReply(elsewhere=("g1",))})
    rig.peer("w2", {"POST /v1/paglets/locate": lambda body: ended})
    rig.write(lambda tx: residence.create(tx, job("j1"), rig.now()))
    rig.run()
    process = rig.process("j1")
    rig.until(lambda: process.told_to_end, 60)


def test_a_report_that_failed_is_repeated_with_the_state_of_then(rig: Rig) -> None:
    told: list[JobStatusReport] = []

    def full(body: Any) -> JobStatusReply:
        told.append(from_json(JobStatusReport, body))
        if len(told) == 1:
            raise NoRoom("the disk of w1 is full")
        return JobStatusReply()

    rig.peer("w1", {"POST /v1/jobs/status": full})
    rig.write(lambda tx: residence.create(tx, job("j1", request=slot_request()), rig.now()))
    rig.until(lambda: told)
    rig.write(lambda tx: tx.run("UPDATE requests SET attempt = 7"))
    rig.run(3.0)
    assert [each.copies[0].attempt for each in told] == [1, 7]


def test_states_that_change_while_a_report_is_in_flight_share_the_next_one(rig: Rig) -> None:
    told = collector_host(rig, takes_reports=True)
    transport, held = rig.host.services.transport, []
    send = transport.send

    def hold(host: Any, request: Any, done: Any, *, timeout_seconds: float) -> None:
        if request.target == "/v1/jobs/status" and not held:
            held.append(done)
        else:
            send(host, request, done, timeout_seconds=timeout_seconds)

    transport.send = hold  # type: ignore[method-assign]
    for agent_id, key in (("j1", "a"), ("j2", "b"), ("j3", "c")):
        rig.write(lambda tx, a=agent_id, k=key: residence.create(tx, job(a, k, request=slot_request()), rig.now()))
        rig.run(2.0)
    assert (len(held), told) == (1, [])
    rig.host.runner.call_soon(lambda: held[0](reply(JobStatusReply())))
    rig.run(0.1)
    assert [[copy.agent_id for copy in each.copies] for each in told] == [["j2", "j3"]]
