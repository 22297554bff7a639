"""A tick of the lost-job detector reads a bounded number of rows, and locates no copy that is reported in time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from call_counts import calls_of
from host_rig import Rig, group, host_ref

from paglets.api.groups import GroupView, JobCopy
from paglets.api.paglets import Located
from paglets.core.record import to_json
from paglets.groups.keys import collector_id
from paglets.groups.records import ExpectedJob, Sighting
from paglets.groups.rows import CollectorRows, description_key, job_row_key
from paglets.host.groups.lost_jobs import ABSENT_SECONDS, KEYS_A_LOOK, KEYS_A_PAGE, LostJobDetector
from paglets.host.groups.resubmission import Resubmission
from paglets.host.groups.status_reports import MAX_COPIES
from paglets.store import paglets

COUNT = 12_000
QUIET = 36.0
"""The time of three complete reports of COUNT copies, in seconds."""

COLLECTOR = collector_id("g1")
W1 = host_ref("w1")


def storage_rows(number: int) -> list[tuple[str, Any]]:
    """Return the rows of a job that w1 has reported."""
    sighting = Sighting(
        agent_id=f"j{number}",
        host=W1,
        generation=1,
        attempt=0,
        epoch=1,
        residence="here",
        status="WAITING_FOR_SLOT",
        reason="",
        reason_text="",
        never=False,
        since=1.0,
    )
    job = to_json(ExpectedJob(since=1.0, sighting=sighting))
    return [(job_row_key(f"k{number:05d}"), job), (description_key(f"k{number:05d}"), {})]


def copy_of(number: int) -> JobCopy:
    return JobCopy(
        agent_id=f"j{number}",
        group_id="g1",
        job_key=f"k{number:05d}",
        generation=1,
        attempt=0,
        epoch=1,
        status="WAITING_FOR_SLOT",
        residence="here",
        reason="",
        reason_text="",
        never=False,
    )


class Detector:
    """A detector that watches the jobs of g1. It locates copies through this object. All answers come at once."""

    def __init__(self, count: int, answered: tuple[str, ...] = ()) -> None:
        self.rig = Rig()
        self.rig.get(GroupView, "POST", "/v1/groups", group("a"))
        rows = [row for number in range(count) for row in storage_rows(number)]
        self.rig.write(lambda tx: paglets.storage_change(tx, COLLECTOR, {description_key("a"): None}))
        self.rig.write(lambda tx: paglets.storage_add(tx, COLLECTOR, rows))
        host = self.rig.host
        resubmission = Resubmission(host.services, host.blob_fetcher, host.blob_store)
        self.detector = LostJobDetector(host.services, host.gossip, cast(Any, self), resubmission)
        self.started_at = self.rig.clock.monotonic()
        self.located: list[str] = []
        self.answered = answered

    def locate(self, agent_ids: Iterable[str], done: Callable[[Located], None]) -> None:
        self.located += agent_ids
        done(Located(answered=self.answered))

    def tick(self) -> tuple[bool, int]:
        """Return True if the next tick is due at once, and how many rows of jobs this tick read."""
        now = self.rig.clock.monotonic()
        rows = (CollectorRows.job, CollectorRows.generation)
        next_at, read = calls_of(rows, lambda: self.detector.tick(now))
        return next_at == now, read

    def watch_all(self) -> None:
        while self.tick()[0]:
            pass

    def to(self, seconds: float) -> None:
        """Let the clock show this number of seconds since the start."""
        self.rig.clock.advance(self.started_at + seconds - self.rig.clock.monotonic())


def report(detector: Detector, numbers: Iterable[int]) -> None:
    """Report these copies, and let the detector process the reports."""
    copies = [copy_of(number) for number in numbers]
    for first in range(0, len(copies), MAX_COPIES):
        detector.detector.reported(copies[first : first + MAX_COPIES])
    detector.watch_all()


def test_a_tick_reads_a_page_of_jobs_at_the_start_and_none_while_all_are_reported() -> None:
    detector = Detector(COUNT)
    pages = []
    while (ticked := detector.tick())[0]:
        pages.append(ticked[1])
    assert max(pages) == KEYS_A_PAGE
    for second in range(2, 100, 2):
        detector.to(second)
        if second % 34 == 0:
            report(detector, range(COUNT))
        assert detector.tick()[1] == 0


def test_a_copy_is_located_once_it_is_missing_in_three_complete_reports() -> None:
    detector = Detector(COUNT)
    detector.watch_all()
    detector.to(QUIET - 0.5)
    assert detector.tick() == (False, 0)
    detector.to(QUIET + 1)
    assert detector.tick()[1] == KEYS_A_LOOK
    assert len(detector.located) == KEYS_A_LOOK


def test_a_copy_that_its_host_lacks_is_located_again_after_thirty_seconds() -> None:
    detector = Detector(COUNT, answered=(W1.store_id,))
    detector.rig.peer("w1")
    detector.rig.run(1)
    detector.watch_all()
    detector.to(QUIET + 1)
    detector.tick()
    first = list(detector.located)
    report(detector, (number for number in range(COUNT) if f"j{number}" not in first))
    detector.located.clear()
    detector.to(QUIET + 1 + ABSENT_SECONDS - 0.5)
    detector.tick()
    assert detector.located == []
    detector.to(QUIET + 1 + ABSENT_SECONDS)
    detector.tick()
    assert sorted(detector.located) == sorted(first)
