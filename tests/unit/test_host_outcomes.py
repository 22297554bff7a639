"""The ends of attempts: exit codes, signals, losses, retries, and the single report of each job."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from host_rig import envelope, host_ref, job, job_part, slot_request

from paglets.api.slots import Usage
from paglets.codec.strict_json import loads
from paglets.core.refs import FileRef
from paglets.host.records import outcomes, recovery
from paglets.host.records.outcomes import Attempt, Outcome
from paglets.store import files, paglets, posts, queue, residence
from paglets.store.db import Store
from paglets.store.pages import Budget
from paglets.worker.launch import EXIT_HOST_GONE, ProcessExit
from paglets.worker.protocol import Fault
from tests.fakes.store import memory_store

NOW = 1_000.0
HERE = host_ref("here")


class Rig:
    """A store with one running job, `j1`."""

    def __init__(self, *, group: bool = True, **request: Any) -> None:
        self.store: Store = memory_store()
        more = {} if group else {"group_id": None, "collector": None}
        each = replace(job("j1"), job=job_part("a", request=slot_request(**request), **more))
        self.store.write(lambda tx: residence.create(tx, each, NOW))
        self.attempt = 0
        self.start()

    def start(self) -> None:
        self.attempt += 1
        (queued,) = self.store.read(lambda tx: list(queue.waiting_for_slot(tx, 10)))
        assert self.store.write(lambda tx: queue.grant(tx, queued, (0,), (), f"token-{self.attempt}", 1, NOW))

    def which(self) -> Attempt:
        return Attempt(agent_id="j1", attempt=self.attempt, host=HERE, runtime_seconds=2.5)

    def commit(self, *, success: bool = True, final: bool = True, **more: Any) -> bool:
        outcome = Outcome(success=success, final=final, **more)
        return self.store.write(lambda tx: outcomes.commit(tx, self.which(), outcome, NOW))

    def ended(self, how: ProcessExit | None = None) -> str | None:
        def end(tx: Any) -> str | None:
            tx.run("DELETE FROM runs WHERE token = ?", f"token-{self.attempt}")
            outcomes.count_launcher(tx, "j1", "attempt", how or ProcessExit(exit_code=0))
            return outcomes.ended(tx, self.which(), how or ProcessExit(exit_code=0), NOW)

        return self.store.write(end)

    def reports(self) -> list[tuple[str, dict[str, Any]]]:
        rows = self.store.read(lambda tx: tx.all("SELECT message FROM outbox_messages ORDER BY n"))
        return [(tree["kind"], tree["args"]) for tree in (loads(row["message"]) for row in rows)]

    def cause(self) -> str:
        ((kind, args),) = self.reports()
        assert kind == "job_failure"
        return str(args["cause"])

    def value(self, column: str) -> Any:
        return self.store.read(lambda tx: tx.value(f"SELECT {column} FROM requests JOIN job_states USING (agent_id)"))

    def leases(self) -> int:
        return int(self.store.read(lambda tx: tx.value("SELECT count(*) FROM leases")))


# Ends without a report.


@pytest.mark.parametrize(
    ("how", "cause", "words"),
    [
        (ProcessExit(exit_code=0), "no_result", "without a report"),
        (ProcessExit(exit_code=3), "exit:3", "exit code 3"),
        (ProcessExit(exit_code=EXIT_HOST_GONE), "exit:121", "the job closed its connection to the host"),
        (ProcessExit(signal=9), "signal:SIGKILL", "SIGKILL"),
        (ProcessExit(signal=11), "signal:SIGSEGV", "SIGSEGV"),
        (ProcessExit(signal=63), "signal:63", "63"),
        (ProcessExit(signal=9, oom=True), "oom", "SIGKILL"),
        (ProcessExit(error="no such interpreter"), "spawn_failed", "no such interpreter"),
        (
            ProcessExit(signal=9, launcher_lost=True, launcher_died=True, is_culprit=True),
            "killed_launcher",
            "no other job",
        ),
    ],
)
def test_an_attempt_that_ends_without_an_outcome_fails_with_the_cause_of_its_end(
    how: ProcessExit, cause: str, words: str
) -> None:
    rig = Rig()
    assert rig.ended(replace(how, stderr_tail="last words")) == "FAILED_FINAL"
    assert rig.cause() == cause
    ((_, args),) = rig.reports()
    assert words in args["message"]
    assert args["stderr_tail"] == "last words"
    assert (args["job_key"], args["generation"], args["attempt"]) == ("a", 1, 1)
    assert (args["host_name"], args["runtime_seconds"]) == ("here", 2.5)
    assert rig.leases() == 0


@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_a_job_is_tried_as_often_as_it_may_and_reported_once(attempts: int) -> None:
    rig = Rig(max_attempts=attempts)
    for _ in range(attempts - 1):
        assert rig.ended(ProcessExit(exit_code=1)) == "WAITING_FOR_SLOT"
        assert rig.reports() == []
        assert rig.value("outcome") is None, "a job that waits for its next attempt has no outcome"
        rig.start()
    assert rig.ended(ProcessExit(exit_code=1)) == "FAILED_FINAL"
    assert rig.cause() == "exit:1"


def test_a_lost_attempt_is_no_failure_of_the_job() -> None:
    rig = Rig(max_attempts=1, max_losses=2)
    for losses in (1, 2):
        assert rig.ended(ProcessExit(launcher_lost=True)) == "WAITING_FOR_SLOT"
        assert (rig.value("losses"), rig.value("failed_attempts")) == (losses, 0)
        rig.start()
    assert rig.ended(ProcessExit(launcher_lost=True)) == "FAILED_FINAL"
    assert rig.cause() == "host_lost"


def test_a_hook_of_a_job_does_not_end_the_row_of_zygote_deaths() -> None:
    rig = Rig()
    for entry, died, deaths in (("attempt", True, 1), ("arrival", False, 1), ("attempt", False, 0)):
        how = ProcessExit(exit_code=0, launcher_lost=died, launcher_died=died)
        rig.store.write(lambda tx, entry=entry, how=how: outcomes.count_launcher(tx, "j1", entry, how))
        assert rig.store.read(lambda tx: paglets.launcher_deaths(tx, "j1")) == deaths


def test_a_job_that_may_not_be_lost_at_all_fails_at_the_first_loss() -> None:
    rig = Rig(max_losses=0)
    assert rig.ended(ProcessExit(launcher_lost=True)) == "FAILED_FINAL"


def test_losses_do_not_use_up_attempts_nor_attempts_losses() -> None:
    rig = Rig(max_attempts=2, max_losses=1)
    assert rig.ended(ProcessExit(launcher_lost=True)) == "WAITING_FOR_SLOT"
    rig.start()
    assert rig.ended(ProcessExit(exit_code=1)) == "WAITING_FOR_SLOT"
    rig.start()
    assert rig.ended(ProcessExit(exit_code=0)) == "FAILED_FINAL"


FULL_DISK = Fault(cause="disk_full", message="OSError: No space left on device")


def meet_full_disk(rig: Rig, scratch_bytes: int = 0) -> str | None:
    assert rig.commit(success=False, final=False, fault=FULL_DISK)
    return rig.ended(ProcessExit(exit_code=0, usage=Usage(scratch_bytes=scratch_bytes)))


def test_a_job_that_meets_a_full_disk_is_placed_again_three_times_and_fails_then() -> None:
    rig = Rig(max_attempts=1, max_losses=0)
    for times in (1, 2, 3):
        assert meet_full_disk(rig) == "PLACING"
        assert (rig.value("disk_fulls"), rig.value("losses"), rig.value("failed_attempts")) == (times, 0, 0)
        assert rig.value("reason") == "disk_full"
        assert f"(time {times} of 3)" in rig.value("reason_text")
        rig.store.write(lambda tx: tx.run("UPDATE requests SET status = 'WAITING_FOR_SLOT'"))
        rig.start()
    assert meet_full_disk(rig) == "FAILED_FINAL"
    assert rig.cause() == "disk_full"
    ((_, args),) = rig.reports()
    assert args["message"].endswith("the job met a full disk 4 times, most recently on here")


def test_what_an_attempt_registered_takes_no_room_after_it_met_a_full_disk() -> None:
    rig = Rig()
    kept, gone = (FileRef(name=name, sha256="0" * 64, size_bytes=1, attempt=n) for n, name in enumerate(("in", "out")))
    rig.store.write(lambda tx: tx.run("INSERT INTO blobs VALUES (?, 1, 0)", "0" * 64))
    rig.store.write(lambda tx: files.add(tx, "j1", (kept, gone)))
    assert meet_full_disk(rig) == "PLACING"
    assert rig.store.read(lambda tx: files.of(tx, "j1")) == (kept,)


def test_a_job_that_fills_the_disk_itself_fails_at_once() -> None:
    rig = Rig(max_attempts=3, temp_storage_bytes=1 << 20)
    assert meet_full_disk(rig, 2 << 20) == "FAILED_FINAL"
    assert rig.cause() == "disk_limit"
    ((_, args),) = rig.reports()
    assert args["message"].endswith("the job's scratch directory had 2 MiB, and its disk request is 1 MiB")
    record = loads(rig.store.read(lambda tx: tx.value("SELECT record FROM history")))
    assert record["cause"] == "disk_limit"


ZYGOTE_DIED = ProcessExit(signal=9, launcher_lost=True, launcher_died=True)


def test_the_death_of_a_zygote_is_neither_a_loss_nor_a_failed_attempt() -> None:
    rig = Rig(max_attempts=1, max_losses=0)
    assert rig.ended(ZYGOTE_DIED) == "WAITING_FOR_SLOT"
    assert (rig.value("losses"), rig.value("failed_attempts")) == (0, 0)


def test_many_deaths_of_zygotes_in_a_row_without_a_culprit_end_a_job() -> None:
    rig = Rig()
    for _ in range(outcomes.MOST_LAUNCHER_DEATHS):
        assert rig.ended(ZYGOTE_DIED) == "WAITING_FOR_SLOT"
        rig.start()
    assert rig.ended(ZYGOTE_DIED) == "FAILED_FINAL"
    assert rig.cause() == "launcher_lost"


def test_an_attempt_that_ends_by_itself_ends_the_row_of_deaths() -> None:
    rig = Rig(max_attempts=9)
    for _ in range(2 * outcomes.MOST_LAUNCHER_DEATHS):
        assert rig.ended(ZYGOTE_DIED) == "WAITING_FOR_SLOT"
        rig.start()
        if rig.attempt % 6 == 0:
            assert rig.ended(ProcessExit(exit_code=1)) == "WAITING_FOR_SLOT"
            rig.start()


# Outcomes that were told.


def test_a_result_is_reported_at_its_commit_and_the_slot_is_held_to_the_end() -> None:
    rig = Rig()
    assert rig.commit(result={"x": 1}) is True
    ((kind, args),) = rig.reports()
    assert (kind, args["result"]) == ("job_result", {"x": 1})
    assert (rig.value("status"), rig.leases()) == ("RUNNING", 1)
    assert rig.ended() == "COMPLETED"
    assert len(rig.reports()) == 1


@pytest.mark.parametrize("how", [ProcessExit(exit_code=5), ProcessExit(signal=11), ProcessExit(launcher_lost=True)])
def test_a_crash_after_the_report_changes_nothing(how: ProcessExit) -> None:
    rig = Rig(max_attempts=5)
    rig.commit(result=1)
    assert rig.ended(how) == "COMPLETED"
    assert [kind for kind, _ in rig.reports()] == ["job_result"]


def test_the_first_outcome_stands() -> None:
    rig = Rig()
    assert rig.commit(result=1) is True
    assert rig.commit(result=2) is False
    assert rig.commit(success=False, fault=Fault(cause="exception", message="")) is False
    assert [args["result"] for _, args in rig.reports()] == [1]


def test_a_failure_that_the_job_reports_itself_is_final() -> None:
    rig = Rig(max_attempts=5)
    rig.commit(success=False, fault=Fault(cause="exception", message="bad input", traceback="tb"))
    ((kind, args),) = rig.reports()
    assert (kind, args["cause"], args["message"], args["traceback"]) == ("job_failure", "exception", "bad input", "tb")
    assert rig.ended() == "FAILED_FINAL"
    assert len(rig.reports()) == 1


def test_an_exception_is_tried_again_and_its_words_are_in_the_report() -> None:
    rig = Rig(max_attempts=2)
    fault = Fault(cause="exception", message="ValueError: no", traceback="tb")
    assert rig.commit(success=False, final=False, fault=fault) is True
    assert rig.reports() == []
    assert rig.ended(ProcessExit(exit_code=0)) == "WAITING_FOR_SLOT"
    rig.start()
    rig.commit(success=False, final=False, fault=fault)
    assert rig.ended(ProcessExit(exit_code=0, stderr_tail="err")) == "FAILED_FINAL"
    ((_, args),) = rig.reports()
    assert (args["message"], args["stderr_tail"], args["attempt"]) == ("ValueError: no", "err", 2)


def test_an_exception_counts_as_the_jobs_own_though_the_zygote_is_lost_then() -> None:
    rig = Rig(max_losses=5)
    rig.commit(success=False, final=False, fault=Fault(cause="exception", message="no"))
    assert rig.ended(ProcessExit(launcher_lost=True)) == "FAILED_FINAL"
    assert rig.cause() == "exception"


def test_no_outcome_is_taken_of_an_attempt_that_is_over() -> None:
    rig = Rig(max_attempts=2)
    late = rig.which()
    rig.ended(ProcessExit(exit_code=1))
    rig.start()
    outcome = Outcome(success=True, final=True, result="late")
    assert rig.store.write(lambda tx: outcomes.commit(tx, late, outcome, NOW)) is False
    assert rig.store.write(lambda tx: outcomes.ended(tx, late, ProcessExit(exit_code=0), NOW)) is None
    assert rig.value("status") == "RUNNING"


def test_a_copy_that_nobody_wants_is_cancelled_and_says_nothing() -> None:
    rig = Rig(max_attempts=3)
    rig.store.write(lambda tx: tx.run("UPDATE requests SET unwanted = 'cancelled'"))
    assert rig.ended(ProcessExit(signal=9)) == "CANCELLED"
    assert rig.reports() == []


def test_a_result_before_the_cancel_came_is_a_result() -> None:
    rig = Rig()
    rig.commit(result=1)
    rig.store.write(lambda tx: tx.run("UPDATE requests SET unwanted = 'cancelled'"))
    assert rig.ended(ProcessExit(signal=9)) == "COMPLETED"


def test_each_ended_attempt_is_in_the_history() -> None:
    rig = Rig(max_attempts=2)
    rig.ended(ProcessExit(exit_code=4))
    rig.start()
    rig.commit()
    rig.ended()
    records = rig.store.read(lambda tx: [loads(row["record"]) for row in tx.all("SELECT record FROM history")])
    assert [(r["attempt"], r["status"], r["exit_code"]) for r in records] == [
        (1, "WAITING_FOR_SLOT", 4),
        (2, "COMPLETED", 0),
    ]


# Jobs that do not run.


@pytest.mark.parametrize("status", ["PLACING", "WAITING_FOR_SLOT"])
@pytest.mark.parametrize(("cause", "event"), [("placement_timeout", "FAILED_FINAL"), ("cancelled", "CANCELLED")])
def test_a_waiting_job_can_fail_and_be_cancelled(status: str, cause: str, event: str) -> None:
    store = memory_store()
    store.write(lambda tx: residence.create(tx, job("j1", status=status), NOW))
    told = cause == "cancelled"
    assert store.write(lambda tx: outcomes.fail_waiting(tx, "j1", cause, "why", HERE, NOW, reported=told)) is True
    sent = store.read(lambda tx: posts.next_outgoing(tx, "store-w1", Budget(items=10, size_bytes=1 << 20))).items
    if cause == "cancelled":
        # The collector has recorded it: nothing is told, and the row goes at once.
        assert sent == []
        assert store.read(lambda tx: tx.value("SELECT status FROM residence")) == "disposed"
    else:
        assert [each.message.args["cause"] for each in sent] == [cause]
        assert store.read(lambda tx: tx.value("SELECT status FROM requests")) == event


def test_what_runs_or_has_ended_does_not_fail_as_a_waiting_job() -> None:
    rig = Rig()
    for _ in range(2):
        assert rig.store.write(lambda tx: outcomes.fail_waiting(tx, "j1", "cancelled", "", HERE, NOW)) is False
        rig.commit()
        rig.ended()
    assert rig.store.write(lambda tx: outcomes.fail_waiting(tx, "nobody", "cancelled", "", HERE, NOW)) is False


# The end of the row.


def residence_of(rig: Rig) -> str:
    return str(rig.store.read(lambda tx: tx.value("SELECT status FROM residence WHERE agent_id = 'j1'")))


def test_a_finished_copy_goes_when_its_report_is_acknowledged_and_not_before() -> None:
    rig = Rig()
    rig.commit()
    rig.ended()
    assert residence_of(rig) == "here"

    def acknowledged(tx: Any) -> None:
        agent_id = posts.remove_delivered(tx, 1)
        assert agent_id == "j1"
        outcomes.retire(tx, agent_id, NOW)

    rig.store.write(acknowledged)
    assert residence_of(rig) == "disposed"


def test_a_report_that_arrives_first_leaves_the_row_to_the_end_of_the_process() -> None:
    rig = Rig()
    rig.commit()
    rig.store.write(lambda tx: (posts.remove_delivered(tx, 1), outcomes.retire(tx, "j1", NOW)))
    assert residence_of(rig) == "here"
    rig.ended()
    assert residence_of(rig) == "disposed"


def test_a_job_without_a_group_reports_to_nobody_and_stays() -> None:
    rig = Rig(group=False)
    rig.commit(final=False, result=5)
    assert rig.ended() == "COMPLETED"
    assert rig.reports() == []
    assert residence_of(rig) == "here"


@pytest.mark.parametrize("column", ["hook = 'arrival'", "intent = '{}'"])
def test_a_finished_copy_that_still_has_something_to_do_stays(column: str) -> None:
    rig = Rig()
    rig.store.write(lambda tx: tx.run(f"UPDATE paglets SET {column}"))
    rig.commit()
    rig.store.write(lambda tx: posts.remove_delivered(tx, 1))
    rig.ended()
    assert residence_of(rig) == "here"


# A host that starts again.


def test_at_a_start_what_ran_is_lost_and_what_had_an_outcome_has_ended() -> None:
    lost, reported = Rig(), Rig()
    reported.commit(result=1)
    for rig in (lost, reported):
        assert rig.store.write(lambda tx: recovery.close_runs(tx, HERE, NOW + 9)) == 1
        assert rig.leases() == 0
        assert rig.store.read(recovery.survivors) == []
    assert (lost.value("status"), lost.value("losses")) == ("WAITING_FOR_SLOT", 1)
    assert reported.value("status") == "COMPLETED"


def test_at_a_start_a_hook_that_was_cut_off_is_still_due() -> None:
    store = memory_store()
    store.write(lambda tx: residence.create(tx, envelope("p1", hook="creation"), NOW))
    store.write(lambda tx: queue.start_run(tx, "p1", "t", "creation", 1, 1, 0, NOW))
    store.write(lambda tx: tx.run("UPDATE runs SET pid = 77, start_time = 1.5"))
    assert store.read(recovery.survivors) == [(77, 1.5, "t")]
    assert store.write(lambda tx: recovery.close_runs(tx, HERE, NOW)) == 1
    assert store.read(lambda tx: tx.value("SELECT hook FROM paglets")) == "creation"


def test_scratch_is_kept_for_what_is_here_and_not_finished() -> None:
    rig = Rig()
    for agent_id, fields in (("p1", {}), ("j2", {"job": job_part("b", status="COMPLETED")})):
        rig.store.write(lambda tx, a=agent_id, f=fields: residence.create(tx, envelope(a, **f), NOW))
    names = ("j1", "p1", "j2", "nobody")
    assert rig.store.read(lambda tx: recovery.stale_scratch(tx, names)) == ["j2", "nobody"]
