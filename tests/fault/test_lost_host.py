"""A host that never comes back, and one that does: its jobs are begun anew on the others, and counted once."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
from mesh_jobs import Task, TaskState

from paglets.system.compute_slots import Submission, submit_compute_job_group
from tests.acceptance.rig import HostProcess, Mesh, group_lines, wait_until

LOST_AFTER = 10
JOBS = 40
JOB_SECONDS = 0.3


def start_four(mesh: Mesh) -> Submission:
    """A laptop, the collector's host `keeper`, two workers, and jobs that run on these."""
    lost_after = ("--host-lost-after", LOST_AFTER)
    laptop = mesh.start("laptop", *lost_after, "--cpu-cores", 1)
    keeper = mesh.start("keeper", "--peer", laptop.url, *lost_after, "--cpu-cores", 1)
    for name in ("w1", "w2"):
        mesh.start(name, "--peer", keeper.url, *lost_after, "--cpu-cores", 2, "--tag", "worker")
    mesh.wait_joined()
    states = [TaskState(how="works", seconds=JOB_SECONDS, required_host_tags=("worker",)) for _ in range(JOBS)]
    submission = submit_compute_job_group(laptop.client, Task, states, collector_host="keeper")
    assert submission.wait_detached(20), submission.detached_reason
    return submission


def ended(host: HostProcess, submission: Submission) -> int:
    line = group_lines(host)[submission.group_id]
    return (line.completed_count or 0) + (line.failed_count or 0)


def test_jobs_of_a_host_that_is_killed_for_good_end_on_the_others(mesh: Mesh) -> None:
    submission = start_four(mesh)
    keeper = mesh["keeper"]
    wait_until(lambda: ended(keeper, submission) >= 4, what="the first jobs to end")

    mesh["w1"].kill()

    summary = submission.drain(timeout=LOST_AFTER + JOBS * JOB_SECONDS + 5)
    assert (summary["completed_count"], summary["failed_count"]) == (JOBS, 0)
    again = [record for record in summary["results"].values() if record["generation"] == 2]
    assert again
    assert {record["host_name"] for record in again} == {"w2"}


def test_a_host_that_was_stopped_for_long_comes_back_and_nothing_is_counted_twice(mesh: Mesh, tmp_path: Path) -> None:
    submission = start_four(mesh)
    keeper, lost = mesh["keeper"], psutil.Process(mesh["w1"].pid)
    wait_until(lambda: ended(keeper, submission) >= 4, what="the first jobs to end")

    lost.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: keeper.rows("SELECT 1 FROM events WHERE kind = 'lost'"), timeout_seconds=LOST_AFTER + 5)
        summary = submission.drain(timeout=JOBS * JOB_SECONDS + 30)
    finally:
        lost.send_signal(signal.SIGCONT)

    assert (summary["completed_count"], summary["failed_count"]) == (JOBS, 0)
    wait_until(
        lambda: not mesh["w1"].rows("SELECT 1 FROM requests WHERE status != 'COMPLETED'"),
        timeout_seconds=30,
        what="what nobody wants any more to end",
    )
    told = keeper.client.summary(submission.group_id)
    assert (told["completed_count"], told["failed_count"]) == (JOBS, 0)
    assert told["results"] == summary["results"]
