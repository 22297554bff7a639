"""Hosts killed with SIGKILL: what was acknowledged is still there, and work goes on."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mesh_jobs import Task, TaskState

from paglets.system.compute_slots import Submission, submit_compute_job_group
from tests.acceptance.rig import HostProcess, Mesh, group_lines, wait_home, wait_until

JOBS = 50


def keys(count: int) -> list[str]:
    return [f"job-{nth:05d}" for nth in range(1, count + 1)]


def results(host: HostProcess, group_id: str) -> dict[str, Any]:
    """Job key -> result, as that host tells; each is there once."""
    summary = host.client.summary(group_id)
    assert summary["failures"] == {}
    return {key: record["result"] for key, record in summary["results"].items()}


def ended(host: HostProcess, submission: Submission) -> int:
    """How many jobs have a record, as far as that host knows."""
    line = group_lines(host).get(submission.group_id)
    return 0 if line is None else (line.completed_count or 0) + (line.failed_count or 0)


def test_jobs_end_and_the_collector_comes_home_though_the_submitter_was_killed(mesh: Mesh) -> None:
    mesh.start_three()
    laptop, other = mesh["laptop"], mesh["linux-a"]
    states = [TaskState(how="works", seconds=1.0) for _ in range(20)]
    submission = submit_compute_job_group(laptop.client, Task, states, return_home_when_complete=True)
    assert submission.wait_detached(20), submission.detached_reason

    laptop.kill()

    collector = other.client.group(submission.group_id).collector
    drained = other.client.call(collector, "drain", timeout_seconds=60)
    assert (drained["completed_count"], drained["failed_count"]) == (20, 0)
    assert {record["host_name"] for record in drained["results"].values()} == {"linux-a", "gpu-a"}
    wait_until(lambda: other.client.summary(submission.group_id)["waiting_for_home"], what="the collector to wait")
    before = results(other, submission.group_id)

    laptop.restart()

    wait_home(laptop, submission.group_id, timeout_seconds=10)
    assert results(laptop, submission.group_id) == before
    assert sorted(before) == keys(20)
    for name in ("laptop", "gpu-a"):
        shown = mesh.paglets("jobs", "groups", "--group", submission.group_id, "--json", "--at", name).json
        assert shown["completed_count"] == 20
        assert shown["collector"]["host_name"] == "laptop"


@pytest.fixture
def submission(three: Mesh) -> Submission:
    """Fifty jobs on three hosts."""
    states = [TaskState(how="works", seconds=0.2, allow_home_compute=True) for _ in range(JOBS)]
    return submit_compute_job_group(three["laptop"].client, Task, states)


def check_all_recorded_once(mesh: Mesh, submission: Submission) -> None:
    summary = submission.drain(timeout=60)
    assert (summary["expected_count"], summary["completed_count"], summary["failed_count"]) == (JOBS, JOBS, 0)
    assert sorted(summary["results"]) == keys(JOBS)
    assert {record["generation"] for record in summary["results"].values()} == {1}
    for host in mesh.running():
        assert sorted(results(host, submission.group_id)) == keys(JOBS)


@pytest.mark.parametrize("victim", ["laptop", "linux-a", "gpu-a"])
def test_fifty_jobs_have_one_record_each_though_a_host_was_killed(
    three: Mesh, submission: Submission, victim: str
) -> None:
    teller = three["gpu-a" if victim == "linux-a" else "linux-a"]
    wait_until(lambda: ended(teller, submission) >= 5, what="the first jobs to end")

    three[victim].kill()
    three[victim].restart()

    check_all_recorded_once(three, submission)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_fifty_jobs_have_one_record_each_though_hosts_were_killed_at_random(
    three: Mesh, submission: Submission, seed: int
) -> None:
    chance = random.Random(seed)
    for _ in range(2):
        victim = three[chance.choice(["laptop", "linux-a", "gpu-a"])]
        least = chance.randint(0, 3)
        wait_until(partial(is_at_work, victim, least), what=f"{least} jobs to run on {victim.name}")
        victim.kill()
        victim.restart()

    check_all_recorded_once(three, submission)


def is_at_work(host: HostProcess, least: int) -> bool:
    """Whether at least so many jobs run there; or none waits there any more."""
    told = host.client.slots(limit=JOBS)
    return told.running_jobs >= least or not told.jobs


def test_a_killed_host_counts_as_a_loss_and_not_as_an_attempt_of_the_job(mesh: Mesh, tmp_path: Path) -> None:
    host = mesh.start("alone")
    path = tmp_path / "job"
    state = TaskState(job_key="once", how="waits", path=str(path), allow_home_compute=True, max_attempts=1)
    submission = submit_compute_job_group(host.client, Task, [state])
    said = tmp_path / "job.running"
    wait_until(said.exists, what="the job to run")

    host.kill()
    host.restart()
    wait_until(lambda: said.read_text().count("\n") == 2, what="the job to run again")
    row = host.rows("SELECT losses, failed_attempts, attempt FROM requests")[0]
    (tmp_path / "job.go").touch()

    assert tuple(row) == (1, 0, 2)
    assert submission.drain(timeout=30)["results"]["once"]["result"]["attempt"] == 2


def test_a_job_goes_on_from_its_checkpoint_after_its_host_was_killed(mesh: Mesh, tmp_path: Path) -> None:
    host = mesh.start("alone")
    state = TaskState(job_key="counts", how="counts", path=str(tmp_path / "job"), allow_home_compute=True)
    submission = submit_compute_job_group(host.client, Task, [state])
    wait_until((tmp_path / "job.running").exists, what="the job to be at its third step")

    host.kill()
    (tmp_path / "job.go").touch()
    host.restart()

    result = submission.drain(timeout=30)["results"]["counts"]["result"]
    assert (result["done"], result["attempt"]) == (5, 2)
    # Begun from the third checkpoint, it did not come past the third step again.
    assert (tmp_path / "job.running").read_text().count("\n") == 1


def test_hosts_that_are_all_told_to_end_at_once_end(mesh: Mesh) -> None:
    """A signal may reach any thread, at any moment: the main thread has to see it."""
    first = mesh.start("h0")
    others = [mesh.start(f"h{nth}", "--peer", first.url) for nth in (1, 2)]
    for _ in range(4):
        mesh.wait_joined()
        for host in (first, *others):
            assert host.process is not None
            host.process.terminate()
        for host in (first, *others):
            assert host.process is not None
            assert host.process.wait(10) == 0
        for host in (first, *others):
            host.restart()
