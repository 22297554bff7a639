"""Hosts that never come back, and one that does: their jobs are resubmitted on others, and counted once."""

from __future__ import annotations

from pathlib import Path

from mesh_jobs import Task, TaskState

from paglets.system.compute_slots import Submission, submit_compute_job_group
from tests.acceptance.rig import PATIENCE_SECONDS, Mesh, starts_of, wait_until
from tests.fault.hosts import asleep, ended

LOST_AFTER = 10
JOBS, SLOTS, FIRST = 30, 6, 4


def start_five(mesh: Mesh, folder: Path) -> Submission:
    """Start a laptop, the collector's host `keeper` and three workers. Jobs run on these until they are released."""
    lost_after = ("--host-lost-after", LOST_AFTER)
    laptop = mesh.start("laptop", *lost_after, "--cpu-cores", 1)
    mesh.host("keeper", "--peer", laptop.url, *lost_after, "--cpu-cores", 1).spawn()
    for name in ("w1", "w2", "w3"):
        mesh.host(name, "--peer", laptop.url, *lost_after, "--cpu-cores", 2, "--tag", "worker").spawn()
    for host in mesh.running():
        host.wait_ready()
    mesh.wait_joined()
    states = [TaskState(how="waits", path=str(path), required_host_tags=("worker",)) for path in paths(folder)]
    submission = submit_compute_job_group(laptop.client, Task, states, collector_host="keeper")
    assert submission.wait_detached(PATIENCE_SECONDS), submission.detached_reason
    return submission


def paths(folder: Path) -> list[Path]:
    return [folder / f"job-{nth}" for nth in range(JOBS)]


def let_go(path: Path) -> None:
    path.with_suffix(".go").touch()


def held(folder: Path) -> list[Path]:
    """Return the jobs that run and were not released."""
    return [path for path in paths(folder) if starts_of(path) and not path.with_suffix(".go").exists()]


def wait_all_held(folder: Path) -> list[Path]:
    """Wait until such jobs fill all slots, and return them."""
    wait_until(lambda: len(held(folder)) == SLOTS, what="all slots to be taken")
    return held(folder)


def test_jobs_of_killed_and_sleeping_hosts_end_elsewhere_and_count_once(mesh: Mesh, tmp_path: Path) -> None:
    submission = start_five(mesh, tmp_path)
    keeper, sleeper = mesh["keeper"], mesh["w2"]
    for path in wait_all_held(tmp_path)[:FIRST]:
        let_go(path)
    wait_until(lambda: ended(keeper, submission) == FIRST, what="the first jobs to end")
    wait_all_held(tmp_path)

    mesh["w1"].kill()
    with asleep(sleeper):
        for path in paths(tmp_path):
            let_go(path)
        summary = submission.drain(timeout=LOST_AFTER + PATIENCE_SECONDS)
        assert (summary["completed_count"], summary["failed_count"]) == (JOBS, 0)
        again = [record for record in summary["results"].values() if record["generation"] == 2]
        assert {record["host_name"] for record in again} == {"w3"}
        lost = {row["text"] for row in keeper.rows("SELECT text FROM events WHERE kind = 'lost'")}
        assert lost == {f"resubmitted: {name} was not seen for {LOST_AFTER} s" for name in ("w1", "w2")}

    wait_until(
        lambda: not sleeper.rows("SELECT 1 FROM requests WHERE status != 'COMPLETED'"),
        what="what nobody wants any more to end",
    )
    told = keeper.client.summary(submission.group_id)
    assert (told["completed_count"], told["failed_count"]) == (JOBS, 0)
    assert told["results"] == summary["results"]
