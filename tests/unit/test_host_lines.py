"""Lines on a host: which jobs are sent ahead to a warm worker, and who has the lease when the worker goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from host_rig import Rig, host_ref, job, slot_request

from paglets.core.refs import BlobRef
from paglets.host.jobs.lines import AHEAD_SECONDS, MOST_AHEAD, MOST_ON_HOST, PATIENCE_SECONDS, Lines, most_ahead
from paglets.host.jobs.scheduler import LOOK_AGAIN_SECONDS
from paglets.host.records import recovery
from paglets.host.records.run_repository import Run
from paglets.slots.model import Resources
from paglets.slots.states import FINAL
from paglets.store import copies, residence
from paglets.store.views import job_views
from paglets.worker.frames import MAX_FRAME_BYTES
from paglets.worker.host.worker_jobs import not_started
from paglets.worker.launch import HOST_FILES_MISSING, ProcessExit, WorkerKey
from paglets.worker.protocol import EntryDone, Fault, NewArtifact, Report, Stamp
from tests.fakes.clock import FakeClock
from tests.fakes.processes import HandLauncher, HandProcess
from tests.invariants import sanity_check

OFFERED = Resources(cpu_cores=1, memory_bytes=8 << 30, temp_storage_bytes=8 << 30)
BUNDLES = ("a" * 64, "b" * 64)


@pytest.fixture
def rig() -> Rig:
    rig = Rig(offered=OFFERED)
    for sha256 in BUNDLES:
        rig.write(lambda tx, sha256=sha256: tx.run("INSERT INTO blobs VALUES (?, 1, 0.0)", sha256))
    return rig


def add(rig: Rig, *agent_ids: str, bundle: str = BUNDLES[0], isolation: str = "worker", **request: Any) -> None:
    for agent_id in agent_ids:
        each = job(agent_id, agent_id, request=slot_request(isolation=isolation, **request))

        def create(tx: Any, each: Any = each, agent_id: str = agent_id) -> None:
            residence.create(tx, each, rig.now())
            tx.run("UPDATE paglets SET bundle = ?, bundle_bytes = 1 WHERE agent_id = ?", bundle, agent_id)

        rig.write(create)
    rig.run()


def statuses(rig: Rig) -> dict[str, str]:
    return dict(rig.all("SELECT job_key, status FROM requests ORDER BY job_key"))


def sane(rig: Rig) -> None:
    assert rig.store.read(lambda tx: sanity_check({"home": tx}, {"home": OFFERED})) == []
    assert rig.faults() == []


def token(rig: Rig, agent_id: str) -> str:
    return rig.launcher.of(agent_id)[-1].spec.token


def run(rig: Rig, agent_id: str, after: str = "", seconds: float = 0.0) -> None:
    """Let a job that took `seconds` end, and its worker go on with the job `after`."""
    rig.report(rig.process(agent_id))
    next_token = token(rig, after) if after else ""
    rig.process(agent_id).exit(in_worker=True, next_token=next_token, job_seconds=seconds)
    rig.run()


def with_line(rig: Rig, *agent_ids: str) -> HandProcess:
    """Let a short job make its run time known, so that the first of these jobs begins a line. Return its process."""
    add(rig, "0")
    run(rig, "0")
    add(rig, *agent_ids)
    return rig.process(agent_ids[0])


@pytest.mark.parametrize(
    ("seconds", "most"), [(None, 0), (0.0, MOST_AHEAD), (0.01, 5), (0.03, 1), (AHEAD_SECONDS, 0), (60.0, 0)]
)
def test_only_short_work_is_sent_ahead(seconds: float | None, most: int) -> None:
    assert most_ahead(seconds) == most


def test_a_job_is_sent_to_its_worker_in_the_step_that_grants_it_and_its_process_is_stored_later(rig: Rig) -> None:
    add(rig, "a")
    (process,) = rig.launcher.of("a")
    assert (process.go.stamp.agent_id, process.go.work_dir) == ("a", process.spec.work_dir)
    process.begin()
    rig.run()
    assert rig.value("SELECT pid FROM runs") is None
    rig.run(1.0)
    assert rig.value("SELECT pid FROM runs") == process.pid
    assert [("go" in frame) for frame in process.heard] == [True]
    rig.report(process)
    sane(rig)


@pytest.mark.parametrize("isolation", ["worker", "process"])
def test_a_job_that_is_too_large_for_its_process_fails_alone(isolation: str) -> None:
    rig = Rig(offered=replace(OFFERED, cpu_cores=2))
    rig.write(lambda tx: tx.run("INSERT INTO blobs VALUES (?, 1, 0.0)", BUNDLES[0]))

    def create(tx: Any) -> None:
        for agent_id, size in (("a", MAX_FRAME_BYTES), ("b", 1)):
            request = slot_request(isolation=isolation)
            residence.create(tx, job(agent_id, agent_id, request=request, submitted_state={"x": "x" * size}), rig.now())
            tx.run("UPDATE paglets SET bundle = ?, bundle_bytes = 1 WHERE agent_id = ?", BUNDLES[0], agent_id)

    rig.write(create)
    rig.run()
    for process in rig.launcher.processes:
        process.begin()
    rig.run()
    assert statuses(rig) == {"a": "FAILED_FINAL", "b": "RUNNING"}
    assert rig.process("b").go.state == {"x": "x"}
    assert "is over the limit of" in rig.value("SELECT text FROM events WHERE kind = 'ended_late'")
    assert rig.faults() == []


def test_a_job_with_a_process_of_its_own_gets_nothing_before_that_is_stored(rig: Rig) -> None:
    add(rig, "a", isolation="process")
    (process,) = rig.launcher.of("a")
    assert process.heard == []
    process.begin()
    rig.run()
    assert rig.value("SELECT pid FROM runs") == process.pid
    assert process.go.work_dir == process.spec.work_dir


def test_jobs_of_unknown_run_time_are_not_sent_ahead(rig: Rig) -> None:
    add(rig, "a", "b")
    assert statuses(rig) == {"a": "RUNNING", "b": "WAITING_FOR_SLOT"}


def test_short_jobs_wait_in_the_worker_and_get_its_lease_in_turn(rig: Rig) -> None:
    first = with_line(rig, "a", "b", "c")
    assert {key: status for key, status in statuses(rig).items() if key != "0"} == {
        "a": "RUNNING",
        "b": "ASSIGNED",
        "c": "ASSIGNED",
    }
    assert {process.spec.line for each in "abc" for process in rig.launcher.of(each)} == {first.spec.token}
    assert [rig.launcher.of(each)[-1].spec.is_ahead for each in "abc"] == [False, True, True]
    sane(rig)
    for agent_id, after in (("a", "b"), ("b", "c"), ("c", "")):
        assert rig.process(agent_id).go.stamp.attempt == 1
        assert rig.all("SELECT agent_id FROM leases") == [(agent_id,)]
        run(rig, agent_id, after)
        sane(rig)
    assert rig.all("SELECT agent_id FROM leases") == []


def test_a_job_whose_files_are_missing_passes_its_lease_on(rig: Rig) -> None:
    first, second = with_line(rig, "a", "b"), rig.process("b")
    first.ask("done", EntryDone(fault=Fault(cause=HOST_FILES_MISSING, message="the program is gone")))
    rig.run()
    first.exit(in_worker=True, next_token=second.spec.token)
    rig.run()
    assert rig.all("SELECT agent_id FROM leases") == [("b",)]
    assert {each: statuses(rig)[each] for each in "ab"} == {"a": "WAITING_FOR_SLOT", "b": "RUNNING"}
    sane(rig)


def test_a_report_that_comes_with_the_end_of_the_job_before_is_accepted(rig: Rig) -> None:
    with_line(rig, "a", "b")
    second = rig.process("b")
    rig.report(rig.process("a"))
    rig.process("a").exit(in_worker=True, next_token=second.spec.token)
    assert rig.report(second)["ok"] == {"accepted": True}
    sane(rig)


def test_a_report_waits_until_the_end_of_the_job_before_is_stored(rig: Rig) -> None:
    first, second = with_line(rig, "a", "b"), rig.process("b")
    rig.report(first)
    number = second.ask("report", Report(success=True))
    rig.run(1.5)
    assert [frame for frame in second.heard if frame.get("reply") == number] == []
    first.exit(in_worker=True, next_token=second.spec.token)
    rig.run(1.5)
    assert second.reply(number)["ok"] == {"accepted": True}


LAST = EntryDone(report=Report(success=True, result=7))


def test_a_report_that_comes_with_the_end_of_its_job_is_stored_with_it(rig: Rig) -> None:
    first = with_line(rig, "a", "b")
    first.tell("done", LAST)
    first.exit(in_worker=True, next_token=token(rig, "b"), job_seconds=0.0)
    rig.run()
    assert statuses(rig) == {"0": "COMPLETED", "a": "COMPLETED", "b": "RUNNING"}
    assert [message["args"]["result"] for message in rig.outbox() if message["args"]["job_key"] == "a"] == [7]
    sane(rig)


def test_the_end_of_a_job_waits_until_its_report_is_stored(rig: Rig) -> None:
    """The report of the second job must wait for the end of the first one."""
    first, second = with_line(rig, "a", "b"), rig.process("b")
    second.tell("done", LAST)
    second.exit(in_worker=True, job_seconds=0.0)
    rig.run(1.5)
    assert rig.value("SELECT count(*) FROM runs") == 2
    first.tell("done", LAST)
    first.exit(in_worker=True, next_token=second.spec.token, job_seconds=0.0)
    rig.run(2.5)
    assert statuses(rig) == {"0": "COMPLETED", "a": "COMPLETED", "b": "COMPLETED"}
    sane(rig)


def test_a_job_that_reported_but_gets_no_lease_runs_again(rig: Rig) -> None:
    first, second = with_line(rig, "a", "b"), rig.process("b")
    second.tell("done", LAST)
    rig.run()
    first.exit(3, in_worker=True)
    second.exit(None, **_not_started())
    rig.run(2.5)
    assert statuses(rig) == {"0": "COMPLETED", "a": "FAILED_FINAL", "b": "RUNNING"}
    assert rig.process("b") is not second
    sane(rig)


def test_a_job_that_reported_and_ended_runs_again_if_the_lease_does_not_reach_it(rig: Rig) -> None:
    first, second = with_line(rig, "a", "b"), rig.process("b")
    second.tell("done", LAST)
    second.exit(in_worker=True, job_seconds=0.0)
    rig.run()
    rig.write(lambda tx: tx.run("DELETE FROM leases WHERE agent_id = 'a'"))
    first.exit(in_worker=True, next_token=second.spec.token)
    rig.run(2.5)
    assert rig.process("b") is not second
    assert statuses(rig)["b"] == "RUNNING"


def test_a_job_whose_last_report_is_refused_fails(rig: Rig) -> None:
    first = with_line(rig, "a")
    missing = NewArtifact(artifact_id="a" * 64, name="x", blob=BlobRef(sha256="c" * 64, size_bytes=1), created_at=0.0)
    first.tell("done", EntryDone(report=Report(success=True, stored=(missing,))))
    first.exit(in_worker=True, job_seconds=0.0)
    rig.run(1.5)
    assert statuses(rig)["a"] == "FAILED_FINAL"
    assert "its report was refused: " in rig.value("SELECT record FROM history ORDER BY id DESC LIMIT 1")
    sane(rig)


def test_a_last_report_of_a_job_that_was_replaced_ends_its_process(rig: Rig) -> None:
    first = with_line(rig, "a")
    rig.write(lambda tx: tx.run("DELETE FROM runs WHERE agent_id = 'a'"))
    rig.launcher.is_stubborn = True
    first.tell("done", LAST)
    rig.run()
    assert first.told_to_end
    assert rig.outbox() == [message for message in rig.outbox() if message["args"]["job_key"] != "a"]


def test_only_the_unbroken_head_of_the_queue_is_sent_ahead(rig: Rig) -> None:
    add(rig, "0")
    add(rig, "a", "b")
    add(rig, "c", bundle=BUNDLES[1])
    add(rig, "d")
    run(rig, "0", "a")
    assert statuses(rig) == {"0": "COMPLETED", "a": "RUNNING", "b": "ASSIGNED"} | dict.fromkeys(
        "cd", "WAITING_FOR_SLOT"
    )
    run(rig, "a", "b")
    assert (statuses(rig)["b"], statuses(rig)["d"]) == ("RUNNING", "WAITING_FOR_SLOT")
    run(rig, "b")
    assert (statuses(rig)["c"], statuses(rig)["d"]) == ("RUNNING", "WAITING_FOR_SLOT")


def test_jobs_that_never_fit_do_not_stop_the_sending_of_younger_jobs(rig: Rig) -> None:
    large = [f"0-{number:02}" for number in range(MOST_AHEAD)]
    add(rig, *large, cpu_cores=2)
    with_line(rig, "a", "b")
    expected = dict.fromkeys(large, "WAITING_FOR_SLOT") | {"0": "COMPLETED", "a": "RUNNING", "b": "ASSIGNED"}
    assert statuses(rig) == expected
    sane(rig)


@pytest.mark.parametrize("other", [{"isolation": "process"}, {"memory_bytes": 1 << 20}])
def test_a_job_that_cannot_share_the_worker_waits(rig: Rig, other: dict[str, Any]) -> None:
    add(rig, "0")
    add(rig, "a")
    add(rig, "b", **other)
    run(rig, "0", "a")
    assert statuses(rig)["b"] == "WAITING_FOR_SLOT"


def test_a_long_job_ends_the_sending(rig: Rig) -> None:
    with_line(rig, "a", "b")
    run(rig, "a", "b", seconds=AHEAD_SECONDS)
    add(rig, "c")
    assert (statuses(rig)["b"], statuses(rig)["c"]) == ("RUNNING", "WAITING_FOR_SLOT")


def test_one_job_is_sent_to_the_worker_of_a_long_job_that_reports(rig: Rig) -> None:
    add(rig, "a", "b", "c")
    rig.process("a")
    rig.run(60.0)
    assert statuses(rig) == {"a": "RUNNING"} | dict.fromkeys("bc", "WAITING_FOR_SLOT")
    rig.report(rig.process("a"))
    assert statuses(rig) == {"a": "RUNNING", "b": "ASSIGNED", "c": "WAITING_FOR_SLOT"}
    rig.process("a").exit(in_worker=True, next_token=token(rig, "b"), job_seconds=60.0)
    rig.run()
    assert statuses(rig) == {"a": "COMPLETED", "b": "RUNNING", "c": "WAITING_FOR_SLOT"}
    sane(rig)


def test_no_job_is_sent_behind_a_report_that_is_refused(rig: Rig) -> None:
    add(rig, "a", "b")
    wrong = NewArtifact(artifact_id="", name="x", blob=BlobRef(sha256="0" * 64, size_bytes=1), created_at=1.0)
    assert "error" in rig.report(rig.process("a"), artifact=wrong)
    add(rig, "c")
    assert statuses(rig) == {"a": "RUNNING"} | dict.fromkeys("bc", "WAITING_FOR_SLOT")


def test_a_job_behind_a_report_is_taken_back_if_the_reporting_job_goes_on(rig: Rig) -> None:
    add(rig, "a", "b")
    rig.process("a")
    rig.run(60.0)
    rig.report(rig.process("a"))
    assert not rig.launcher.of("b")[-1].is_withdrawn
    rig.run(PATIENCE_SECONDS + 0.05)
    assert rig.launcher.of("b")[-1].is_withdrawn


def test_jobs_behind_a_long_one_are_taken_back_and_get_the_next_free_slot(rig: Rig) -> None:
    with_line(rig, "a", "b")
    rig.run(PATIENCE_SECONDS * 0.9)
    assert not rig.process("b").is_withdrawn
    rig.run(PATIENCE_SECONDS * 0.2)
    assert rig.process("b").is_withdrawn
    rig.process("b").exit(None, **_not_started())
    rig.run()
    assert statuses(rig)["b"] == "WAITING_FOR_SLOT"
    add(rig, "c")
    assert statuses(rig)["c"] == "WAITING_FOR_SLOT"
    sane(rig)


def test_the_reason_of_each_waiting_job_is_true_before_and_after_it_is_taken_back(rig: Rig) -> None:
    with_line(rig, "a", "b", "c")
    add(rig, "x", bundle=BUNDLES[1])
    behind = ("assigned", "it waits in a warm worker behind another job")
    busy = ("slots_busy", "0 of 1 cores are free, and older jobs come first")
    assert reasons(rig) == {"a": ("", ""), "b": behind, "c": behind, "x": busy}
    rig.run(PATIENCE_SECONDS * 1.1)
    for agent_id in "bc":
        rig.process(agent_id).exit(None, **_not_started())
    rig.run()
    unchecked = ("queued", "its host has not checked yet if a slot is free for it")
    assert reasons(rig) == {"a": ("", ""), "b": unchecked, "c": unchecked, "x": busy}
    rig.run(LOOK_AGAIN_SECONDS)
    assert reasons(rig) == {"a": ("", "")} | dict.fromkeys("bcx", busy)


def reasons(rig: Rig) -> dict[str, tuple[str, str]]:
    views = rig.store.read(lambda tx: job_views(tx, host_ref("home"), rig.now(), 10))
    return {view.job_key: (view.reason, view.reason_text) for view in views if view.status not in FINAL}


def test_a_line_is_refilled_when_half_of_it_has_run(rig: Rig) -> None:
    names = [f"j{number:02}" for number in range(40)]
    with_line(rig, *names)
    for position in range(MOST_AHEAD):
        assigned = list(statuses(rig).values()).count("ASSIGNED")
        assert MOST_AHEAD // 2 < assigned <= MOST_AHEAD
        run(rig, names[position], names[position + 1])
    sane(rig)


def test_jobs_that_their_worker_did_not_begin_wait_again_and_nothing_is_counted(rig: Rig) -> None:
    with_line(rig, "a", "b", "c")
    rig.process("a").exit(3, in_worker=True)
    for agent_id in "bc":
        rig.process(agent_id).exit(None, **_not_started())
    rig.run()
    assert rig.value("SELECT status FROM requests WHERE job_key = 'a'") == "FAILED_FINAL"
    rows = rig.all("SELECT attempt, failed_attempts, losses FROM requests WHERE job_key = 'c'")
    assert rows in ([(0, 0, 0)], [(1, 0, 0)])
    assert statuses(rig)["b"] == "RUNNING"
    assert rig.process("b").go.stamp.attempt == 1
    sane(rig)


def _not_started() -> dict[str, Any]:
    how = not_started(ProcessExit())
    return {"error": how.error, "launcher_lost": how.launcher_lost}


def test_an_assigned_job_that_is_cancelled_is_withdrawn(rig: Rig) -> None:
    with_line(rig, "a", "b", "c")
    assert rig.write(lambda tx: copies.mark_unwanted(tx, "b", "cancelled"))
    rig.launcher.is_stubborn = True
    rig.run(1.5)
    assert rig.process("b").told_to_end
    rig.process("b").exit(None, **_not_started())
    rig.run()
    assert rig.value("SELECT status FROM requests WHERE job_key = 'b'") in ("CANCELLED", None)
    run(rig, "a", "c")
    assert rig.value("SELECT status FROM requests WHERE job_key = 'c'") == "RUNNING"
    sane(rig)


def test_a_job_that_has_reported_is_not_ended_as_an_unwanted_copy(rig: Rig) -> None:
    """The collector records a report before the job ends. It then calls the copy in a status report unwanted."""
    with_line(rig, "a", "b")
    rig.report(rig.process("a"))
    assert rig.write(lambda tx: copies.mark_unwanted(tx, "a", "recorded"))
    rig.launcher.is_stubborn = True
    rig.run(1.5)
    assert not rig.process("a").told_to_end
    rig.process("a").exit(in_worker=True, next_token=token(rig, "b"), job_seconds=0.0)
    rig.run()
    assert statuses(rig)["b"] == "RUNNING"
    assert rig.value("SELECT count(*) FROM runs") == 1
    sane(rig)


def test_the_time_limit_begins_with_the_turn_of_a_job(rig: Rig) -> None:
    add(rig, "0", timeout_seconds=5.0)
    add(rig, "a", "b", timeout_seconds=5.0)
    run(rig, "0", "a")
    rig.run(4.0)
    run(rig, "a", "b")
    rig.run(4.0)
    assert not rig.process("b").told_to_end
    rig.run(2.5)
    assert rig.process("b").told_to_end


def test_a_worker_that_goes_on_with_a_job_without_a_row_is_ended(rig: Rig) -> None:
    with_line(rig, "a", "b")
    rig.write(lambda tx: tx.run("DELETE FROM runs WHERE agent_id = 'b'"))
    rig.launcher.is_stubborn = True
    run(rig, "a", "b")
    assert rig.process("b").told_to_end


def test_after_a_restart_an_assigned_job_waits_and_runs_alone(rig: Rig) -> None:
    with_line(rig, "a", "b")
    rig.write(lambda tx: tx.run("UPDATE runs SET pid = 7"))
    assert rig.write(lambda tx: recovery.close_runs(tx, host_ref("home"), rig.now())) == 1, "one process had both jobs"
    rows = rig.all("SELECT status, attempt, losses FROM requests WHERE job_key IN ('a', 'b') ORDER BY job_key")
    assert rows == [("WAITING_FOR_SLOT", 1, 1), ("WAITING_FOR_SLOT", 0, 0)]
    assert rig.all("SELECT launcher_deaths FROM paglets WHERE agent_id IN ('a', 'b')") == [(1,), (1,)]


def test_no_more_jobs_are_sent_than_the_pipes_of_a_host_allow() -> None:
    clock = FakeClock()
    lines = Lines(clock, {}, HandLauncher(None))
    key = WorkerKey(bundle=BUNDLES[0], module="m", resources=Resources(cpu_cores=1))
    now = clock.monotonic()
    firsts = [Run(stamp=stamp(f"t{n}"), entry="attempt", worker=key, line=f"t{n}", started_at=now) for n in range(20)]
    lines.ended(firsts[0], ProcessExit(in_worker=True, job_seconds=0.0))
    rooms = [line.room for line in lines.with_room({run.line: 1 for run in firsts}, firsts)]
    assert sum(rooms) == MOST_ON_HOST
    assert max(rooms) == MOST_AHEAD


def stamp(token: str) -> Stamp:
    return Stamp(agent_id=token, epoch=1, generation=1, attempt=1, token=token)
