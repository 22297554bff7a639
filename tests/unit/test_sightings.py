"""The receiver of status reports decodes only the rows of copies that changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from call_counts import calls_of
from host_rig import Rig, group, host_ref, slot_request

from paglets.api.groups import GroupView, JobCopy, JobStatusReply, JobStatusReport, UnwantedCopy
from paglets.codec import strict_json
from paglets.groups.acceptance import cancelled
from paglets.groups.keys import collector_id
from paglets.host.groups import sightings
from paglets.host.groups.resubmission import rows_of
from paglets.host.groups.sightings import SightingRecorder
from paglets.store.db import Tx

COUNT = 1_000
COLLECTOR = collector_id("g1")
W1 = host_ref("w1")
FIXED = 2
"""Texts that a report decodes besides the rows of jobs, such as the first generation of the group."""


def copy_of(number: int) -> JobCopy:
    return JobCopy(
        agent_id=f"j{number}",
        group_id="g1",
        job_key=f"k{number}",
        generation=1,
        attempt=0,
        epoch=1,
        status="WAITING_FOR_SLOT",
        residence="here",
        reason="slots_busy",
        reason_text="no core is free",
        never=False,
    )


class Receiver:
    """A host with the collector of g1, which receives status reports of w1."""

    def __init__(self, count: int) -> None:
        self.rig = Rig()
        keys = [f"k{number}" for number in range(count)]
        request = slot_request(rules={"required_tags": ("nowhere",)})
        self.rig.get(GroupView, "POST", "/v1/groups", group(*keys, request=request))
        self.recorder = SightingRecorder()
        self.copies = [copy_of(number) for number in range(count)]

    def report(self) -> tuple[JobStatusReply, int, int]:
        """Return the reply to a report of all copies, the decoded texts, and the SQL statements."""
        statements: list[str] = []

        def receive(tx: Tx) -> tuple[JobStatusReply, int]:
            report = JobStatusReport(host=W1, copies=tuple(self.copies), group_ids=("g1",))
            return calls_of([strict_json.loads], lambda: self.recorder.receive(tx, report, self.rig.now()))

        self.rig.store._writer.set_trace_callback(statements.append)
        reply, decoded = self.rig.write(receive)
        self.rig.store._writer.set_trace_callback(None)
        return reply, decoded, len(statements)

    def status(self, number: int) -> str | None:
        job = self.rig.store.read(lambda tx: rows_of(tx, COLLECTOR).job(f"k{number}"))
        assert job is not None
        return None if job.sighting is None else job.sighting.status


def test_a_report_decodes_the_row_of_the_changed_copy_and_not_those_of_a_thousand_others() -> None:
    receiver = Receiver(COUNT + 1)
    for _ in range(2):
        _, decoded, _ = receiver.report()
        assert decoded >= COUNT
    receiver.copies[500] = replace(receiver.copies[500], status="RUNNING", reason="")

    reply, decoded, statements = receiver.report()

    assert reply == JobStatusReply(unwanted=(), elsewhere=())
    assert decoded <= FIXED + 1
    assert statements <= 12
    assert [receiver.status(number) for number in (499, 500, 501)] == [
        "WAITING_FOR_SLOT",
        "RUNNING",
        "WAITING_FOR_SLOT",
    ]


def test_a_copy_whose_row_changed_is_processed_though_its_report_is_the_same() -> None:
    receiver = Receiver(3)
    for _ in range(3):
        assert receiver.report()[0].unwanted == ()

    def cancel(tx: Tx) -> None:
        rows = rows_of(tx, COLLECTOR)
        job = rows.job("k1")
        assert job is not None
        rows.put_job("k1", cancelled(job))

    receiver.rig.write(cancel)
    for _ in range(2):
        assert receiver.report()[0].unwanted == (UnwantedCopy(agent_id="j1", cause="cancelled"),)


def test_a_report_that_was_rolled_back_is_processed_again() -> None:
    receiver = Receiver(1)
    report = JobStatusReport(host=W1, copies=tuple(receiver.copies), group_ids=("g1",))

    def fail(tx: Tx) -> None:
        for _ in range(2):
            receiver.recorder.receive(tx, report, receiver.rig.now())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        receiver.rig.write(fail)
    assert receiver.status(0) is None
    receiver.report()
    assert receiver.status(0) == "WAITING_FOR_SLOT"


def test_two_copies_of_a_key_in_one_report_store_the_newest() -> None:
    receiver = Receiver(1)
    newer = replace(receiver.copies[0], agent_id="copy-2", generation=2, status="RUNNING", reason="")
    receiver.copies += [newer, replace(newer, epoch=2, status="COMPLETED")]
    for _ in range(3):
        assert receiver.report()[0].unwanted == ()
        assert receiver.status(0) == "COMPLETED"


def test_the_number_of_remembered_copies_is_limited() -> None:
    receiver = Receiver(2)
    remembered = dict.fromkeys(range(sightings.MAX_UNCHANGED), 0)
    receiver.recorder._unchanged.update(remembered)
    for _ in range(2):
        receiver.report()
    assert len(receiver.recorder._unchanged) == 2
