"""Hosts that never come back, and one that does: their jobs are begun anew on the others, and counted once."""

from __future__ import annotations

from mesh_jobs import Task, TaskState

from paglets.system.compute_slots import Submission, submit_compute_job_group
from tests.acceptance.rig import Mesh, wait_until
from tests.fault.hosts import asleep, ended

LOST_AFTER = 10
JOBS = 30
JOB_SECONDS = 0.3


def start_five(mesh: Mesh) -> Submission:
    """A laptop, the collector's host `keeper`, three workers, and jobs that run on these."""
    lost_after = ("--host-lost-after", LOST_AFTER)
    laptop = mesh.start("laptop", *lost_after, "--cpu-cores", 1)
    mesh.host("keeper", "--peer", laptop.url, *lost_after, "--cpu-cores", 1).spawn()
    for name in ("w1", "w2", "w3"):
        mesh.host(name, "--peer", laptop.url, *lost_after, "--cpu-cores", 2, "--tag", "worker").spawn()
    for host in mesh.running():
        host.wait_ready()
    mesh.wait_joined()
    states = [TaskState(how="works", seconds=JOB_SECONDS, required_host_tags=("worker",)) for _ in range(JOBS)]
    submission = submit_compute_job_group(laptop.client, Task, states, collector_host="keeper")
    assert submission.wait_detached(20), submission.detached_reason
    return submission


def test_jobs_of_a_host_that_is_killed_and_of_one_that_sleeps_for_long_end_on_another_and_are_counted_once(
    mesh: Mesh,
) -> None:
    submission = start_five(mesh)
    keeper, sleeper = mesh["keeper"], mesh["w2"]
    wait_until(lambda: ended(keeper, submission) >= 4, what="the first jobs to end")

    mesh["w1"].kill()
    with asleep(sleeper):
        summary = submission.drain(timeout=LOST_AFTER + JOBS * JOB_SECONDS + 10)
        assert (summary["completed_count"], summary["failed_count"]) == (JOBS, 0)
        again = [record for record in summary["results"].values() if record["generation"] == 2]
        assert {record["host_name"] for record in again} == {"w3"}
        lost = {row["text"] for row in keeper.rows("SELECT text FROM events WHERE kind = 'lost'")}
        assert lost == {f"begun anew: {name} was not heard of for {LOST_AFTER} s" for name in ("w1", "w2")}

    wait_until(
        lambda: not sleeper.rows("SELECT 1 FROM requests WHERE status != 'COMPLETED'"),
        timeout_seconds=30,
        what="what nobody wants any more to end",
    )
    told = keeper.client.summary(submission.group_id)
    assert (told["completed_count"], told["failed_count"]) == (JOBS, 0)
    assert told["results"] == summary["results"]
